import Basics

/// Decides how many idle connections to one replica are worth keeping: together with the connections in use, as many as were in use at once
/// within the last one to two windows.
///
/// So a steady load finds a connection for each of its requests, whatever its size, and the connections that a burst needed are given back
/// soon after it. Never more than `ceiling`. Pure, O(1), no allocation.
public struct IdleAllowance: Sendable {
    /// The length of a window. The value is ours: longer than the gaps of a load that comes in waves, shorter than backends keep idle
    /// connections open themselves.
    public static let window = Duration.seconds(10)

    /// The most connections that are kept to one replica, in use and idle together.
    public let ceiling: Int
    private var peak = 0
    private var earlierPeak = 0
    private var windowBegan = MonotonicTime(nanoseconds: 0)
    /// The connections in use at this moment.
    public private(set) var inUse = 0

    public init(ceiling: Int) { self.ceiling = max(ceiling, 0) }

    /// Notes that one more connection is used.
    public mutating func lent(_ now: MonotonicTime) {
        advance(now)
        inUse += 1
        peak = max(peak, inUse)
    }

    /// Notes that a connection is used no longer, whether it is kept or ends.
    public mutating func returned() { inUse = max(inUse - 1, 0) }

    /// Whether one more connection may be kept when `idle` are.
    public mutating func mayKeep(idle: Int, _ now: MonotonicTime) -> Bool {
        advance(now)
        return inUse + idle < min(max(peak, earlierPeak), ceiling)
    }

    private mutating func advance(_ now: MonotonicTime) {
        let passed = now - windowBegan
        guard passed >= IdleAllowance.window else { return }
        earlierPeak = passed >= IdleAllowance.window + IdleAllowance.window ? inUse : peak
        peak = inUse
        windowBegan = now
    }
}
