import Basics
import EventLoops

/// A whole response, as a client gets it.
public struct HTTPClientResponse: Sendable {
    public let status: Int
    public let headers: [(name: String, value: String)]
    public let body: [UInt8]
    /// Whether the body was longer than is gathered: then what is here is its beginning.
    public var isCut: Bool

    public init(status: Int, headers: [(name: String, value: String)] = [], body: [UInt8] = [], isCut: Bool = false) {
        self.status = status
        self.headers = headers
        self.body = body
        self.isCut = isCut
    }

    public func header(_ name: String) -> String? {
        let lower = name.lowercased()
        return headers.first { $0.name == lower }?.value
    }
    public var text: String { String(decoding: body, as: UTF8.self) }
}

/// Why a request has no response.
public struct HTTPClientError: Error, Sendable, CustomStringConvertible {
    public enum Code: String, Sendable { case connect, timeout, lost, malformed, tooLarge }
    public enum Retry: String, Sendable {
        /// Nothing was sent: any request may be sent again.
        case nothingSent
        /// The request may have been carried out.
        case ifIdempotent
        case never
    }
    public let code: Code
    public let retry: Retry
    public let place: String
    public let underlying: String
    /// Whether this process lacked something of its own (descriptors, ports, memory): then the place that was asked has no part in it.
    public let isOwnWant: Bool
    /// Whether it is not known where the place is, because nobody has answered what its name stands for: that says nothing of the place.
    public var isUnresolved = false
    /// The number of the system's error with which connecting failed, such as ENOENT; 0: something else failed.
    public let systemCode: Int32
    public var description: String { "\(place): \(code.rawValue): \(underlying)" }
}

/// How a place is asked over TLS: whom it is trusted by, and the name that its certificate must have.
public struct SecurePlace: Sendable {
    let context: TLSContext
    let name: String

    public init(_ context: TLSContext, name: String) {
        self.context = context
        self.name = name
    }
}

/// Sends whole requests and gathers whole responses, over kept-alive connections. For probes, tools and tests; the
/// gateway streams by itself.
///
/// Sendable: everything inside is on `loop`; `send` may be called from anywhere.
public final class HTTPClient: Sendable {
    public let loop: EventLoop
    private let core: LoopBound<Core>

    /// `responseLimit` bounds the body that is gathered, in bytes. A longer one is a failure (`tooLarge`); or, for a caller that needs the
    /// status and the beginning only (`passesOver`), its rest is read and dropped, up to `HTTPClient.passed` bytes, then the connection is
    /// closed, and the response is cut.
    public init(loop: EventLoop, responseLimit: Int = 64 << 20, passesOver: Bool = false) {
        self.loop = loop
        core = LoopBound(Core(loop: loop, limit: responseLimit, passesOver: passesOver), on: loop)
    }

    /// Most bytes of a body that are read only so that its connection can be used again.
    public static let passed = 1 << 20

    /// `preface`: what a connection begins with before HTTP, a PROXY header say. Such a request has a connection of its own, which ends with
    /// the response.
    public func send(
        _ method: String, _ target: String, to endpoint: Endpoint, headers: [(String, String)] = [],
        body: [UInt8]? = nil, preface: [UInt8] = [], timeout: Duration = .seconds(10), over tls: SecurePlace? = nil
    ) async throws(HTTPClientError) -> HTTPClientResponse {
        var head = "\(method) \(target) HTTP/1.1\r\n"
        if !headers.contains(where: { $0.0.lowercased() == "host" }) { head += "Host: \(HTTPClient.host(endpoint))\r\n" }
        for (name, value) in headers { head += "\(name): \(value)\r\n" }
        if let body { head += "Content-Length: \(body.count)\r\n" }
        let bytes = Array((head + "\r\n").utf8) + (body ?? [])
        let core = core, loop = loop
        let result: Result<HTTPClientResponse, HTTPClientError> = await withUnsafeContinuation { continuation in
            loop.execute {
                let exchange = ClientExchange(bytes: bytes, method: method, endpoint: endpoint, preface: preface, tls: tls) {
                    continuation.resume(returning: $0)
                }
                core.value.start(exchange, timeout: timeout)
            }
        }
        return try result.get()
    }

