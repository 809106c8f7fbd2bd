import Basics
import Compression
import EventLoops
import Gateway
import HTTP
import StackFile
import Synchronization
import TestSupport
import Testing

/// The response cache in the gateway: its bounds, its fetches for many, what it tells.
@Suite(.serialized) struct GatewayCacheTests {
    /// A backend that counts its requests; `/n` is answered with fields and a body made of the query.
    private final class Origin: Sendable {
        let count = Tally()
        let seen = Mutex<[String]>([])
    }

    private static func withOrigin(
        control: String = "max-age=100", more: [(String, String)] = [], delay: Duration = .zero, size: Int = 10,
        _ body: (Origin, UInt16) async throws -> Void
    ) async throws {
        let origin = Origin()
        var router = Router()
        for method in ["GET", "POST"] {
            router.add(method, "/n") { request, _ in
                origin.count.add()
                let number = origin.count.count
                origin.seen.withLock { $0.append(request.query) }
                if delay > .zero { try await Task.sleep(for: delay) }
                let text = "\(number) " + String(repeating: "x", count: size)
                return HTTPResponse(
                    headers: [("Cache-Control", control), ("Content-Type", "text/plain")] + more, body: .bytes(Array(text.utf8)))
            }
        }
        try await withLoop { loop in try await withServer(loop, router) { try await body(origin, $0.testPort) } }
    }

    private static func route(_ port: UInt16, _ more: String = "cache: {}") -> String {
        "{ path: /, backends: [127.0.0.1:\(port)], \(more) }"
    }

    private static func metric(_ gateway: Gateway, _ name: String) -> Double {
        for line in gateway.metrics.render().split(separator: "\n") where line.hasPrefix(name + " ") {
            return Double(line.dropFirst(name.count + 1)) ?? -1
        }
        return -1
    }

    @Test func memoryOfBodiesIsAHardBound() async throws {
        try await Self.withOrigin(size: 20_000) { origin, port in
            try await withGateway(Self.route(port), keys: ["cache: { memory: 1Mi, keys: 128Ki }"]) { fixture in
                var most = 0.0
                for i in 0..<150 {
                    let answer = try await fixture.send("GET", "/n?\(i)")
                    #expect(answer.status == 200 && answer.body.count > 20_000)
                    most = max(most, Self.metric(fixture.gateway, "gateway_cache_bytes{of=\"bodies\"}"))
                }
                #expect(most > 500_000 && most <= 1_048_576)
                #expect(Self.metric(fixture.gateway, "gateway_cache_evictions_total") > 50)
                // The newest is there, the oldest is not.
                let before = origin.count.count
                _ = try await fixture.send("GET", "/n?149")
                #expect(origin.count.count == before)
                _ = try await fixture.send("GET", "/n?0")
                #expect(origin.count.count == before + 1)
            }
        }
    }

    @Test func aFloodOfKeysStaysInItsBound() async throws {
        try await Self.withOrigin(more: [("X-Fill", String(repeating: "y", count: 2000))]) { origin, port in
            try await withGateway(Self.route(port), keys: ["cache: { memory: 8Mi, keys: 64Ki }"]) { fixture in
                _ = try await fixture.send("GET", "/n?hot")
                var most = 0.0
                for i in 0..<200 {
                    _ = try await fixture.send("GET", "/n?\(i)")
                    // What is used again and again stays.
                    if i % 5 == 0 { _ = try await fixture.send("GET", "/n?hot") }
                    most = max(most, Self.metric(fixture.gateway, "gateway_cache_bytes{of=\"heads\"}"))
                }
                #expect(most > 20_000 && most <= 65_536)
                let before = origin.count.count
                _ = try await fixture.send("GET", "/n?hot")
                #expect(origin.count.count == before)
            }
        }
    }

