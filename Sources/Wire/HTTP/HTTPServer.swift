import Basics
import EventLoops

/// One finished request, for logs and metrics.
public struct HTTPExchangeSummary: Sendable {
    public let method: String
    public let path: String
    /// The route's pattern, or `-` when none matched.
    public let pattern: String
    public let status: Int
    public let duration: Duration
    public let requestBytes: Int
    public let requestID: String?
}

/// Serves a router on one loop: handlers are `async` and run on the loop that read the request.
///
/// `@unchecked Sendable` is not needed: it lives on its loop; `start` and `drain` are called there.
public final class HTTPServer {
    public let context: HTTPServerContext
    let router: Router
    let onFinished: (HTTPExchangeSummary) -> Void
    private var listeners: [Listener] = []
    fileprivate var active = 0
    let memory: BodyMemory

    /// `memory` bounds, in bytes, what is held for all connections together: bodies of requests until they are answered, and answers until
    /// clients have read them, which have half of it at most. Beyond it a body or an answer becomes 503 with `Retry-After`, and a stream that
    /// has begun waits for its own client.
    public init(
        loop: EventLoop, router: Router, limits: HTTPLimits = HTTPLimits(), memory: Int = 128 << 20,
        onFinished: @escaping (HTTPExchangeSummary) -> Void = { _ in }
    ) {
        context = HTTPServerContext(loop: loop, limits: limits)
        self.memory = BodyMemory(limit: memory)
        self.router = router
        self.onFinished = onFinished
    }

    /// Listens; returns the address with the port that the kernel chose if it was 0.
    @discardableResult
    public func listen(on address: SocketAddress, shared: Bool = false, inherited: Int32? = nil) throws(SystemError) -> SocketAddress {
        let listener = try Listener(loop: context.loop, address: address, shared: shared, inherited: inherited) { [self] fd, peer in
            let connection = ServiceConnection(server: self, peer: peer)
            do throws(SystemError) { try connection.start(fd) } catch { closeDescriptor(fd) }
        }
        listeners.append(listener)
        return listener.address
    }

    /// The listening sockets, to be handed to a successor.
    public var listening: [Int32] { listeners.map(\.descriptor) }

    /// Stops accepting, finishes what is in flight, then calls `done`; after `grace` it cuts what is left.
    public func drain(grace: Duration, _ done: @escaping () -> Void) {
        for listener in listeners { listener.close() }
        listeners = []
        context.drain()
        var finished = false
        let poll = DrainPoll()
        let deadline = context.loop.now + grace
        poll.timer = LoopTimer(loop: context.loop) { [self] in
            if finished { return }
            if active == 0 && context.connections.isEmpty || context.loop.now >= deadline {
                finished = true
                context.closeAll()
                poll.timer = nil
                done()
            } else {
                poll.timer?.schedule(after: .milliseconds(10))
            }
        }
        poll.timer?.schedule(after: .zero)
    }

    private final class DrainPoll { var timer: LoopTimer? }
}

/// A connection that gathers each request whole, and answers with what its handler returns.
final class ServiceConnection: HTTPServerConnection {
    private let server: HTTPServer
    private var method = ""
    private var target = ""
    private var headers: [(name: String, value: String)] = []
    private var body: [UInt8] = []
    /// Bytes of `body` as the server's memory counts them.
    private var held = 0
    private var declared: Int?
    /// Bytes that wait for the client, as the server's memory counts them.
    private var owed = 0
    private var started = MonotonicTime(nanoseconds: 0)
    private var isHead = false
    private var isOld = false
    private var writerWaiting: UnsafeContinuation<Void, Never>?

    init(server: HTTPServer, peer: SocketAddress) {
        self.server = server
        super.init(context: server.context, peer: peer)
    }

    override func requestHead(_ table: HeadTable) {
        started = .now
        method = table.methodText.string
        target = table.targetText.string
        isHead = table.isHead
        isOld = table.minorVersion == 0
        headers.removeAll(keepingCapacity: true)
        for field in table.fields {
            headers.append((table.text(field.name).string.lowercased(), table.text(field.value).string))
        }
        body = []
        declared = nil
        guard case .length(let count) = table.framing else { return }
        // Whoever tells that a body is too much now need not send it.
        guard server.memory.hasRoom(count, size: count) else { return refuseBody() }
        declared = count
        body.reserveCapacity(min(count, BodyMemory.small))
    }

