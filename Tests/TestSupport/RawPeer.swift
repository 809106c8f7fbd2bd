import Basics
import Glibc
import Synchronization

/// One end of a connection on a blocking socket: for tests that must see and send each byte by themselves. Not for two threads at once.
public final class RawPeer: @unchecked Sendable {
    // @unchecked: one thread at a time uses it; a test hands it over by waiting for the thread before.
    public let fd: Int32
    private var kept: [UInt8] = []
    /// Whether the peer has ended its side in good order.
    public private(set) var sawEnd = false
    /// Whether the peer has cut the connection off.
    public private(set) var sawReset = false

    public init(_ descriptor: Int32, timeout: Int = 20) {
        fd = descriptor
        var limit = timeval(tv_sec: timeout, tv_usec: 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    /// Connects to a port of 127.0.0.1. `receiveBuffer`: how much the kernel keeps for a reader that is slow.
    public convenience init(port: UInt16, receiveBuffer: Int32 = 0) throws {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var size = receiveBuffer, one: Int32 = 1
        if size > 0 { setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, 4) }
        setsockopt(fd, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
        guard withAddress(port, { connect(fd, $0, $1) }) == 0 else {
            let failure = SystemError("connect")
            Glibc.close(fd)
            throw failure
        }
        self.init(fd)
    }

    deinit { Glibc.close(fd) }

    /// The kernel keeps about this much for a peer that is slow to read.
    public func limitSending(_ bytes: Int32) {
        var size = bytes
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, 4)
    }

    /// The kernel takes about this much for us while we do not read.
    public func limitReceiving(_ bytes: Int32) {
        var size = bytes
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, 4)
    }

    /// Reads once more from the kernel; false at the end, and after the time limit.
    private func fill() -> Bool {
        var chunk = [UInt8](repeating: 0, count: 65536)
        let got = recv(fd, &chunk, chunk.count, 0)
        if got == 0 { sawEnd = true }
        if got < 0, errno == ECONNRESET { sawReset = true }
        guard got > 0 else { return false }
        kept += chunk[..<got]
        return true
    }

    /// A message's head with its empty line; what came of it, if the connection ended before. What follows it is kept.
    @discardableResult
    public func head() -> String {
        while true {
            if let end = (0..<max(kept.count - 3, 0)).first(where: {
                kept[$0] == 13 && kept[$0 + 1] == 10 && kept[$0 + 2] == 13 && kept[$0 + 3] == 10
            }) {
                let text = String(decoding: kept[..<(end + 4)], as: UTF8.self)
                kept.removeFirst(end + 4)
                return text
            }
            if !fill() { return String(decoding: kept, as: UTF8.self) }
        }
    }

    /// So many bytes, or fewer when the connection ended before.
    public func read(_ count: Int) -> [UInt8] {
        while kept.count < count, fill() {}
        let part = Array(kept.prefix(count))
        kept.removeFirst(part.count)
        return part
    }

    /// Up to the next CR LF, without it.
    @discardableResult
    public func line() -> String {
        while true {
            if let end = kept.firstIndex(of: 10) {
                defer { kept.removeFirst(end + 1) }
                return String(decoding: kept[..<max(end - 1, 0)], as: UTF8.self)
            }
            if !fill() { return "" }
        }
    }

    public func text(_ count: Int) -> String { String(decoding: read(count), as: UTF8.self) }

    public func readToEnd() -> [UInt8] {
        while fill() {}
        defer { kept = [] }
        return kept
    }

    /// A whole answer with a Content-Length: its head, and its body.
    public func answer() -> (head: String, body: String) {
        let head = head()
        var length = 0
        for line in head.split(separator: "\r\n") where line.lowercased().hasPrefix("content-length:") {
            length = Int(line.dropFirst(15).filter(\.isNumber)) ?? 0
        }
        return (head, text(length))
    }

    @discardableResult
    public func send(_ bytes: [UInt8]) -> Bool {
        var offset = 0
        while offset < bytes.count {
            let sent = bytes.withUnsafeBytes { Glibc.send(fd, $0.baseAddress! + offset, $0.count - offset, Int32(MSG_NOSIGNAL)) }
            if sent <= 0 { return false }
            offset += sent
        }
        return true
    }

    @discardableResult
    public func send(_ text: String) -> Bool { send(Array(text.utf8)) }

    public func finishSending() { shutdown(fd, Int32(SHUT_WR)) }

