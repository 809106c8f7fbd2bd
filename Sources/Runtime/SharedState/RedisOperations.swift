import Basics
import EventLoops
import Observability
import Redis

/// A Redis client whose operations are counted and timed under the names of document 000:
/// `redis_operations_total{operation,status}`, `redis_operation_duration_seconds`, `redis_errors_total{operation,error_type}`.
///
/// An operation is what the service does (`get`, `set`, `query`), not the command it happens to use; a batch of commands
/// counts each command, and its time once.
public struct RedisOperations: Sendable {
    public enum Operation: String, Sendable, CaseIterable { case get, set, query, count, sweep, settle, export, ledger, ping }

    public let client: RedisClient
    private let metrics: MetricsRegistry
    private let cells: [Cells]

    private struct Cells: Sendable {
        let succeeded: Counter
        let failed: Counter
        let duration: Histogram
    }

    public init(client: RedisClient, metrics: MetricsRegistry) {
        self.client = client
        self.metrics = metrics
        cells = Operation.allCases.map { operation in
            func total(_ status: String) -> Counter {
                metrics.counter(
                    "redis_operations_total", "Operations on the shared state, by what was done and how it ended.",
                    labels: [("operation", operation.rawValue), ("status", status)])
            }
            return Cells(
                succeeded: total("success"), failed: total("error"),
                duration: metrics.histogram(
                    "redis_operation_duration_seconds", "Time of one round trip to the shared state.",
                    labels: [("operation", operation.rawValue)]))
        }
        // So that the family is on the page before the first error.
        _ = errors(.set, .unavailable)
    }

    private func errors(_ operation: Operation, _ code: RedisError.Code) -> Counter {
        metrics.counter(
            "redis_errors_total", "Operations on the shared state that failed, by kind of failure.",
            labels: [("operation", operation.rawValue), ("error_type", code.rawValue)])
    }

    public func run(_ operation: Operation, _ commands: [RedisCommand]) async -> [Result<RESPValue, RedisError>] {
        let start = MonotonicTime.now
        return count(operation, since: start, await client.pipeline(commands))
    }

    public func run(_ operation: Operation, _ script: RedisScript, _ calls: [RedisCommand]) async -> [Result<RESPValue, RedisError>] {
        let start = MonotonicTime.now
        return count(operation, since: start, await client.run(script, calls))
    }

    public func run(_ operation: Operation, _ command: RedisCommand) async throws(RedisError) -> RESPValue {
        try await run(operation, [command])[0].get()
    }

    private func count(
        _ operation: Operation, since start: MonotonicTime, _ results: [Result<RESPValue, RedisError>]
    ) -> [Result<RESPValue, RedisError>] {
        let cell = cells[Operation.allCases.firstIndex(of: operation)!]
        cell.duration.observe(.now - start)
        var succeeded = 0
        for result in results {
            switch result {
            case .success: succeeded += 1
            case .failure(let error): errors(operation, error.code).add()
            }
        }
        cell.succeeded.add(succeeded)
        cell.failed.add(results.count - succeeded)
        return results
    }
}
