import Basics

/// What becomes of one request: the answer that was found for it, and how far it has gone to the client.
struct AnswerState: ~Copyable {
    /// Fields to be added to the answer's head, as lines.
    var fields = ByteBuffer()
    /// Fields that follow the body, as lines.
    var trailers = ByteBuffer()
    /// The answer that needs no replica, once the limits have let the request through.
    var ready: ReadyAnswer?
    var status = 0
    /// Whether the head of an answer has been given to the client's side.
    var hasBegun = false
    /// Bytes of the body that went to the client, without their framing.
    var bytes = 0
    /// How long the replica took to answer the whole request.
    var upstreamTime: Duration?
    /// Compresses the body on its way; nil: it goes as it is.
    var coder: BodyCoder?

    /// Forgets the answer before.
    mutating func reset() {
        fields.clear(keeping: 4096)
        trailers.clear(keeping: 0)
        ready = nil
        status = 0
        hasBegun = false
        bytes = 0
        upstreamTime = nil
        coder = nil
    }
}

/// An answer that needs no replica.
enum ReadyAnswer {
    /// With a message that says more than the failure's own, if there is one.
    case failure(GatewayFailure, String? = nil)
    case page(status: Int, body: [UInt8], type: String)
    case redirect(to: String, status: Int)
    case preflight
    /// For a request that may not be passed on any further (`Max-Forwards: 0`). `trace`: what a TRACE sees of itself; nil for OPTIONS.
    case lastRecipient(trace: [UInt8]?)
    /// What the cache has. `refreshes`: and the origin is asked for a newer one meanwhile.
    case stored(refreshes: Bool)

    /// Whether the request goes to no backend at all.
    var needsNoHead: Bool { if case .stored(refreshes: true) = self { false } else { true } }
}
