import Basics

/// The settings of the recommender; the defaults are those of kubernetes/autoscaler's flags.
public struct RecommenderSettings: Sendable, Equatable {
    /// The percentiles that are taken. Below 0 and above 1 is allowed: the lowest and the highest seen.
    public struct Percentiles: Sendable, Equatable {
        public var target: Double
        public var lower: Double
        public var upper: Double

        public init(target: Double = 0.9, lower: Double = 0.5, upper: Double = 0.95) {
            self.target = target
            self.lower = lower
            self.upper = upper
        }
    }

    public var cpu = Percentiles()
    public var memory = Percentiles()
    /// The margin that is added to every percentile, as a share of it.
    public var margin = 0.15
    /// The least amounts of a whole replica, divided evenly among its containers: 25 milli-cores and 250 MiB.
    public var leastOfAll = Resources(cpu: 25, memory: 250 << 20)
    /// The time after which a container counts as well known.
    public var interval = Duration.seconds(86400)
    /// All amounts are rounded up to multiples of these: 1 milli-core, 1 byte.
    public var steps = Resources(cpu: 1, memory: 1)
    /// How long a container is watched before its reason recommends anything. There is no wait by default, as in upstream; the figures are
    /// the same.
    public var leastHistory = Duration.zero

    public init() {}

    func percentiles(_ resource: Resource) -> Percentiles { resource == .cpu ? cpu : memory }
}
