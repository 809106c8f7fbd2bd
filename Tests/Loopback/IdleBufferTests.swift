import Glibc
import HTTP
import TestSupport
import Testing

@testable import Basics
@testable import EventLoops

/// What a slow client let grow is given back when its connection is idle: thousands may be.
@Suite struct IdleBufferTests {
    private static let answer = Array("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n".utf8) + [UInt8](repeating: 120, count: 60_000)

    private final class Answering: HTTPServerConnection {
        override func requestHead(_ table: HeadTable) {
            let close = mustClose()
            IdleBufferTests.answer.withUnsafeBytes { write($0) }
            responseFinished(close: close)
        }
    }

    @Test func anIdleConnectionHoldsNoBuffer() async throws {
        var pair: [Int32] = [-1, -1]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &pair) == 0)
        let server = pair[0], client = pair[1]
        defer { close(client) }
        // The least there is: so most of the answer waits here.
        var size: Int32 = 1
        setsockopt(server, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(4))
        _ = fcntl(server, F_SETFL, O_NONBLOCK)
        try await withLoop { loop in
            let connection = try await loop.run {
                let connection = Answering(context: HTTPServerContext(loop: loop), peer: .unix(""))
                try connection.start(server)
                return LoopBound(connection, on: loop)
            }
            for _ in 0..<3 {
                let request = Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
                #expect(request.withUnsafeBytes { send(client, $0.baseAddress, $0.count, 0) } == request.count)
                let waits = try await eventually { try await loop.run { connection.value.waiting > 30_000 } }
                #expect(waits, "a client that does not read lets the answer wait")
                #expect(try await loop.run { connection.value.output.capacity } > 30_000)
                var left = Self.answer.count
                var chunk = [UInt8](repeating: 0, count: 65536)
                while left > 0 {
                    let got = recv(client, &chunk, chunk.count, 0)
                    try #require(got > 0)
                    left -= got
                }
                let released = try await eventually { try await loop.run { connection.value.output.capacity == 0 } }
                #expect(released)
            }
            try await loop.run { connection.value.close() }
        }
    }
}