    @Test func largeHeadsStayInTheBound() async throws {
        try await Self.withOrigin(more: [("X-Fill", String(repeating: "y", count: 25_000))]) { origin, port in
            try await withGateway(Self.route(port), keys: ["cache: { memory: 8Mi, keys: 64Ki }"]) { fixture in
                let long = String(repeating: "q", count: 6000)
                for i in 0..<10 {
                    let answer = try await fixture.send("GET", "/n?\(long)\(i)")
                    #expect(answer.status == 200)
                    #expect(Self.metric(fixture.gateway, "gateway_cache_bytes{of=\"heads\"}") <= 65_536)
                }
                #expect(origin.count.count == 10)
            }
        }
    }

    @Test func sixtyFourVariantsAreKeptApart() async throws {
        try await Self.withOrigin(more: [("Vary", "X-V")]) { origin, port in
            try await withGateway(Self.route(port)) { fixture in
                for i in 0..<70 { _ = try await fixture.send("GET", "/n", headers: [("X-V", "\(i)")]) }
                #expect(origin.count.count == 70)
                for i in 6..<70 { _ = try await fixture.send("GET", "/n", headers: [("X-V", "\(i)")]) }
                #expect(origin.count.count == 70)
                _ = try await fixture.send("GET", "/n", headers: [("X-V", "0")])
                #expect(origin.count.count == 71)
            }
        }
    }

    private static func herd(_ fixture: GatewayFixture, _ count: Int, loop: EventLoop? = nil) async throws -> [String] {
        try await withThrowingTaskGroup(of: String.self) { group in
            for _ in 0..<count { group.addTask { try await fixture.send("GET", "/n").text } }
            var all: [String] = []
            for try await text in group { all.append(text) }
            return all
        }
    }

    @Test func oneAsksForAHundred() async throws {
        try await Self.withOrigin(delay: .milliseconds(300)) { origin, port in
            try await withGateway(Self.route(port), threads: 2) { fixture in
                let all = try await Self.herd(fixture, 100)
                #expect(all.count == 100 && Set(all).count == 1 && origin.count.count == 1)
            }
        }
    }

    @Test func privateAnswersAreAskedForInParallel() async throws {
        try await Self.withOrigin(control: "private", delay: .milliseconds(300)) { origin, port in
            try await withGateway(Self.route(port), threads: 2) { fixture in
                let began = MonotonicTime.now
                let all = try await Self.herd(fixture, 100)
                #expect(Set(all).count == 100 && origin.count.count == 100)
                // One after the other they would take thirty seconds.
                #expect(MonotonicTime.now - began < .seconds(15))
            }
        }
    }

    @Test func aFetchGoesOnWithoutItsClientAndWithASlowOne() async throws {
        try await Self.withOrigin(delay: .milliseconds(200), size: 6 << 20) { origin, port in
            try await withGateway(Self.route(port)) { fixture in
                // One leaves, one never reads.
                var gone: RawSocket? = try RawSocket(port: fixture.endpoint.testPort)
                let slow = try RawSocket(port: fixture.endpoint.testPort)
                gone?.send("GET /n HTTP/1.1\r\nHost: test\r\n\r\n")
                #expect(await eventually { origin.count.count == 1 })
                slow.send("GET /n HTTP/1.1\r\nHost: test\r\n\r\n")
                gone = nil
                let answer = try await fixture.send("GET", "/n", headers: [("Host", "test")])
                #expect(answer.body.count > 6 << 20 && origin.count.count == 1)
                withExtendedLifetime(slow) {}
            }
        }
    }

    @Test func whatIsNotInTheKeyIsNotSentOn() async throws {
        try await Self.withOrigin { origin, port in
            try await withGateway(Self.route(port, "cache: { key: { ignore: [utm] } }")) { fixture in
                for query in ["a=1&utm=x", "utm=y&a=1", "a=1"] { _ = try await fixture.send("GET", "/n?\(query)") }
                #expect(origin.count.count == 1 && origin.seen.withLock { $0 } == ["a=1"])
            }
            try await withGateway(Self.route(port, "cache: { key: { query: [a], headers: [x-tenant] } }")) { fixture in
                for tenant in ["1", "2", "1"] { _ = try await fixture.send("GET", "/n?b=2&a=1", headers: [("X-Tenant", tenant)]) }
                #expect(origin.count.count == 3 && origin.seen.withLock { $0.last } == "a=1")
            }
        }
    }

