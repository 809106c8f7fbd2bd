import Basics
import EventLoops
import Glibc
import StackModel
import TestSupport
import Testing

@testable import Gateway

/// Rates are an hour's, so that nothing becomes free while a test runs.
@Suite(.serialized) struct RateLimitTests {
    private func route(_ limits: String, _ path: String = "path: /") -> String { "{ \(path), limit: [\(limits)], answer: { body: x } }" }

    /// While the store is away, five gateways that share one an hour let through one in five hours each, after the first.
    @Test func aShareOfASlowRateIsOne() {
        let spec = LimitSpec(perSecond: 1.0 / 3600, text: "1/h", burst: 0, key: .route, isShared: true, delays: false)
        let limiters = (0..<5).map { _ in RateLimiter(spec, route: "/") }
        var allowed = 0
        for minute in 0..<6000 {
            for limiter in limiters
            where limiter.take(0, now: MonotonicTime(nanoseconds: Int64(minute + 1) * 60_000_000_000), gateways: 5).allowed {
                allowed += 1
            }
        }
        #expect(allowed == 5 * 20)
    }

    @Test func theRateAndItsBurstAreExact() async throws {
        try await withGateway(route("{ rate: 1/h, burst: 2 }")) { gateway in
            for left in [2, 1, 0] {
                let answer = try gateway.ask()
                #expect(answer.status == 200 && answer.all("ratelimit-limit") == ["3"] && answer.all("ratelimit-remaining") == ["\(left)"])
                let reset = Int(answer.field("ratelimit-reset") ?? "") ?? 0
                #expect(reset <= 3600 * (3 - left) && reset > 3600 * (3 - left) - 60 && answer.field("retry-after") == nil)
            }
            for _ in 0..<3 {
                let refused = try gateway.ask()
                #expect(refused.status == 429 && refused.body.contains("rate_limited") && refused.all("ratelimit-remaining") == ["0"])
                let wait = Int(refused.field("retry-after") ?? "") ?? 0
                #expect(wait <= 3600 && wait > 3540 && refused.all("retry-after").count == 1)
            }
            let counted = gateway.gateway.metrics.counter("gateway_limited_total", "", labels: [("route", "/")]).current
            #expect(counted == 3)
        }
    }

    @Test func eachClientHasItsOwn() async throws {
        try await withGateway(route("{ rate: 1/h, by: client-ip }"), keys: ["trusted-proxies: [127.0.0.9]"]) { gateway in
            for (from, field, status) in [
                (0x7F00_0001, "", 200), (0x7F00_0002, "", 200), (0x7F00_0001, "", 429), (0x7F00_0001, "7.7.7.7", 429),
                (0x7F00_0009, "7.7.7.7", 200),
                (0x7F00_0009, "7.7.7.8", 200), (0x7F00_0009, "7.7.7.7", 429), (0x7F00_0009, "6.6.6.6, 7.7.7.8", 429),
            ] as [(UInt32, String, Int)] {
                let answer = try gateway.ask("GET /", field.isEmpty ? [] : ["X-Forwarded-For: \(field)"], from: from)
                #expect(answer.status == status, "\(from) \(field)")
            }
        }
    }

    @Test func aFieldsValuesAndTheWholeRouteAreCounted() async throws {
        try await withGateway(
            route("{ rate: 1/h, by: \"header:X-User\" }"), route("{ rate: 1/h, burst: 1, by: route }", "path: /all"),
            route("{ rate: 1/h }", "path: /other")
        ) { gateway in
            for (fields, status) in [
                (["X-User: ann"], 200), (["x-user: bob"], 200), (["X-USER: ann"], 429), ([], 200), (["X-User: "], 429), ([], 429),
            ] as [([String], Int)] {
                let answer = try gateway.ask("GET /", fields)
                #expect(answer.status == status, "\(fields)")
            }
            for (from, status) in [(0x7F00_0001, 200), (0x7F00_0002, 200), (0x7F00_0003, 429)] as [(UInt32, Int)] {
                let answer = try gateway.ask("GET /all", from: from)
                #expect(answer.status == status)
            }
            let other = try gateway.ask("GET /other")
            #expect(other.status == 200)
        }
    }

    /// All of them must have room; the fields tell of the one that has least.
    @Test func severalLimitsHoldTogether() async throws {
        try await withGateway(route("{ rate: 1/h, burst: 1, by: client-ip }, { rate: 1/h, burst: 4, by: route }")) { gateway in
            var seen: [String] = []
            for from in [2, 2, 2, 3, 3, 4, 4, 5] as [UInt32] {
                let answer = try gateway.ask("GET /", from: 0x7F00_0000 | from)
                seen.append("\(answer.status) \(answer.field("ratelimit-limit") ?? "") \(answer.field("ratelimit-remaining") ?? "")")
            }
            #expect(seen == ["200 2 1", "200 2 0", "429 2 0", "200 2 1", "200 2 0", "200 5 0", "429 5 0", "429 5 0"])
        }
    }

