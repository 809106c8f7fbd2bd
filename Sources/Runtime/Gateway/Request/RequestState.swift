import Basics
import HTTP
import StackModel

/// What is known of one request: who asks for what, and how much of it has come. Filled from the head and reused for one request after the
/// other. Knows no sockets, and nothing of what becomes of the request.
struct RequestState: ~Copyable {
    /// Method, target and id, one after the other: they outlive the head table.
    private var line = ByteBuffer()
    private var methodEnd = 0
    private var targetEnd = 0
    /// When the head had come.
    private(set) var started = MonotonicTime(nanoseconds: 0)
    /// The client's address; nil over a Unix socket.
    var clientAddress: IPAddress?
    /// `Host` and `User-Agent`, if the log wants them.
    var host: [UInt8] = []
    var userAgent: [UInt8] = []
    private(set) var isHead = false
    private(set) var hasBody = false
    /// Whether the request may be carried out twice.
    var isIdempotent = false
    /// Whether the client asks for a protocol that the route upgrades to.
    var upgrades = false
    /// Whether the client reads fields that follow a body: over HTTP/2, or because it says so (RFC 9110, 10.1.4).
    private(set) var takesTrailers = false
    /// The protocol that the client speaks, as a server's variable names it.
    private(set) var version = "HTTP/1.1" as StaticString
    var isHTTP2: Bool { version.utf8CodeUnitCount == 6 }
    /// Whether the request is a call of gRPC: then the gateway's own answers are in its form, and its deadline is kept.
    private(set) var isGRPC = false
    /// Whether the client has the admin token and wants to know why its request went where it went.
    var wantsReason = false
    /// The coding that the client takes best, on a route that compresses; nil: none.
    var coding: ContentCoding?
    /// Whether all of the request has come.
    var isWhole = false
    /// Bytes of the body that have come.
    var bodyCount = 0
    /// Key for hash balancing; the replica named by the client's sticky cookie.
    var key: UInt64?
    var sticky: UInt64?
    private(set) var deadline: MonotonicTime?
    /// The time that the route itself gives, if that is less than the client's own: a replica whose turn has lasted half of it or more has
    /// failed. nil: the client wants less, and nobody has failed.
    private(set) var routesTime: Duration?
    var trace: TraceContext?
    var parentSpan: UInt64 = 0

    var method: UnsafeRawBufferPointer { line.bytes.part(0, methodEnd) }
    var target: UnsafeRawBufferPointer { line.bytes.part(methodEnd, targetEnd - methodEnd) }
    var id: UnsafeRawBufferPointer { line.bytes.part(targetEnd, line.count - targetEnd) }

    /// Forgets the request before.
    mutating func reset() {
        line.clear(keeping: 16_384)
        methodEnd = 0
        targetEnd = 0
        clientAddress = nil
        host = []
        userAgent = []
        isHead = false
        hasBody = false
        isIdempotent = false
        upgrades = false
        takesTrailers = false
        version = "HTTP/1.1"
        isGRPC = false
        wantsReason = false
        coding = nil
        isWhole = false
        bodyCount = 0
        key = nil
        sticky = nil
        deadline = nil
        routesTime = nil
        trace = nil
        parentSpan = 0
    }

    /// Takes what a head says. `newID` makes the request's id; one that the client gave is kept if it is short and plain.
    mutating func take(_ table: HeadTable, now: MonotonicTime, newID: () -> UInt64) {
        started = now
        isHead = table.isHead
        hasBody = table.framing != .none
        if table.majorVersion == 2 { version = "HTTP/2" } else if table.minorVersion == 0 { version = "HTTP/1.0" }
        if isHTTP2, let type = table.first(.contentType), type.count >= 16 { isGRPC = type.part(0, 16).equals("application/grpc") }
        takesTrailers = isHTTP2 || table.first(.te)?.equals("trailers") == true
        line.append(table.methodText)
        methodEnd = line.count
        line.append(table.targetText)
        targetEnd = line.count
        if let given = table.first(.xRequestID), HeadRewriter.acceptable(given) {
            line.append(given)
        } else {
            HeadRewriter.hex(newID(), into: &line)
        }
    }

    /// Begins a fetch of the cache's: a GET that nobody waits for.
    mutating func takeFetch(_ origin: CacheFill.Origin, now: MonotonicTime) {
        started = now
        line.append("GET")
        methodEnd = line.count
        line.append(origin.target)
        targetEnd = line.count
        line.append(origin.id)
        clientAddress = origin.client
        key = origin.key
        isIdempotent = true
        isWhole = true
        if let total = origin.route.route.spec.timeout.total {
            routesTime = total
            deadline = now + total
        }
    }

    /// Sets the deadline: the shorter of the route's time and the client's. A client's time without a unit is not guessed at.
    mutating func settleDeadline(_ table: HeadTable, _ spec: RouteSpec) {
        let call = isGRPC ? GRPC.timeout(table) : nil
        guard spec.timeout.total != nil || call != nil || table.contains(.xRequestTimeout) else { return }
        var time = spec.timeout.total
        routesTime = time
        if let call, call < time ?? .seconds(9_999) {
            time = call
            routesTime = nil
        }
        if let given = table.first(.xRequestTimeout), given.count <= 16, let wish = Duration(text: given.string), wish > .zero,
            wish < time ?? .seconds(9_999)
        {
            time = wish
            routesTime = nil
        }
        // More than the digits hold is no deadline that anybody waits for.
        if let time, time < .seconds(9_999) { deadline = started + time }
    }

    /// Whether the request may be carried out twice: by its method, an Idempotency-Key, or because the route says so.
    mutating func settleIdempotency(_ table: HeadTable, _ spec: RouteSpec) {
        isIdempotent =
            spec.isIdempotent || table.methodIsIdempotent
            || (table.contains(.idempotencyKey) && !RequestState.isNominated(table, "idempotency-key"))
    }

    private static func isNominated(_ table: HeadTable, _ name: StaticString) -> Bool {
        table.nominatesFields && table.fields.contains { table.text($0.name).equals(name) && table.isNominated($0.name) }
    }
}
