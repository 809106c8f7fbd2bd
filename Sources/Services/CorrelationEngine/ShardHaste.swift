import Basics
import Redis
import SharedState
import Synchronization

/// Keeps a shard whose master is away from holding up all the others.
///
/// Completing, forgetting, exporting and counting go from shard to shard, and a command to a master that is away waits as long as the client is
/// patient. Once that was in vain, such work waits for no master any more for `limit`: it fails at once, and comes again by itself in the next
/// round. Whoever asks for something, or brings records, is worth waiting for a master, and is not hurried.
struct ShardHaste: ~Copyable, Sendable {
    /// The figure is ours: an outage that goes on costs one wait, and one that is over is forgotten soon.
    static let limit = Duration.seconds(10)

    private let failed = Mutex<MonotonicTime?>(nil)

    private static func comesAgain(_ operation: RedisOperations.Operation) -> Bool {
        [.settle, .sweep, .export, .ledger].contains(operation)
    }

    func hurried(_ command: RedisCommand, _ operation: RedisOperations.Operation, now: MonotonicTime = .now) -> RedisCommand {
        guard ShardHaste.comesAgain(operation), let last = failed.withLock({ $0 }), now - last < ShardHaste.limit else { return command }
        return command.impatient()
    }

    func note(_ results: [Result<RESPValue, RedisError>], _ operation: RedisOperations.Operation, now: MonotonicTime = .now) {
        guard ShardHaste.comesAgain(operation) else { return }
        let isAway = results.contains { result in if case .failure(let error) = result { error.isOfMissingMaster } else { false } }
        if isAway { failed.withLock { $0 = now } }
    }
}
