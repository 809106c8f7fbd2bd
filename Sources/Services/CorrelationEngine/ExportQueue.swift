import Basics

/// Where emissions are sent.
public enum ExportTarget: String, Sendable, CaseIterable { case loki, tempo }

/// A batch of emissions that is to be sent to one target. Its text is what the queue stores: `<oldest change> <key>|<from>|<to>|<revision>
/// …`.
public struct ExportBatch: Sendable, Equatable {
    public let text: String
    public let emissions: [Emission]
    /// It had been taken before, by an instance that did not finish it: its receiver may have it already.
    public var redelivered = false
    /// When the lease ends, in milliseconds of the store's clock: the holder's proof that the batch is its own, because whoever takes the
    /// batch later gets a later end. 0 where there are no other instances.
    public var leaseEnds = 0
}

/// Batches waiting for one target, for all instances. A batch is taken on lease: whoever takes it finishes it, gives it back, or loses it
/// to another one when the lease has run out. So every batch is sent at least once, and twice only if an instance died between sending and
/// finishing.
public protocol ExportQueue: Sendable {
    /// At most `limit` batches, oldest first.
    func take(_ limit: Int) async throws(StoreFailure) -> [ExportBatch]
    func load(_ batch: ExportBatch) async throws(StoreFailure) -> [StoredCorrelation]
    func finish(_ batch: ExportBatch) async throws(StoreFailure)
    /// Before each request: the lease begins again. Returns the batch with its new lease, or nil when another instance has the batch.
    func renew(_ batch: ExportBatch) async throws(StoreFailure) -> ExportBatch?
    /// What is `left` of the batch waits again. Nothing happens when another instance has the batch.
    func giveBack(_ batch: ExportBatch, left: ExportBatch) async throws(StoreFailure)
    /// Batches waiting or taken.
    func depth() async throws(StoreFailure) -> Int
    /// Correlations that were pushed out since the store began, because the queue was full.
    func dropped() async throws(StoreFailure) -> Int
}

public struct ExportLimits: Sendable {
    /// Batches of one target's queue; the oldest is dropped, and counted, when a further one comes.
    public var batches = 10_000
    /// Correlations and bytes of one batch.
    public var correlations = 128
    public var bytes = 1 << 20
    /// How long an instance may take for a batch.
    public var lease = Duration.seconds(60)
    public init() {}
}

extension Emission {
    /// `<id>|<from>|<to>|<revision>`; ids have no bars and no blanks.
    var text: String { "\(key.id)|\(from)|\(to)|\(revision)" }

    init?(text: Substring) {
        let parts = text.split(separator: "|")
        guard parts.count == 4, let key = CorrelationKey(id: String(parts[0])), let from = Int(parts[1]), let to = Int(parts[2]),
            let revision = Int(parts[3]),
            from >= 0, to >= from
        else { return nil }
        self.init(key: key, revision: revision, from: from, to: to)
    }
}

extension ExportBatch {
    /// Reads what is stored; entries that are none of ours are passed over.
    init(text: String, redelivered: Bool = false, leaseEnds: Int = 0) {
        self.text = text
        self.redelivered = redelivered
        self.leaseEnds = leaseEnds
        emissions = text.split(separator: " ").dropFirst().compactMap { Emission(text: $0) }
    }

    /// The batch without what has arrived.
    func without(_ sent: Set<CorrelationKey>) -> ExportBatch {
        if sent.isEmpty { return self }
        let left = emissions.filter { !sent.contains($0.key) }.map(\.text).joined(separator: " ")
        return ExportBatch(text: "\(text.prefix { $0 != " " }) \(left)", redelivered: redelivered)
    }
}
