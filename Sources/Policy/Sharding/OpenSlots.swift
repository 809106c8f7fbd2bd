/// Decides what is to be done about one slot that is not simply at home: open at one end or both, without an owner, or with keys in two
/// places.
///
/// The rules hold after any moment at which a move was cut off, and after either end was replaced by its replica (which knows nothing of
/// the move, because Redis 7 does not replicate it):
/// 0. Two masters claim the slot: the one with the lower epoch has given it away and has not heard so. It is told, before a newer epoch of
///    it makes its claim win, and keys be deleted.
/// 1. The owner sends the slot on, and the receiver is there: the move is finished.
/// 2. The owner sends the slot on to a node that is gone: the master that has keys of the slot gets it, or else the owner keeps it.
/// 3. The owner does not send the slot, and another master receives it: the move is finished if keys have gone over already, or else
///    closed.
/// 4. Nobody owns the slot: the master that has its keys gets it; without keys, the one that was to receive it.
/// 5. The slot is at home, and another master has keys of it: they are brought home.
public enum OpenSlots {
    /// The state of the slot at one master that answers.
    public struct Place: Sendable, Equatable {
        public let id: String
        public var owns: Bool
        public var migratingTo: String?
        public var importingFrom: String?
        public var keys: Int
        public var epoch: UInt64

        public init(
            id: String, owns: Bool = false, migratingTo: String? = nil, importingFrom: String? = nil, keys: Int = 0, epoch: UInt64 = 0
        ) {
            self.id = id
            self.owns = owns
            self.migratingTo = migratingTo
            self.importingFrom = importingFrom
            self.keys = keys
            self.epoch = epoch
        }
    }

    public enum Resolution: Sendable, Equatable {
        case move(from: String, to: String)
        /// `SETSLOT STABLE` on these masters: no key has gone over.
        case close([String])
        case assign(String)
        /// Brings keys of a slot to its owner `to`.
        case gather(from: String, to: String)
    }

    /// The next thing to do; nil: nothing. After the resolution was carried out, the slot is looked at again: there may be a next one.
    public static func resolve(_ places: [Place]) -> Resolution? {
        let sorted = places.sorted { $0.id < $1.id }
        guard let owner = sorted.filter(\.owns).max(by: { $0.epoch < $1.epoch }) else { return ownerless(sorted) }
        let others = sorted.filter { $0.id != owner.id }
        if let stale = others.first(where: { $0.owns && $0.epoch < owner.epoch }) { return .move(from: stale.id, to: owner.id) }
        let holder = others.filter { $0.keys > 0 }.max { $0.keys < $1.keys }
        if let target = owner.migratingTo {
            if others.contains(where: { $0.id == target }) { return .move(from: owner.id, to: target) }
            return holder.map { .move(from: owner.id, to: $0.id) } ?? .close([owner.id])
        }
        let receivers = others.filter { $0.importingFrom != nil }
        if let receiver = receivers.max(by: { $0.keys < $1.keys }), receiver.keys > 0, !receiver.owns {
            return .move(from: owner.id, to: receiver.id)
        }
        let open =
            receivers.map(\.id) + (owner.importingFrom == nil ? [] : [owner.id])
            + others.filter { $0.migratingTo != nil && $0.keys == 0 }.map(\.id)
        if !open.isEmpty { return .close(open) }
        return holder.map { .gather(from: $0.id, to: owner.id) }
    }

    private static func ownerless(_ places: [Place]) -> Resolution? {
        if let holder = places.filter({ $0.keys > 0 }).max(by: { ($0.keys, $0.epoch) < ($1.keys, $1.epoch) }) { return .assign(holder.id) }
        if let receiver = places.first(where: { $0.importingFrom != nil }) { return .assign(receiver.id) }
        return places.first.map { .assign($0.id) }
    }
}
