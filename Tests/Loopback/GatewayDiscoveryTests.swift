import Basics
import EventLoops
import HTTP
import Observability
import StackModel
import TestSupport
import Testing

@testable import Gateway

/// Backends that come and go while the gateway runs: by file, by DNS, over the API.
@Suite struct GatewayDiscoveryTests {
    /// Begins to follow what the routes say.
    private func following(_ gateway: LiveGateway) -> Discovery {
        let discovery = Discovery(
            gateway: gateway.gateway, loop: gateway.client.loop,
            logger: Logger(level: .error, format: .text, descriptor: 2, immediate: true)
        ) {}
        discovery.follow()
        return discovery
    }

    private func names(_ gateway: LiveGateway) -> [String] { gateway.replicas.map(\.name) }

    @Test func aFileIsFollowed() async throws {
        try await withNamed("a") { a in
            try await withNamed("b") { b in
                try await withFolder { folder in
                    let file = folder + "/backends"
                    func write(_ text: String) throws { try Files.replace(file, with: Array(text.utf8)) }
                    try write("127.0.0.1:\(a) # the first\n\n# nothing\n")
                    try await withLive("{ path: /, balance: round-robin, backends-file: \(file) }") { gateway in
                        let discovery = following(gateway)
                        let isFound = await eventually { names(gateway) == ["127.0.0.1:\(a)"] }
                        let first = gateway.replicas.first
                        try write("127.0.0.1:\(a)\n127.0.0.1:\(b) weight=3 priority=1\n")
                        let isAdded = await eventually { gateway.replicas.count == 2 }
                        // What stays is the same replica, with what is known of it.
                        #expect(
                            isFound && isAdded && gateway.replicas[0] === first && gateway.replicas[1].weight == 3
                                && gateway.replicas[1].priority == 1)
                        for wrong in [
                            "127.0.0.1:\(b)\nnonsense\n", "127.0.0.1:\(b) weight=x\n", "127.0.0.1:\(b) weight=257\n",
                            "127.0.0.1:\(b) colour=3\n",
                        ] {
                            try write(wrong)
                            // Two looks are needed for it to be taken.
                            try await Task.sleep(for: .milliseconds(1200))
                            #expect(gateway.replicas.count == 2, "\(wrong)")
                        }
                        Files.remove(file)
                        try await Task.sleep(for: .milliseconds(1200))
                        #expect(gateway.replicas.count == 2)
                        try write("127.0.0.1:\(b)\n")
                        let isReplaced = await eventually { names(gateway) == ["127.0.0.1:\(b)"] }
                        let served = try await gateway.served(3)
                        #expect(isReplaced && served == ["b", "b", "b"])
                        try write("")
                        let isEmpty = await eventually { gateway.replicas.isEmpty }
                        let nobody = try await gateway.send()
                        #expect(isEmpty && nobody.status == 503 && nobody.text.contains("no_replica"))
                        withExtendedLifetime(discovery) {}
                    }
                }
            }
        }
    }

    /// Those that the route declares stay beside those that are found.
    @Test func declaredOnesStay() async throws {
        try await withNamed("a") { a in
            try await withNamed("b") { b in
                try await withFolder { folder in
                    try Files.replace(folder + "/backends", with: Array("127.0.0.1:\(b)\n127.0.0.1:\(a)\n".utf8))
                    let route = "{ path: /, balance: round-robin, backends: [127.0.0.1:\(a)], backends-file: \(folder)/backends }"
                    try await withLive(route) { gateway in
                        let discovery = following(gateway)
                        let areThere = await eventually { names(gateway) == ["127.0.0.1:\(a)", "127.0.0.1:\(b)"] }
                        #expect(areThere)
                        try Files.replace(folder + "/backends", with: [])
                        let isLeft = await eventually { names(gateway) == ["127.0.0.1:\(a)"] }
                        #expect(isLeft)
                        withExtendedLifetime(discovery) {}
                    }
                }
            }
        }
    }

    @Test func addressRecordsAreFollowed() async throws {
        let server = try NameServer(["app.test": [.a("127.0.0.1")]])
        defer { server.stop() }
        try await withNamed("a") { a in
            try await withLive("{ path: /, backends-dns: { name: app.test, port: \(a), server: 127.0.0.1:\(server.port) } }") { gateway in
                let discovery = following(gateway)
                let isFound = await eventually { names(gateway) == ["127.0.0.1:\(a)"] }
                let served = try await gateway.served(1)
                #expect(isFound && served == ["a"])
                server.change("app.test", [.a("127.0.0.3"), .a("127.0.0.1")])
                let isFollowed = await eventually { names(gateway) == ["127.0.0.1:\(a)", "127.0.0.3:\(a)"] }
                #expect(isFollowed)
                // No such name, no record of the kind, no server: the last good answer stays.
                server.change("app.test", [])
                let before = server.asked.count
                let isAsked = await eventually { server.asked.count >= before + 4 }
                server.silence()
                try await Task.sleep(for: .milliseconds(500))
                #expect(isAsked && gateway.replicas.count == 2)
                withExtendedLifetime(discovery) {}
            }
        }
    }

    /// SRV weights go to 65,535, ours to 256: those of a level keep their ratio.
    @Test func weightsOfRecordsKeepTheirRatio() {
        func weights(_ records: [(priority: Int, weight: Int)]) -> [Int] {
            Discovery.backends(
                records.enumerated().map { .init(host: "h\($0.offset)", port: 1, priority: $0.element.priority, weight: $0.element.weight) }
            ).map(\.weight)
        }
        #expect(weights([(0, 1000), (0, 500), (0, 250)]) == [256, 128, 64])
        #expect(weights([(0, 65_535), (0, 1), (0, 32_768)]) == [256, 1, 128])
        #expect(weights([(0, 256), (0, 3), (0, 0)]) == [256, 3, 0] && weights([(0, 600), (0, 300), (0, 0)]) == [256, 128, 0])
        // Each level by itself; and where nothing is said of weights (0 for all), there are none.
        #expect(weights([(10, 512), (10, 256), (20, 300), (20, 3)]) == [256, 128, 256, 3])
        #expect(weights([(1, 0), (1, 0), (2, 5)]) == [1, 1, 5])
    }

    /// A name's A and AAAA records are two answers: the one that fails says nothing about its addresses, in either direction.
    @Test func halfAnAnswerChangesHalf() async throws {
        let server = try NameServer(["app.test": [.a("127.0.0.1"), .a("127.0.0.2"), .aaaa(last: 1)]])
        defer { server.stop() }
        try await withLive("{ path: /, backends-dns: { name: app.test, port: 9, server: 127.0.0.1:\(server.port) } }") { gateway in
            let discovery = following(gateway)
            let v4 = ["127.0.0.1:9", "127.0.0.2:9"], v6 = ["[::1]:9"]
            let isFound = await eventually { names(gateway) == v4 + v6 }
            #expect(isFound, "\(names(gateway))")
            // What fails stays, and what is answered is followed.
            for (failing, records, expected) in [
                ("1", [.aaaa(last: 2)], v4 + ["[::2]:9"]), ("28", [.a("127.0.0.3")], ["127.0.0.3:9", "[::2]:9"]),
                ("none", [.a("127.0.0.3")], ["127.0.0.3:9"]),
            ] as [(String, [NameServer.Record], [String])] {
                server.fail(["\(failing) app.test"])
                server.change("app.test", records)
                let before = server.asked.count
                let isFollowed = await eventually { server.asked.count >= before + 4 && names(gateway) == expected }
                #expect(isFollowed, "\(failing): \(names(gateway))")
            }
            withExtendedLifetime(discovery) {}
        }
    }

    /// Of several names that SRV records point to, one that is not answered keeps its addresses; the others are followed, and so are ports.
    @Test func aServiceNameThatFailsKeepsItsOwn() async throws {
        let name = "_http._tcp.app.test"
        let server = try NameServer([
            name: [.srv(target: "one.test", port: 1, priority: 1, weight: 1), .srv(target: "two.test", port: 2, priority: 1, weight: 1)],
            "one.test": [.a("127.0.0.1")], "two.test": [.a("127.0.0.2")],
        ])
        defer { server.stop() }
        try await withLive("{ path: /, backends-dns: { name: \(name), srv: true, server: 127.0.0.1:\(server.port) } }") { gateway in
            let discovery = following(gateway)
            let isFound = await eventually { names(gateway) == ["127.0.0.1:1", "127.0.0.2:2"] }
            #expect(isFound, "\(names(gateway))")
            server.fail(["1 one.test", "28 one.test"])
            server.change("two.test", [.a("127.0.0.3")])
            let isFollowed = await eventually { names(gateway) == ["127.0.0.1:1", "127.0.0.3:2"] }
            #expect(isFollowed, "\(names(gateway))")
            server.change(name, [.srv(target: "one.test", port: 11, priority: 1, weight: 1)])
            let isMoved = await eventually { names(gateway) == ["127.0.0.1:11"] }
            #expect(isMoved, "\(names(gateway))")
            // Without the list of names nothing is known of any.
            server.fail(["33 \(name)"])
            let before = server.asked.count
            let isAsked = await eventually { server.asked.count >= before + 2 }
            #expect(isAsked && names(gateway) == ["127.0.0.1:11"])
            withExtendedLifetime(discovery) {}
        }
    }

    /// What was in the way of reading a file may go without its time changing.
    @Test func aFileThatBecomesReadableIsRead() async throws {
        try await withFolder { folder in
            let file = folder + "/backends"
            try await withLive("{ path: /, backends-file: \(file) }") { gateway in
                let discovery = following(gateway)
                try Files.makeFolder(file)
                try await Task.sleep(for: .milliseconds(600))
                Files.remove(file)
                try Files.replace(file, with: Array("127.0.0.1:9 weight=1 weight=2\n".utf8))
                try await Task.sleep(for: .milliseconds(700))
                #expect(names(gateway).isEmpty)
                try Files.replace(file, with: Array("127.0.0.1:9 weight=2\n".utf8))
                let isRead = await eventually { gateway.replicas.map(\.weight) == [2] }
                #expect(isRead)
                withExtendedLifetime(discovery) {}
            }
        }
    }

    @Test func serviceRecordsTellPortsWeightsAndPriorities() async throws {
        try await withNamed("a") { a in
            try await withNamed("b") { b in
                let server = try NameServer([
                    "_http._tcp.app.test": [
                        .srv(target: "one.test", port: a, priority: 10, weight: 5),
                        .srv(target: "two.test", port: b, priority: 20, weight: 0),
                    ],
                    "one.test": [.a("127.0.0.1")], "two.test": [.a("127.0.0.1")],
                ])
                defer { server.stop() }
                try await withLive("{ path: /, backends-dns: { name: _http._tcp.app.test, srv: true, server: 127.0.0.1:\(server.port) } }")
                { gateway in
                    let discovery = following(gateway)
                    let isFound = await eventually { gateway.replicas.count == 2 }
                    let found = gateway.replicas.map { "\($0.name) \($0.weight) \($0.priority)" }
                    #expect(isFound && Set(found) == ["127.0.0.1:\(a) 5 0", "127.0.0.1:\(b) 1 1"], "\(found)")
                    let served = try await gateway.served(3)
                    #expect(served == ["a", "a", "a"])
                    server.change("_http._tcp.app.test", [.srv(target: "two.test", port: b, priority: 1, weight: 1)])
                    let isFollowed = await eventually { names(gateway) == ["127.0.0.1:\(b)"] }
                    #expect(isFollowed)
                    withExtendedLifetime(discovery) {}
                }
            }
        }
    }

    // MARK: reloads

    /// A reload takes the source away, the next one brings it back, before the source would have been asked again.
    @Test func aSourceThatCameBackIsAskedAtOnce() async throws {
        let server = try NameServer(["app.test": [.a("127.0.0.1")]], ttl: 200)
        defer { server.stop() }
        try await withNamed("a") { a in
            let route = "{ path: /, backends-dns: { name: app.test, port: \(a), server: 127.0.0.1:\(server.port) } }"
            try await withLive(route) { gateway in
                let discovery = following(gateway)
                let isFound = await eventually { names(gateway) == ["127.0.0.1:\(a)"] }
                for (first, second) in [("{ path: /other, answer: { body: x } }", route), ("{ path: /, backends: [127.0.0.1:1] }", route)] {
                    try await gateway.reload(first)
                    discovery.follow()
                    try await gateway.reload(second)
                    discovery.follow()
                    let isBack = await eventually { names(gateway) == ["127.0.0.1:\(a)"] }
                    #expect(isFound && isBack, "\(names(gateway))")
                    let served = try await gateway.send()
                    #expect(served.status == 200)
                    // Both reloads at once, as two that come together leave it.
                    try await gateway.reload(first)
                    try await gateway.reload(second)
                    discovery.follow()
                    let isBackAgain = await eventually { names(gateway) == ["127.0.0.1:\(a)"] }
                    #expect(isBackAgain, "\(names(gateway))")
                }
                // Whoever is replaced ends: each question is asked once, and none more before its time.
                let asked = server.asked.count
                try await Task.sleep(for: .milliseconds(1500))
                #expect(server.asked.count == asked)
                withExtendedLifetime(discovery) {}
            }
        }
    }

    /// What a reload takes out of the declared backends goes at once, and what it adds comes at once, beside those that are found.
    @Test func declaredBackendsFollowAReloadAtOnce() async throws {
        let server = try NameServer(["app.test": [.a("127.0.0.3")]], ttl: 200)
        defer { server.stop() }
        func route(_ declared: String) -> String {
            "{ path: /, backends: [\(declared)], backends-dns: { name: app.test, port: 9, server: 127.0.0.1:\(server.port) } }"
        }
        try await withLive(route("127.0.0.1:1, 127.0.0.1:2")) { gateway in
            let discovery = following(gateway)
            let isFound = await eventually { names(gateway) == ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.3:9"] }
            let kept = gateway.replicas.last
            try await gateway.reload(route("127.0.0.1:2, 127.0.0.1:4"))
            #expect(isFound && names(gateway) == ["127.0.0.1:2", "127.0.0.1:4", "127.0.0.3:9"] && gateway.replicas.last === kept)
            withExtendedLifetime(discovery) {}
        }
    }

    /// What is set over the API holds until the next reload, whatever is found meanwhile; then it is over, and what was found is back.
    @Test func theAPIHoldsUntilTheNextReload() async throws {
        try await withFolder { folder in
            let file = folder + "/backends"
            try Files.replace(file, with: Array("127.0.0.1:1\n".utf8))
            let route = "{ path: /, backends-file: \(file) }"
            try await withLive(route) { gateway in
                let discovery = following(gateway)
                let isFound = await eventually { names(gateway) == ["127.0.0.1:1"] }
                try await gateway.gateway.setBackends([BackendSpec(address: "127.0.0.1:7", weight: 1)], of: "/")
                try Files.replace(file, with: Array("127.0.0.1:2\n".utf8))
                try await Task.sleep(for: .milliseconds(900))
                #expect(isFound && names(gateway) == ["127.0.0.1:7"])
                try await gateway.reload(route)
                #expect(names(gateway) == ["127.0.0.1:2"] && gateway.gateway.backends(of: "/")?.map(\.address) == ["127.0.0.1:2"])
                withExtendedLifetime(discovery) {}
            }
        }
    }

    /// Reloads and backends that are set from elsewhere at the same time: the one that was done last holds, and none is lost.
    @Test func nothingThatIsSetBesideReloadsIsLost() async throws {
        let route = "{ path: /, backends: [127.0.0.1:1], backends-file: /nowhere }"
        try await withLive(route) { gateway in
            let live = gateway.gateway
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { for _ in 0..<200 { try await live.apply(try gatewaySpec([route])) { _ in [] } } }
                group.addTask {
                    for i in 1...200 { try await live.setFound([BackendSpec(address: "127.0.0.2:\(i)", weight: 1)], of: "/") }
                }
                try await group.waitForAll()
            }
            #expect(names(gateway) == ["127.0.0.1:1", "127.0.0.2:200"])
        }
    }

    // MARK: API

    private func withAPI(
        token: Bool,
        _ body: (LiveGateway, UInt16, _ ask: (String, String, String?, String?) async throws -> HTTPClientResponse) async throws -> Void
    )
        async throws
    {
        try await withFolder { folder in
            try Files.replace(folder + "/token", with: Array("a-token-of-the-tests\n".utf8))
            try await withNamed("a") { a in
                try await withLive("{ path: /, backends: [127.0.0.1:\(a)] }", more: token ? ["admin-token-file: \(folder)/token"] : []) {
                    gateway in
                    var router = Router()
                    AdminAPI.add(to: &router, gateway: gateway.gateway)
                    try await withServer(gateway.client.loop, router) { admin in
                        try await body(gateway, a) { method, target, token, text in
                            let headers = token.map { [("Authorization", $0)] } ?? []
                            return try await gateway.client.send(
                                method, target, to: admin, headers: headers, body: text.map { Array($0.utf8) })
                        }
                    }
                }
            }
        }
    }

    private static let bearer = "Bearer a-token-of-the-tests"

    @Test func backendsAreSetOverTheAPI() async throws {
        try await withNamed("b") { b in
            try await withAPI(token: true) { gateway, a, ask in
                let new = "{\"backends\": [{\"address\": \"127.0.0.1:\(b)\", \"weight\": 2}, \"127.0.0.1:\(a)\"]}"
                for wrong in [nil, "Bearer wrong", "Basic a-token-of-the-tests", "Bearer", "Bearer a-token-of-the-tests2"] {
                    let refused = try await ask("PUT", "/api/backends?route=/", wrong, new)
                    #expect(refused.status == 401 && refused.text.contains("wrong_admin_token"))
                    let other = try await ask("POST", "/api/replicas?name=127.0.0.1:\(a)&state=disabled", wrong, nil)
                    #expect(other.status == 401)
                }
                #expect(names(gateway) == ["127.0.0.1:\(a)"] && gateway.states == ["ready"])
                let done = try await ask("PUT", "/api/backends?route=/", Self.bearer, new)
                #expect(done.status == 200 && names(gateway) == ["127.0.0.1:\(b)", "127.0.0.1:\(a)"] && gateway.replicas[0].weight == 2)
                let told = try await ask("GET", "/api/backends?route=/", nil, nil)
                #expect(told.status == 200 && told.text.contains("127.0.0.1:\(b)"))
                let unknown = try await ask("GET", "/api/backends?route=/nowhere", nil, nil)
                #expect(unknown.status == 404)
            }
        }
    }

    /// The page of metrics has the replicas that there are, and no others.
    @Test func aReplicaThatIsGoneIsNotMeasured() async throws {
        try await withAPI(token: true) { gateway, a, ask in
            let before = try await ask("GET", "/metrics", nil, nil)
            #expect(before.text.contains("gateway_replica_eligible{route=\"/\",replica=\"127.0.0.1:\(a)\"} 1"))
            _ = try await ask("PUT", "/api/backends?route=/", Self.bearer, "{\"backends\": [\"127.0.0.1:1\", \"127.0.0.1:1\"]}")
            let after = try await ask("GET", "/metrics", nil, nil)
            #expect(!after.text.contains("replica=\"127.0.0.1:\(a)\""))
            #expect(
                after.text.split(separator: "\n").filter { $0.hasPrefix("gateway_replica_eligible{") } == [
                    "gateway_replica_eligible{route=\"/\",replica=\"127.0.0.1:1\"} 1"
                ])
        }
    }

    @Test(arguments: [
        "", "[]", "{}", "{\"backends\": 1}", "{\"backends\": [1]}", "{\"backends\": [\"\"]}", "{\"backends\": [\"a:b:c\"]}",
        "{\"backends\": [\"127.0.0.1:99999\"]}",
        "{\"backends\": [{\"address\": \"127.0.0.1:1\", \"weight\": 257}]}",
        "{\"backends\": [{\"address\": \"127.0.0.1:1\", \"priority\": -1}]}", "{\"backends\": [",
    ])
    func aBodyThatIsNoneChangesNothing(body: String) async throws {
        try await withAPI(token: true) { gateway, a, ask in
            let refused = try await ask("PUT", "/api/backends?route=/", Self.bearer, body)
            #expect(refused.status == 400, "\(refused.text)")
            let elsewhere = try await ask("PUT", "/api/backends?route=/nowhere", Self.bearer, "{\"backends\": [\"127.0.0.1:1\"]}")
            #expect(elsewhere.status == 400 && names(gateway) == ["127.0.0.1:\(a)"])
        }
    }

    @Test func replicasAreTakenOutAndPutBack() async throws {
        try await withAPI(token: true) { gateway, a, ask in
            let target = "/api/replicas?name=127.0.0.1:\(a)&state="
            let out = try await ask("POST", target + "disabled", Self.bearer, nil)
            let nobody = try await gateway.send()
            #expect(out.status == 200 && gateway.states == ["disabled"] && nobody.status == 503)
            let back = try await ask("POST", target + "ready", Self.bearer, nil)
            let served = try await gateway.send()
            #expect(back.status == 200 && gateway.states == ["ready"] && served.status == 200)
            let wrong = try await ask("POST", target + "sleeping", Self.bearer, nil)
            let unknown = try await ask("POST", "/api/replicas?name=x&state=ready", Self.bearer, nil)
            #expect(wrong.status == 400 && unknown.status == 404)
        }
    }

    /// Who leaves the backends and comes back is still taken out, until somebody puts it back: also while it is not there.
    @Test func whoLeavesAndComesBackIsStillTakenOut() async throws {
        try await withAPI(token: true) { gateway, a, ask in
            let target = "/api/replicas?name=127.0.0.1:\(a)&state=", home = "{\"backends\": [\"127.0.0.1:\(a)\"]}"
            let elsewhere = "{\"backends\": [\"127.0.0.1:1\"]}"
            _ = try await ask("POST", target + "disabled", Self.bearer, nil)
            _ = try await ask("PUT", "/api/backends?route=/", Self.bearer, elsewhere)
            #expect(gateway.states == ["ready"])
            _ = try await ask("PUT", "/api/backends?route=/", Self.bearer, home)
            let nobody = try await gateway.send()
            #expect(gateway.states == ["disabled"] && nobody.status == 503)
            _ = try await ask("PUT", "/api/backends?route=/", Self.bearer, elsewhere)
            let back = try await ask("POST", target + "ready", Self.bearer, nil)
            let again = try await ask("POST", target + "ready", Self.bearer, nil)
            #expect(back.status == 200 && back.text.contains("ready") && again.status == 404)
            _ = try await ask("PUT", "/api/backends?route=/", Self.bearer, home)
            let served = try await gateway.send()
            #expect(gateway.states == ["ready"] && served.status == 200)
        }
    }

    /// What somebody took out stays out, and what is down stays down, whatever its share and its turn are set to.
    @Test func anotherWeightChangesNothingElse() async throws {
        try await withAPI(token: true) { gateway, a, ask in
            _ = try await ask("POST", "/api/replicas?name=127.0.0.1:\(a)&state=disabled", Self.bearer, nil)
            let before = gateway.replicas[0]
            before.add(.down, because: "a probe says so")
            for (weight, priority) in [(3, 0), (3, 2), (1, 0)] {
                let new = "{\"backends\": [{\"address\": \"127.0.0.1:\(a)\", \"weight\": \(weight), \"priority\": \(priority)}]}"
                let done = try await ask("PUT", "/api/backends?route=/", Self.bearer, new)
                let now = gateway.replicas[0]
                #expect(done.status == 200 && now === before && now.weight == weight && now.priority == priority)
                #expect(now.obstacles == [.disabled, .down])
                let nobody = try await gateway.send()
                #expect(nobody.status == 503)
            }
            // One address may stand there twice, with two weights: both are there, and stay.
            let twice = "{\"backends\": [\"127.0.0.1:\(a)\", {\"address\": \"127.0.0.1:\(a)\", \"weight\": 5}]}"
            _ = try await ask("PUT", "/api/backends?route=/", Self.bearer, twice)
            let both = gateway.replicas
            _ = try await ask("PUT", "/api/backends?route=/", Self.bearer, twice)
            #expect(both.map(\.weight) == [1, 5] && both[0] === before && both[0] !== both[1])
            #expect(zip(both, gateway.replicas).allSatisfy { $0 === $1 })
        }
    }

    @Test func withoutATokenNothingIsChanged() async throws {
        try await withAPI(token: false) { gateway, a, ask in
            for token in [nil, Self.bearer, "Bearer "] {
                let set = try await ask("PUT", "/api/backends?route=/", token, "{\"backends\": []}")
                let out = try await ask("POST", "/api/replicas?name=127.0.0.1:\(a)&state=disabled", token, nil)
                #expect(set.status == 403 && set.text.contains("no_admin_token") && out.status == 403)
            }
            #expect(gateway.states == ["ready"])
        }
    }
}
