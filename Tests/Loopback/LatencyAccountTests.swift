import Basics
import EventLoops
import HTTP
import TestSupport
import Testing

@testable import Gateway

/// On whose account the time of an answer goes.
@Suite(.serialized) struct LatencyAccountTests {
    /// Takes requests and answers none.
    private static let stuck: @Sendable (RawPeer, Int) -> Void = { peer, _ in
        peer.head()
        _ = peer.readToEnd()
    }

    /// Of two replicas that are asked each has its own time: the winner from when it was asked, and the loser all that it had.
    @Test func aHedgesTimeIsTheSlowOnes() async throws {
        let hedge = Duration.milliseconds(200)
        try await withRaw(Self.stuck) { stuck in
            try await withNamed("b") { b in
                let backends = "backends: [127.0.0.1:\(stuck.port), 127.0.0.1:\(b)]"
                try await withLive("{ path: /, retry: { hedge: 200ms }, balance: round-robin, \(backends) }") { gateway in
                    for round in 1...3 {
                        let before = gateway.replicas[1].latency.current
                        let began = MonotonicTime.now
                        let answer = try await gateway.send()
                        let whole = MonotonicTime.now - began
                        let slow = gateway.replicas[0], quick = gateway.replicas[1]
                        #expect(answer.header("x-backend") == "b" && slow.requests.current == round && quick.requests.current == round)
                        #expect(slow.answers.current == round && quick.answers.current == round)
                        #expect(.nanoseconds(Int64(quick.latency.current - before)) <= whole - hedge)
                        #expect(slow.meanLatency >= hedge)
                    }
                }
            }
        }
    }

    /// A client that leaves tells that the answer would have taken at least so long, and nothing if that is less than usual.
    @Test func whoLeavesTellsWhatItWaited() async throws {
        let asked = Tally()
        try await withRaw({ peer, _ in
            peer.head()
            asked.add()
            _ = peer.readToEnd()
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let replica = gateway.replicas[0]
                func leave(_ number: Int) async throws {
                    var client: RawPeer? = try RawPeer(port: gateway.port)
                    client?.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    let isAsked = await eventually { asked.count == number }
                    client?.resetOnClose()
                    client = nil
                    let isOver = await eventually { gateway.metric("gateway_requests_total{route=\"/\",status=\"4xx\"}") == Double(number) }
                    #expect(isAsked && isOver && replica.requests.current == number)
                }
                try await leave(1)
                #expect(replica.answers.current == 1 && replica.latency.current > 0)
                replica.took(.seconds(3600))
                try await leave(2)
                #expect(replica.answers.current == 2)
            }
        }
    }
}
