import Basics
import Testing

@testable import Supervision

@Suite struct ReplicaMachineTests {
    private static let probes: [ReplicaMachine.Event] = [
        .probed(.ready), .probed(.degraded("x")), .probed(.unready("x")), .probed(.occupied("x")), .probed(.working("x")),
        .probed(.failed("x")),
        .probed(.unasked("x")),
    ]
    private static let events: [ReplicaMachine.Event] =
        [.start, .spawnFailed("x"), .exited("x"), .drained, .timer(0), .timer(1), .stop] + probes

    /// Every phase, reached by the shortest way, meets every event: none traps, and what follows is what the phase's description allows.
    @Test func everyPhaseMeetsEveryEvent() {
        typealias Event = ReplicaMachine.Event
        let ways: [(ReplicaMachine.Phase, [Event])] = [
            (.idle, []), (.starting, [.start]), (.ready, [.start, .probed(.ready)]), (.degraded, [.start, .probed(.degraded("x"))]),
            (.failing, [.start, .probed(.ready), .probed(.failed("x")), .probed(.failed("x"))]),
            (.draining, [.start, .probed(.ready), .stop]),
            (.stopping, [.start, .stop]), (.backingOff, [.start, .exited("a"), .exited("b")]), (.stopped, [.stop]),
        ]
        let exits: [String: Set<String>] = [
            "idle": ["starting", "stopped"], "starting": ["ready", "degraded", "starting", "backingOff", "stopping"],
            "ready": ["degraded", "starting", "draining", "backingOff"],
            "degraded": ["ready", "starting", "draining", "backingOff"],
            "failing": ["ready", "degraded", "starting", "stopping", "backingOff"],
            "draining": ["stopping", "stopped"],
            "stopping": ["stopped"], "backingOff": ["starting", "stopped"], "stopped": [],
        ]
        for (phase, way) in ways {
            for event in Self.events {
                var machine = ReplicaMachine(subject: "s/1", settings: .init(), now: .init(nanoseconds: 0))
                for step in way { _ = machine.handle(step, now: .init(nanoseconds: 0)) }
                #expect(machine.phase == phase)
                let actions = machine.handle(event, now: .init(nanoseconds: 0))
                let after = "\(machine.phase)"
                #expect(after == "\(phase)" || exits["\(phase)"]!.contains(after), "\(phase) + \(event) -> \(after)")
                // A timer is only ever wanted by a phase that has a use for it.
                let setsTimer = actions.contains { if case .setTimer = $0 { true } else { false } }
                #expect(!setsTimer || [.starting, .draining, .stopping, .backingOff].contains(machine.phase))
                #expect(actions.filter { $0 == .spawn }.count <= 1)
                if case .finished? = actions.last { #expect(machine.phase == .stopped) }
            }
        }
    }

    private static func timer(_ actions: [ReplicaMachine.Action]) -> (id: Int, after: Duration)? {
        for case .setTimer(let id, let after) in actions { return (id, after) }
        return nil
    }

    /// Who could not be asked is not late: only time in which it could be asked counts.
    @Test func aStartThatCannotBeAskedAboutIsNotOver() throws {
        var machine = ReplicaMachine(subject: "s/1", settings: .init(), now: .init(nanoseconds: 0))
        let first = try #require(Self.timer(machine.handle(.start, now: .init(nanoseconds: 0))))
        var last = first
        for second in 1...90 {
            let actions = machine.handle(.probed(.unasked("too many open files")), now: .init(nanoseconds: Int64(second) * 1_000_000_000))
            last = try #require(Self.timer(actions))
            #expect(actions.count == 1 && last.after == .seconds(30))
        }
        #expect(machine.handle(.timer(first.id), now: .init(nanoseconds: 31_000_000_000)).isEmpty && machine.phase == .starting)
        // Asked again without an answer, it has its time from then on, and no more.
        _ = machine.handle(.probed(.failed("refused")), now: .init(nanoseconds: 91_000_000_000))
        #expect(machine.handle(.timer(last.id), now: .init(nanoseconds: 120_000_000_000)) == [.kill])
    }

    /// A want of ours is no death: of a task not the end, of a worker without restarts not either, and no crash loop comes of it.
    @Test(arguments: [true, false]) func aStartThatFailsForOurWantIsTriedAgain(isTask: Bool) throws {
        let settings = ReplicaMachine.Settings(isProbed: false, restart: .never, isTask: isTask), now = MonotonicTime(nanoseconds: 0)
        var machine = ReplicaMachine(subject: "s/1", settings: settings, now: now)
        _ = machine.handle(.start, now: now)
        var waits: [Duration] = []
        for turn in 0..<10 {
            let actions = machine.handle(.spawnFailed("open log: Too many open files", isOwnWant: true), now: now)
            let told = actions.count { if case .decided = $0 { true } else { false } }
            let timer = try #require(Self.timer(actions))
            #expect(machine.phase == .backingOff && machine.restarts == 0 && !machine.isLooping && told == (turn == 0 ? 1 : 0))
            #expect(!actions.contains { if case .completed = $0 { true } else { false } })
            waits.append(timer.after)
            #expect(machine.handle(.timer(timer.id), now: now).contains(.spawn))
        }
        #expect(waits.first == .milliseconds(200) && waits.last == .seconds(10))
        // What is no want of ours still ends it.
        #expect(machine.handle(.spawnFailed("no program"), now: now).contains(.completed(failure: "no program")))
        // And whoever is told to stop meanwhile stops.
        var other = ReplicaMachine(subject: "s/1", settings: settings, now: now)
        _ = other.handle(.start, now: now)
        _ = other.handle(.spawnFailed("x", isOwnWant: true), now: now)
        #expect(other.handle(.stop, now: now) == [.finished])
    }

    @Test func aLateTimerIsIgnored() {
        var machine = ReplicaMachine(subject: "s/1", settings: .init(), now: .init(nanoseconds: 0))
        guard case .setTimer(let old, _)? = machine.handle(.start, now: .init(nanoseconds: 0)).last else {
            Issue.record("no timer")
            return
        }
        _ = machine.handle(.probed(.ready), now: .init(nanoseconds: 0))
        _ = machine.handle(.stop, now: .init(nanoseconds: 0))
        let late = machine.handle(.timer(old), now: .init(nanoseconds: 0))
        #expect(late.isEmpty)
        #expect(machine.phase == .draining)
    }

    @Test func aHungProcessIsKilledAndStartedAgain() {
        var machine = ReplicaMachine(subject: "s/1", settings: .init(), now: .init(nanoseconds: 0))
        _ = machine.handle(.start, now: .init(nanoseconds: 0))
        _ = machine.handle(.probed(.ready), now: .init(nanoseconds: 0))
        let actions = (0..<10).flatMap { _ in machine.handle(.probed(.failed("timeout")), now: .init(nanoseconds: 0)) }
        #expect(actions.filter { $0 == .withdraw }.count == 1)
        #expect(actions.filter { $0 == .kill }.count == 1)
        let after = machine.handle(.exited("killed by SIGKILL"), now: .init(nanoseconds: 0))
        #expect(after.contains(.spawn))
    }

    @Test func oneThatSaysItIsNotReadyIsNotTakenForHung() {
        var machine = ReplicaMachine(subject: "s/1", settings: .init(), now: .init(nanoseconds: 0))
        _ = machine.handle(.start, now: .init(nanoseconds: 0))
        _ = machine.handle(.probed(.ready), now: .init(nanoseconds: 0))
        let actions = (0..<50).flatMap { _ in machine.handle(.probed(.unready("status 503")), now: .init(nanoseconds: 0)) }
        #expect(actions.filter { $0 == .withdraw }.count == 1)
        #expect(!actions.contains(.kill))
        let back = machine.handle(.probed(.ready), now: .init(nanoseconds: 0))
        #expect(back == [.admit])
    }

    private func ready(_ settings: ReplicaMachine.Settings = .init()) -> ReplicaMachine {
        var machine = ReplicaMachine(subject: "s/1", settings: settings, now: .init(nanoseconds: 0))
        _ = machine.handle(.start, now: .init(nanoseconds: 0))
        _ = machine.handle(.probed(.ready), now: .init(nanoseconds: 0))
        return machine
    }

    private func take(_ probe: ReplicaMachine.Probe, _ count: Int, _ machine: inout ReplicaMachine) -> [ReplicaMachine.Action] {
        (0..<count).flatMap { _ in machine.handle(.probed(probe), now: .init(nanoseconds: 0)) }
    }

    /// Whatever is answered, however often: never a kill. Only silence is a reason.
    @Test(arguments: [
        ReplicaMachine.Probe.unready("NOAUTH"), .occupied("BUSY"), .degraded("MISCONF"), .unasked("too many open files here"),
    ])
    func anAnswerOfAnyKindIsNoReasonToKill(probe: ReplicaMachine.Probe) {
        var machine = ready()
        let actions = take(probe, 500, &machine)
        #expect(!actions.contains(.kill))
        if case .unasked = probe { #expect(machine.phase == .ready) }
        if case .degraded = probe { #expect(machine.isServing && machine.note == "MISCONF") }
    }

    @Test func oneAtWorkIsWithdrawnLateAndKilledMuchLater() {
        var machine = ready()
        #expect(take(.working("no answer"), 9, &machine).isEmpty)
        #expect(machine.phase == .ready)
        #expect(take(.working("no answer"), 1, &machine).contains(.withdraw))
        #expect(!take(.working("no answer"), 89, &machine).contains(.kill))
        #expect(take(.working("no answer"), 1, &machine).contains(.kill))
        // And one answer ends it all.
        machine = ready()
        _ = take(.working("no answer"), 60, &machine)
        _ = take(.unready("status 503"), 1, &machine)
        #expect(!take(.working("no answer"), 99, &machine).contains(.kill))
    }

    /// A store that loads its data for longer than a start may take is not killed for it; one that is silent is.
    @Test func aStartIsNotCountedWhileItSaysThatItLoads() {
        var machine = ReplicaMachine(subject: "s/1", settings: .init(), now: .init(nanoseconds: 0))
        guard case .setTimer(let first, _)? = machine.handle(.start, now: .init(nanoseconds: 0)).last,
            case .setTimer(let second, _)? = machine.handle(.probed(.occupied("LOADING")), now: .init(nanoseconds: 0)).last
        else {
            Issue.record("no timer")
            return
        }
        #expect(machine.handle(.timer(first), now: .init(nanoseconds: 0)).isEmpty)
        #expect(machine.handle(.probed(.unready("GET /ready: status 503")), now: .init(nanoseconds: 0)).isEmpty)
        #expect(machine.handle(.timer(second), now: .init(nanoseconds: 0)) == [.kill])
        _ = machine.handle(.exited("killed by SIGKILL"), now: .init(nanoseconds: 0))
        #expect(machine.trouble == "not ready within 30s; the last probe: GET /ready: status 503")
    }

    /// A node that is held until its folder is put back has its whole time for a start from then on.
    @Test func whatIsHeldBackIsNotCountedAsAStart() {
        var machine = ReplicaMachine(subject: "s/1", settings: .init(), now: .init(nanoseconds: 0))
        guard case .setTimer(let first, _)? = machine.handle(.start, now: .init(nanoseconds: 0)).last else {
            Issue.record("no timer")
            return
        }
        let later = MonotonicTime(nanoseconds: 0) + .seconds(700)
        #expect(machine.handle(.timer(first), now: .init(nanoseconds: 0)) == [.kill])
        guard case .setTimer(let second, _)? = machine.begins(later).last else {
            Issue.record("no timer")
            return
        }
        #expect(machine.handle(.timer(first), now: later).isEmpty)
        var slow = machine
        #expect(slow.handle(.timer(second), now: later) == [.kill])
        #expect(machine.handle(.probed(.ready), now: later) == [.admit])
        // Only a start is begun.
        #expect(machine.begins(later).isEmpty)
    }

    /// A worker that nobody can probe and that dies every 1.1 s waits longer each time; a probed one that served starts at once.
    @Test func aWorkerThatDiesAgainAndAgainWaits() {
        func waits(isProbed: Bool) -> Int {
            var machine = ReplicaMachine(subject: "s/1", settings: .init(isProbed: isProbed), now: .init(nanoseconds: 0))
            var now = MonotonicTime(nanoseconds: 0), waits = 0
            _ = machine.handle(.start, now: now)
            for _ in 0..<6 {
                _ = machine.handle(.probed(.ready), now: now)
                now = now + .milliseconds(1100)
                _ = machine.handle(.exited("exit status 1"), now: now)
                guard machine.phase == .backingOff else { continue }
                waits += 1
                // Its timer: the id is the machine's own count, so all are tried.
                for id in 0..<100 where machine.phase == .backingOff { _ = machine.handle(.timer(id), now: now) }
            }
            return waits
        }
        #expect(waits(isProbed: false) == 5)
        #expect(waits(isProbed: true) == 0)
    }
}
