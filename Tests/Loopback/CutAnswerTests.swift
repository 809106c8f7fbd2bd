import Basics
import EventLoops
import Gateway
import HTTP
import TestSupport
import Testing

/// An answer that is cut off never looks whole: a client of HTTP/1.0 knows the end of an answer by the end of the connection alone.
@Suite(.serialized) struct CutAnswerTests {
    private struct Broken: Error {}

    @Test func aGatewaysEndCutsVisibly() async throws {
        try await withRaw({ (peer: RawPeer, _: Int) in
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
            // Until the gateway ends it.
            _ = peer.readToEnd()
        }) { backend in
            try await withGateway("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.endpoint.testPort)
                client.send("GET / HTTP/1.0\r\n\r\n")
                let (head, part) = await onThread { (client.head(), client.text(4)) }
                #expect(head.hasPrefix("HTTP/1.1 200 ") && !head.contains("chunked") && part == "part")
                let cut = await gateway.gateway.drain(grace: .zero)
                let rest = await onThread { client.readToEnd() }
                #expect(cut == 1 && rest.isEmpty && client.sawReset && !client.sawEnd)
            }
        }
    }

    @Test func aStreamThatFailsIsCutVisibly() async throws {
        var router = Router()
        router.get("/stream") { _, _ in
            HTTPResponse(
                body: .stream { writer in
                    try await writer.write("part")
                    throw Broken()
                })
        }
        try await withLoop { loop in
            try await withServer(loop, router) { endpoint in
                for version in ["1.0", "1.1"] {
                    let client = try RawPeer(port: endpoint.testPort)
                    client.send("GET /stream HTTP/\(version)\r\nHost: a\r\n\r\n")
                    _ = await onThread { client.readToEnd() }
                    #expect(client.sawReset && !client.sawEnd, "\(version)")
                }
            }
        }
    }
}
