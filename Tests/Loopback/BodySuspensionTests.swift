import Basics
import EventLoops
import Glibc
import HTTP
import TestSupport
import Testing

/// A body that nobody reads for a while, because something else is waited for.
@Suite struct BodySuspensionTests {
    /// Reads each request's body only after `wait`, and answers when it has come.
    private final class Patient: HTTPServerConnection {
        var wait = Duration.zero
        private var timer: LoopTimer?

        override func requestHead(_ table: HeadTable) {
            holdBody(true)
            timer = LoopTimer(loop: loop) { [unowned self] in holdBody(false) }
            timer?.schedule(after: wait)
        }

        override func requestEnd() {
            _ = mustClose()
            Array("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".utf8).withUnsafeBytes { write($0) }
            responseFinished()
        }
    }

    private func withPatient(_ wait: Duration, _ body: (RawPeer) async throws -> Void) async throws {
        try await withLoop { loop in
            let (listener, port) = try await loop.run {
                var limits = HTTPLimits()
                limits.bodyTime = .seconds(1)
                let context = HTTPServerContext(loop: loop, limits: limits)
                let listener = try Listener(loop: loop, address: .loopback(port: 0)) { fd, peer in
                    let connection = Patient(context: context, peer: peer)
                    connection.wait = wait
                    try? connection.start(fd)
                }
                return (LoopBound(listener, on: loop), listener.address.port!)
            }
            let result: Result<Void, any Error>
            do { result = .success(try await body(try RawPeer(port: port))) } catch { result = .failure(error) }
            try await loop.run { listener.value.close() }
            try result.get()
        }
    }

    /// More than the body's time is waited; what the client sends meanwhile is read afterwards.
    @Test func itsTimeStandsStill() async throws {
        try await withPatient(.seconds(2)) { client in
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
            // Not in one read with its head.
            usleep(50_000)
            client.send("hello")
            #expect(client.answer().head.hasPrefix("HTTP/1.1 200 "))
        }
    }

    /// And goes on afterwards.
    @Test func afterwardsItRunsAgain() async throws {
        try await withPatient(.milliseconds(100)) { client in
            let began = MonotonicTime.now
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
            #expect(client.answer().head.hasPrefix("HTTP/1.1 408 "))
            #expect(MonotonicTime.now - began >= .milliseconds(1100))
        }
    }

    /// Whoever ends its side, or resets, in the middle of a body that nobody reads has gone, and is not kept.
    @Test(arguments: [true, false]) func whoHasGoneIsSeen(isReset: Bool) async throws {
        try await withLoop { loop in
            let ended = Tally()
            let (listener, port) = try await loop.run {
                let context = HTTPServerContext(loop: loop)
                let listener = try Listener(loop: loop, address: .loopback(port: 0)) { fd, peer in
                    let connection = Held(context: context, peer: peer)
                    connection.ended = ended
                    try? connection.start(fd)
                }
                return (LoopBound(listener, on: loop), listener.address.port!)
            }
            var client: RawPeer? = try RawPeer(port: port)
            client?.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
            usleep(50_000)
            client?.send("a part")
            usleep(50_000)
            #expect(ended.count == 0)
            if isReset {
                client?.resetOnClose()
                client = nil
            } else {
                client?.finishSending()
            }
            let isSeen = await eventually(.seconds(1)) { ended.count == 1 }
            #expect(isSeen)
            try await loop.run { listener.value.close() }
            _ = client
        }
    }

    /// Reads no body.
    private final class Held: HTTPServerConnection {
        var ended: Tally?
        override func requestHead(_ table: HeadTable) { holdBody(true) }
        override func connectionClosed(_ reason: CloseReason) { ended?.add() }
    }

    /// Answers at once with more than the kernels keep, and goes on as a proxy does whose backend answers before it has read.
    private final class Hasty: HTTPServerConnection {
        var holds = false
        var begun: Tally?
        var ended: Tally?
        var whole: Tally?

        override func requestHead(_ table: HeadTable) {
            _ = mustClose()
            Array("HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n\r\n".utf8).withUnsafeBytes { write($0) }
            [UInt8](repeating: 120, count: 32 << 20).withUnsafeBytes { write($0) }
            watchWriting()
            if holds { holdBody(true) }
            begun?.add()
        }
        override func requestEnd() { whole?.add() }
        override func connectionClosed(_ reason: CloseReason) { ended?.add() }
    }

    /// A client that does not read its answer is not kept: neither because its body ends meanwhile, nor because its body is not read.
    @Test(arguments: [false, true]) func whoDoesNotReadIsNotKept(holds: Bool) async throws {
        try await withLoop { loop in
            let begun = Tally(), ended = Tally(), whole = Tally()
            let (listener, port) = try await loop.run {
                var limits = HTTPLimits()
                limits.writeTime = .seconds(1)
                let context = HTTPServerContext(loop: loop, limits: limits)
                let listener = try Listener(loop: loop, address: .loopback(port: 0)) { fd, peer in
                    let connection = Hasty(context: context, peer: peer)
                    connection.holds = holds
                    connection.begun = begun
                    connection.ended = ended
                    connection.whole = whole
                    try? connection.start(fd)
                }
                return (LoopBound(listener, on: loop), listener.address.port!)
            }
            let client = try RawPeer(port: port, receiveBuffer: 8192)
            client.send("GET /big HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
            let hasBegun = await eventually { begun.count == 1 }
            client.send("x")
            let isSeen = await eventually { holds || whole.count == 1 || ended.count == 1 }
            let isEnded = await eventually { ended.count == 1 }
            #expect(hasBegun && isSeen && isEnded)
            try await loop.run { listener.value.close() }
        }
    }

    /// What frames a body is no progress of it, and does not buy it time.
    @Test func framingBuysNoTime() async throws {
        try await withPatient(.zero) { client in
            client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;")
            let began = MonotonicTime.now
            for _ in 0..<40 {
                usleep(50_000)
                if !client.send("a") { break }
            }
            #expect(client.head().hasPrefix("HTTP/1.1 408 ") && MonotonicTime.now - began < .seconds(3))
        }
    }
}
