import EventLoops
import Measurement
import Observability

/// A service whose figures are wanted: which metrics, of which replicas.
public struct MeteredService: Sendable {
    /// A replica that runs now.
    public struct Replica: Sendable, Hashable {
        /// Its number among the service's replicas.
        public let number: Int
        /// The leader of its process group.
        public let pid: Int32
        /// The leader's start time (`ProcessIdentity.startTime`); nil to take what the first reading finds.
        public let started: UInt64?
        /// Where it answers HTTP; nil when it does not.
        public let endpoint: Endpoint?

        /// A replica by number, process and place.
        public init(number: Int, pid: Int32, started: UInt64? = nil, endpoint: Endpoint?) {
            self.number = number
            self.pid = pid
            self.started = started
            self.endpoint = endpoint
        }
    }

    /// A metric and the name that its readings have. Names are unique within a service.
    public struct Metric: Sendable {
        /// Where a metric is read from.
        public enum Source: Sendable {
            /// Milli-cores of each replica; see `ProcessMeter`.
            case cpu
            /// Bytes of each replica.
            case memory
            /// From each replica's own page, on its endpoint. `most`: the most that a replica's figure can be.
            case page(SampleSelector, path: String = "/metrics", kind: PageMetric.Kind = .automatic, most: Double? = nil)
            /// From a page that is not the replicas' own, of the service.
            case otherPage(PageSource, SampleSelector)
            /// From the gateway, of each replica and (with no replica in the key) of the service; see `GatewayMeter`.
            case requests, concurrency, latencyMean
            /// From the gateway, of the service only.
            case latencyP95
            /// Of the service, counted in a store: `read` is called once a turn, and ends by itself within some seconds. Another `id` is
            /// another count.
            case counted(id: String, read: @Sendable () async -> Result<MeterFigure, MeterFault>)
            /// Of the service, from an exporter's page.
            case lag(LagMeter)
        }

        /// The name of its readings.
        public let name: String
        /// Where the metric is read from.
        public let source: Source

        /// A metric under a name.
        public init(_ name: String, _ source: Source) {
            self.name = name
            self.source = source
        }
    }

    /// The service's name, as in the stack file, and in the names of the gateway's replicas (`name/number`).
    public let name: String
    /// The metrics that are wanted of the service.
    public let metrics: [Metric]
    /// The replicas that run now.
    public let replicas: [Replica]

    /// A service with its metrics and replicas.
    public init(name: String, metrics: [Metric], replicas: [Replica]) {
        self.name = name
        self.metrics = metrics
        self.replicas = replicas
    }
}