    override func requestBody(_ bytes: UnsafeRawBufferPointer) {
        guard server.memory.take(bytes.count, size: body.count + bytes.count) else { return refuseBody() }
        held += bytes.count
        // Exactly as much as comes: growing by doubling would take what is not counted.
        if body.count <= BodyMemory.small, body.count + bytes.count > BodyMemory.small, let declared { body.reserveCapacity(declared) }
        body.append(contentsOf: bytes)
    }

    private func refuseBody() {
        let size = body.count
        releaseBody()
        summarize(503, "-", String(target.prefix { $0 != "?" }), size)
        turnAway(
            status: 503, code: "too_much_under_way",
            message: "the bodies that this server is taking in fill the memory it has for them; send again later")
    }

    private func releaseBody() {
        server.memory.give(held)
        held = 0
        body = []
    }

    override func requestEnd() {
        let question = target.firstIndex(of: "?") ?? target.endIndex
        let rawPath = target[..<question]
        var segments: [String] = []
        for part in rawPath.split(separator: "/") {
            guard let decoded = percentDecoded(part) else {
                let error = APIError(400, "bad_path", "the path has a malformed percent-escape, or is no UTF-8", field: "path")
                let size = body.count
                releaseBody()
                return finish(error.response, pattern: "-", path: String(rawPath), bytes: size)
            }
            segments.append(decoded)
        }
        let request = HTTPRequest(
            method: method, path: String(rawPath), segments: segments,
            query: question < target.endIndex ? String(target[target.index(after: question)...]) : "",
            headers: headers, body: body, peer: peer)
        body = []
        do throws(APIError) {
            let (handler, parameters, pattern) = try server.router.find(method, segments)
            dispatch(handler, request, parameters, pattern)
        } catch {
            releaseBody()
            finish(error.response, pattern: "-", path: request.path, bytes: request.body.count)
        }
    }

    private func dispatch(_ handler: @escaping HTTPHandler, _ request: HTTPRequest, _ parameters: PathParameters, _ pattern: String) {
        server.active += 1
        // The body lives until the handler is done, also when the connection does not.
        let size = held
        held = 0
        let bound = LoopBound(self, on: loop)
        // Owned by the connection: it ends by answering, or finds the connection closed and drops its answer.
        Task(executorPreference: loop) {
            var response: HTTPResponse
            do { response = try await handler(request, parameters) } catch let error as APIError { response = error.response } catch {
                response = APIError(500, "internal", "the server failed; this is not your fault").response
            }
            if case .stream = response.body, !bound.value.server.memory.hasRoom(forAnswer: ServiceConnection.streamWindow) {
                response = ServiceConnection.noRoom.response
            }
            if case .stream(let produce) = response.body {
                // The request and its body live as long as the stream.
                await ServiceConnection.stream(bound, response, produce, pattern, request)
                bound.value.server.memory.give(size)
            } else {
                bound.value.server.memory.give(size)
                bound.value.server.active -= 1
                bound.value.finish(response, pattern: pattern, path: request.path, bytes: request.body.count)
            }
        }
    }

    private func finish(_ given: HTTPResponse, pattern: String, path: String, bytes: Int) {
        var response = given
        if case .bytes(let content) = given.body, !server.memory.hasRoom(forAnswer: content.count) {
            response = ServiceConnection.noRoom.response
        }
        defer { summarize(response.status, pattern, path, bytes) }
        guard isOpen, case .bytes(let content) = response.body else { return }
        let close = mustClose()
        writeHead(response, length: content.count, close: close)
        if !isHead { context.scratch.append(content) }
        write(context.scratch.bytes)
        context.scratch.clear(keeping: 1 << 20)
        server.memory.change(&owed, to: waiting)
        watchWriting()
        responseFinished(close: close)
    }

    private static let noRoom = APIError(
        503, "too_much_under_way", "answers that clients have not read fill the memory there is for them; ask again later", retryAfter: 1)

