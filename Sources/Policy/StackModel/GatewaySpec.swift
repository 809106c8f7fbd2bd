import Basics

/// The gateway in front of the services, as a stack file configures it.
public struct GatewaySpec: Sendable, Equatable {
    /// Where it listens: at least one address, each once.
    public let listeners: [ListenerSpec]
    /// nil: no listener has TLS.
    public let tls: TLSSpec?
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
    /// Whether clients may speak HTTP/2: by prior knowledge on a plain connection, by ALPN on one with TLS.
    public let takesHTTP2: Bool
    /// The response cache; nil: the standard one, for the routes that have `cache`.
    public let cache: CacheSpec?

    public init(
        listeners: [ListenerSpec], tls: TLSSpec?, admin: ListenAddress?, adminTokenFile: String?, threads: Int, accessLog: AccessLogSpec,
        trustedProxies: [AddressRange], takesProxyProtocol: Bool, limits: GatewayLimits, tracing: TracingSpec?, limitStore: String?,
        routes: [RouteSpec], takesHTTP2: Bool = true, cache: CacheSpec? = nil
    ) {
        self.takesHTTP2 = takesHTTP2
        self.listeners = listeners
        self.tls = tls
        self.admin = admin
        self.adminTokenFile = adminTokenFile
        self.threads = threads
        self.accessLog = accessLog
        self.trustedProxies = trustedProxies
        self.takesProxyProtocol = takesProxyProtocol
        self.limits = limits
        self.tracing = tracing
        self.limitStore = limitStore
        self.routes = routes
        self.cache = cache
    }

    /// The first address, under which whoever needs only one finds the gateway.
    public var listen: ListenAddress { listeners[0].address }
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

    public init(format: Format, file: String?) {
        self.format = format
        self.file = file
    }

    /// The fields that a custom format may name, after nginx's words.
    public static let fields = [
        "time", "remote_addr", "method", "uri", "status", "bytes", "replica", "duration_ms", "upstream_ms", "tries", "request_id", "route",
        "host", "user_agent",
        "trace_id", "held_ms", "protocol",
    ]

    /// The first `$name` that is no field; nil when all are.
    public static func unknownField(_ format: String) -> String? {
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

    public init(connections: Int, perClient: Int, head: Int, fields: Int, headTime: Duration, idleTime: Duration) {
        self.connections = connections
        self.perClient = perClient
        self.head = head
        self.fields = fields
        self.headTime = headTime
        self.idleTime = idleTime
    }
}

public struct TracingSpec: Sendable, Equatable {
    /// `http://host:port/v1/traces`
    public let target: String
    /// The share of the traces that are sampled, 0…1, of those that begin here; traces that a client began follow its decision.
    public let sample: Double

    public init(target: String, sample: Double) {
        self.target = target
        self.sample = sample
    }
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
    /// Whether backends are spoken to in HTTP/2, by prior knowledge.
    public let speaksHTTP2: Bool
    /// How answers are stored; nil: the route has no cache.
    public let cache: RouteCacheSpec?
    /// Whether textual answers are compressed for clients that take it.
    public let compresses: Bool
    /// How backends are spoken to over TLS; nil: in plain.
    public let backendTLS: BackendTLSSpec?

    public init(
        match: RouteMatch, target: Target, discovery: DiscoverySpec?, canary: CanarySpec?, balancing: BalancingSpec, isIdempotent: Bool,
        retry: RetrySpec, timeout: TimeoutSpec, bodyLimit: Int, probe: ProbeSpec?, eject: EjectSpec, guards: GuardSpec, hold: HoldSpec?,
        access: AccessSpec, edits: EditSpec, upgrades: [String], proxyHeader: ProxyHeader?, speaksHTTP2: Bool = false,
        cache: RouteCacheSpec? = nil, compresses: Bool = false, backendTLS: BackendTLSSpec? = nil
    ) {
        self.speaksHTTP2 = speaksHTTP2
        self.match = match
        self.target = target
        self.discovery = discovery
        self.canary = canary
        self.balancing = balancing
        self.isIdempotent = isIdempotent
        self.retry = retry
        self.timeout = timeout
        self.bodyLimit = bodyLimit
        self.probe = probe
        self.eject = eject
        self.guards = guards
        self.hold = hold
        self.access = access
        self.edits = edits
        self.upgrades = upgrades
        self.proxyHeader = proxyHeader
        self.cache = cache
        self.compresses = compresses
        self.backendTLS = backendTLS
    }

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

    public init(path: Path, hosts: [String], methods: [String], headers: [FieldSpec]) {
        self.path = path
        self.hosts = hosts
        self.methods = methods
        self.headers = headers
    }

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

    public init(name: String, value: String) {
        self.name = name
        self.value = value
    }
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

    public init(backends: [BackendSpec], service: String?, share: Double, header: String?, cookie: String?) {
        self.backends = backends
        self.service = service
        self.share = share
        self.header = header
        self.cookie = cookie
    }
}

public struct BalancingSpec: Sendable, Equatable {
    public let method: String
    /// The name of a cookie that keeps a client on its replica; nil: none.
    public let sticky: String?
    /// How long a replica's share grows from a tenth to the whole after it became ready.
    public let slowStart: Duration
    /// The share of fit replicas below which all are used; 0: only when none is fit.
    public let panic: Double

