import Basics

/// The observations and decisions of the latest passes in figures: for the dashboard, and for `muster replay`.
public struct ScalingTimeline: Sendable {
    public struct Point: Sendable, Equatable {
        public let at: WallTime
        /// The number of replicas that there are to be, that serve, and that were wanted before anything held them (nil: unknown).
        public let replicas: Int
        public let serving: Int
        public let raw: Int?
        public let outcome: Int
        /// For each of the policy's metrics, in their order: the figure that is compared with the target, in thousandths or percent; nil:
        /// unknown.
        public let measured: [Int?]
        /// In the same order: the demand on all replicas together, in thousandths; nil: unknown.
        public let demand: [Int?]

        public init(at: WallTime, replicas: Int, serving: Int, raw: Int?, outcome: Int, measured: [Int?], demand: [Int?]) {
            self.at = at
            self.replicas = replicas
            self.serving = serving
            self.raw = raw
            self.outcome = outcome
            self.measured = measured
            self.demand = demand
        }
    }

    /// The most points that are kept: a day at the usual 15 s.
    public static let capacity = 5760

    private var points: [Point] = []
    private var start = 0

    public init() {}

    public mutating func append(_ point: Point) {
        if points.count < ScalingTimeline.capacity {
            points.append(point)
        } else {
            points[start] = point
            start = (start + 1) % ScalingTimeline.capacity
        }
    }

    /// The latest points, oldest first; at most `count`.
    public func latest(_ count: Int = capacity) -> [Point] { Array((points[start...] + points[..<start]).suffix(count)) }
}
