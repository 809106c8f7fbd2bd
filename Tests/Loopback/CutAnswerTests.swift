import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import Synchronization
import TestSupport
import Testing

/// An answer that is cut off never looks whole: a client of HTTP/1.0 knows the end of an answer by the end of the connection alone.
@Suite(.serialized) struct CutAnswerTests {
    private struct Broken: Error {}
    /// Whether a send was told of a reset.
    private final class ResetTold: Sendable { let isSet = Atomic(false) }

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

    /// An answer that only the connection's end ends is no whole one when that end is a reset, also where a send saw the reset first.
    @Test func aResetDuringAnUploadIsNoEnd() async throws {
        try await withRaw({ (peer: RawPeer, _: Int) in
            peer.limitReceiving(8192)
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\npart")
            // The gateway has more to send than the kernels take.
            usleep(300_000)
            peer.resetOnClose()
        }) { backend in
            try await withGateway("{ path: /, body: 64Mi, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                for version in ["1.0", "1.1"] {
                    let client = try RawPeer(port: gateway.endpoint.testPort)
                    // The kernel tells a reset once: to whoever sends or reads next. Who reads after that sees an end.
                    let told = ResetTold()
                    startThread {
                        client.send("POST / HTTP/\(version)\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
                        for _ in 0..<90 where !client.send([UInt8](repeating: 120, count: 100_000)) {
                            return told.isSet.store(errno == ECONNRESET, ordering: .releasing)
                        }
                    }
                    let all = await onThread { String(decoding: client.readToEnd(), as: UTF8.self) }
                    #expect(all.hasPrefix("HTTP/1.1 200 ") && all.contains("part"), "\(version) \(all)")
                    let wasTold = await eventually(.seconds(5)) { client.sawReset || told.isSet.load(ordering: .acquiring) }
                    #expect(wasTold && !all.hasSuffix("0\r\n\r\n"), "\(version) \(all)")
                }
            }
        }
    }

    /// A replica that ends its answer in order and then takes no more has answered whole.
    @Test func anEndDuringAnUploadIsOne() async throws {
        try await withRaw({ (peer: RawPeer, _: Int) in
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole")
            peer.finishSending()
            while !peer.read(65_536).isEmpty {}
        }) { backend in
            try await withGateway("{ path: /, body: 64Mi, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.endpoint.testPort)
                startThread {
                    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
                    for _ in 0..<90 where !client.send([UInt8](repeating: 120, count: 100_000)) { return }
                }
                let (head, body) = await onThread { (client.head(), client.text(15)) }
                #expect(head.hasPrefix("HTTP/1.1 200 ") && body == "5\r\nwhole\r\n0\r\n\r\n", "\(head) \(body)")
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
