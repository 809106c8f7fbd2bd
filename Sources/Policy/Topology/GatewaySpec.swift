import Basics

/// The gateway in front of the services, as a stack file configures it.
public struct GatewaySpec: Sendable, Equatable {
    public let listen: ListenAddress
    public let admin: ListenAddress?
    /// A file with the token that changes and explanations on the admin page need; nil: neither is served.
    public let adminTokenFile: String?
    public let threads: Int
    public let accessLog: AccessLogSpec
    /// Addresses of the proxies whose X-Forwarded-For (and PROXY header) is believed.
    public let trustedProxies: [AddressRange]
    /// Whether connections from trusted proxies begin with a PROXY header (v1 or v2); all other connections are then refused.
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
        /// A format in which `$name` stands for a field (see `AccessLogSpec.fields`).
        case custom(String)
    }
    public let format: Format
    /// The file of the log; nil: standard output.
    public let file: String?

    /// The fields that a custom format may name, after nginx's words.
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
    /// The most connections from one client address; 0: no limit of its own.
    public let perClient: Int
    /// The largest size of all header fields of a request together, in bytes, and the most fields.
    public let head: Int
    public let fields: Int
    /// How long a whole head may take to arrive, and how long a connection may be idle between two requests.
    public let headTime: Duration
    public let idleTime: Duration
}

public struct TracingSpec: Sendable, Equatable {
    /// `http://host:port/v1/traces`
    public let target: String
    /// The share of the traces that are sampled, 0…1, of those that begin here; traces that a client began follow its decision.
    public let sample: Double
}

public struct RouteSpec: Sendable, Equatable {
    public enum Target: Sendable, Equatable {
        case service(String)
        /// Declared backends; those that `discovery` finds come beside them.
        case backends([BackendSpec])
        /// There is nothing behind the route: the gateway itself answers.
        case answer(AnswerSpec)
        case redirect(RedirectSpec)
    }

    public let match: RouteMatch
    public let target: Target
    public let discovery: DiscoverySpec?
    public let canary: CanarySpec?
    public let balancing: BalancingSpec
    /// Whether every method may be tried again after it was sent, because the service counts a request once (F1.8).
    public let isIdempotent: Bool
    public let retry: RetrySpec
    public let timeout: TimeoutSpec
    public let bodyLimit: Int
    public let probe: ProbeSpec?
    public let eject: EjectSpec
    public let guards: GuardSpec
    /// How requests wait while the service has no replica; nil: none wait.
    public let hold: HoldSpec?
    public let access: AccessSpec
    public let edits: EditSpec
    /// The protocols that a connection may be upgraded to, in lower case.
    public let upgrades: [String]
    /// The version of the PROXY header with the client's address that backends get; nil: none.
    public let proxyHeader: ProxyHeader?

    public enum ProxyHeader: String, Sendable, CaseIterable { case v1, v2 }

    /// The words that `balance` takes without an argument; besides them `hash(header:NAME)` and `hash(cookie:NAME)`.
    public static let balanceMethods = [
        "round-robin", "least-connections", "weighted-least-connections", "weighted", "two-choices", "ip-hash", "hash(trace)", "hash(path)",
        "hash(client-ip)",
    ]

    /// The name of the route for people and metrics.
    public var label: String { match.label }
    public var path: String { match.label }
}

/// The requests that a route takes. All conditions that are given must hold.
public struct RouteMatch: Sendable, Equatable {
    public enum Path: Sendable, Equatable {
        /// A prefix of whole segments: `/a` takes `/a`, `/a/b` and `/a?q`, not `/ab`.
        case prefix(String)
        case exact(String)
        /// An expression that is matched against the path, without the query.
        case regex(String)
    }
    public let path: Path
    /// Host names in lower case; `*.example.org` takes every name below it. Empty: any host.
    public let hosts: [String]
    /// Methods. Empty: any method.
    public let methods: [String]
    /// Header fields, each with a lower-case name and an exact value.
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
    /// The level of priority: 0 is asked first; higher levels get the requests that spill over.
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
    /// A file with a line for each backend: `ADDRESS [weight=N] [priority=N]`; read again when it changes.
    case file(String)
    /// A DNS name, asked again when the answer's TTL is over. `server` is the server to ask; nil: the system's.
    case dns(name: String, isSRV: Bool, port: UInt16, server: String?)
}

public struct CanarySpec: Sendable, Equatable {
    public let backends: [BackendSpec]
    public let service: String?
    /// The share of the requests that the canary gets, 0…1.
    public let share: Double
    /// The header and the cookie in which `always` or `never` overrides the share.
    public let header: String?
    public let cookie: String?
}

