import Autoscaling
import Basics

/// The scaling of a service: the pure policy, and the sources of its figures.
public struct ScalingSpec: Sendable, Equatable {
    public let policy: ScalingPolicy
    /// The sources of the metrics, in the order of the policy's metrics.
    public let origins: [MetricOrigin]
    /// The time from one pass of the autoscaler to the next.
    public let period: Duration
    /// The time without a request after which the last replica ends; nil: it stays.
    public let idle: Duration?
    public let floors: [ScheduleFloor]
    /// How far the clock of the schedule floors is ahead of UTC.
    public let offset: Duration
    /// How far ahead history is asked; nil: it is not asked.
    public let forecast: Duration?

    public init(
        policy: ScalingPolicy, origins: [MetricOrigin], period: Duration, idle: Duration?, floors: [ScheduleFloor], offset: Duration,
        forecast: Duration?
    ) {
        self.policy = policy
        self.origins = origins
        self.period = period
        self.idle = idle
        self.floors = floors
        self.offset = offset
        self.forecast = forecast
    }
}

/// The source of a metric's figures.
public enum MetricOrigin: Sendable, Equatable {
    public enum Traffic: Sendable, Equatable { case requests, concurrency, latency }
    public enum Length: Sendable, Equatable {
        case list(String)
        case sortedSet(String)
        case stream(String, group: String?)
    }

    /// CPU use, as the kernel counts it for each replica's process.
    case cpu
    case memory
    /// Traffic, as the gateway counts it.
    case gateway(Traffic)
    /// A figure of each replica's Prometheus page.
    case replicaPage(selector: String)
    /// A figure of another Prometheus page.
    case page(url: String, selector: String)
    /// The length of something in a store of the stack.
    case length(store: String, Length)
    /// The messages that a consumer group has yet to read, from an exporter's page.
    case lag(topic: String, group: String, page: String, threshold: Int)

    /// Whether the metric can be read while the service has no replica: its source is neither the replicas nor their traffic.
    public var isReadableAtZero: Bool {
        switch self {
        case .page, .length, .lag: true
        case .cpu, .memory, .gateway, .replicaPage: false
        }
    }
}