    /// A refused request costs nothing, in whichever order the limits stand: neither at the one that refuses nor at the others.
    @Test(arguments: [false, true]) func aRefusedRequestIsFree(routeFirst: Bool) async throws {
        let all = "{ rate: 1/h, burst: 4, by: route }", each = "{ rate: 1/h, by: client-ip }"
        try await withGateway(route(routeFirst ? "\(all), \(each)" : "\(each), \(all)")) { gateway in
            var statuses: [Int] = []
            for from in [2, 2, 2, 2, 2, 3, 3, 4, 5, 6, 7] as [UInt32] {
                statuses.append(try gateway.ask("GET /", from: 0x7F00_0000 | from).status)
            }
            // Five of the route's, each by another client.
            #expect(statuses == [200, 429, 429, 429, 429, 200, 429, 200, 200, 200, 429])
        }
    }

    @Test func aLoginTakesFiveAMinute() async throws {
        try await withEcho { port, tally in
            try await withGateway(
                "{ exact: /login, methods: [POST], limit: [{ rate: 5/min, burst: 4 }], backends: [127.0.0.1:\(port)] }",
                "{ path: /, backends: [127.0.0.1:\(port)] }"
            ) { gateway in
                var statuses: [Int] = []
                for _ in 0..<8 { statuses.append(try gateway.ask("POST /login", ["Content-Length: 0"]).status) }
                #expect(statuses == [200, 200, 200, 200, 200, 429, 429, 429])
                let page = try gateway.ask("GET /login")
                #expect(page.status == 200 && page.field("ratelimit-limit") == nil && tally.count == 6)
            }
        }
    }

    /// Whoever may not ask is told so by the rules, but is counted all the same: guessing is limited, too.
    @Test func guessesAreLimited() async throws {
        try await withFolder { folder in
            try folder.put("tokens", "0123456789abcdef\n")
            try await withGateway(
                "{ path: /, limit: [{ rate: 1/h, burst: 1 }], auth: { bearer: \"\(folder)/tokens\" }, answer: { body: x } }"
            ) { gateway in
                var statuses: [Int] = []
                for _ in 0..<3 { statuses.append(try gateway.ask("GET /", ["Authorization: Bearer wrong"]).status) }
                #expect(statuses == [401, 401, 429])
            }
        }
    }

    // MARK: waiting for a turn

