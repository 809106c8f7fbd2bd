import Basics
import Measurement

/// Asks one node of a store, or an external store, how it is. On the control loop.
public protocol NodeProbe: AnyObject {
    /// Asks once. Ends by itself within some seconds; it is not called again before it has ended.
    func ask() async -> ProbeReport
    /// The figures of the node now, for the metrics page. Empty when they cannot be had.
    func figures() async -> [StoreFigure]
    func close()
}

/// What a probe has found.
public struct ProbeReport: Sendable, Equatable {
    public let answer: NodeAnswer
    /// The node's part in its store in the kind's own word (`master`, `replica`); nil: unknown, or there are no parts.
    public let role: String?

    public init(_ answer: NodeAnswer, role: String? = nil) {
        self.answer = answer
        self.role = role
    }
}

/// Whether a node lives, and whether it serves: two questions. A node that answers with an error lives.
public enum NodeAnswer: Sendable, Equatable {
    case ready
    /// It serves, and says what it lacks.
    case degraded(String)
    /// It answers, and does not serve now.
    case unready(String)
    /// It answers that what it does now ends by itself: it loads its data, say. A start is not counted on meanwhile.
    case occupied(String)
    /// It does not answer.
    case failed(String)
    /// It could not be asked, for want of something here (descriptors, say). That tells nothing about the node.
    case unasked(String)
}

/// One figure of a node for the metrics page, as `muster_store_NAME`.
public struct StoreFigure: Sendable, Equatable {
    /// What kinds of store have in common has one name: `memory_bytes`, `memory_limit_bytes`, `connections`, `items`.
    public enum Name: String, Sendable, CaseIterable {
        case memory = "memory_bytes"
        case memoryLimit = "memory_limit_bytes"
        case connections = "connections"
        case items = "items"
        case isPrimary = "primary"
        case timeline = "timeline"
        case lagBytes = "lag_bytes"
        case lagMilliseconds = "lag_milliseconds"

        /// The help line of the metrics page.
        public var help: String {
            switch self {
            case .memory: "Bytes that the node's data takes."
            case .memoryLimit: "Bytes that the node's data may take; 0: no limit."
            case .connections: "Clients that are connected to the node."
            case .items: "Keys that the node has."
            case .isPrimary: "Whether the node takes writes (1) or follows another (0)."
            case .timeline: "The timeline of the node's log: a change of the primary begins another."
            case .lagBytes: "Bytes of log that the node is behind its primary."
            case .lagMilliseconds: "How old the last write is that the node shows while it is behind, in milliseconds."
            }
        }
    }

    public let name: Name
    public let value: Int

    public init(_ name: Name, _ value: Int) {
        self.name = name
        self.value = value
    }
}

/// Counts something in a store for the autoscaler, once each time it is asked.
public struct StoreGauge: Sendable {
    /// What is counted, for messages and as an identity: a gauge of another id is another one.
    public let id: String
    public let read: @Sendable () async -> Result<MeterFigure, MeterFault>

    public init(_ id: String, read: @escaping @Sendable () async -> Result<MeterFigure, MeterFault>) {
        self.id = id
        self.read = read
    }
}
