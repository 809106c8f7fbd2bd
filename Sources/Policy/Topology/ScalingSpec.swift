import Autoscaling
import Basics

/// How a service is scaled: the pure policy, and where its figures come from.
public struct ScalingSpec: Sendable, Equatable {
    public let policy: ScalingPolicy
    /// In the order of the policy's metrics.
    public let origins: [MetricOrigin]
    /// How often it is decided.
    public let period: Duration
    /// Without a request for this long the last replica ends; nil: it stays.
    public let idle: Duration?
    public let floors: [ScheduleFloor]
    /// How far the floors' clock is ahead of UTC.
    public let offset: Duration
    /// How far ahead history is asked; nil: not at all.
    public let forecast: Duration?
}

/// Where a metric's figures come from.
public enum MetricOrigin: Sendable, Equatable {
    public enum Traffic: Sendable, Equatable { case requests, concurrency, latency }
    public enum Length: Sendable, Equatable {
        case list(String)
        case sortedSet(String)
        case stream(String, group: String?)
    }

    /// What the kernel says of each replica's process.
    case cpu
    case memory
    /// What the gateway counts.
    case gateway(Traffic)
    /// A figure of each replica's Prometheus page.
    case replicaPage(selector: String)
    /// A figure of another Prometheus page.
    case page(url: String, selector: String)
    /// The length of something in a store of the stack.
    case redis(store: String, Length)
    /// What a consumer group has yet to read, from an exporter's page.
    case kafka(topic: String, group: String, page: String, threshold: Int)
}
