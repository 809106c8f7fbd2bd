import Basics

/// Remembers the sizes that were wanted before, so that a size follows what lasts and not what flickers.
///
/// The list holds unstabilized figures; a figure that every window has left behind is overwritten, so the list is as long as a window has
/// passes.
public struct Stabilization: Sendable, Equatable {
    public struct Recommendation: Sendable, Equatable {
        public let replicas: Int
        public let at: MonotonicTime

        public init(replicas: Int, at: MonotonicTime) {
            self.replicas = replicas
            self.at = at
        }
    }

    /// The recommendations; nil: nothing was ever recorded.
    public private(set) var recommendations: [Recommendation]?

    public init(recommendations: [Recommendation]? = nil) { self.recommendations = recommendations }

    /// Records the present size as a recommendation where none was ever made, so that a restart shrinks nothing before a whole window.
    public mutating func begin(current: Int, now: MonotonicTime) {
        if recommendations == nil { recommendations = [Recommendation(replicas: current, at: now)] }
    }

    /// The size without rules: the highest of `wanted` and of the recommendations within `window` (age <= window).
    public mutating func highest(_ wanted: Int, window: Duration, now: MonotonicTime) -> Bounds {
        var best = wanted, outdated: Int?
        for (index, one) in (recommendations ?? []).enumerated() {
            if now - one.at > window { outdated = index } else { best = max(best, one.replicas) }
        }
        let holdsFor = best == wanted ? .zero : left(best, window, now)
        record(wanted, now, over: outdated)
        return Bounds(low: wanted, high: best, result: best, holdsFor: holdsFor)
    }

    public struct Bounds: Sendable, Equatable {
        /// The lowest recommendation of the upward window, and the highest of the downward one; `wanted` is in both.
        public let low: Int
        public let high: Int
        public let result: Int
        /// How long the recommendation that holds the result (the lowest upwards, the highest downwards) goes on to count; zero when
        /// nothing holds it.
        public let holdsFor: Duration
    }

    /// The size with rules: `current` moved only as far as needed to lie between the lowest recommendation of the upward window and the
    /// highest of the downward window (age < window). Because `wanted` is in both, the result never moves against it.
    public mutating func between(_ wanted: Int, current: Int, up: Duration, down: Duration, now: MonotonicTime) -> Bounds {
        var low = wanted, high = wanted, outdated: Int?
        for (index, one) in (recommendations ?? []).enumerated() {
            let age = now - one.at
            if age < up { low = min(low, one.replicas) }
            if age < down { high = max(high, one.replicas) }
            if age > up, age > down { outdated = index }
        }
        let result = min(max(current, low), high)
        let holdsFor = result == wanted ? .zero : wanted > result ? left(low, up, now) : left(high, down, now)
        record(wanted, now, over: outdated)
        return Bounds(low: low, high: high, result: result, holdsFor: holdsFor)
    }

    /// Until the youngest record of this size is older than the window.
    private func left(_ replicas: Int, _ window: Duration, _ now: MonotonicTime) -> Duration {
        let youngest = (recommendations ?? []).filter { $0.replicas == replicas }.map(\.at).max()
        return youngest.map { max(.zero, window - (now - $0)) } ?? .zero
    }

    private mutating func record(_ wanted: Int, _ now: MonotonicTime, over outdated: Int?) {
        let one = Recommendation(replicas: wanted, at: now)
        if let outdated { recommendations![outdated] = one } else { recommendations = (recommendations ?? []) + [one] }
    }
}
