import Basics
import Redis
import Sharding

/// What became of keys, counted.
public struct RestoreCounts: Sendable, Equatable {
    public var restored = 0
    /// Stood in the target already, equal: from an earlier run that was cut off.
    public var already = 0
    /// Their time came before they could be moved.
    public var expired = 0
    /// Stand in the target with another content, and were left alone.
    public var conflicts = 0
    /// Some of them, as text.
    public var conflictNames: [String] = []
    /// Lie outside the slots that the manifest gives to their snapshot.
    public var strays = 0
    /// As DUMP writes them.
    public var bytes = 0
    /// Moved in pieces, because they are large.
    public var large = 0

    static let namesKept = 10

    /// A key as text, cut to what a line holds.
    static func text(_ name: [UInt8]) -> String { String(decoding: name.prefix(80), as: UTF8.self) }
}

/// Brings the keys of one snapshot to the target: RESTORE with the time of expiry as it is, many on their way at once.
///
/// Bounded: at most `window` bytes are on their way, and what is larger than `wholeLimit` goes in pieces (`RestoreLargeKey`). A key that
/// exists is never overwritten unless that was asked for: it is compared, so that whatever is done twice, after a lost connection or a
/// kill, is done once. On the loop.
final class RestoreMove {
    /// On their way to the target: enough for several masters, little beside what a snapshot needs.
    static let window = 16 << 20
    /// Memory of a key that is moved at once. RESTORE of 4 MiB of small fields keeps a master from others for some 10 ms.
    static let wholeLimit = 4 << 20
    /// Keys that exist already are compared so many at a time.
    private static let settleCount = 256

    private let source: RestoreSource
    private let target: RestoreTarget
    private let slots: SlotSet
    private let replaces: Bool
    private let comparison: RestoreComparison
    private let tell: (RestoreCounts) -> Void
    private(set) var counts: RestoreCounts
    private var inFlight = 0
    private var failure: ProvisioningFailure?
    private var waiting: (room: Int, continuation: UnsafeContinuation<Void, Never>)?
    /// Exist in the target, and are to be compared.
    private var busy: [RestoreKey] = []

    init(
        _ source: RestoreSource, _ target: RestoreTarget, slots: SlotSet, replaces: Bool, counts: RestoreCounts,
        tell: @escaping (RestoreCounts) -> Void
    ) {
        self.source = source
        self.target = target
        self.slots = slots
        self.replaces = replaces
        self.counts = counts
        self.tell = tell
        comparison = RestoreComparison(source: source.server, target: target)
    }

    func run() async throws(ProvisioningFailure) {
        do throws(ProvisioningFailure) {
            while let keys = try await source.next() {
                var late: [RestoreKey] = []
                for key in keys {
                    if !slots.contains(HashSlot.of(key.name.span)) { counts.strays += 1 }
                    if key.payload == nil, key.size <= RestoreMove.wholeLimit { late.append(key) } else { try await move(key) }
                }
                try await source.fetch(late) { key throws(ProvisioningFailure) in
                    if key.payload == nil { counts.expired += 1 } else { try await move(key) }
                }
                if busy.count >= RestoreMove.settleCount { try await settle() }
                tell(counts)
            }
        } catch {
            // Nothing of ours may call back when this is over.
            await room(for: RestoreMove.window)
            throw error
        }
        await room(for: RestoreMove.window)
        if let failure { throw failure }
        try await settle()
        counts.expired.addClamped(source.expired)
        tell(counts)
    }

    private func move(_ key: RestoreKey) async throws(ProvisioningFailure) {
        if let payload = key.payload {
            await room(for: payload.count)
            if let failure { throw failure }
            return restore(key, payload)
        }
        if key.size <= RestoreMove.wholeLimit {
            var command = RedisCommand("DUMP")
            command.add(key.name)
            guard let payload = try await source.server.ask(command).bytes else {
                counts.expired += 1
                return
            }
            return try await move(RestoreKey(name: key.name, expiry: key.expiry, size: key.size, payload: payload))
        }
        switch try await RestoreLargeKey(key, source.server, target, comparison, replaces: replaces).move() {
        case .restored:
            counts.restored += 1
            counts.large += 1
            counts.bytes.addClamped(key.size)
        case .already: counts.already += 1
        case .expired: counts.expired += 1
        case .conflict: conflict(key)
        }
    }

    private func restore(_ key: RestoreKey, _ payload: [UInt8]) {
        var command = RedisCommand("RESTORE", key: key.name)
        command.add(key.expiry ?? 0)
        command.add(payload)
        if replaces { command.add("REPLACE") }
        command.add("ABSTTL")
        inFlight += payload.count
        // Whether it was carried out the first time shows: then it exists.
        target.client.submit(command.repeatable()) { [self] result in
            inFlight -= payload.count
            switch result {
            case .success:
                counts.restored += 1
                counts.bytes += payload.count
            case .failure(let error) where error.serverCode == "BUSYKEY": busy.append(key)
            case .failure(let error): failure = failure ?? RestoreTarget.failure(error)
            }
            if let (room, continuation) = waiting, inFlight + room <= RestoreMove.window || inFlight == 0 {
                waiting = nil
                continuation.resume()
            }
        }
    }

    /// Waits until so many bytes may be sent; a single one that is larger goes alone.
    private func room(for bytes: Int) async {
        if inFlight == 0 || inFlight + bytes <= RestoreMove.window { return }
        await withUnsafeContinuation { waiting = (bytes, $0) }
    }

    private func settle() async throws(ProvisioningFailure) {
        let keys = busy
        busy = []
        for (key, verdict) in zip(keys, try await comparison.compare(keys)) {
            switch verdict {
            case .same: counts.already += 1
            case .expired: counts.expired += 1
            case .differs: conflict(key)
            }
        }
    }

    private func conflict(_ key: RestoreKey) {
        counts.conflicts += 1
        if counts.conflictNames.count < RestoreCounts.namesKept { counts.conflictNames.append(RestoreCounts.text(key.name)) }
    }
}
