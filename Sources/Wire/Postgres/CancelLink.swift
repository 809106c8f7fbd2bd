import Basics
import EventLoops

/// The connection of one cancellation: sends the session's key and ends when the server has closed it, which it does when it has passed the
/// request on. On its loop.
final class CancelLink: Stream {
    private let context: TLSContext?
    private let endpoint: Endpoint
    private let process: Int32
    private let secret: Int32
    private var timer: LoopTimer?
    private var isAsking = false
    /// Called once, when the request has arrived or has failed to.
    var onEnd: () -> Void = {}

    init(loop: EventLoop, _ endpoint: Endpoint, _ context: TLSContext?, process: Int32, secret: Int32) {
        self.endpoint = endpoint
        self.context = context
        self.process = process
        self.secret = secret
        super.init(loop: loop)
    }

    func open(within time: Duration) {
        timer = LoopTimer(loop: loop) { [unowned self] in close() }
        timer?.schedule(after: time)
        connect(to: endpoint)
    }

    override func connected() {
        if context != nil, tls == nil {
            isAsking = true
            OpeningMessage.tlsRequest.encoded.withUnsafeBytes { write($0) }
        } else {
            OpeningMessage.cancel(process: process, secret: secret).encoded.withUnsafeBytes { write($0) }
        }
    }

    override func received(_ bytes: UnsafeRawBufferPointer) {
        guard isAsking, let context else { return }
        isAsking = false
        guard bytes.count == 1, bytes[0] == 83 else { return close() }
        let (host, port) =
            switch endpoint {
            case .name(let host, let port): (host, port)
            case .address(let address): (address.host, address.port ?? 0)
            }
        beginTLS(context.session(to: host, port: port))
    }

    override func closed(_ reason: CloseReason) {
        timer?.cancel()
        onEnd()
    }
}
