import Basics
import StackModel
import Testing

@testable import Supervision

/// What waits for what: tasks, services that depend on them, and what a failed task holds.
@Suite struct DependencyTests {
    private typealias Action = StackMachine.Action

    private func machine(
        _ services: [String] = ["db", "web"], tasks: [String] = ["migrate"],
        _ dependencies: [String: [String]] = ["migrate": ["db"], "web": ["migrate"]]
    ) -> StackMachine {
        StackMachine(
            .init(services: Dictionary(uniqueKeysWithValues: services.map { ($0, 1) }), tasks: tasks, dependencies: dependencies))
    }

    private func started(_ unit: String, _ number: Int = 1, generation: Int = 1) -> Action {
        .start(unit: unit, number: number, generation: generation)
    }

    @Test func eachBeginsWhenWhatItWaitsForIsThere() {
        var machine = machine()
        #expect(machine.handle(.begin).contains(started("db")))
        #expect(machine.tasks["migrate"] == .waiting)
        #expect(machine.handle(.ready(unit: "db", number: 1)) == [.startTask("migrate")])
        #expect(machine.phase == .startingServices && !machine.isQuiet)
        #expect(machine.handle(.taskEnded("migrate", failure: nil)) == [started("web")])
        #expect(machine.handle(.ready(unit: "web", number: 1)) == [.entered(.running)])
        #expect(machine.isQuiet)
        // Nothing is held back later by what stops serving, and no task runs twice.
        #expect(machine.handle(.unready(unit: "db", number: 1)).isEmpty)
        #expect(machine.handle(.ready(unit: "db", number: 1)).isEmpty)
    }

    @Test func aFailedTaskHoldsWhatDependsOnItAndNothingElse() {
        var machine = machine(
            ["db", "web", "jobs", "other"], tasks: ["migrate", "seed"],
            ["migrate": ["db"], "seed": ["migrate"], "web": ["seed"], "jobs": ["web"]])
        _ = machine.handle(.begin)
        _ = machine.handle(.ready(unit: "db", number: 1))
        _ = machine.handle(.ready(unit: "other", number: 1))
        #expect(machine.handle(.taskEnded("migrate", failure: "exit status 1")) == [.entered(.running)])
        #expect(machine.held == ["seed": "migrate", "web": "migrate", "jobs": "migrate"] && machine.isQuiet)
        // A size is remembered, a roll has nothing to do; neither starts anything.
        #expect(machine.handle(.scale(service: "web", count: 2)).isEmpty)
        #expect(machine.handle(.roll(service: "web")) == [.rollEnded(service: "web", failure: nil)])
        // Only when somebody says so.
        #expect(machine.handle(.add(.init(), tasks: ["migrate"])) == [.startTask("migrate")])
        #expect(!machine.isQuiet && machine.held.isEmpty)
        #expect(machine.handle(.taskEnded("migrate", failure: nil)) == [.startTask("seed")])
        #expect(machine.handle(.taskEnded("seed", failure: nil)) == [started("web"), started("web", 2)])
        _ = machine.handle(.ready(unit: "web", number: 1))
        #expect(machine.handle(.ready(unit: "web", number: 2)) == [started("jobs")])
    }

    @Test func whatBeginsWithNoReplicaIsWaitedForNoLonger() {
        var machine = StackMachine(
            .init(services: ["a": 1, "b": 0, "c": 0], tasks: ["t"], dependencies: ["a": ["b"], "b": ["c"], "t": ["b"]]))
        let actions = machine.handle(.begin)
        #expect(actions.contains(started("a")) && actions.contains(.startTask("t")))
    }

    @Test func aRollWaitsForItsTask() {
        var machine = machine()
        for event in [
            StackMachine.Event.begin, .ready(unit: "db", number: 1), .taskEnded("migrate", failure: nil), .ready(unit: "web", number: 1),
        ] { _ = machine.handle(event) }
        #expect(machine.handle(.add(.init(), tasks: ["migrate"])) == [.startTask("migrate")])
        #expect(machine.handle(.roll(service: "web")).isEmpty && !machine.isQuiet)
        #expect(machine.handle(.taskEnded("migrate", failure: nil)) == [started("web", 2, generation: 2)])
        // And is given up with it: what runs goes on.
        _ = machine.handle(.ready(unit: "web", number: 2))
        _ = machine.handle(.stopped(unit: "web", number: 1))
        _ = machine.handle(.add(.init(), tasks: ["migrate"]))
        _ = machine.handle(.roll(service: "web"))
        let actions = machine.handle(.taskEnded("migrate", failure: "x"))
        guard case .rollEnded("web", let why?)? = actions.first, actions.count == 1 else {
            Issue.record("\(actions)")
            return
        }
        #expect(why.contains("migrate") && machine.services["web"]?.isSettled == true)
    }

