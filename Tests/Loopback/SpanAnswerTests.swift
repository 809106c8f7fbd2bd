import Basics
import EventLoops
import TestSupport
import Testing

@testable import Gateway

/// What a collector says of the spans that it was sent.
@Suite struct SpanAnswerTests {
    /// `ExportTraceServiceResponse`: partial_success = 1 { rejected_spans = 1, error_message = 2 }.
    @Test func rejectedSpansAreRead() {
        #expect(Tracer.rejected([], of: 5) == 0 && Tracer.rejected([0x0A, 0], of: 5) == 0)
        #expect(Tracer.rejected([0x0A, 2, 0x08, 3], of: 5) == 3 && Tracer.rejected([0x0A, 5, 0x08, 3, 0x12, 1, 65], of: 5) == 3)
        // More than were sent, a number below 0, and what is no such message.
        #expect(Tracer.rejected([0x0A, 2, 0x08, 100], of: 5) == 5)
        #expect(Tracer.rejected([0x0A, 11, 0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], of: 5) == 0)
        #expect(Tracer.rejected([0x0A, 10, 0x08, 255, 255, 255, 255, 255, 255, 255, 255, 127], of: 5) == 5)
        #expect(Tracer.rejected(Array("{\"partialSuccess\":{}}".utf8), of: 5) == 0 && Tracer.rejected([0x0A, 9, 0x08, 3], of: 5) == 0)
    }

    @Test(arguments: [(3, 3), (100, 7)] as [(UInt8, Int)]) func rejectedSpansAreNotCountedAsSent(rejected: UInt8, dropped: Int) async throws
    {
        try await withRaw({ (peer: RawPeer, _: Int) in
            while peer.answer().head.contains("HTTP/1.1") {
                peer.send(Array("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".utf8) + [0x0A, 2, 0x08, rejected])
            }
        }) { collector in
            let target = "tracing: { otlp: \"http://127.0.0.1:\(collector.port)/v1/traces\", sample: 100% }"
            try await withNamed("a") { port in
                try await withGateway("{ path: /, backends: [127.0.0.1:\(port)] }", keys: [target]) { gateway in
                    func spans(_ outcome: String) -> Int {
                        gateway.gateway.metrics.counter("gateway_spans_total", "", labels: [("outcome", outcome)]).current
                    }
                    for _ in 0..<7 { _ = try await gateway.send() }
                    let isCounted = await eventually { spans("sent") + spans("dropped") == 7 }
                    // In one batch, unless the machine was busy for a second meanwhile: then of each batch so many.
                    #expect(isCounted && spans("dropped") >= dropped, "\(spans("dropped"))")
                }
            }
        }
    }
}
