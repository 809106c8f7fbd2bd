import Basics
import Glibc
import TestSupport
import Testing

/// Interim responses (1xx): they are passed on, they are bounded, and they are no progress of an answer.
@Suite struct GatewayInterimTests {
    private static let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    private static let fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    /// 102, 103 and one that nobody knows: at once, in their order, without what belongs to the hop; 100 is the gateway's own affair.
    @Test func theyArePassedOnAtOnce() async throws {
        try await withRaw({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                peer.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
                peer.send(
                    "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
                        + "Content-Length: 4\r\n\r\n")
                peer.send("HTTP/1.1 199 Whatever\r\nX-A: b\r\n\r\n")
                usleep(300_000)
                peer.send(Self.fine)
            }
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                for _ in 0..<2 {
                    let began = MonotonicTime.now
                    client.send(Self.get)
                    let heads = [client.head(), client.head(), client.head()]
                    #expect(MonotonicTime.now - began < .milliseconds(250))
                    #expect(heads[0] == "HTTP/1.1 102 Processing\r\n\r\n")
                    #expect(heads[1] == "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
                    #expect(heads[2] == "HTTP/1.1 199 Whatever\r\nX-A: b\r\n\r\n")
                    let answer = client.answer()
                    #expect(answer.head.hasPrefix("HTTP/1.1 200 OK\r\n") && answer.body == "ok")
                }
                // A client of HTTP/1.0 would take the first head for its answer.
                let old = try RawPeer(port: gateway.port)
                old.send("GET / HTTP/1.0\r\n\r\n")
                #expect(old.answer().head.hasPrefix("HTTP/1.1 200 OK\r\n"))
                #expect(gateway.states == ["ready"])
            }
        }
    }

    /// The client is asked for its body once, whatever the replica says.
    @Test func oneContinueIsEnough() async throws {
        try await withRaw({ peer, _ in
            peer.head()
            peer.send("HTTP/1.1 100 Continue\r\n\r\n")
            _ = peer.text(4)
            peer.send(Self.fine)
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
                #expect(client.head() == "HTTP/1.1 100 Continue\r\n\r\n")
                usleep(100_000)
                client.send("body")
                #expect(client.head().hasPrefix("HTTP/1.1 200 OK\r\n"))
            }
        }
    }

    /// By number and by bytes.
    @Test(arguments: [
        (String(repeating: "HTTP/1.1 102 Processing\r\n\r\n", count: 300), "many"),
        (String(repeating: "HTTP/1.1 103 Early Hints\r\nLink: \(String(repeating: "a", count: 8000))\r\n\r\n", count: 12), "large"),
    ])
    func aFloodOfThemIsNoHTTP(flood: String, name: String) async throws {
        try await withRaw({ peer, _ in
            peer.head()
            peer.send(flood)
            peer.send(Self.fine)
        }) { backend in
            try await withLive("{ path: /, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port)
                client.send(Self.get.replacing("\r\n\r\n", with: "\r\nConnection: close\r\n\r\n"))
                let all = String(decoding: client.readToEnd(), as: UTF8.self)
                #expect(all.contains("HTTP/1.1 502 ") && all.contains("backend_broke_http"), "\(name)")
            }
        }
    }

    /// What comes before the head, and parts of it, do not renew the time for it; nor do parts of what frames a body.
    @Test(arguments: [
        ("HTTP/1.1 102 Processing\r\n\r\n", 0), ("HTTP/1.1 200 OK\r\nX-Drip: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 1),
    ])
    func dripsAreNoProgress(text: String, step: Int) async throws {
        try await withRaw({ peer, _ in
            peer.head()
            let pieces = step == 0 ? Array(repeating: Array(text.utf8), count: 60) : text.utf8.map { [$0] }
            for piece in pieces {
                if !peer.send(piece) { return }
                usleep(50_000)
            }
            _ = peer.readToEnd()
        }) { backend in
            try await withLive("{ path: /, timeout: { response: 500ms }, retry: { attempts: 1 }, backends: [127.0.0.1:\(backend.port)] }") {
                gateway in
                let client = try RawPeer(port: gateway.port), began = MonotonicTime.now
                client.send(Self.get.replacing("\r\n\r\n", with: "\r\nConnection: close\r\n\r\n"))
                let all = String(decoding: client.readToEnd(), as: UTF8.self), took = MonotonicTime.now - began
                #expect(all.contains("HTTP/1.1 504 ") && all.contains("backend_timeout"), "\(all.suffix(200))")
                #expect(took > .milliseconds(400) && took < .milliseconds(1500), "\(took)")
            }
        }
    }

    /// A body whose chunks only grow in their extensions stands still.
    @Test func framingIsNoProgress() async throws {
        try await withRaw({ peer, _ in
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;")
            for _ in 0..<60 {
                if !peer.send("a") { return }
                usleep(50_000)
            }
            _ = peer.readToEnd()
        }) { backend in
            try await withLive("{ path: /, timeout: { response: 400ms }, backends: [127.0.0.1:\(backend.port)] }") { gateway in
                let client = try RawPeer(port: gateway.port), began = MonotonicTime.now
                client.send(Self.get)
                _ = client.readToEnd()
                #expect(MonotonicTime.now - began < .milliseconds(1500))
            }
        }
    }
}