    /// A service that ended without success and is not started again is not ready: it holds what depends on it, as a failed task does.
    @Test func aServiceThatIsOverHoldsWhatDependsOnIt() {
        var machine = machine(["db", "web", "other"])
        _ = machine.handle(.begin)
        _ = machine.handle(.ready(unit: "other", number: 1))
        #expect(machine.handle(.failedToStart(unit: "db", number: 1, reason: "exit status 1")).isEmpty)
        // The rest runs.
        #expect(machine.handle(.over(unit: "db", number: 1)) == [.entered(.running)])
        #expect(machine.held == ["migrate": "db", "web": "db"] && machine.isQuiet && machine.tasks["migrate"] == .waiting)
        #expect(machine.handle(.add(.init(), tasks: ["migrate"])).isEmpty)
        // Another one in its place frees them.
        #expect(machine.handle(.roll(service: "db")) == [started("db", 2, generation: 2)])
        #expect(machine.handle(.ready(unit: "db", number: 2)) == [.stop(unit: "db", number: 1)])
        let actions = machine.handle(.stopped(unit: "db", number: 1))
        #expect(actions.contains(.startTask("migrate")) && machine.held.isEmpty)
    }

    @Test func onARunningStackATaskWaitsForAServiceThatIsOver() {
        var machine = machine()
        for event in [
            StackMachine.Event.begin, .ready(unit: "db", number: 1), .taskEnded("migrate", failure: nil), .ready(unit: "web", number: 1),
        ] { _ = machine.handle(event) }
        #expect(machine.phase == .running)
        _ = machine.handle(.unready(unit: "db", number: 1))
        _ = machine.handle(.over(unit: "db", number: 1))
        #expect(machine.handle(.add(.init(), tasks: ["migrate"])).isEmpty && machine.held == ["migrate": "db"] && machine.isQuiet)
        // A roll that waits for the task is told why, and not left waiting.
        #expect(
            machine.handle(.roll(service: "web"))
                == [.rollEnded(service: "web", failure: "the task migrate, which must be done before it, waits for db, which failed")])
    }

    /// One that ended with success has done what it was there for, and counts as ready.
    @Test func aServiceThatEndedWithSuccessHoldsNothing() {
        var machine = machine()
        _ = machine.handle(.begin)
        // So the runner tells it.
        #expect(machine.handle(.ready(unit: "db", number: 1)) == [.startTask("migrate")])
    }

    /// From the wish to stop on nothing begins, although the gateway is still draining and the phase is the same.
    @Test func aStopFreezesWhatHasNotBegun() {
        var machine = machine()
        _ = machine.handle(.begin)
        #expect(machine.handle(.stopping).isEmpty)
        #expect(machine.handle(.ready(unit: "db", number: 1)).isEmpty && machine.tasks["migrate"] == .waiting)
        let actions = machine.handle(.shutDown)
        #expect(actions == [.entered(.stoppingServices), .stop(unit: "db", number: 1)])
        #expect(machine.handle(.stopped(unit: "db", number: 1)).contains(.entered(.stopped)))
        // Stores that become ready meanwhile begin no services.
        var early = StackMachine(.init(stores: ["state": 1], services: ["web": 1]))
        _ = early.handle(.begin)
        _ = early.handle(.stopping)
        #expect(early.handle(.ready(unit: "state", number: 1)).isEmpty && early.phase == .startingStores)
        // A roll that waits is told with the end.
        var running = self.machine()
        for event in [
            StackMachine.Event.begin, .ready(unit: "db", number: 1), .taskEnded("migrate", failure: nil), .ready(unit: "web", number: 1),
            .stopping,
        ] { _ = running.handle(event) }
        #expect(running.handle(.roll(service: "web")).isEmpty && running.handle(.add(.init(), tasks: ["migrate"])).isEmpty)
        #expect(running.handle(.shutDown).contains(.rollEnded(service: "web", failure: "the stack is stopping")))
    }

    @Test func stoppingEndsARunningTaskAndWaitsForIt() {
        var machine = machine()
        _ = machine.handle(.begin)
        _ = machine.handle(.ready(unit: "db", number: 1))
        let actions = machine.handle(.shutDown)
        #expect(actions.contains(.stopTask("migrate")) && actions.contains(.stop(unit: "db", number: 1)))
        #expect(machine.handle(.stopped(unit: "db", number: 1)).isEmpty)
        #expect(machine.handle(.taskEnded("migrate", failure: "it was stopped")).contains(.entered(.stopped)))
    }

    // MARK: one replica's end

    private func life(_ settings: ReplicaMachine.Settings, _ events: ReplicaMachine.Event...) -> (ReplicaMachine, [ReplicaMachine.Action]) {
        var machine = ReplicaMachine(subject: "s/1", settings: settings, now: .init(nanoseconds: 0)), last: [ReplicaMachine.Action] = []
        for event in events { last = machine.handle(event, now: .init(nanoseconds: 0)) }
        return (machine, last)
    }

    @Test(arguments: [
        (RestartPolicy.always, true, true), (.always, false, true), (.onFailure, true, false), (.onFailure, false, true),
        (.never, true, false),
        (.never, false, false),
    ])
    func whoIsStartedAgain(policy: RestartPolicy, isSuccess: Bool, again: Bool) {
        let (machine, actions) = life(.init(isProbed: false, restart: policy), .start, .probed(.ready), .exited("e", isSuccess: isSuccess))
        #expect(actions.contains(.spawn) == again)
        #expect(actions.contains(.completed(failure: isSuccess ? nil : "e")) == !again)
        #expect(machine.state == (again ? "starting" : isSuccess ? "completed" : "failed"))
        var ended = machine
        if !again { #expect(ended.handle(.stop, now: .init(nanoseconds: 0)) == [.finished]) }
    }

    @Test func aTaskNeverServesAndHasALimit() {
        let settings = ReplicaMachine.Settings(startTime: .seconds(5), isProbed: false, isTask: true)
        let (running, none) = life(settings, .start, .probed(.ready))
        #expect(none.isEmpty && running.phase == .starting)
        #expect(life(settings, .start, .exited("exit status 0", isSuccess: true)).1.contains(.completed(failure: nil)))
        #expect(life(settings, .start, .exited("exit status 3")).1.contains(.completed(failure: "exit status 3")))
        #expect(life(settings, .start, .spawnFailed("no program")).1.contains(.completed(failure: "no program")))
        var late = life(settings, .start).0
        let timer = life(settings, .start).1.compactMap { if case .setTimer(let id, _) = $0 { id } else { nil } }
        #expect(late.handle(.timer(timer[0]), now: .init(nanoseconds: 0)) == [.kill])
        // Also when it ends well after all.
        #expect(
            late.handle(.exited("exit status 0", isSuccess: true), now: .init(nanoseconds: 0)).contains(
                .completed(failure: "it did not end within 5s")))
    }

    // MARK: a roll after a roll

    /// The surge of a version that neither fails nor gets ready does not hold up the version that mends it.
    @Test func aNewerVersionGivesUpTheSurgeOfTheOlderOne() {
        var machine = ServiceMachine(name: "s", desired: 2)
        _ = machine.setDesired(2)
        for number in [1, 2] { _ = machine.becameReady(number) }
        #expect(machine.beginRoll() == [.start(3, generation: 2)])
        #expect(machine.beginRoll() == [.stop(3)])
        #expect(machine.stopped(3) == [.start(3, generation: 3)])
        #expect(machine.members.values.filter { !$0.isLeaving }.count == 3)
        #expect(machine.becameReady(3) == [.stop(1)])
        #expect(machine.stopped(1) == [.start(1, generation: 3)])
        #expect(machine.becameReady(1) == [.stop(2)])
        #expect(machine.stopped(2) == [.rollEnded(nil)])
        #expect(machine.members.values.allSatisfy { $0.generation == 3 && $0.isReady })
        // A surge that serves goes on: it is replaced in its turn.
        var other = ServiceMachine(name: "s", desired: 1)
        _ = other.setDesired(1)
        _ = other.becameReady(1)
        _ = other.beginRoll()
        #expect(other.becameReady(2) == [.stop(1)] && other.beginRoll().isEmpty)
        #expect(other.stopped(1) == [.start(1, generation: 3)])
        // Unless it stops serving while it waits for the others.
        var third = ServiceMachine(name: "s", desired: 3)
        _ = third.setDesired(3)
        for number in [1, 2, 3] { _ = third.becameReady(number) }
        #expect(third.beginRoll() == [.start(4, generation: 2)])
        for number in [2, 3] { _ = third.becameUnready(number) }
        #expect(third.becameReady(4).isEmpty && third.beginRoll().isEmpty)
        #expect(third.becameUnready(4) == [.stop(4)])
        #expect(third.stopped(4) == [.start(4, generation: 3)])
    }

    // MARK: a fixed port

    @Test func withAFixedPortTheNewOneFollowsTheEndOfTheOld() {
        var machine = ServiceMachine(name: "s", desired: 1)
        machine.isExclusive = true
        #expect(machine.setDesired(1) == [.start(1, generation: 1)])
        _ = machine.becameReady(1)
        #expect(machine.beginRoll() == [.stop(1)])
        #expect(machine.stopped(1) == [.start(1, generation: 2)])
        #expect(machine.becameReady(1) == [.rollEnded(nil)])
        // Down and up at once: not before the old one has gone.
        #expect(machine.setDesired(0) == [.stop(1)])
        #expect(machine.setDesired(1).isEmpty)
        #expect(machine.stopped(1) == [.start(1, generation: 2)])
        // A new version that does not start is told, and tried on.
        _ = machine.becameReady(1)
        _ = machine.beginRoll()
        _ = machine.stopped(1)
        let failed = machine.failedToStart(1, "exit status 1")
        guard case .rollEnded(let why?)? = failed.first, failed.count == 1 else {
            Issue.record("\(failed)")
            return
        }
        #expect(why.contains("fixed") && machine.members.count == 1)
    }
}
