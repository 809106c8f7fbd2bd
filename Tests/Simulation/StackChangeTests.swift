import Basics
import StackModel
import Testing

@testable import Supervision

/// Units that come to a running stack and go from it, and what such a change may not be.
@Suite struct StackChangeTests {
    private typealias Action = StackMachine.Action
    private typealias Layout = StackMachine.Layout

    private func started(_ unit: String, _ number: Int = 1) -> Action { .start(unit: unit, number: number, generation: 1) }

    /// `web` runs, and uses the store `state`.
    private func running() -> StackMachine {
        var machine = StackMachine(.init(stores: ["state": 1], services: ["web": 1]))
        _ = machine.handle(.begin)
        _ = machine.handle(.ready(unit: "state", number: 1))
        _ = machine.handle(.ready(unit: "web", number: 1))
        return machine
    }

    @Test func newStoresComeFirstThenTasksAndServices() {
        var machine = running()
        #expect(machine.isQuiet)
        let layout = Layout(
            stores: ["state": 1, "cache": 2], services: ["web": 1, "api": 2], tasks: ["migrate"],
            dependencies: ["migrate": ["web"], "api": ["migrate"]])
        #expect(machine.handle(.add(layout)) == [started("cache"), started("cache", 2)])
        #expect(!machine.isQuiet && !machine.isReady("cache") && !machine.isReady("api"))
        // Also a roll waits: the new version may use the new store.
        #expect(machine.handle(.roll(service: "web")).isEmpty)
        #expect(machine.handle(.ready(unit: "cache", number: 1)).isEmpty)
        let begun = machine.handle(.ready(unit: "cache", number: 2))
        #expect(begun.contains(.start(unit: "web", number: 2, generation: 2)) && machine.isReady("cache"))
        _ = machine.handle(.ready(unit: "web", number: 2))
        #expect(machine.handle(.stopped(unit: "web", number: 1)).contains(.rollEnded(service: "web", failure: nil)))
        #expect(machine.tasks["migrate"] == .running || begun.contains(.startTask("migrate")))
        #expect(machine.handle(.taskEnded("migrate", failure: nil)) == [started("api"), started("api", 2)])
        _ = machine.handle(.ready(unit: "api", number: 1))
        #expect(!machine.isReady("api"))
        _ = machine.handle(.ready(unit: "api", number: 2))
        #expect(machine.isReady("api") && machine.isReady("migrate") && machine.isQuiet)
        // The same once more adds nothing.
        #expect(machine.handle(.add(layout)).isEmpty && machine.isQuiet)
    }

    @Test func whatGoesIsForgottenWhenNothingOfItRuns() {
        var machine = running()
        _ = machine.handle(.add(.init(services: ["web": 1, "api": 2], tasks: ["seed"], dependencies: ["seed": ["api"]])))
        for number in 1...2 { _ = machine.handle(.ready(unit: "api", number: number)) }
        #expect(machine.tasks["seed"] == .running)
        #expect(Set(machine.handle(.remove(["api", "seed", "state", "nobody"])).map { "\($0)" }).count == 4)
        #expect(machine.has("api") && !machine.isQuiet)
        // Neither comes back by anything that happens meanwhile.
        #expect(machine.handle(.add(.init(), tasks: ["seed"])).isEmpty && machine.handle(.remove(["api"])).isEmpty)
        #expect(machine.handle(.stopped(unit: "api", number: 1)).isEmpty)
        #expect(machine.handle(.stopped(unit: "api", number: 2)) == [.removed("api")])
        #expect(machine.handle(.taskEnded("seed", failure: "it was stopped")) == [.removed("seed")])
        #expect(machine.handle(.stopped(unit: "state", number: 1)) == [.removed("state")])
        #expect(!machine.has("api") && !machine.has("seed") && !machine.has("state") && machine.isQuiet)
        // It may come again, and begins as a new one.
        #expect(machine.handle(.add(.init(services: ["web": 1, "api": 1]))) == [started("api")])
        #expect(machine.handle(.shutDown).contains(.stop(unit: "api", number: 1)))
    }

    /// Neither a size nor a roll brings back what is to go, nor is anything started of it.
    @Test func whatGoesTakesNoOrders() {
        var machine = running()
        #expect(machine.handle(.remove(["web"])) == [.stop(unit: "web", number: 1)])
        #expect(machine.handle(.scale(service: "web", count: 3)).isEmpty)
        #expect(machine.handle(.roll(service: "web")) == [.rollEnded(service: "web", failure: "web is to be removed")])
        #expect(machine.isLeaving("web") && machine.handle(.stopped(unit: "web", number: 1)) == [.removed("web")])
    }

    /// What waits for something and is to go does not begin when that comes.
    @Test func whatGoesDoesNotBegin() {
        var machine = StackMachine(
            .init(services: ["a": 0, "b": 1], tasks: ["t"], dependencies: ["a": ["t"], "b": ["a"]]))
        _ = machine.handle(.begin)
        _ = machine.handle(.taskEnded("t", failure: "exit status 1"))
        #expect(machine.handle(.remove(["b"])) == [.removed("b")])
        #expect(machine.handle(.add(.init(services: ["a": 0], tasks: ["t"]))).isEmpty && machine.isReady("a"))
    }

