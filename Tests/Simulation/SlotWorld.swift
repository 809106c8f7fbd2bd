import Basics
import Sharding

/// Masters as far as slots go: whose they are in each one's own eyes, what is open, which keys each has.
///
/// A replica has its master's keys (what WAIT confirms) and the slots of which it has heard; it knows nothing of what is open. Who owns a
/// slot with the higher epoch is believed when gossip comes around, and who hears that its slot is gone deletes the keys it still has, as
/// Redis does.
struct SlotWorld {
    struct Master {
        var owns: Set<Int> = []
        var migrating: [Int: String] = [:]
        var importing: [Int: String] = [:]
        var keys: [Int: Set<Int>] = [:]
        var epoch = 0
        /// What its replica has heard last: slots and epoch come in one message.
        var replicaOwns: Set<Int> = []
        var replicaEpoch = 0

        mutating func replicaHears() {
            replicaOwns = owns
            replicaEpoch = epoch
        }
    }

    var masters: [String: Master] = [:]
    var violations: [String] = []
    /// What happened, for who reads of a violation.
    var history: [String] = []
    private var random: SeededRandom
    private let slots: Int
    private var everyKey: Set<Int> = []
    private var named = 0
    /// Off where a test looks at one thing alone.
    var gossips = true

    init(seed: UInt64, slots: Int = 6) {
        random = SeededRandom(seed: seed &* 31 &+ 7)
        self.slots = slots
        var key = 0
        for (i, name) in ["a", "b", "c"].enumerated() {
            var master = Master()
            master.epoch = i + 1
            for slot in 0..<slots where slot % 2 == i {
                master.owns.insert(slot)
                master.keys[slot] = Set((0..<Int.random(in: 0...12, using: &random)).map { key + $0 })
                everyKey.formUnion(master.keys[slot]!)
                key += 100
            }
            master.replicaHears()
            masters[name] = master
        }
    }

    mutating func arrange(senderOwns: Bool, receiverOwns: Bool, keys: Int) {
        masters = ["a": Master(), "b": Master(), "c": Master()]
        if senderOwns { masters["a"]!.owns = [0] }
        if receiverOwns { masters["b"]!.owns = [0] }
        masters["b"]!.epoch = 9
        if senderOwns { masters["a"]!.keys[0] = Set(0..<keys) }
    }

    // MARK: the storm