    /// Closes idle connections.
    public func close() {
        let core = core
        loop.execute { core.value.closeIdle() }
    }

    private static func host(_ endpoint: Endpoint) -> String {
        if case .address(.unix) = endpoint { return "localhost" }
        return endpoint.description
    }

    fileprivate final class Core {
        let loop: EventLoop
        let limit: Int
        let passesOver: Bool
        let table = HeadTable()
        var idle: [Endpoint: [GatheringConnection]] = [:]

        init(loop: EventLoop, limit: Int, passesOver: Bool) {
            self.loop = loop
            self.limit = limit
            self.passesOver = passesOver
        }

        func start(_ exchange: ClientExchange, timeout: Duration) {
            exchange.timer = LoopTimer(loop: loop) { [unowned exchange] in exchange.timedOut() }
            exchange.timer?.schedule(after: timeout)
            while !exchange.isAlone, let connection = takeIdle(exchange.endpoint) {
                if connection.isOpen {
                    connection.reused = true
                    return connection.run(exchange)
                }
            }
            connect(exchange)
        }

        func connect(_ exchange: ClientExchange) {
            let connection = GatheringConnection(core: self)
            connection.connectBy = exchange.timer?.deadline
            if let tls = exchange.tls {
                connection.tls = tls.context.session(to: tls.name, port: exchange.endpoint.hostAndPort.1, offering: [.http1])
                exchange.preface.withUnsafeBytes { connection.writeBeforeTLS($0) }
            }
            connection.connect(to: exchange.endpoint)
            connection.run(exchange)
        }

        /// Takes an idle connection. The endpoint's key goes with its last connection: a process that asks ever new places remembers none
        /// of them.
        private func takeIdle(_ endpoint: Endpoint) -> GatheringConnection? {
            guard let connection = idle[endpoint]?.popLast() else { return nil }
            if idle[endpoint]?.isEmpty == true { idle[endpoint] = nil }
            return connection
        }

        func forget(_ connection: GatheringConnection) {
            guard let endpoint = connection.endpoint, idle[endpoint] != nil else { return }
            idle[endpoint]?.removeAll { $0 === connection }
            if idle[endpoint]?.isEmpty == true { idle[endpoint] = nil }
        }

        func keep(_ connection: GatheringConnection, _ endpoint: Endpoint) {
            // More idle connections than this to one place serve nobody.
            if idle[endpoint, default: []].count < 64 { idle[endpoint, default: []].append(connection) } else { connection.close() }
        }

        func closeIdle() {
            let all = idle
            idle = [:]
            for connections in all.values { for connection in connections { connection.close() } }
        }
    }
}

/// One request and where its answer goes. Answers exactly once.
private final class ClientExchange {
    let bytes: [UInt8]
    let isHead: Bool
    let isIdempotent: Bool
    let endpoint: Endpoint
    /// What its connection begins with, before TLS and HTTP.
    let preface: [UInt8]
    let tls: SecurePlace?
    /// Whether its connection serves nobody else: it was told of somebody, or is known by more than its endpoint.
    var isAlone: Bool { !preface.isEmpty || tls != nil }
    private var done: ((Result<HTTPClientResponse, HTTPClientError>) -> Void)?
    var timer: LoopTimer?
    weak var connection: GatheringConnection?

    init(
        bytes: [UInt8], method: String, endpoint: Endpoint, preface: [UInt8], tls: SecurePlace?,
        done: @escaping (Result<HTTPClientResponse, HTTPClientError>) -> Void
    ) {
        self.bytes = bytes
        isHead = method == "HEAD"
        isIdempotent = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"].contains(method)
        self.endpoint = endpoint
        self.preface = preface
        self.tls = tls
        self.done = done
    }

    var isDone: Bool { done == nil }

    func finish(_ result: Result<HTTPClientResponse, HTTPClientError>) {
        timer?.cancel()
        timer = nil
        let callback = done
        done = nil
        callback?(result)
    }

