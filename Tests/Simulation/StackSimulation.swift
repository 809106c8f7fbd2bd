import Basics
import Testing

@testable import Supervision

/// Thousands of seeded histories of crashes, hangs, slow starts and orders from outside. A failing seed is printed and repeats exactly.
@Suite struct StackSimulation {
    private let second: Int64 = 1_000_000_000

    @Test(arguments: 0..<16)
    func afterEveryStormEverythingIsAsItShouldBe(block: Int) async {
        for seed in UInt64(block * 125)..<UInt64(block * 125 + 125) {
            // Others' turn.
            await Task.yield()
            var random = SeededRandom(seed: seed &* 77 &+ 1)
            var world = World(seed: seed, services: ["a": 3, "b": 1], stormy: true)
            world.tell(.begin)
            for _ in 0..<Int.random(in: 0...12, using: &random) {
                world.run(until: world.now + Int64.random(in: 0...15 * second, using: &random))
                switch Int.random(in: 0...4, using: &random) {
                case 0: world.tell(.scale(service: "a", count: Int.random(in: 0...6, using: &random)))
                case 1: world.tell(.roll(service: "a"))
                case 2: world.killOne("a")
                case 3: world.killOne("state")
                default: break
                }
            }
            world.isStormy = false
            world.run(until: world.now + 200 * second)
            #expect(world.violations == [], "seed \(seed)")
            #expect(world.machine.phase == .running, "seed \(seed)")
            for (name, service) in world.machine.services {
                #expect(service.isSettled && world.serving[name] == service.desired, "seed \(seed): \(name)")
            }
            world.tell(.shutDown)
            world.run(until: world.now + 200 * second)
            #expect(world.machine.phase == .stopped && world.processes == 0, "seed \(seed)")
        }
    }

    /// With well-behaved processes a roll never serves with fewer than there are to be, and ends with all of the new generation.
    @Test func aRollNeverLosesCapacity() {
        for seed in UInt64(0)..<100 {
            var world = World(seed: seed, services: ["a": 3], stormy: false)
            world.tell(.begin)
            world.run(until: 10 * second)
            world.tell(.roll(service: "a"))
            var lowest = 3
            for _ in 0..<2000 where world.rollResults.isEmpty {
                world.run(until: world.now + second / 20)
                lowest = min(lowest, world.serving["a"] ?? 0)
            }
            #expect(world.rollResults == [nil], "seed \(seed)")
            #expect(lowest == 3, "seed \(seed)")
            #expect(world.members.filter { $0.key.hasPrefix("a/") }.allSatisfy { $0.value.generation == 2 }, "seed \(seed)")
            #expect(world.violations == [], "seed \(seed)")
        }
    }

    /// A version that never becomes ready ends the roll and leaves the old one serving.
    @Test func aBadVersionEndsTheRoll() {
        var machine = ServiceMachine(name: "a", desired: 2)
        _ = machine.setDesired(2)
        _ = machine.becameReady(1)
        _ = machine.becameReady(2)
        let begun = machine.beginRoll()
        #expect(begun == [.start(3, generation: 2)])
        let failed = machine.failedToStart(3, "exit status 1")
        #expect(failed.first == .stop(3))
        guard case .rollEnded(let why?)? = failed.last else {
            Issue.record("the roll goes on")
            return
        }
        #expect(why.contains("exit status 1"))
        _ = machine.stopped(3)
        #expect(machine.isSettled && machine.members.values.allSatisfy { $0.generation == 1 })
    }

    /// A mended version is not given up because the broken one before it fails: it gets its turn, and ends the roll well.
    @Test func theVersionThatOvertakesABrokenOneIsRolled() {
        var machine = ServiceMachine(name: "a", desired: 1)
        _ = machine.setDesired(1)
        _ = machine.becameReady(1)
        #expect(machine.beginRoll() == [.start(2, generation: 2)])
        // It goes at once, and what it says on its way out ends nothing.
        #expect(machine.beginRoll() == [.stop(2)])
        #expect(machine.failedToStart(2, "exit status 1") == [])
        #expect(!machine.isSettled)
        #expect(machine.stopped(2) == [.start(2, generation: 3)])
        #expect(machine.becameReady(2) == [.stop(1)])
        #expect(machine.stopped(1) == [.rollEnded(nil)])
        #expect(machine.isSettled && machine.members.values.allSatisfy { $0.generation == 3 })
        // The newest one that fails still ends the roll.
        _ = machine.beginRoll()
        #expect(machine.beginRoll() == [.stop(1)])
        #expect(machine.stopped(1) == [.start(1, generation: 5)])
        let failed = machine.failedToStart(1, "exit status 2")
        #expect(failed.first == .stop(1) && failed.last != .rollEnded(nil) && failed.count == 2)
    }

    @Test func aRollReplacesAnOldOneThatCrashesMeanwhile() {
        var machine = ServiceMachine(name: "a", desired: 3)
        _ = machine.setDesired(3)
        for number in 1...3 { _ = machine.becameReady(number) }
        _ = machine.beginRoll()
        _ = machine.becameUnready(2)
        let ready = machine.becameReady(4)
        #expect(ready == [.stop(2)])
    }

    @Test func goingToZeroEndsARollAndTakesTheSurgeAlong() {
        var machine = ServiceMachine(name: "a", desired: 1)
        _ = machine.setDesired(1)
        _ = machine.becameReady(1)
        _ = machine.beginRoll()
        let actions = machine.setDesired(0)
        #expect(actions.filter { if case .stop = $0 { true } else { false } }.count == 2)
        guard case .rollEnded(_?)? = actions.last else {
            Issue.record("the roll is not told to have ended")
            return
        }
    }

    @Test func storesStartFirstAndStopLast() {
        var world = World(seed: 1, services: ["a": 2], stormy: false)
        world.tell(.begin)
        #expect(world.members.keys.sorted() == ["state/1"])
        world.run(until: 10 * second)
        #expect(world.members.keys.sorted() == ["a/1", "a/2", "state/1"])
        world.tell(.shutDown)
        world.run(until: world.now + 60 * second)
        #expect(world.machine.phase == .stopped)
    }
}