    private func summarize(_ status: Int, _ pattern: String, _ path: String, _ bytes: Int) {
        let id = headers.first { $0.name == "x-request-id" }?.value
        server.onFinished(
            HTTPExchangeSummary(
                method: method, path: path, pattern: pattern, status: status, duration: .now - started,
                requestBytes: bytes, requestID: id))
    }

    /// Writes the head into the context's scratch buffer.
    private func writeHead(_ response: HTTPResponse, length: Int?, close: Bool) {
        context.scratch.clear()
        context.scratch.append("HTTP/1.1 ")
        context.scratch.append(decimal: response.status)
        context.scratch.append(32)
        context.scratch.append(text: reasonPhrase(response.status))
        context.scratch.append("\r\n")
        context.scratch.append(context.dateLine())
        for (name, value) in response.headers {
            context.scratch.append(text: name)
            context.scratch.append(": ")
            context.scratch.append(text: value)
            context.scratch.append("\r\n")
        }
        if let length {
            if response.status != 204 {
                context.scratch.append("Content-Length: ")
                context.scratch.append(decimal: length)
                context.scratch.append("\r\n")
            }
        } else if !isOld {
            context.scratch.append("Transfer-Encoding: chunked\r\n")
        }
        if close { context.scratch.append("Connection: close\r\n") }
        context.scratch.append("\r\n")
    }

    // MARK: streamed bodies

    /// When more bytes than this wait for a slow client, the producer waits.
    private static let streamWindow = 256 * 1024

    private static func stream(
        _ bound: LoopBound<ServiceConnection>, _ response: HTTPResponse,
        _ produce: @Sendable (HTTPBodyWriter) async throws -> Void, _ pattern: String, _ request: HTTPRequest
    ) async {
        let plain = bound.value.beginStream(response)
        var complete = true
        if !bound.value.isHead {
            let writer = HTTPBodyWriter { bytes in
                guard bound.value.writeChunk(bytes, plain: plain) else { throw APIError(499, "client_closed", "the client has gone") }
                if bound.value.waiting > streamWindow || !bound.value.server.memory.hasRoom(forAnswer: streamWindow) {
                    await withUnsafeContinuation { bound.value.waitUntilDrained($0) }
                }
            }
            do { try await produce(writer) } catch { complete = false }
        }
        bound.value.endStream(complete: complete, plain: plain)
        bound.value.summarize(response.status, pattern, request.path, request.body.count)
    }

    private func beginStream(_ response: HTTPResponse) -> Bool {
        let close = mustClose() || isOld
        guard isOpen else { return isOld }
        writeHead(response, length: nil, close: close)
        write(context.scratch.bytes)
        context.scratch.clear()
        return isOld
    }

    private func writeChunk(_ bytes: [UInt8], plain: Bool) -> Bool {
        guard isOpen else { return false }
        context.scratch.clear()
        if !plain {
            context.scratch.append(hex: bytes.count)
            context.scratch.append("\r\n")
        }
        context.scratch.append(bytes)
        if !plain { context.scratch.append("\r\n") }
        write(context.scratch.bytes)
        context.scratch.clear(keeping: 1 << 20)
        server.memory.change(&owed, to: waiting)
        watchWriting()
        return true
    }

    private func waitUntilDrained(_ continuation: UnsafeContinuation<Void, Never>) {
        if isOpen, waiting > 0 { writerWaiting = continuation } else { continuation.resume() }
    }

    private func endStream(complete: Bool, plain: Bool) {
        server.active -= 1
        guard isOpen else { return }
        if !complete { return end(.ours) }
        if !plain, !isHead { write(ServiceConnection.lastChunk) }
        responseFinished(close: plain)
    }

    private static let lastChunkText: StaticString = "0\r\n\r\n"
    private static var lastChunk: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: lastChunkText.utf8Start, count: lastChunkText.utf8CodeUnitCount)
    }

    override func drained() {
        server.memory.change(&owed, to: 0)
        resumeWriter()
        super.drained()
    }

    override func connectionClosed(_ reason: CloseReason) {
        releaseBody()
        server.memory.change(&owed, to: 0)
        resumeWriter()
    }

    private func resumeWriter() {
        writerWaiting?.resume()
        writerWaiting = nil
    }
}
