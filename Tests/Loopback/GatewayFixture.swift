import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import Observability
import StackFile
import StackModel
import TestSupport

/// A gateway for one test, with what it decided.
struct GatewayFixture {
    let gateway: Gateway
    let client: HTTPClient
    let endpoint: Endpoint

    func send(_ method: String = "GET", _ target: String = "/", headers: [(String, String)] = [], body: [UInt8]? = nil) async throws
        -> HTTPClientResponse
    {
        try await client.send(method, target, to: endpoint, headers: headers, body: body)
    }

    func verdicts() -> [String] { gateway.journal.entries().filter { $0.record.kind == .retry }.map(\.record.outcome) }

    /// One request on a connection of its own, which ends with its answer; `source` is the address to come from, any of 127.0.0.0/8. Blocks
    /// its thread, so suites that use it are serialized: all together they would leave none to the others.
    func ask(_ line: String = "GET /", _ fields: [String] = [], host: String = "test", from source: UInt32? = nil, first: String = "")
        throws -> RawAnswer
    {
        let socket = try RawSocket(port: endpoint.testPort, source: source)
        let all = ["Host: \(host)"] + fields + ["Connection: close"]
        socket.send(first + "\(line) HTTP/1.1\r\n" + all.joined(separator: "\r\n") + "\r\n\r\n")
        return RawAnswer(socket.receive())
    }

    func reload(_ routes: [String], keys: [String] = []) async throws {
        try await gateway.apply(try gatewaySpec(routes, keys: keys)) { _ in [] }
    }
}

/// An answer as it came.
struct RawAnswer {
    let status: Int
    let fields: [(name: String, value: String)]
    let body: String

    init(_ text: String) {
        let end = text.range(of: "\r\n\r\n")
        let lines = (end.map { String(text[..<$0.lowerBound]) } ?? text).split(separator: "\r\n")
        status = lines.first.flatMap { Int($0.dropFirst(9).prefix(3)) } ?? 0
        fields = lines.dropFirst().compactMap { line in
            guard let colon = line.firstIndex(of: ":") else { return nil }
            return (line[..<colon].lowercased(), String(line[line.index(after: colon)...].drop { $0 == " " }))
        }
        body = end.map { String(text[$0.upperBound...]) } ?? ""
    }

    func all(_ name: String) -> [String] { fields.filter { $0.name == name }.map(\.value) }
    func field(_ name: String) -> String? { all(name).first }
    /// Which of the echoing backends it was.
    var place: String { field("x-backend") ?? "" }
    /// The value of the first cookie that is set.
    var cookie: String? { field("set-cookie").map { String($0.prefix { $0 != ";" }) } }
}

extension String {
    /// Where a text lies; Foundation is not linked.
    fileprivate func range(of other: String) -> Range<String.Index>? {
        let bytes = Array(utf8), wanted = Array(other.utf8)
        guard bytes.count >= wanted.count else { return nil }
        for start in 0...(bytes.count - wanted.count) where bytes[start..<(start + wanted.count)].elementsEqual(wanted) {
            let lower = utf8.index(utf8.startIndex, offsetBy: start)
            return lower..<utf8.index(lower, offsetBy: wanted.count)
        }
        return nil
    }
}

func gatewaySpec(_ routes: [String], keys: [String] = [], threads: Int = 1) throws -> GatewaySpec {
    let head = ["gateway:", "  listen: 127.0.0.1:1", "  threads: \(threads)"] + keys.map { "  " + $0 }
    let text = (head + ["  routes:"] + routes.map { "    - " + $0 }).joined(separator: "\n")
    return try Stack.read(Array(text.utf8), path: "test.yaml").gateway!
}

/// `keys` are lines of the gateway's own, such as `limits: { per-client: 2 }`.
func withGateway(_ routes: String..., keys: [String] = [], threads: Int = 1, _ body: (GatewayFixture) async throws -> Void) async throws {
    try await withGateway(routes: routes, keys: keys, threads: threads, body)
}

func withGateway(routes: [String], keys: [String] = [], threads: Int = 1, _ body: (GatewayFixture) async throws -> Void) async throws {
    try await withLoop { loop in
        let spec = try gatewaySpec(routes, keys: keys, threads: threads)
        let logger = Logger(level: .error, format: .text, descriptor: 2, immediate: true)
        let gateway = try Gateway(spec, metrics: MetricsRegistry(), journal: Journal(), logger: logger, accessLog: -1)
        defer { gateway.stop() }
        try await gateway.apply(spec) { _ in [] }
        try await gateway.listen(on: .loopback(port: 0))
        let client = HTTPClient(loop: loop)
        let result: Result<Void, any Error>
        do {
            result = .success(try await body(GatewayFixture(gateway: gateway, client: client, endpoint: .address(gateway.address!))))
        } catch {
            result = .failure(error)
        }
        client.close()
        _ = await gateway.drain(grace: .milliseconds(100))
        try result.get()
    }
}

/// A backend that says its name, the size of the body and the fields that it was sent.
func withBackend(_ name: String, _ body: (UInt16) async throws -> Void) async throws {
    var router = Router()
    for method in ["GET", "POST", "PUT"] {
        router.add(method, "/") { request, _ in
            let headers = request.headers.map { "\($0.name)=\($0.value)" }.joined(separator: "\n")
            return HTTPResponse(headers: [("X-Backend", name)], body: .bytes(Array("\(name) \(request.body.count)\n\(headers)".utf8)))
        }
    }
    router.get("/metrics") { _, _ in .text("secret") }
    router.get("/slow") { _, _ in
        try await Task.sleep(for: .milliseconds(300))
        return .text("slow")
    }
    try await withLoop { loop in try await withServer(loop, router) { try await body($0.testPort) } }
}

/// A listener that does what `serve` says with each connection, one after the other on a thread of its own.
func withRaw(_ serve: @escaping @Sendable (Int32) -> Void, _ body: (UInt16, Tally) async throws -> Void) async throws {
    let tally = Tally()
    try await withLoop { loop in
        let (listener, address) = try await loop.run {
            let listener = try Listener(loop: loop, address: .loopback(port: 0)) { fd, _ in
                tally.add()
                _ = fcntl(fd, F_SETFL, 0)
                serve(fd)
                close(fd)
            }
            return (LoopBound(listener, on: loop), listener.address)
        }
        try await body(address.port!, tally)
        try await loop.run { listener.value.close() }
    }
}

/// What came on a connection up to the end of a head.
func receiveHead(_ fd: Int32) -> [UInt8] {
    var limit = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    var all: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while !all.suffix(4).elementsEqual([13, 10, 13, 10]) {
        let got = recv(fd, &chunk, chunk.count, 0)
        if got <= 0 { break }
        all += chunk[..<got]
    }
    return all
}

/// A backend that takes requests without a body, one a connection, and answers each with its head as it came. `fields` are whole lines of
/// its answer.
func withEcho(_ name: String = "a", fields: String = "", _ body: (UInt16, Tally) async throws -> Void) async throws {
    try await withRaw(
        { fd in
            let head = receiveHead(fd)
            if head.isEmpty { return }
            let answer =
                Array("HTTP/1.1 200 OK\r\nX-Backend: \(name)\r\n\(fields)Content-Length: \(head.count)\r\nConnection: close\r\n\r\n".utf8)
                + head
            _ = send(fd, answer, answer.count, Int32(MSG_NOSIGNAL))
        }, body)
}

extension String {
    /// A file in this folder.
    func put(_ name: String, _ text: String) throws { try Files.replace(self + "/" + name, with: Array(text.utf8)) }
}