    /// Its end will be a reset.
    public func resetOnClose() {
        var linger = Glibc.linger(l_onoff: 1, l_linger: 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
    }

    // MARK: bytes that can be told apart by their place

    /// A prime, so that no buffer's size divides it.
    private static let period = 65_521
    private static let pattern: [UInt8] = (0..<period * 2).map { place in
        let i = place % period
        return UInt8(truncatingIfNeeded: (i &* 167) ^ (i >> 7))
    }

    /// Sends `count` bytes of the pattern, counting each piece into `tally`.
    @discardableResult
    public func sendPattern(_ count: Int, _ tally: Tally? = nil) -> Bool {
        var offset = 0
        while offset < count {
            let start = offset % Self.period, part = min(count - offset, Self.period)
            let sent = Self.pattern.withUnsafeBytes { Glibc.send(fd, $0.baseAddress! + start, part, Int32(MSG_NOSIGNAL)) }
            if sent <= 0 { return false }
            offset += sent
            tally?.add(sent)
        }
        return true
    }

    /// Reads up to `count` bytes and compares them with the pattern: how many were right before the first wrong one or the end.
    public func readPattern(_ count: Int) -> Int {
        var at = 0
        var chunk = [UInt8](repeating: 0, count: Self.period)
        while at < count {
            var got = min(kept.count, count - at, Self.period)
            if got > 0 {
                chunk.replaceSubrange(0..<got, with: kept.prefix(got))
                kept.removeFirst(got)
            } else {
                got = recv(fd, &chunk, min(chunk.count, count - at), 0)
                if got == 0 { sawEnd = true }
                if got <= 0 { return at }
            }
            let isRight = chunk.withUnsafeBytes { read in
                Self.pattern.withUnsafeBytes { memcmp(read.baseAddress!, $0.baseAddress! + at % Self.period, got) == 0 }
            }
            if !isRight { return at }
            at += got
        }
        return at
    }
}

private func withAddress(_ port: UInt16, _ call: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { call($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
}

/// Runs something that blocks on a thread of its own.
public func onThread<T: Sendable>(_ body: @escaping @Sendable () -> T) async -> T {
    await withUnsafeContinuation { continuation in startThread { continuation.resume(returning: body()) } }
}

/// A thread that ends with `body`.
public func startThread(_ body: @escaping @Sendable () -> Void) {
    final class Work: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    var thread = pthread_t()
    let work = Unmanaged.passRetained(Work(body))
    let failed = pthread_create(
        &thread, nil,
        { raw in
            Unmanaged<Work>.fromOpaque(raw!).takeRetainedValue().body()
            return nil
        }, work.toOpaque())
    precondition(failed == 0, "no thread")
    pthread_detach(thread)
}

/// A backend that does with each connection what `serve` says, each on a thread of its own. When `serve` returns, its connection is closed.
public final class RawBackend: Sendable {
    public let port: UInt16
    /// Connections that were made, and those that are still open here.
    public let made = Tally()
    public let open = Tally()
    private let listener: Int32

    /// `number` of `serve` counts connections from 1.
    public init(_ serve: @escaping @Sendable (_ peer: RawPeer, _ number: Int) -> Void) throws {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard withAddress(0, { bind(fd, $0, $1) }) == 0, listen(fd, 512) == 0 else { throw SystemError("listen") }
        var address = sockaddr_in(), length = socklen_t(MemoryLayout<sockaddr_in>.size)
        _ = withUnsafeMutablePointer(to: &address) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(fd, $0, &length) } }
        port = UInt16(bigEndian: address.sin_port)
        listener = fd
        let made = made, open = open
        startThread {
            while true {
                let accepted = accept(fd, nil, nil)
                if accepted < 0 { break }
                _ = fcntl(accepted, F_SETFD, FD_CLOEXEC)
                made.add()
                open.add()
                let number = made.count
                startThread {
                    serve(RawPeer(accepted), number)
                    open.add(-1)
                }
            }
            Glibc.close(fd)
        }
    }

    /// Takes no more connections; those that there are go on.
    public func stop() { shutdown(listener, Int32(SHUT_RDWR)) }
}

/// For the length of one test.
public func withRaw<T>(_ serve: @escaping @Sendable (_ peer: RawPeer, _ number: Int) -> Void, _ body: (RawBackend) async throws -> T)
    async throws -> T
{
    let backend = try RawBackend(serve)
    defer { backend.stop() }
    return try await body(backend)
}
