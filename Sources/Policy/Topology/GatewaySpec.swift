import Basics

/// What stands before the services.
public struct GatewaySpec: Sendable, Equatable {
    public let listen: ListenAddress
    public let admin: ListenAddress?
    /// A file with the word that changes and explanations need; nil: neither is served.
    public let adminTokenFile: String?
    public let threads: Int
    public let accessLog: AccessLogSpec
    /// Whose X-Forwarded-For (and PROXY header) is believed.
    public let trustedProxies: [AddressRange]
    /// Connections from trusted proxies begin with a PROXY header (v1 or v2); others are refused.
    public let takesProxyProtocol: Bool
    public let limits: GatewayLimits
    public let tracing: TracingSpec?
    /// The Redis in which limits with `shared: true` are counted.
    public let limitStore: String?
    public let routes: [RouteSpec]
}

public struct AccessLogSpec: Sendable, Equatable {
    public enum Format: Sendable, Equatable {
        case none, text, json
        /// `$name` stands for a field (see `AccessLogSpec.fields`).
        case custom(String)
    }
    public let format: Format
    /// nil: standard output.
    public let file: String?

    /// What a custom format may name, after nginx's words.
    public static let fields = [
        "time", "remote_addr", "method", "uri", "status", "bytes", "replica", "duration_ms", "upstream_ms", "tries", "request_id", "route",
        "host", "user_agent",
        "trace_id", "held_ms",
    ]

    /// The first `$name` that is no field; nil when all are.
    static func unknownField(_ format: String) -> String? {
        for piece in format.split(separator: "$", omittingEmptySubsequences: false).dropFirst() {
            let name = piece.prefix { $0.isASCII && ($0.isLetter || $0 == "_") }
            if !fields.contains(String(name)) { return String(name) }
        }
        return nil
    }
}

public struct GatewayLimits: Sendable, Equatable {
    public let connections: Int
    /// From one client address; 0: no limit of its own.
    public let perClient: Int
    /// All header fields of a request together, in bytes, and how many.
    public let head: Int
    public let fields: Int
    /// For a whole head to arrive, and between two requests of a connection.
    public let headTime: Duration
    public let idleTime: Duration
}

public struct TracingSpec: Sendable, Equatable {
    /// `http://host:port/v1/traces`
    public let target: String
    /// 0…1 of the traces that begin here; those that a client began follow its decision.
    public let sample: Double
}

public struct RouteSpec: Sendable, Equatable {
    public enum Target: Sendable, Equatable {
        case service(String)
        /// Declared ones; those that `discovery` finds come beside them.
        case backends([BackendSpec])
        /// Nothing behind it: the gateway itself answers.
        case answer(AnswerSpec)
        case redirect(RedirectSpec)
    }

    public let match: RouteMatch
    public let target: Target
    public let discovery: DiscoverySpec?
    public let canary: CanarySpec?
    public let balancing: BalancingSpec
    /// Every method may be tried again after it was sent, because the service counts a request once (F1.8).
    public let isIdempotent: Bool
    public let retry: RetrySpec
    public let timeout: TimeoutSpec
    public let bodyLimit: Int
    public let probe: ProbeSpec?
    public let eject: EjectSpec
    public let guards: GuardSpec
    /// What waits while the service has no replica; nil: nothing does.
    public let hold: HoldSpec?
    public let access: AccessSpec
    public let edits: EditSpec
    /// What a connection may be upgraded to, in lower case.
    public let upgrades: [String]
    /// Backends get a PROXY header with the client's address.
    public let proxyHeader: ProxyHeader?

    public enum ProxyHeader: String, Sendable, CaseIterable { case v1, v2 }

    /// The words that `balance` takes without an argument; besides them `hash(header:NAME)` and `hash(cookie:NAME)`.
    public static let balanceMethods = [
        "round-robin", "least-connections", "weighted-least-connections", "weighted", "two-choices", "ip-hash", "hash(trace)", "hash(path)",
        "hash(client-ip)",
    ]

    /// What people and metrics call it.
    public var label: String { match.label }
    public var path: String { match.label }
}

/// Which requests a route takes. All that is given must hold.
public struct RouteMatch: Sendable, Equatable {
    public enum Path: Sendable, Equatable {
        /// `/a` takes `/a`, `/a/b` and `/a?q`, not `/ab`.
        case prefix(String)
        case exact(String)
        /// Matched against the path, without the query.
        case regex(String)
    }
    public let path: Path
    /// Lower case; `*.example.org` takes every name below it. Empty: any.
    public let hosts: [String]
    /// Empty: any.
    public let methods: [String]
    /// Lower-case name and exact value.
    public let headers: [FieldSpec]

    public var label: String {
        let path =
            switch self.path {
            case .prefix(let path): path
            case .exact(let path): "=\(path)"
            case .regex(let text): "~\(text)"
            }
        var conditions = hosts.joined(separator: ",")
        if !methods.isEmpty { conditions += "[\(methods.joined(separator: ","))]" }
        for header in headers { conditions += "{\(header.name)=\(header.value)}" }
        return conditions + path
    }
}

/// A header field's name and value.
public struct FieldSpec: Sendable, Equatable {
    public let name: String
    public let value: String
}

public struct BackendSpec: Sendable, Equatable {
    public let address: String
    public let weight: Int
    /// 0 is asked first; higher ones get what spills over.
    public let priority: Int
    public let line: Int
    public let column: Int

    public init(address: String, weight: Int, priority: Int = 0, line: Int = 0, column: Int = 0) {
        self.address = address
        self.weight = weight
        self.priority = priority
        self.line = line
        self.column = column
    }

