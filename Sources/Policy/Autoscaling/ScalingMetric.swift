import Basics

/// A metric that a service is scaled by, and its target.
public struct ScalingMetric: Sendable, Equatable {
    public enum Source: Sendable, Equatable {
        /// The use of a resource that each replica has requested. With `container`, the use of that container alone.
        case resource(Resource, container: String? = nil)
        /// A figure that each replica reports.
        case replicas
        /// One figure about something beside the replicas.
        case object
        /// The sum of figures that come from elsewhere.
        case external
        /// A source that is declared with a word that nobody knows.
        case unknown(String)
    }

    public enum Resource: Sendable, Equatable {
        case cpu, memory, other(String)
    }

    public enum Target: Sendable, Equatable {
        /// The target in whole percent of the request.
        case utilization(Int)
        /// The target for each replica, in thousandths.
        case average(Int)
        /// The target for all replicas together, in thousandths. The size is multiplied by value / target at every pass, so a value that
        /// more replicas do not lower runs to the maximum: for the length of a queue take `average`.
        case value(Int)
    }

    /// The metric's name for people: `cpu`, `http_requests`.
    public let name: String
    public let source: Source
    public let target: Target
    /// Whether the metric can be read while there is no replica. Only such a metric can bring a service back from 0.
    public let isReadableAtZero: Bool

    /// `isReadableAtZero`: nil for what Kubernetes goes by, which is the kind of the source: `object` and `external` can be read at 0. A
    /// metric of such a kind that is made of the replicas' own figures says false.
    public init(_ name: String, _ source: Source, _ target: Target, isReadableAtZero: Bool? = nil) {
        self.name = name
        self.source = source
        self.target = target
        self.isReadableAtZero = isReadableAtZero ?? (source == .object || source == .external)
    }
}

/// The figures that were measured for one metric.
public enum MetricReading: Sendable, Equatable {
    /// A figure of each replica. `requests` are the replicas' requests in the order of the observation's replicas, for a resource.
    case samples([MetricSample], requests: Result<[Int], MetricFault>? = nil)
    /// One figure, in thousandths.
    case value(Int)
    /// Several figures, which are summed.
    case values([Int])
    case failed(MetricFault)
}

/// One replica's figure.
public struct MetricSample: Sendable, Equatable {
    /// The replica's `ReplicaState.id`. A replica that nobody knows counts in a plain average and not in a utilization, as with Kubernetes.
    public var replica: Int
    /// The figure in thousandths.
    public var value: Int
    /// The time at which the figure was taken, and the time that it covers.
    public var at: MonotonicTime
    public var window: Duration

    public init(replica: Int, value: Int, at: MonotonicTime, window: Duration) {
        self.replica = replica
        self.value = value
        self.at = at
        self.window = window
    }
}

/// Why a metric asks for no number of replicas.
public enum MetricFault: Error, Sendable, Equatable, CustomStringConvertible {
    /// The source answered with nothing.
    case noMetrics
    /// Figures came, but of no replica that counts.
    case noUsableMetrics
    /// Figures came, but of no replica whose request is known.
    case noMatchingMetrics
    case missingRequest
    case containerNotFound(String)
    case noReplicas
    /// The source cannot be asked, or its answer cannot be believed.
    case unreadable(String)
    case unknownSource(String)

    public var description: String {
        switch self {
        case .noMetrics: "its source returned no figures"
        case .noUsableMetrics: "no replica that counts has a figure (they may still be starting)"
        case .noMatchingMetrics: "no figure belongs to a replica whose request is known"
        case .missingRequest: "a replica declares no request for it, so a share of the request cannot be computed: declare resources"
        case .containerNotFound(let name): "a replica has no container '\(name)'"
        case .noReplicas: "there is no replica to measure"
        case .unreadable(let why): why
        case .unknownSource(let name): "'\(name)' is no kind of metric"
        }
    }
}
