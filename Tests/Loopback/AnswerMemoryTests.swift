import Basics
import EventLoops
import Glibc
import TestSupport
import Testing

@testable import HTTP

/// What clients do not read is bounded for all of them together, whatever the form of the answer, and keeps no body out.
@Suite(.serialized) struct AnswerMemoryTests {
    @Test func answersHaveHalfOfIt() {
        let memory = BodyMemory(limit: 8 << 20)
        let small = BodyMemory.small
        var owed = 0
        #expect(memory.hasRoom(forAnswer: 3 << 20) && !memory.hasRoom(forAnswer: (3 << 20) + 1))
        memory.change(&owed, to: 3 << 20)
        // Large ones leave a quarter of it to small ones, and both leave half to bodies.
        #expect(!memory.hasRoom(forAnswer: small + 1) && memory.hasRoom(forAnswer: small))
        memory.change(&owed, to: 4 << 20)
        #expect(!memory.hasRoom(forAnswer: 1) && memory.hasRoom(2 << 20, size: 2 << 20) && memory.take(4 << 20, size: small))
        memory.change(&owed, to: 0)
        #expect(memory.unread == 0 && memory.used == 4 << 20 && memory.hasRoom(forAnswer: 1 << 20))
        memory.give(4 << 20)
        #expect(memory.used == 0)
    }

    /// Streams to clients that do not read: those that have begun wait for their own client, and further ones are refused.
    @Test func streamsAreBoundedTogether() async throws {
        let limit = 4 << 20, piece = [UInt8](repeating: 120, count: 64 << 10)
        var router = Router()
        router.get("/stream") { _, _ in HTTPResponse(body: .stream { writer in while true { try await writer.write(piece) } }) }
        router.get("/small") { _, _ in .text("small") }
        router.post("/body") { request, _ in .text("\(request.body.count)") }
        let routes = router
        try await withLoop { loop in
            let (server, address) = try await loop.run {
                let server = HTTPServer(loop: loop, router: routes, memory: limit)
                return (LoopBound(server, on: loop), try server.listen(on: .loopback(port: 0)))
            }
            let client = HTTPClient(loop: loop), place = Endpoint.address(address)
            func unread() async throws -> Int { try await loop.run { server.value.memory.unread } }
            var peers: [RawPeer] = [], most = 0
            // Each fills what the kernel keeps for it, and then up to 256 KiB here.
            for _ in 0..<32 {
                let peer = try RawPeer(port: address.port!, receiveBuffer: 8192)
                peer.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
                peers.append(peer)
                try await Task.sleep(for: .milliseconds(30))
                most = max(most, try await unread())
            }
            let isFull = try await eventually {
                most = max(most, try await unread())
                return try await client.send("GET", "/stream", to: place, timeout: .seconds(5)).status == 503
            }
            #expect(isFull)
            // A piece and the chunk's frame may come beyond it, of those that looked when there was room.
            #expect(most <= limit / 2, "\(most)")
            #expect(try await client.send("GET", "/small", to: place).text == "small")
            let body = [UInt8](repeating: 1, count: 1 << 20)
            #expect(try await client.send("POST", "/body", to: place, body: body).text == "\(body.count)")
            peers = []
            let isFree = try await eventually { try await unread() == 0 }
            #expect(isFree)
            client.close()
            try await loop.run { server.value.drain(grace: .zero) {} }
        }
    }

    /// A small answer has no way around it.
    @Test func aSmallAnswerIsCounted() async throws {
        var router = Router()
        router.get("/") { _, _ in .text(String(repeating: "x", count: 600)) }
        try await withLoop { loop in
            for (memory, status) in [(1024, 503), (4096, 200)] {
                try await withServer(loop, router, memory: memory) { endpoint in
                    let client = HTTPClient(loop: loop)
                    let answer = try await client.send("GET", "/", to: endpoint)
                    #expect(answer.status == status && (status == 200 || answer.text.contains("too_much_under_way")))
                    #expect(status == 200 || answer.header("retry-after") == "1")
                    client.close()
                }
            }
        }
    }
}