    @Test func whatAReloadEditsIsNotServedUnderOldEdits() async throws {
        try await Self.withOrigin { origin, port in
            try await withGateway(Self.route(port)) { fixture in
                _ = try await fixture.send("GET", "/n")
                try await fixture.reload([Self.route(port, "cache: {}, response-headers: { set: { X-New: yes } }")])
                #expect(try await fixture.send("GET", "/n").header("x-new") == "yes")
                #expect(try await fixture.send("GET", "/n").header("x-new") == "yes")
                #expect(origin.count.count == 2)
                try await fixture.reload([Self.route(port, "timeout: { response: 9s }")])
                _ = try await fixture.send("GET", "/n")
                #expect(origin.count.count == 3)
            }
        }
    }

    @Test func sessionsThatMustSeeTheirWritesPassByTheCache() async throws {
        try await Self.withOrigin { origin, port in
            try await withGateway(Self.route(port)) { fixture in
                _ = try await fixture.send("GET", "/n")
                _ = try await fixture.send("GET", "/n", headers: [("Muster-After", "1")])
                _ = try await fixture.send("GET", "/n", headers: [("Cookie", "x=1; muster_after=0/1")])
                #expect(origin.count.count == 3)
            }
        }
    }

    // MARK: telling

    @Test func explainsAndPurges() async throws {
        try await Self.withOrigin(more: [("Cache-Tag", "t1 t2")]) { origin, port in
            try await withFolder { folder in
                try Files.replace(folder + "/token", with: Array("0123456789abcdef\n".utf8))
                try await withGateway(Self.route(port), keys: ["admin-token-file: \(folder)/token"]) { fixture in
                    var router = Router()
                    AdminAPI.add(to: &router, gateway: fixture.gateway)
                    try await withLoop { loop in
                        try await withServer(loop, router) { admin in try await Self.explainAndPurge(fixture, admin, origin) }
                    }
                }
            }
        }
    }

    private static func explainAndPurge(_ fixture: GatewayFixture, _ admin: Endpoint, _ origin: Origin) async throws {
        func ask(_ method: String, _ target: String, token: String = "0123456789abcdef") async throws -> HTTPClientResponse {
            try await fixture.client.send(method, target, to: admin, headers: [("Authorization", "Bearer \(token)")])
        }
        for id in ["one", "two"] { _ = try await fixture.send("GET", "/n?a", headers: [("X-Request-Id", id), ("Host", "h")]) }
        _ = try await fixture.send("POST", "/n?b", headers: [("X-Request-Id", "three"), ("Host", "h")])
        #expect(try await ask("GET", "/api/requests/one").text.contains("the answer was stored"))
        #expect(try await ask("GET", "/api/requests/two").text.contains("served from the cache: a stored answer is fresh"))
        #expect(try await ask("GET", "/api/requests/three").text.contains("passed the cache by: its method"))
        let told = try await ask("GET", "/api/cache?url=http://h/n?a").text
        #expect(told.contains("\"lifetime\":100") && told.contains("\"fetched_by\":\"one\"") && told.contains("t2"))
        #expect(try await ask("GET", "/api/cache").text.contains("\"entries\":1"))
        #expect(try await ask("POST", "/api/cache/purge?url=/n?a", token: "wrong-wrong-wrong").status == 401)
        #expect(try await ask("POST", "/api/cache/purge").status == 400)
        #expect(try await ask("POST", "/api/cache/purge?url=/n&all=1").status == 400)
        #expect(try await ask("POST", "/api/cache/purge?url=n").status == 400)
        for what in ["url=/n%3Fa", "url=http://H/n%3Fa", "prefix=/n", "prefix=http://h/", "tag=t2", "all=1"] {
            _ = try await fixture.send("GET", "/n?a", headers: [("Host", "h")])
            let before = origin.count.count
            #expect(try await ask("POST", "/api/cache/purge?\(what)").text.contains("\"purged\":1"), "\(what)")
            _ = try await fixture.send("GET", "/n?a", headers: [("Host", "h")])
            #expect(origin.count.count == before + 1, "\(what)")
        }
        #expect(try await ask("POST", "/api/cache/purge?tag=other").text.contains("\"purged\":0"))
        #expect(fixture.gateway.journal.entries().contains { $0.record.kind == .cache && $0.record.subject == "the whole cache" })
        #expect(metric(fixture.gateway, "gateway_cache_requests_total{route=\"/\",result=\"hit\"}") >= 1)
    }

