/// Moves one slot from one master to another, while both serve: says what is to be done next, given what was done.
///
/// Pure: it takes the result of each action and gives the next action. Every action may be repeated, and the first one follows from what
/// the two ends say, so that a move that was cut off at any moment goes on from there.
///
/// The receiver is told first and gives up last: a client that is sent on by the sender must find the receiver waiting. Nobody is told that
/// the slot has changed hands before the sender has no key of it: a node that hears from others that its slot went away deletes the keys it
/// still has. The receiver's replicas must know of the slot before the sender gives it up: Redis 7 does not replicate SETSLOT, and if the
/// receiver died before its replica has heard by gossip, nobody would own the slot.
public struct SlotMove: Sendable, Equatable {
    public enum Action: Sendable, Equatable {
        /// `SETSLOT IMPORTING` on the receiver.
        case openReceiver
        /// `SETSLOT MIGRATING` on the sender.
        case openSender
        /// `GETKEYSINSLOT` on the sender; answered with `keys`.
        case listKeys
        /// `MIGRATE` the keys that were listed.
        case sendKeys
        /// `SETSLOT NODE` on the receiver.
        case giveToReceiver
        /// Wait until the receiver's replicas have the keys (`WAIT`) and know of the slot; done at once where there is no replica.
        case awaitReplicas
        /// `SETSLOT NODE` on the sender.
        case takeFromSender
        /// `SETSLOT NODE` on another master, which would otherwise hear by gossip, but later.
        case tell(String)
        case finished
        /// The move cannot go on from the present state; the slot is to be looked at again.
        case failed(String)
    }

    public enum Event: Sendable, Equatable {
        case done
        /// The number of keys that were listed.
        case keys(Int)
        case refused(String)
    }

    /// The state of the two ends before the move begins or goes on.
    public struct Ends: Sendable, Equatable {
        public let senderOwns: Bool
        public let receiverOwns: Bool
        /// Whether the receiver's claim wins when both ends claim the slot: its epoch is then higher.
        public let receiverIsNewer: Bool
        public let senderKeys: Int

        public init(senderOwns: Bool, receiverOwns: Bool, receiverIsNewer: Bool, senderKeys: Int) {
            self.senderOwns = senderOwns
            self.receiverOwns = receiverOwns
            self.receiverIsNewer = receiverIsNewer
            self.senderKeys = senderKeys
        }
    }

    /// Each waits for the outcome of its action. All leave for `ended` when that is refused.
    private enum State: Sendable, Equatable {
        /// → openingSender
        case openingReceiver
        /// → listing
        case openingSender
        /// → sending with keys, → giving without
        case listing
        /// → listing
        case sending
        /// → awaiting
        case giving
        /// → taking
        case awaiting
        /// → telling, or ended
        case taking
        /// → telling the next, or ended
        case telling([String])
        case ended
    }

    public let slot: Int
    public let sender: String
    public let receiver: String
    private let others: [String]
    private var state: State

    /// `others` are all masters but the two ends.
    public init(slot: Int, from sender: String, to receiver: String, others: [String], ends: Ends) {
        self.slot = slot
        self.sender = sender
        self.receiver = receiver
        self.others = others
        switch (ends.senderOwns, ends.receiverOwns) {
        case (true, false): state = .openingReceiver
        case (true, true):
            // The receiver has it, and the sender has not heard: with keys left it must not hear yet.
            state = !ends.receiverIsNewer ? .ended : ends.senderKeys > 0 ? .openingSender : .awaiting
            if !ends.receiverIsNewer {
                obstacle = "\(receiver.prefix(8)) has not heard yet that slot \(slot) left it; what it were given would be deleted"
            }
        case (false, true): state = others.isEmpty ? .ended : .telling(others)
        case (false, false):
            state = .ended
            obstacle = "neither \(sender.prefix(8)) nor \(receiver.prefix(8)) owns slot \(slot)"
        }
    }

    /// Why it cannot even begin.
    private var obstacle: String?

    /// The action that is to be done now.
    public var action: Action {
        switch state {
        case .openingReceiver: .openReceiver
        case .openingSender: .openSender
        case .listing: .listKeys
        case .sending: .sendKeys
        case .giving: .giveToReceiver
        case .awaiting: .awaitReplicas
        case .taking: .takeFromSender
        case .telling(let rest): .tell(rest[0])
        case .ended: obstacle.map { .failed($0) } ?? .finished
        }
    }

    /// Takes the result of `action` and gives the next action.
    public mutating func happened(_ event: Event) -> Action {
        if case .refused(let reason) = event {
            // Another master that cannot be told hears by gossip.
            guard case .telling = state else {
                state = .ended
                return .failed(reason)
            }
        }
        switch (state, event) {
        case (.openingReceiver, _): state = .openingSender
        case (.openingSender, _): state = .listing
        case (.listing, .keys(let count)): state = count > 0 ? .sending : .giving
        case (.listing, _): break
        case (.sending, _): state = .listing
        case (.giving, _): state = .awaiting
        case (.awaiting, _): state = .taking
        case (.taking, _): state = others.isEmpty ? .ended : .telling(others)
        case (.telling(let rest), _): state = rest.count == 1 ? .ended : .telling(Array(rest.dropFirst()))
        case (.ended, _): break
        }
        return action
    }
}