    public static func == (a: Self, b: Self) -> Bool { a.address == b.address && a.weight == b.weight && a.priority == b.priority }
}

/// Backends that are found while the gateway runs.
public enum DiscoverySpec: Sendable, Equatable {
    /// A line a backend: `ADDRESS [weight=N] [priority=N]`; read again when it changes.
    case file(String)
    /// Asked again when the answer's TTL is over. `server`: whom to ask, nil: the system's.
    case dns(name: String, isSRV: Bool, port: UInt16, server: String?)
}

public struct CanarySpec: Sendable, Equatable {
    public let backends: [BackendSpec]
    public let service: String?
    /// 0…1
    public let share: Double
    /// Fields whose value `always` or `never` decides.
    public let header: String?
    public let cookie: String?
}

public struct BalancingSpec: Sendable, Equatable {
    public let method: String
    /// The name of a cookie that keeps a client on its replica; nil: none.
    public let sticky: String?
    /// For this long after it became ready, a replica's share grows from a tenth to the whole.
    public let slowStart: Duration
    /// Below this share of fit replicas all are used; 0: only when none is fit.
    public let panic: Double
}

public struct RetrySpec: Sendable, Equatable {
    public let attempts: Int
    /// 0…1 of the requests.
    public let budget: Double
    /// Bodies up to this many bytes are kept for a second try.
    public let keptBody: Int
    /// A GET without an answer after this time is asked of a second replica as well; nil: never.
    public let hedge: Duration?
}

public struct TimeoutSpec: Sendable, Equatable {
    public let connect: Duration
    /// From the request's last byte to the response's head, and between two reads of a response.
    public let response: Duration
    /// From a request's head to the response's; a client's X-Request-Timeout may shorten it. nil: no limit.
    public let total: Duration?
    /// Of an upgraded connection on which nothing moves.
    public let tunnel: Duration
}

public struct ProbeSpec: Sendable, Equatable {
    /// nil: connecting is enough.
    public let path: String?
    /// What a probe names as Host; nil: the backend's address.
    public let host: String?
    /// Other fields that a probe has.
    public let headers: [FieldSpec]
    public let interval: Duration
    public let timeout: Duration
    public let rise: Int
    public let fall: Int
}

public struct EjectSpec: Sendable, Equatable {
    public let failures: Int
    public let within: Duration
    public let time: Duration
    /// Answers of 500 and above count as failures.
    public let countsErrors: Bool
    /// Replicas that stand out by failures or by latency go, too.
    public let outliers: Bool
    /// The share of the replicas that may be out at once.
    public let atMost: Double
}

/// What a route takes at once, and how fast.
public struct GuardSpec: Sendable, Equatable {
    public let limits: [LimitSpec]
    /// Requests under way on the route; nil: any number.
    public let concurrency: Int?
    /// The limit follows the latency (gradient), up to `concurrency`.
    public let isAdaptive: Bool
    public let perReplica: Int?
    /// Failures in a row that open the route's breaker; nil: it has none.
    public let breakerFailures: Int?
    public let breakerRecovery: Duration
}

/// Requests that wait at the gateway while their service has no replica at all.
public struct HoldSpec: Sendable, Equatable {
    /// So many at once, on all threads together; 1 or more.
    public let most: Int
    /// Each for at most this long.
    public let time: Duration
}

public struct LimitSpec: Sendable, Equatable {
    public enum Key: Sendable, Equatable {
        case client, route
        /// Lower case. Requests without the field share one bucket.
        case header(String)
    }
    public let perSecond: Double
    /// As it was written: `100/s`.
    public let text: String
    public let burst: Int
    public let key: Key
    /// Counted in Redis, for all gateways together.
    public let isShared: Bool
    /// What exceeds the rate but not the burst waits for its turn instead of going at once.
    public let delays: Bool
}

/// Who may ask.
public struct AccessSpec: Sendable, Equatable {
    /// Paths below the route's that are refused from outside.
    public let deny: [String]
    /// Empty: everyone.
    public let allowed: [AddressRange]
    public let refused: [AddressRange]
    /// Files with a line a user, and a line a token.
    public let basicFile: String?
    public let bearerFile: String?
    public let realm: String
    public let cors: CORSSpec?
}

public struct CORSSpec: Sendable, Equatable {
    /// `https://app.example`, or `*`.
    public let origins: [String]
    public let methods: [String]
    public let headers: [String]
    public let exposed: [String]
    public let credentials: Bool
    public let maxAge: Duration
}

/// What is changed on the way.
public struct EditSpec: Sendable, Equatable {
    public let rewrite: RewriteSpec?
    /// What backends are told as Host; nil: what the client said.
    public let host: String?
    public let request: HeaderEditSpec
    public let response: HeaderEditSpec
}

public enum RewriteSpec: Sendable, Equatable {
    /// In place of the route's prefix.
    case prefix(String)
    case regex(String, to: String)
}

public struct HeaderEditSpec: Sendable, Equatable {
    public let `set`: [FieldSpec]
    public let add: [FieldSpec]
    /// Lower case.
    public let remove: [String]
    public var isEmpty: Bool { self.set.isEmpty && add.isEmpty && remove.isEmpty }
}

/// An answer of the gateway's own: a maintenance page, a fixed text.
public struct AnswerSpec: Sendable, Equatable {
    public let status: Int
    public let body: String
    public let type: String
    /// Read once when the configuration is.
    public let file: String?
}

public struct RedirectSpec: Sendable, Equatable {
    /// `$scheme`, `$host` and `$uri` stand for the request's.
    public let to: String
    public let status: Int
}
