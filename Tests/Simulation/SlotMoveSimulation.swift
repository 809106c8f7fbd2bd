import Basics
import Sharding
import Testing

/// Slots on their way between three masters, the mover killed at any step and begun anew, either end replaced by its replica in between. At
/// the end no slot is open, every slot has one owner, and every key is there once, at the owner.
@Suite struct SlotMoveSimulation {
    @Test(arguments: 0..<20)
    func nothingIsLostAndNothingStaysOpen(block: Int) async {
        for seed in UInt64(block * 100)..<UInt64(block * 100 + 100) {
            await Task.yield()
            var world = SlotWorld(seed: seed)
            world.storm()
            world.calm()
            #expect(world.violations == [], "seed \(seed): \(world.history.joined(separator: "; "))")
        }
    }

    /// Without kills and failovers the slot arrives, whatever both ends say at the beginning.
    @Test func aMoveArrivesFromWhereverItBegins() {
        for (sender, receiver, keys) in [(true, false, 5), (true, false, 0), (true, true, 0), (true, true, 3), (false, true, 0)] {
            var world = SlotWorld(seed: 1, slots: 1)
            world.gossips = false
            world.arrange(senderOwns: sender, receiverOwns: receiver, keys: keys)
            world.move(0, from: "a", to: "b", killAfter: .max)
            #expect(
                world.masters["b"]!.owns.contains(0) && !world.masters["a"]!.owns.contains(0)
                    && world.masters["b"]!.keys[0]?.count ?? 0 == keys)
        }
        var lost = SlotMove(
            slot: 1, from: "a", to: "b", others: [],
            ends: .init(senderOwns: false, receiverOwns: false, receiverIsNewer: false, senderKeys: 0))
        if case .failed = lost.action {} else { Issue.record("it goes on without an owner") }
        #expect(lost.happened(.done) == lost.action)
        let stale = SlotMove(
            slot: 1, from: "a", to: "b", others: [],
            ends: .init(senderOwns: true, receiverOwns: true, receiverIsNewer: false, senderKeys: 2))
        if case .failed = stale.action {} else { Issue.record("keys go to one that will delete them") }
    }

    @Test func thereIsARuleForEveryCutOffState() {
        typealias Place = OpenSlots.Place
        #expect(OpenSlots.resolve([Place(id: "a", owns: true), Place(id: "b")]) == nil)
        #expect(
            OpenSlots.resolve([Place(id: "a", owns: true, migratingTo: "b"), Place(id: "b", importingFrom: "a")])
                == .move(from: "a", to: "b"))
        #expect(OpenSlots.resolve([Place(id: "a", owns: true, keys: 4), Place(id: "b", importingFrom: "a")]) == .close(["b"]))
        #expect(
            OpenSlots.resolve([Place(id: "a", owns: true, keys: 4), Place(id: "b", importingFrom: "a", keys: 1)])
                == .move(from: "a", to: "b"))
        #expect(OpenSlots.resolve([Place(id: "a", owns: true, migratingTo: "gone", keys: 4), Place(id: "b")]) == .close(["a"]))
        #expect(OpenSlots.resolve([Place(id: "a", owns: true, migratingTo: "gone"), Place(id: "b", keys: 2)]) == .move(from: "a", to: "b"))
        #expect(OpenSlots.resolve([Place(id: "a"), Place(id: "b", keys: 2)]) == .assign("b"))
        #expect(OpenSlots.resolve([Place(id: "a", owns: true), Place(id: "b", keys: 2)]) == .gather(from: "b", to: "a"))
        #expect(
            OpenSlots.resolve([Place(id: "a", owns: true, migratingTo: "b", epoch: 1), Place(id: "b", owns: true, epoch: 2)])
                == .move(from: "a", to: "b"))
    }
}