    @Test func whatExceedsTheRateWaitsForItsTurn() async throws {
        try await withBackend("a") { port in
            try await withGateway("{ path: /, limit: [{ rate: 20/s, burst: 9, delay: true, by: route }], backends: [127.0.0.1:\(port)] }") {
                gateway in
                let begin = MonotonicTime.now
                let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                    for _ in 0..<6 { group.addTask { try await gateway.send().status } }
                    return try await group.reduce(into: []) { $0.append($1) }
                }
                #expect(statuses == [200, 200, 200, 200, 200, 200])
                // Five of them come 50 ms apart at the least, however fast or slow this machine is.
                #expect(MonotonicTime.now - begin >= .milliseconds(249))
            }
        }
    }

    @Test func aWaitingRequestKeepsItsBody() async throws {
        try await withBackend("a") { port in
            try await withGateway("{ path: /, body: 4Mi, limit: [{ rate: 10/s, burst: 9, delay: true }], backends: [127.0.0.1:\(port)] }") {
                gateway in
                let body = [UInt8](repeating: 120, count: 1 << 20)
                for _ in 0..<3 {
                    let answer = try await gateway.send("POST", "/", body: body)
                    #expect(answer.text.hasPrefix("a 1048576\n"))
                }
            }
        }
    }

    @Test func aWaitingClientMayGoAway() async throws {
        try await withBackend("a") { port in
            try await withGateway("{ path: /, limit: [{ rate: 10/s, burst: 9, delay: true }], backends: [127.0.0.1:\(port)] }") { gateway in
                for _ in 0..<4 {
                    let socket = try RawSocket(port: gateway.endpoint.testPort)
                    socket.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                }
                let last = try await gateway.send()
                #expect(last.status == 200)
                let forgotten = await eventually { gateway.gateway.routes[0].replicas[0].inFlight == 0 }
                #expect(forgotten)
            }
        }
    }

    @Test func beyondTheBurstNobodyWaits() async throws {
        try await withGateway(route("{ rate: 1/h, delay: true }")) { gateway in
            let first = try gateway.ask(), second = try gateway.ask()
            #expect(first.status == 200 && second.status == 429)
        }
    }

    // MARK: a store that does not answer

    /// Something that takes connections and never says a word.
    private func withSilence(_ body: (UInt16) async throws -> Void) async throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && listen(descriptor, 64) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        #expect(bound)
        try await body(UInt16(bigEndian: address.sin_port))
    }

    @Test(arguments: ["", ", delay: true"]) func aSilentStoreHoldsNobody(delay: String) async throws {
        try await withSilence { port in
            try await withGateway(
                route("{ rate: 1/h, burst: 5, shared: true\(delay) }, { rate: 1000/s, burst: 1000 }"),
                keys: ["limit-store: \"redis://127.0.0.1:\(port)\""]
            ) {
                gateway in
                // With a delay the second would wait for an hour.
                let asked = delay.isEmpty ? 8 : 1
                var statuses: [Int] = []
                for _ in 0..<asked { statuses.append(try gateway.ask().status) }
                #expect(statuses == Array([200, 200, 200, 200, 200, 200, 429, 429].prefix(asked)))
                #expect(gateway.gateway.metrics.counter("gateway_limit_local_total", "").current == asked)
                let told = gateway.gateway.journal.entries(subject: "limit-store").map(\.record.outcome)
                #expect(told == ["count here"])
            }
        }
    }

    /// More than are kept for the next requests: what is gone must not be asked for when the store's time is over.
    @Test func clientsMayLeaveWhileTheStoreIsAsked() async throws {
        try await withSilence { port in
            try await withGateway(
                route("{ rate: 1000/s, burst: 1000, shared: true }"), keys: ["limit-store: \"redis://127.0.0.1:\(port)\""]
            ) { gateway in
                var sockets: [RawSocket] = []
                for _ in 0..<300 {
                    let socket = try RawSocket(port: gateway.endpoint.testPort)
                    socket.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    socket.resetOnClose()
                    sockets.append(socket)
                }
                sockets = []
                let gone = await eventually { await gateway.gateway.connectionCounts == [0] }
                #expect(gone)
                let last = try gateway.ask()
                #expect(last.status == 200)
            }
        }
    }

    // MARK: what is remembered

    @Test func aReloadKeepsWhatItDoesNotChange() async throws {
        let limited = route("{ rate: 1/h, burst: 1 }"), other = "{ path: /other, answer: { body: y } }"
        try await withGateway(limited) { gateway in
            var statuses = [try gateway.ask().status]
            try await gateway.reload([other, limited])
            for _ in 0..<2 { statuses.append(try gateway.ask().status) }
            #expect(statuses == [200, 200, 429])
            try await gateway.reload([route("{ rate: 1/h, burst: 2 }")])
            statuses = []
            for _ in 0..<4 { statuses.append(try gateway.ask().status) }
            #expect(statuses == [200, 200, 200, 429])
        }
    }

    /// A flood of addresses takes neither the memory nor goes unlimited, and what has had its time is forgotten.
    @Test func aFloodOfKeysStaysBounded() throws {
        let spec = try gatewaySpec([route("{ rate: 1/h }")]).routes[0].guards.limits[0]
        let limiter = RateLimiter(spec, route: "/")
        let begin = MonotonicTime.now, flood = RateLimiter.keyLimit + 20_000
        func key(_ i: Int) -> UInt64 { UInt64(i) &* 0x9E37_79B9_7F4A_7C15 }
        var allowed = 0
        for i in 1...flood { if limiter.take(key(i), now: begin).allowed { allowed += 1 } }
        #expect(limiter.keys <= RateLimiter.keyLimit + 16 && limiter.keys > RateLimiter.keyLimit / 2)
        #expect(allowed <= RateLimiter.keyLimit + 16 && allowed > RateLimiter.keyLimit / 2)
        // One that is remembered is still limited, and one that came too late is, with the others.
        #expect(!limiter.take(key(1), now: begin).allowed && !limiter.take(key(flood), now: begin).allowed)
        let later = begin + .seconds(7200)
        #expect(limiter.take(key(1), now: later).allowed && limiter.take(key(flood + 1), now: later).allowed)
        for i in 1...64 { _ = limiter.take(key(flood + i), now: later) }
        #expect(limiter.keys < RateLimiter.keyLimit)
    }

    @Test func limitsThatDifferAreCountedApart() throws {
        let limits = try gatewaySpec(
            [
                route(
                    "{ rate: 1/h, by: \"header:A\", shared: true }, { rate: 1/h, by: \"header:B\", shared: true }, { rate: 1/h, by: "
                        + "route, shared: true }"
                )
            ],
            keys: ["limit-store: redis://127.0.0.1:1"]
        ).routes[0].guards.limits
        let prefixes = Set(limits.map { RateLimiter($0, route: "/").prefix })
        #expect(prefixes.count == 3)
    }
}
