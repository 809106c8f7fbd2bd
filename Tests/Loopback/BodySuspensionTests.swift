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
}