public struct BalancingSpec: Sendable, Equatable {
    public let method: String
    /// The name of a cookie that keeps a client on its replica; nil: none.
    public let sticky: String?
    /// How long a replica's share grows from a tenth to the whole after it became ready.
    public let slowStart: Duration
    /// The share of fit replicas below which all are used; 0: only when none is fit.
    public let panic: Double
}

public struct RetrySpec: Sendable, Equatable {
    public let attempts: Int
    /// The retry budget as a share of the requests, 0…1.
    public let budget: Double
    /// The most bytes of a body that is kept for a second try.
    public let keptBody: Int
    /// The time after which a GET without an answer is also sent to a second replica; nil: never.
    public let hedge: Duration?
}

public struct TimeoutSpec: Sendable, Equatable {
    public let connect: Duration
    /// The longest time from the request's last byte to the response's head, and between two reads of a response.
    public let response: Duration
    /// The longest time from a request's head to the response's; a client's X-Request-Timeout may shorten it. nil: no limit.
    public let total: Duration?
    /// How long nothing may move on an upgraded connection.
    public let tunnel: Duration
}

public struct ProbeSpec: Sendable, Equatable {
    /// The path that a probe asks for; nil: connecting is enough.
    public let path: String?
    /// The Host that a probe names; nil: the backend's address.
    public let host: String?
    /// The other fields that a probe has.
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
    /// Whether answers of 500 and above count as failures.
    public let countsErrors: Bool
    /// Whether replicas that stand out by failures or by latency are ejected, too.
    public let outliers: Bool
    /// The share of the replicas that may be out at once.
    public let atMost: Double
}

/// The limits of a route: how much it takes at once, and how fast.
public struct GuardSpec: Sendable, Equatable {
    public let limits: [LimitSpec]
    /// The most requests under way on the route; nil: any number.
    public let concurrency: Int?
    /// Whether the limit follows the latency (gradient), up to `concurrency`.
    public let isAdaptive: Bool
    public let perReplica: Int?
    /// How many failures in a row open the route's breaker; nil: the route has none.
    public let breakerFailures: Int?
    public let breakerRecovery: Duration
}

/// Requests that wait at the gateway while their service has no replica at all.
public struct HoldSpec: Sendable, Equatable {
    /// The most requests that wait at once, on all threads together; 1 or more.
    public let most: Int
    /// The longest time that each request waits.
    public let time: Duration
}

public struct LimitSpec: Sendable, Equatable {
    public enum Key: Sendable, Equatable {
        case client, route
        /// A header's name in lower case. Requests without the field share one bucket.
        case header(String)
    }
    public let perSecond: Double
    /// The rate as it was written: `100/s`.
    public let text: String
    public let burst: Int
    public let key: Key
    /// Whether the limit is counted in Redis, for all gateways together.
    public let isShared: Bool
    /// Whether requests that exceed the rate but not the burst wait for their turn instead of going at once.
    public let delays: Bool
}

/// The clients that may use a route.
public struct AccessSpec: Sendable, Equatable {
    /// Paths below the route's that are refused from outside.
    public let deny: [String]
    /// Client addresses that may ask. Empty: everyone.
    public let allowed: [AddressRange]
    public let refused: [AddressRange]
    /// Files of users and of bearer tokens, with a line for each user or token.
    public let basicFile: String?
    public let bearerFile: String?
    public let realm: String
    public let cors: CORSSpec?
}

public struct CORSSpec: Sendable, Equatable {
    /// The origins that may ask: `https://app.example`, or `*`.
    public let origins: [String]
    public let methods: [String]
    public let headers: [String]
    public let exposed: [String]
    public let credentials: Bool
    public let maxAge: Duration
}

/// The changes that the gateway makes to requests and responses on their way.
public struct EditSpec: Sendable, Equatable {
    public let rewrite: RewriteSpec?
    /// The Host that backends are told; nil: the one that the client named.
    public let host: String?
    public let request: HeaderEditSpec
    public let response: HeaderEditSpec
}

public enum RewriteSpec: Sendable, Equatable {
    /// A text in place of the route's prefix.
    case prefix(String)
    case regex(String, to: String)
}

public struct HeaderEditSpec: Sendable, Equatable {
    public let `set`: [FieldSpec]
    public let add: [FieldSpec]
    /// The names of fields to remove, in lower case.
    public let remove: [String]
    public var isEmpty: Bool { self.set.isEmpty && add.isEmpty && remove.isEmpty }
}

/// An answer of the gateway's own: a maintenance page, a fixed text.
public struct AnswerSpec: Sendable, Equatable {
    public let status: Int
    public let body: String
    public let type: String
    /// A file with the body. It is read once, when the configuration is read.
    public let file: String?
}

public struct RedirectSpec: Sendable, Equatable {
    /// The target. `$scheme`, `$host` and `$uri` stand for those of the request.
    public let to: String
    public let status: Int
}
