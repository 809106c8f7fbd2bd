import Basics
import EventLoops
import Gateway
import Glibc
import Observability
import TestSupport
import Testing

/// A replica has its time for an answer from when it has the whole request, also when the last of the request left before it was known that
/// it is whole.
@Suite struct RequestTimeTests {
    private static let fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    /// A limit whose store is away is counted here, in the same turn in which the head comes: the head leaves before its end is told.
    @Test func aRequestThatTheLimitsLetThroughAtOnce() async throws {
        try await withRaw({ peer, _ in
            peer.head()
            peer.send(Self.fine)
            peer.head()
            _ = peer.readToEnd()
        }) { backend in
            let limit = "limit: [{ rate: 1000/s, burst: 1000, shared: true }]"
            let route =
                "{ path: /, \(limit), timeout: { response: 300ms }, retry: { attempts: 1 }, breaker: { failures: 1 }, "
                + "concurrency: { most: 1 }, backends: [127.0.0.1:\(backend.port)] }"
            // Nobody is at the discard port.
            try await withLive(route, more: ["limit-store: redis://127.0.0.1:9"]) { gateway in
                try await isTimedOut(gateway) { try await (gateway.send().status, gateway.send().status) }
            }
        }
    }

    /// A body that lies there whole leaves before its end is read.
    @Test func aBodyThatIsReadInOnePiece() async throws {
        try await withRaw({ peer, _ in
            peer.head()
            usleep(200_000)
            peer.send(Self.fine)
            peer.head()
            _ = peer.readToEnd()
        }) { backend in
            let route =
                "{ path: /, timeout: { response: 600ms }, retry: { attempts: 1 }, breaker: { failures: 1 }, concurrency: { most: 2 }, "
                + "backends: [127.0.0.1:\(backend.port)] }"
            try await withLive(route) { gateway in
                let client = try RawPeer(port: gateway.port)
                let size = 100_000
                try await isTimedOut(gateway) {
                    await onThread {
                        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: \(size)\r\n\r\n")
                        client.send([UInt8](repeating: 120, count: size))
                        func status() -> Int { Int(client.answer().head.dropFirst(9).prefix(3)) ?? 0 }
                        return (status(), status())
                    }
                }
            }
        }
    }

    private func isTimedOut(_ gateway: LiveGateway, _ ask: () async throws -> (Int, Int)) async throws {
        let (first, second) = try await ask()
        #expect(first == 200 && second == 504)
        // The replica's failure, as any other: the breaker hears of it.
        #expect(gateway.records(.breaker).count == 1)
        let isOver = await eventually { gateway.inFlight == 0 }
        #expect(isOver)
    }
}
