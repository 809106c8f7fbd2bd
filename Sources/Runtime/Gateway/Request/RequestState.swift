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
        guard spec.timeout.total != nil || table.contains(.xRequestTimeout) else { return }
        var time = spec.timeout.total
        routesTime = time
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