    public init(method: String, sticky: String?, slowStart: Duration, panic: Double) {
        self.method = method
        self.sticky = sticky
        self.slowStart = slowStart
        self.panic = panic
    }
}

public struct RetrySpec: Sendable, Equatable {
    public let attempts: Int
    /// The retry budget as a share of the requests, 0…1.
    public let budget: Double
    /// The most bytes of a body that is kept for a second try.
    public let keptBody: Int
    /// The time after which a GET without an answer is also sent to a second replica; nil: never.
    public let hedge: Duration?

    public init(attempts: Int, budget: Double, keptBody: Int, hedge: Duration?) {
        self.attempts = attempts
        self.budget = budget
        self.keptBody = keptBody
        self.hedge = hedge
    }
}

public struct TimeoutSpec: Sendable, Equatable {
    public let connect: Duration
    /// The longest time from the request's last byte to the response's head, and between two reads of a response.
    public let response: Duration
    /// The longest time from a request's head to the response's; a client's X-Request-Timeout may shorten it. nil: no limit.
    public let total: Duration?
    /// How long nothing may move on an upgraded connection.
    public let tunnel: Duration

    public init(connect: Duration, response: Duration, total: Duration?, tunnel: Duration) {
        self.connect = connect
        self.response = response
        self.total = total
        self.tunnel = tunnel
    }
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

    public init(path: String?, host: String?, headers: [FieldSpec], interval: Duration, timeout: Duration, rise: Int, fall: Int) {
        self.path = path
        self.host = host
        self.headers = headers
        self.interval = interval
        self.timeout = timeout
        self.rise = rise
        self.fall = fall
    }
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

    public init(failures: Int, within: Duration, time: Duration, countsErrors: Bool, outliers: Bool, atMost: Double) {
        self.failures = failures
        self.within = within
        self.time = time
        self.countsErrors = countsErrors
        self.outliers = outliers
        self.atMost = atMost
    }
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

    public init(
        limits: [LimitSpec], concurrency: Int?, isAdaptive: Bool, perReplica: Int?, breakerFailures: Int?, breakerRecovery: Duration
    ) {
        self.limits = limits
        self.concurrency = concurrency
        self.isAdaptive = isAdaptive
        self.perReplica = perReplica
        self.breakerFailures = breakerFailures
        self.breakerRecovery = breakerRecovery
    }
}

/// Requests that wait at the gateway while their service has no replica at all.
public struct HoldSpec: Sendable, Equatable {
    /// The most requests that wait at once, on all threads together; 1 or more.
    public let most: Int
    /// The longest time that each request waits.
    public let time: Duration

    public init(most: Int, time: Duration) {
        self.most = most
        self.time = time
    }
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

    public init(perSecond: Double, text: String, burst: Int, key: Key, isShared: Bool, delays: Bool) {
        self.perSecond = perSecond
        self.text = text
        self.burst = burst
        self.key = key
        self.isShared = isShared
        self.delays = delays
    }
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

    public init(
        deny: [String], allowed: [AddressRange], refused: [AddressRange], basicFile: String?, bearerFile: String?, realm: String,
        cors: CORSSpec?
    ) {
        self.deny = deny
        self.allowed = allowed
        self.refused = refused
        self.basicFile = basicFile
        self.bearerFile = bearerFile
        self.realm = realm
        self.cors = cors
    }
}

public struct CORSSpec: Sendable, Equatable {
    /// The origins that may ask: `https://app.example`, or `*`.
    public let origins: [String]
    public let methods: [String]
    public let headers: [String]
    public let exposed: [String]
    public let credentials: Bool
    public let maxAge: Duration

    public init(origins: [String], methods: [String], headers: [String], exposed: [String], credentials: Bool, maxAge: Duration) {
        self.origins = origins
        self.methods = methods
        self.headers = headers
        self.exposed = exposed
        self.credentials = credentials
        self.maxAge = maxAge
    }
}

/// The changes that the gateway makes to requests and responses on their way.
public struct EditSpec: Sendable, Equatable {
    public let rewrite: RewriteSpec?
    /// The Host that backends are told; nil: the one that the client named.
    public let host: String?
    public let request: HeaderEditSpec
    public let response: HeaderEditSpec

    public init(rewrite: RewriteSpec?, host: String?, request: HeaderEditSpec, response: HeaderEditSpec) {
        self.rewrite = rewrite
        self.host = host
        self.request = request
        self.response = response
    }
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

    public init(`set`: [FieldSpec], add: [FieldSpec], remove: [String]) {
        self.set = set
        self.add = add
        self.remove = remove
    }

    public var isEmpty: Bool { self.set.isEmpty && add.isEmpty && remove.isEmpty }
}

/// An answer of the gateway's own: a maintenance page, a fixed text.
public struct AnswerSpec: Sendable, Equatable {
    public let status: Int
    public let body: String
    public let type: String
    /// A file with the body. It is read once, when the configuration is read.
    public let file: String?

    public init(status: Int, body: String, type: String, file: String?) {
        self.status = status
        self.body = body
        self.type = type
        self.file = file
    }
}

public struct RedirectSpec: Sendable, Equatable {
    /// The target. `$scheme`, `$host` and `$uri` stand for those of the request.
    public let to: String
    public let status: Int

    public init(to: String, status: Int) {
        self.to = to
        self.status = status
    }
}
