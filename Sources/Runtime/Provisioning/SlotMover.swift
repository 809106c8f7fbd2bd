import Basics
import Redis
import Sharding
import Synchronization

/// How fast data may move, so that who uses the cluster does not feel it.
public struct MoveRate: Sendable, Equatable {
    public var keysPerSecond: Int
    /// nil: not looked at. Asking for sizes costs a command a key.
    public var bytesPerSecond: Int?

    /// A sender is busy with one batch at a time and serves nobody meanwhile; this rate of small keys is a few percent of its time.
    public static let gentle = MoveRate(keysPerSecond: 10_000)

    public init(keysPerSecond: Int, bytesPerSecond: Int? = nil) {
        self.keysPerSecond = keysPerSecond
        self.bytesPerSecond = bytesPerSecond
    }

    /// `5000/s` keys, or `20MB/s`; nil for anything else.
    public init?(_ text: String) {
        guard text.hasSuffix("/s") else { return nil }
        let amount = String(text.dropLast(2))
        if let keys = Int(amount) {
            guard (1...10_000_000).contains(keys) else { return nil }
            self.init(keysPerSecond: keys)
        } else {
            guard let bytes = ByteSize.read(amount), bytes >= 1 << 10 else { return nil }
            self.init(keysPerSecond: 10_000_000, bytesPerSecond: bytes)
        }
    }
}

/// Carries out `SlotMove`s on a real cluster, several slots at a time.
///
/// Keys go in batches that adapt: what takes the sender longer than 5 ms halves them, what takes under 1 ms doubles them, from 1 to 128
/// keys.
final class SlotMover: Sendable {
    struct Pace {
        var next = MonotonicTime.now
        var batch = 16
        var slots = 0
        var keys = 0
        var told = MonotonicTime.now
    }

    /// Slots under way at once: enough to hide the round trips, few enough that a kill leaves little to mend.
    private static let width = 8

    private let session: ClusterSession
    private let rate: MoveRate
    private let tell: @Sendable (String) -> Void
    private let pace = Mutex(Pace())

    init(_ session: ClusterSession, rate: MoveRate, tell: @escaping @Sendable (String) -> Void) {
        self.session = session
        self.rate = rate
        self.tell = tell
    }

    var moved: (slots: Int, keys: Int) { pace.withLock { ($0.slots, $0.keys) } }

    /// Moves slots from one master to another. Ends with the first failure, after those under way have ended; the same again goes on from
    /// there.
    func move(_ slots: [Int], from sender: String, to receiver: String, in view: ClusterView, of total: Int)
        async throws(ProvisioningFailure)
    {
        let failure = await withTaskGroup(of: ProvisioningFailure?.self) { group in
            var rest = slots[...]
            var failure: ProvisioningFailure?
            // Each ends with its slot.
            for _ in 0..<SlotMover.width {
                if let slot = rest.popFirst() { group.addTask { await self.attempt(slot, sender, receiver, view) } }
            }
            for await result in group {
                failure = failure ?? result
                progress(total)
                // As those before.
                if failure == nil, let slot = rest.popFirst() { group.addTask { await self.attempt(slot, sender, receiver, view) } }
            }
            return failure
        }
        if let failure { throw failure }
    }

    private func attempt(_ slot: Int, _ sender: String, _ receiver: String, _ view: ClusterView) async -> ProvisioningFailure? {
        do throws(ProvisioningFailure) {
            try await move(slot, from: sender, to: receiver, in: view)
            return nil
        } catch { return error }
    }

    /// Every two seconds a line, for who waits.
    private func progress(_ total: Int) {
        let line: String? = pace.withLock { pace in
            guard pace.told + .seconds(2) < .now else { return nil }
            pace.told = .now
            return "\(pace.slots) of \(total) slots, \(pace.keys) keys"
        }
        if let line { tell(line) }
    }

    // MARK: one slot

