import Basics
import Testing

@testable import Supervision

@Suite struct ReplicaMachineTests {
    private static let probes: [ReplicaMachine.Event] = [
        .probed(.ready), .probed(.degraded), .probed(.unready("x")), .probed(.failed("x")),
    ]
    private static let events: [ReplicaMachine.Event] =
        [.start, .spawnFailed("x"), .exited("x"), .drained, .timer(0), .timer(1), .stop] + probes

    /// Every phase, reached by the shortest way, meets every event: none traps, and what follows is what the phase's description allows.
    @Test func everyPhaseMeetsEveryEvent() {
        typealias Event = ReplicaMachine.Event
        let ways: [(ReplicaMachine.Phase, [Event])] = [
            (.idle, []), (.starting, [.start]), (.ready, [.start, .probed(.ready)]), (.degraded, [.start, .probed(.degraded)]),
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
}
