import Synchronization

/// Counts the connections of clients over all loops that share a limit.
public final class ConnectionCount: Sendable {
    private let open = Atomic<Int>(0)

    public init() {}

    /// Counts one more; how many there are with it.
    public func add() -> Int { open.wrappingAdd(1, ordering: .relaxed).newValue }

    /// Counts one less.
    public func remove() { open.wrappingSubtract(1, ordering: .relaxed) }
}
