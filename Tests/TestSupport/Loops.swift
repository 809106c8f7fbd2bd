import Basics
import EventLoops
import Glibc
import HTTP
import Synchronization

/// A loop with a thread for the length of one test.
public func withLoop<T>(_ body: (EventLoop) async throws -> T) async throws -> T {
    let loop = try EventLoop.start(name: "test")
    defer { loop.stop() }
    return try await body(loop)
}

/// A server with `router` on a port of its own, for the length of `body`.
public func withServer<T>(
    _ loop: EventLoop, _ router: Router, limits: HTTPLimits = HTTPLimits(), memory: Int = 128 << 20, _ body: (Endpoint) async throws -> T
) async throws -> T {
    let (server, address) = try await loop.run {
        let server = HTTPServer(loop: loop, router: router, limits: limits, memory: memory)
        return (LoopBound(server, on: loop), try server.listen(on: .loopback(port: 0)))
    }
    let result: Result<T, any Error>
    do { result = .success(try await body(.address(address))) } catch { result = .failure(error) }
    try await loop.run { server.value.drain(grace: .zero) {} }
    return try result.get()
}

/// Waits until `condition` holds. False when `limit` passed first and the condition was asked at least 50 times, because a machine that is
/// busy elsewhere lets time pass without letting us ask; in any case when twice `limit` passed. Real things take real time: this is the only
/// waiting in tests.
public func eventually(_ limit: Duration = .seconds(10), _ condition: () async throws -> Bool) async rethrows -> Bool {
    let deadline = MonotonicTime.now + limit
    var asked = 0
    // A condition that takes seconds to be asked is not asked fifty times.
    while MonotonicTime.now < deadline || (asked < 50 && MonotonicTime.now < deadline + limit) {
        asked += 1
        if try await condition() { return true }
        try? await Task.sleep(for: .milliseconds(20))
    }
    return try await condition()
}

/// A blocking socket for tests that send odd bytes.
public final class RawSocket {
    private let fd: Int32
    /// Whether the peer said that it sends no more, in good order.
    public private(set) var peerEnded = false

    /// `source` is the address to come from, `host` the one to go to, any of 127.0.0.0/8.
    public init(port: UInt16, timeout: Int = 10, source: UInt32? = nil, host: UInt32 = 0x7F00_0001) throws {
        fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        func place(_ host: UInt32, _ port: UInt16, _ call: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Bool {
            address.sin_port = port.bigEndian
            address.sin_addr.s_addr = host.bigEndian
            return withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { call(fd, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 }
            }
        }
        if let source, !place(source, 0, bind) { throw SystemError("bind") }
        guard place(host, port, connect) else { throw SystemError("connect") }
        var limit = timeval(tv_sec: timeout, tv_usec: 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(fd) }

    public func send(_ text: String) { send(Array(text.utf8)) }

    public func send(_ bytes: [UInt8]) {
        var offset = 0
        while offset < bytes.count {
            let sent = bytes.withUnsafeBytes { Glibc.send(fd, $0.baseAddress! + offset, $0.count - offset, Int32(MSG_NOSIGNAL)) }
            if sent <= 0 { return }
            offset += sent
        }
    }

    /// Its end will be a reset.
    public func resetOnClose() {
        var linger = Glibc.linger(l_onoff: 1, l_linger: 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
    }

    /// The same, waiting at most so many milliseconds for each part.
    public func receive(patience: Int, until enough: (String) -> Bool) -> String {
        var limit = timeval(tv_sec: patience / 1000, tv_usec: patience % 1000 * 1000)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        return receive(until: enough)
    }

    public func finishSending() { shutdown(fd, Int32(SHUT_WR)) }

    /// What has come until `enough` says so, the peer closed, or the time limit passed.
    public func receive(until enough: (String) -> Bool = { _ in false }) -> String {
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let got = recv(fd, &chunk, chunk.count, 0)
            if got == 0 { peerEnded = true }
            if got <= 0 { break }
            all.append(contentsOf: chunk[..<got])
            if enough(String(decoding: all, as: UTF8.self)) { break }
        }
        return String(decoding: all, as: UTF8.self)
    }
}

extension Endpoint {
    public var testPort: UInt16 { if case .address(let address) = self { address.port ?? 0 } else { 0 } }
}

/// A number that several threads count.
public final class Tally: Sendable {
    private let value = Atomic<Int>(0)
    public init() {}
    public func add(_ amount: Int = 1) { value.add(amount, ordering: .relaxed) }
    public var count: Int { value.load(ordering: .relaxed) }
}