    /// A task that changes while it runs runs once more, and rolls wait for that.
    @Test func aTaskThatChangesWhileItRunsRunsAgain() {
        var machine = StackMachine(.init(services: ["web": 1], tasks: ["migrate"], dependencies: ["web": ["migrate"]]))
        _ = machine.handle(.begin)
        _ = machine.handle(.taskEnded("migrate", failure: nil))
        _ = machine.handle(.ready(unit: "web", number: 1))
        #expect(machine.handle(.add(.init(), tasks: ["migrate"])) == [.startTask("migrate")])
        #expect(machine.handle(.add(.init(), tasks: ["migrate"])).isEmpty)
        #expect(machine.handle(.roll(service: "web")).isEmpty)
        #expect(machine.handle(.taskEnded("migrate", failure: nil)) == [.startTask("migrate")])
        #expect(machine.handle(.taskEnded("migrate", failure: nil)) == [.start(unit: "web", number: 2, generation: 2)])
    }

    /// What a unit waits for follows the file, also where nothing is added.
    @Test func dependenciesFollowTheFile() {
        var machine = StackMachine(.init(services: ["web": 1], tasks: ["migrate"], dependencies: ["web": ["migrate"]]))
        _ = machine.handle(.begin)
        _ = machine.handle(.taskEnded("migrate", failure: "exit status 1"))
        #expect(machine.held == ["web": "migrate"] && machine.missing(for: "web") == ["migrate"])
        #expect(machine.handle(.add(.init(services: ["web": 1], tasks: ["migrate"]))) == [started("web")])
        _ = machine.handle(.ready(unit: "web", number: 1))
        // And the other way round: the roll waits for the task that runs again.
        #expect(machine.handle(.add(.init(services: ["web": 1], tasks: ["migrate"], dependencies: ["web": ["migrate"]]))).isEmpty)
        #expect(machine.handle(.add(.init(), tasks: ["migrate"])) == [.startTask("migrate")])
        #expect(machine.handle(.roll(service: "web")).isEmpty)
        #expect(machine.handle(.taskEnded("migrate", failure: nil)) == [.start(unit: "web", number: 2, generation: 2)])
    }

    @Test func whoWaitsTooLongIsToldForWhat() {
        var machine = running()
        let changes = UnitChanges()
        var said: [String?] = []
        changes.add(["api", "jobs"]) { said.append($0) }
        _ = machine.handle(.unready(unit: "web", number: 1))
        _ = machine.handle(.add(.init(services: ["web": 1, "api": 1, "jobs": 1], dependencies: ["api": ["web"]])))
        changes.follow(machine)
        changes.timePassed(machine, .seconds(60))
        #expect(said == ["not ready within 1m: api, which waits for web; jobs"])
        // A second one takes the place of the first, which is told.
        changes.add(["api"]) { _ in }
        changes.add(["api"]) { said.append($0) }
        changes.failed("api", "why")
        #expect(said.count == 2 && said.last == "why")
    }

    @Test func whatHasNotBegunGoesAtOnce() {
        var machine = running()
        _ = machine.handle(.add(.init(services: ["web": 1, "api": 1], tasks: ["seed"], dependencies: ["api": ["seed"]])))
        _ = machine.handle(.taskEnded("seed", failure: "exit status 1"))
        #expect(machine.held == ["api": "seed"])
        #expect(machine.handle(.remove(["api", "seed"])) == [.removed("api"), .removed("seed")])
        #expect(machine.isQuiet && machine.held.isEmpty)
    }

    @Test func whoWaitsIsToldHowItWent() {
        var machine = running()
        let changes = UnitChanges()
        var said: [String?] = []
        func handle(_ event: StackMachine.Event) {
            for action in machine.handle(event) { if case .removed(let unit) = action { changes.removed(unit) } }
            changes.follow(machine)
        }
        changes.add(["api"]) { said.append($0) }
        handle(.add(.init(services: ["web": 1, "api": 1])))
        #expect(said.isEmpty)
        handle(.ready(unit: "api", number: 1))
        handle(.unready(unit: "api", number: 1))
        #expect(said == [nil])
        changes.add(["jobs", "seed"]) { said.append($0) }
        handle(.add(.init(services: ["web": 1, "api": 1, "jobs": 1], tasks: ["seed"], dependencies: ["jobs": ["seed"]])))
        changes.failed("api", "not new any more")
        handle(.taskEnded("seed", failure: "exit status 1"))
        #expect(said == [nil, "the task seed failed: exit status 1"])
        var gone = 0
        changes.remove(["jobs", "seed"]) { gone += 1 }
        handle(.remove(["jobs", "seed"]))
        #expect(gone == 1)
        // A stack that stops keeps nobody waiting.
        changes.add(["late"]) { said.append($0) }
        handle(.add(.init(services: ["web": 1, "api": 1, "late": 1])))
        changes.remove(["web"]) { gone += 1 }
        handle(.remove(["web"]))
        handle(.shutDown)
        #expect(gone == 2 && said.count == 3 && said.last??.contains("stopping") == true)
    }
}