    func fail(
        _ code: HTTPClientError.Code, _ retry: HTTPClientError.Retry, _ text: String, isOwnWant: Bool = false, isUnresolved: Bool = false,
        systemCode: Int32 = 0
    ) {
        finish(
            .failure(
                HTTPClientError(
                    code: code, retry: retry, place: endpoint.description, underlying: text, isOwnWant: isOwnWant,
                    isUnresolved: isUnresolved, systemCode: systemCode)))
    }

    func timedOut() {
        let sent = connection?.isConnected ?? false
        let isUnresolved = connection?.isUnresolved ?? false
        fail(
            .timeout, sent ? .ifIdempotent : .nothingSent, isUnresolved ? "the name was not resolved in time" : "no answer in time",
            isUnresolved: isUnresolved)
        connection?.close()
    }
}

private final class GatheringConnection: HTTPClientConnection {
    private weak var core: HTTPClient.Core?
    private let limit: Int
    private let passesOver: Bool
    private var passed = 0
    private var exchange: ClientExchange?
    /// The endpoint that it is connected to, once it has been used.
    private(set) var endpoint: Endpoint?
    private var status = 0
    private var headers: [(name: String, value: String)] = []
    private var body: [UInt8] = []
    var reused = false

    init(core: HTTPClient.Core) {
        self.core = core
        limit = core.limit
        passesOver = core.passesOver
        super.init(loop: core.loop, table: core.table, limits: HTTPLimits())
    }

    func run(_ exchange: ClientExchange) {
        self.exchange = exchange
        endpoint = exchange.endpoint
        exchange.connection = self
        body = []
        passed = 0
        begin(isHead: exchange.isHead)
        if isConnected { send(exchange) }
    }

    private func send(_ exchange: ClientExchange) {
        if exchange.tls == nil { exchange.preface.withUnsafeBytes { write($0) } }
        exchange.bytes.withUnsafeBytes { write($0) }
    }

    override func connectionReady() { if let exchange { send(exchange) } }

    override func responseHead(_ table: HeadTable) {
        status = table.status
        headers = table.fields.map { (table.text($0.name).string.lowercased(), table.text($0.value).string) }
    }

    override func responseBody(_ bytes: UnsafeRawBufferPointer) {
        if body.count + bytes.count > limit {
            if passesOver { return passOver(bytes) }
            exchange?.fail(.tooLarge, .never, "the response has more than \(limit) bytes")
            return close()
        }
        body.append(contentsOf: bytes)
    }

    private func passOver(_ bytes: UnsafeRawBufferPointer) {
        let kept = limit - body.count
        body.append(contentsOf: bytes[..<kept])
        passed += bytes.count - kept
        if passed <= HTTPClient.passed { return }
        let (exchange, response) = takeAnswer()
        close()
        exchange?.finish(.success(response))
    }

    override func responseEnd(reusable: Bool) {
        // The exchange leaves the connection first: one connection too many is closed here, and its exchange has its response all the same.
        let (exchange, response) = takeAnswer()
        guard let exchange else { return }
        if exchange.isAlone { close() } else if reusable { core?.keep(self, exchange.endpoint) }
        exchange.finish(.success(response))
    }

    private func takeAnswer() -> (ClientExchange?, HTTPClientResponse) {
        defer {
            exchange = nil
            body = []
        }
        return (exchange, HTTPClientResponse(status: status, headers: headers, body: body, isCut: passed > 0))
    }

    override func connectionClosed(_ failure: Failure?) {
        guard let exchange, !exchange.isDone else {
            core?.forget(self)
            return
        }
        self.exchange = nil
        switch failure {
        case .notConnected(let reason):
            exchange.fail(
                .connect, .nothingSent, reason.description, isOwnWant: reason.isOwnWant, isUnresolved: isUnresolved,
                systemCode: reason.systemCode)
        case .lost(_, let begun) where reused && !begun && exchange.isIdempotent:
            // The server closed an idle connection as we took it: a fresh one tells more.
            core?.connect(exchange)
        case .lost(let reason, _)?:
            exchange.fail(.lost, .ifIdempotent, failure?.description ?? "", isOwnWant: reason.isOwnWant)
        case .malformed?: exchange.fail(.malformed, .never, failure?.description ?? "")
        case nil: exchange.fail(.lost, .ifIdempotent, "closed")
        }
    }
}