    mutating func storm() {
        for _ in 0..<Int.random(in: 1...12, using: &random) {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                // A run begins with what another left open; it may be killed in that too.
                guard settle(killAfter: Int.random(in: 0...60, using: &random)) else { continue }
                let slot = Int.random(in: 0..<slots, using: &random)
                guard let from = owner(slot), let to = masters.keys.sorted().filter({ $0 != from }).randomElement(using: &random) else {
                    continue
                }
                move(slot, from: from, to: to, killAfter: Int.random(in: 0...14, using: &random))
            case 5..<7: gossip()
            case 7..<9: failover(masters.keys.sorted().randomElement(using: &random)!)
            default: settle(killAfter: Int.random(in: 0...14, using: &random))
            }
            check()
        }
    }

    /// The mover is begun anew and nothing more happens; gossip comes around.
    mutating func calm() {
        for _ in 0..<8 {
            gossip()
            settle(killAfter: .max)
        }
        gossip()
        for slot in 0..<slots {
            let owners = masters.filter { $0.value.owns.contains(slot) }.keys
            if owners.count != 1 { violations.append("slot \(slot) has \(owners.count) owners") }
        }
        for (name, master) in masters {
            if !master.migrating.isEmpty || !master.importing.isEmpty { violations.append("\(name) has open slots") }
            for (slot, keys) in master.keys where !keys.isEmpty && !master.owns.contains(slot) {
                violations.append("\(name) has keys of slot \(slot), not its own")
            }
        }
        check()
    }

    /// No key may ever be nowhere. (Two copies may be for a moment; not at the end: `calm` finds strays.)
    private mutating func check() {
        let there = masters.values.reduce(into: Set<Int>()) { all, master in for keys in master.keys.values { all.formUnion(keys) } }
        if there != everyKey {
            violations.append("\(everyKey.subtracting(there).count) keys are lost: \(everyKey.subtracting(there).sorted())")
        }
        everyKey = there
    }

    func owner(_ slot: Int) -> String? { masters.filter { $0.value.owns.contains(slot) }.max { $0.value.epoch < $1.value.epoch }?.key }

    private mutating func failover(_ name: String) {
        history.append("failover \(name)")
        named += 1
        let old = masters.removeValue(forKey: name)!
        var new = Master()
        new.keys = old.keys
        // Elected with a new epoch, for the slots that the replica has heard of. Who knows that one of them has another owner by now, of a
        // higher epoch, does not vote until the replica has heard that too (Redis: "had a slot config with a greater epoch").
        new.owns = old.replicaOwns.filter { slot in !masters.values.contains { $0.owns.contains(slot) && $0.epoch > old.replicaEpoch } }
        new.epoch = (masters.values.map(\.epoch).max() ?? 0) + 1
        new.replicaHears()
        masters["\(name.prefix(1))\(named)"] = new
    }

    /// Everyone hears of everyone's slots.
    private mutating func gossip() {
        history.append("gossip")
        for slot in 0..<slots {
            guard let winner = owner(slot) else { continue }
            for name in masters.keys where name != winner && masters[name]!.owns.contains(slot) { lose(slot, name) }
        }
        for name in masters.keys { masters[name]!.replicaHears() }
    }

    private mutating func lose(_ slot: Int, _ name: String) {
        masters[name]!.owns.remove(slot)
        masters[name]!.migrating[slot] = nil
        // Keys of a slot that another one has taken are deleted.
        masters[name]!.keys[slot] = nil
    }

    // MARK: the mover

    /// Carries a move out, and is killed after so many actions. False when it was killed or refused.
    @discardableResult
    mutating func move(_ slot: Int, from: String, to: String, killAfter: Int) -> Bool {
        guard masters[from] != nil, masters[to] != nil else { return false }
        let ends = SlotMove.Ends(
            senderOwns: masters[from]!.owns.contains(slot), receiverOwns: masters[to]!.owns.contains(slot),
            receiverIsNewer: masters[to]!.epoch > masters[from]!.epoch,
            senderKeys: masters[from]!.keys[slot]?.count ?? 0)
        var machine = SlotMove(slot: slot, from: from, to: to, others: masters.keys.sorted().filter { $0 != from && $0 != to }, ends: ends)
        var action = machine.action
        var listed: [Int] = []
        for _ in 0..<killAfter {
            let event: SlotMove.Event
            switch action {
            case .finished: return true
            case .failed: return false
            case .openReceiver:
                event = masters[to]!.owns.contains(slot) ? .refused("owner") : set { $0.masters[to]!.importing[slot] = from }
            case .openSender:
                event = masters[from]!.owns.contains(slot) ? set { $0.masters[from]!.migrating[slot] = to } : .refused("not the owner")
            case .listKeys:
                listed = Array((masters[from]!.keys[slot] ?? []).sorted().prefix(3))
                event = .keys(listed.count)
            case .sendKeys:
                masters[to]!.keys[slot, default: []].formUnion(listed)
                masters[from]!.keys[slot]!.subtract(listed)
                event = .done
            case .giveToReceiver:
                event = set { world in
                    world.masters[to]!.owns.insert(slot)
                    world.masters[to]!.importing[slot] = nil
                    world.masters[to]!.epoch = (world.masters.values.map(\.epoch).max() ?? 0) + 1
                }
            case .awaitReplicas: event = set { $0.masters[to]!.replicaHears() }
            case .takeFromSender: event = masters[from]!.keys[slot]?.isEmpty ?? true ? set { $0.lose(slot, from) } : .refused("keys")
            case .tell: event = .done
            }
            history.append("\(slot) \(from)->\(to) \(action)")
            // Gossip of the receiver's broadcast may reach the sender at any moment.
            if gossips, Int.random(in: 0..<12, using: &random) == 0 { gossip() }
            action = machine.happened(event)
        }
        return false
    }

    private mutating func set(_ change: (inout SlotWorld) -> Void) -> SlotMove.Event {
        change(&self)
        return .done
    }

    /// What a new run does first: every slot that is not simply at home is resolved.
    @discardableResult
    private mutating func settle(killAfter: Int) -> Bool {
        var left = killAfter
        for slot in 0..<slots {
            for _ in 0..<6 {
                let places = masters.map { name, master in
                    OpenSlots.Place(
                        id: name, owns: master.owns.contains(slot), migratingTo: master.migrating[slot],
                        importingFrom: master.importing[slot],
                        keys: master.keys[slot]?.count ?? 0, epoch: UInt64(master.epoch))
                }
                guard let resolution = OpenSlots.resolve(places) else { break }
                if left < .max { left -= 8 }
                if left < 0 { return false }
                history.append("\(slot) \(resolution)")
                switch resolution {
                case .move(let from, let to): if !move(slot, from: from, to: to, killAfter: left), left < .max { return false }
                case .close(let names):
                    for name in names {
                        masters[name]!.migrating[slot] = nil
                        masters[name]!.importing[slot] = nil
                    }
                case .assign(let name):
                    masters[name]!.owns.insert(slot)
                    masters[name]!.importing[slot] = nil
                    masters[name]!.migrating[slot] = nil
                    masters[name]!.epoch = (masters.values.map(\.epoch).max() ?? 0) + 1
                case .gather(let from, let to):
                    masters[to]!.keys[slot, default: []].formUnion(masters[from]!.keys[slot] ?? [])
                    masters[from]!.keys[slot] = nil
                }
            }
        }
        return true
    }
}