    // MARK: compression

    private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

    @Test func compressesOnceAndServesManyCodings() async throws {
        try await Self.withOrigin(more: [("ETag", "\"v\""), ("Vary", "X-Other")], size: 5000) { origin, port in
            try await withGateway(Self.route(port, "cache: {}, compress: true")) { fixture in
                for _ in 0..<2 {
                    let zipped = try await fixture.send("GET", "/n", headers: [("Accept-Encoding", "gzip;q=0.9, br;q=0.1")])
                    #expect(zipped.header("content-encoding") == "gzip" && zipped.header("etag") == "W/\"v\"")
                    #expect(try Gzip.unpack(zipped.body, limit: 10_000).count == 5002)
                }
                let best = try await fixture.send("GET", "/n", headers: [("Accept-Encoding", "gzip, br, zstd")])
                #expect(best.header("content-encoding") == "zstd")
                let plain = try await fixture.send("GET", "/n")
                #expect(plain.header("content-encoding") == nil && plain.header("etag") == "\"v\"" && plain.body.count == 5002)
                #expect(plain.headers.contains { $0.name.lowercased() == "vary" && $0.value == "Accept-Encoding" })
                let part = try await fixture.send("GET", "/n", headers: [("Accept-Encoding", "gzip"), ("Range", "bytes=0-1")])
                #expect(part.status == 206 && part.header("content-encoding") == nil && Self.text(part.body) == "1 ")
                #expect(
                    try await fixture.send("GET", "/n", headers: [("If-None-Match", "W/\"v\""), ("Accept-Encoding", "br")]).status == 304)
                #expect(origin.count.count == 1)
            }
        }
    }

    @Test func compressesWithoutACacheAndLeavesAloneWhatMustBe() async throws {
        try await Self.withOrigin(size: 5000) { _, port in
            try await withGateway(Self.route(port, "compress: true")) { fixture in
                let zipped = try await fixture.send("GET", "/n", headers: [("Accept-Encoding", "gzip")])
                #expect(zipped.header("content-encoding") == "gzip" && zipped.header("content-length") == nil)
                #expect(try Gzip.unpack(zipped.body, limit: 10_000).count == 5002)
                #expect(try await fixture.send("GET", "/n", headers: [("Accept-Encoding", "gzip;q=0")]).header("content-encoding") == nil)
                let forbids = [("Accept-Encoding", "gzip"), ("Cache-Control", "no-transform")]
                #expect(try await fixture.send("GET", "/n", headers: forbids).header("content-encoding") == nil)
            }
        }
        for more in [[("Cache-Control", "no-transform")], [("Content-Encoding", "x-own")]] {
            try await Self.withOrigin(more: more, size: 5000) { _, port in
                try await withGateway(Self.route(port, "compress: true")) { fixture in
                    let answer = try await fixture.send("GET", "/n", headers: [("Accept-Encoding", "gzip")])
                    #expect(answer.header("content-encoding") != "gzip" && answer.header("vary") == nil, "\(more)")
                }
            }
        }
        try await Self.withOrigin(size: 500) { _, port in
            try await withGateway(Self.route(port, "compress: true")) { fixture in
                let small = try await fixture.send("GET", "/n", headers: [("Accept-Encoding", "gzip")])
                #expect(small.status == 200 && small.header("content-encoding") == nil)
            }
        }
    }
}