    func move(_ slot: Int, from sender: String, to receiver: String, in view: ClusterView) async throws(ProvisioningFailure) {
        let from = try client(sender, view), to = try client(receiver, view)
        let ends = SlotMove.Ends(
            senderOwns: view.member(sender)?.slots.contains(slot) ?? false,
            receiverOwns: view.member(receiver)?.slots.contains(slot) ?? false,
            receiverIsNewer: (view.member(receiver)?.configEpoch ?? 0) > (view.member(sender)?.configEpoch ?? 0),
            senderKeys: try await from.ask("CLUSTER COUNTKEYSINSLOT", String(slot)).int ?? 0)
        if ends.senderKeys > 0 { try await checkReplicas(of: receiver, view) }
        let others = view.masters.filter { $0.answers && $0.id != sender && $0.id != receiver }.map(\.id)
        var machine = SlotMove(slot: slot, from: sender, to: receiver, others: others, ends: ends)
        var action = machine.action
        var keys: [[UInt8]] = []
        var sent = 0
        while true {
            let event: SlotMove.Event
            do throws(ProvisioningFailure) {
                switch action {
                case .finished:
                    pace.withLock { $0.slots += 1 }
                    return
                case .failed(let reason): throw ProvisioningFailure(.unfinished, "slot \(slot): \(reason)")
                case .listKeys:
                    let batch = pace.withLock(\.batch)
                    keys = (try await from.ask("CLUSTER GETKEYSINSLOT", String(slot), String(batch)).array ?? []).compactMap(\.bytes)
                    event = .keys(keys.count)
                case .sendKeys:
                    try await send(keys, from: from, to: to, replacing: true)
                    sent += keys.count
                    event = .done
                case .awaitReplicas:
                    try await awaitReplicas(slot, of: receiver, hasKeys: sent > 0, view)
                    event = .done
                case .openReceiver, .openSender, .giveToReceiver, .takeFromSender, .tell:
                    try await set(slot, action, from, to, sender, receiver, view)
                    event = .done
                }
            } catch {
                if case .failed = action { throw error }
                event = .refused(error.description)
            }
            action = machine.happened(event)
        }
    }

    private func client(_ id: String, _ view: ClusterView) throws(ProvisioningFailure) -> NodeClient {
        guard let member = view.member(id) else { throw ProvisioningFailure(.unfinished, "the node \(id.prefix(8)) is gone") }
        return try session.client(member.address)
    }

    private func set(
        _ slot: Int, _ action: SlotMove.Action, _ from: NodeClient, _ to: NodeClient, _ sender: String, _ receiver: String,
        _ view: ClusterView
    ) async throws(ProvisioningFailure) {
        let number = String(slot)
        switch action {
        case .openReceiver: _ = try await to.ask("CLUSTER SETSLOT", number, "IMPORTING", sender)
        case .openSender: _ = try await from.ask("CLUSTER SETSLOT", number, "MIGRATING", receiver)
        case .giveToReceiver: _ = try await to.ask("CLUSTER SETSLOT", number, "NODE", receiver)
        case .takeFromSender:
            do { _ = try await from.ask("CLUSTER SETSLOT", number, "NODE", receiver) } catch {
                // It has heard by gossip that its last slot is gone, and follows the receiver already.
                guard error.message.contains("only with masters") else { throw error }
            }
        case .tell(let other): _ = try await client(other, view).ask("CLUSTER SETSLOT", number, "NODE", receiver)
        case .listKeys, .sendKeys, .awaitReplicas, .finished, .failed: break
        }
    }

    /// With `replacing`, what the receiver has under the same key gives way: the sender owns the slot, so its value is the newer one.
    /// Without, such keys stay where they are, and BUSYKEY is thrown after the others have gone.
    func send(_ keys: [[UInt8]], from: NodeClient, to: NodeClient, replacing: Bool) async throws(ProvisioningFailure) {
        if keys.isEmpty { return }
        await waitForTurn(keys.count, bytes: try await size(keys, from))
        var command = RedisCommand("MIGRATE", to.address.host, String(to.address.port), "", "0", "2000")
        if replacing { command.add("REPLACE") }
        if let password = session.credentials.password {
            if let user = session.credentials.user {
                for word in ["AUTH2", user, password] { command.add(word) }
            } else {
                for word in ["AUTH", password] { command.add(word) }
            }
        }
        command.add("KEYS")
        for key in keys { command.add(key) }
        let start = MonotonicTime.now
        _ = try await from.ask(command)
        let took = MonotonicTime.now - start
        pace.withLock { pace in
            pace.keys += keys.count
            // The time includes the queue of the other slots under way, so this errs on the careful side.
            if took > .milliseconds(5) {
                pace.batch = max(1, pace.batch / 2)
            } else if took < .milliseconds(1) {
                pace.batch = min(128, pace.batch * 2)
            }
        }
    }

