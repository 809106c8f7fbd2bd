import HTTP
import Resilience

/// Answers that the gateway itself gives when no backend did: one table, tested whole.
enum GatewayFailure: String, CaseIterable {
    case noRoute = "no_route"
    case misdirected = "misdirected_request"
    case denied = "denied"
    case addressRefused = "address_refused"
    case unauthorized = "unauthorized"
    case rateLimited = "rate_limited"
    case overloaded = "overloaded"
    case breakerOpen = "breaker_open"
    case deadline = "deadline_exceeded"
    case badPath = "bad_path"
    case noHost = "no_host"
    case repeatedField = "repeated_field"
    case bodyTooLarge = "body_too_large"
    case noReplica = "no_replica"
    case wakingUp = "waking_up"
    case wakeTimeout = "wake_timeout"
    case holdEnded = "hold_ended"
    case unreachable = "backend_unreachable"
    case shortage = "gateway_short"
    case connectTimeout = "backend_connect_timeout"
    case tlsFailed = "backend_tls_failed"
    case noResponse = "backend_closed"
    case responseTimeout = "backend_timeout"
    case brokenResponse = "backend_broke_http"
    case onlyIfCached = "not_cached"

    init(_ failure: TryFailure) {
        switch failure {
        case .notSent: self = .unreachable
        case .shortage: self = .shortage
        case .connectTimeout: self = .connectTimeout
        case .tlsFailed: self = .tlsFailed
        case .noResponse: self = .noResponse
        case .responseTimeout: self = .responseTimeout
        case .brokenResponse: self = .brokenResponse
        }
    }

    init(_ why: GaveUp) {
        switch why {
        case .noReplica: self = .noReplica
        case .full: self = .overloaded
        case .deadline: self = .deadline
        case .failed(let failure): self.init(failure)
        }
    }

    var status: Int {
        switch self {
        case .noRoute: 404
        case .misdirected: 421
        case .denied, .addressRefused: 403
        case .unauthorized: 401
        case .rateLimited: 429
        case .overloaded, .breakerOpen: 503
        case .deadline: 504
        case .badPath, .noHost, .repeatedField: 400
        case .bodyTooLarge: 413
        case .noReplica, .wakingUp, .wakeTimeout, .holdEnded, .shortage: 503
        case .unreachable, .noResponse, .brokenResponse, .tlsFailed: 502
        case .connectTimeout, .responseTimeout: 504
        // RFC 9111, 5.2.1.7.
        case .onlyIfCached: 504
        }
    }

    var message: String {
        switch self {
        case .noRoute: "no route of this gateway has this path"
        case .misdirected: "this connection is for another host; ask on a connection of its own"
        case .denied: "this path is not served from outside; each replica's own port has it, see muster ps"
        case .addressRefused: "this address may not ask here"
        case .unauthorized: "this path needs a user or a token that may ask; send Authorization"
        case .rateLimited: "too many requests; send again after the seconds that Retry-After names"
        case .overloaded: "as many requests are under way as this route takes; send again in a moment"
        case .breakerOpen: "what serves this path has failed several times; it is tried again soon"
        case .deadline: "the time that this request had was over before there was an answer"
        case .badPath:
            "the path can be read in more than one way ('.' or '..' segments, a backslash, a bad escape; or an escape, '//' or ';' by "
                + "which it may be another route's); send it in its simplest form"
        case .noHost: "this path redirects to the host that the request names, and it names none; send Host"
        case .repeatedField: "a field by which the route of this request is chosen came more than once; send it once"
        case .bodyTooLarge: "the body is larger than this route takes"
        case .noReplica: "no replica is running; send again in a moment"
        case .wakingUp:
            "the service is waking up and as many requests wait already as this route holds; send again after the seconds that "
                + "Retry-After names"
        case .wakeTimeout: "no replica was ready in the time that this route holds requests; send again later"
        case .holdEnded: "the gateway stopped holding requests for this path (it ends, or its routes changed); send again in a moment"
        case .unreachable: "no replica could be reached"
        case .shortage: "this gateway has no descriptor, port or memory left for a connection to a replica; send again in a moment"
        case .connectTimeout: "no replica took the connection in time"
        case .tlsFailed: "no replica could be reached over TLS: its certificate is not accepted, or it refuses this gateway"
        case .noResponse: "the replica ended the connection without an answer"
        case .responseTimeout: "the replica did not answer in time"
        case .onlyIfCached: "only a stored answer was asked for (Cache-Control: only-if-cached), and none can be used"
        case .brokenResponse: "the replica's answer broke off or was not HTTP"
        }
    }
}
