import Basics

/// What was seen and decided at each pass of late, in figures: for the dashboard, and for `muster replay`.
public struct ScalingTimeline: Sendable {
    public struct Point: Sendable, Equatable {
        public let at: WallTime
        /// There are to be, serve, and were wanted before anything held it (nil: unknown).
        public let replicas: Int
        public let serving: Int
        public let raw: Int?
        public let outcome: Int
        /// In the order of the policy's metrics: the figure against which the target stands, in thousandths or percent; nil: unknown.
        public let measured: [Int?]
        /// In the same order: what all replicas together were asked for, in thousandths; nil: unknown.
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

    /// A day at the usual 15 s.
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

    /// Oldest first; at most the latest `count`.
    public func latest(_ count: Int = capacity) -> [Point] { Array((points[start...] + points[..<start]).suffix(count)) }
}