    private func size(_ keys: [[UInt8]], _ from: NodeClient) async throws(ProvisioningFailure) -> Int {
        if rate.bytesPerSecond == nil { return 0 }
        let sizes = try await from.ask(
            all: keys.map { key in
                var command = RedisCommand("MEMORY USAGE")
                command.add(key)
                return command
            })
        return sizes.map { max(0, $0.int ?? 0) }.sumClamped()
    }

    private func waitForTurn(_ keys: Int, bytes: Int) async {
        let byKeys = Double(keys) / Double(rate.keysPerSecond)
        let byBytes = rate.bytesPerSecond.map { Double(bytes) / Double($0) } ?? 0
        let wait: Duration = pace.withLock { pace in
            let now = MonotonicTime.now
            let turn = max(now, pace.next)
            pace.next = turn + Duration(clampedSeconds: max(byKeys, byBytes))
            return turn - now
        }
        if wait > .zero { await session.loop.sleep(wait) }
    }

    /// Keys go only to a master of which a replica that answers is in step, so that they have a copy there as they had before; asked before
    /// the first key goes. A master without a replica that answers has none to wait for.
    func checkReplicas(of receiver: String, _ view: ClusterView) async throws(ProvisioningFailure) {
        var late: [String] = []
        for replica in view.replicas(of: receiver).filter(\.answers) {
            let copy = ReplicaCopy(info: try await session.client(replica.address).text(RedisCommand("INFO", "replication")))
            if case .whole(_, nil) = copy { return }
            late.append("\(replica.address) \(copy.flaw ?? "has lost its master")")
        }
        guard !late.isEmpty else { return }
        throw ProvisioningFailure(
            .refused, "takes no keys now, because no replica of it is in step (\(late.joined(separator: "; "))): wait until one is",
            node: view.member(receiver)?.address)
    }

    /// How often replicas are waited for, a second each time: a busy replica may need more than one.
    private static let confirmations = 3

    /// A replica that answers must have the keys, and know of the slot within two seconds.
    private func awaitReplicas(_ slot: Int, of receiver: String, hasKeys: Bool, _ view: ClusterView) async throws(ProvisioningFailure) {
        let replicas = view.replicas(of: receiver).filter(\.answers)
        guard let first = replicas.first else { return }
        if hasKeys { try await confirm(receiver, view) }
        let replica = try session.client(first.address)
        let knows = try await session.eventually(.seconds(2), every: .milliseconds(2)) { () async throws(ProvisioningFailure) in
            ClusterNodes.node(receiver, in: try await replica.text(RedisCommand("CLUSTER NODES")))?.slots.contains(slot) ?? false
        }
        if !knows { throw ProvisioningFailure(.unfinished, "its replica \(first.address) does not hear that it has the slot") }
    }

    /// Waits until a replica has the keys that the receiver was given; a receiver without a replica that answers has nobody to wait for.
    func confirm(_ receiver: String, _ view: ClusterView) async throws(ProvisioningFailure) {
        if !view.replicas(of: receiver).contains(where: \.answers) { return }
        let client = try client(receiver, view)
        for _ in 0..<SlotMover.confirmations {
            if try await client.ask("WAIT", "1", "1000").int ?? 0 >= 1 { return }
        }
        throw ProvisioningFailure(
            .unfinished, "its replicas do not have the keys after \(SlotMover.confirmations) s; run the same again", node: client.address)
    }
}
