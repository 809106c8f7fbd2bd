import Basics
import EventLoops
import Glibc
import TestSupport
import Testing

/// Who stays where: cookies, canaries, hashes.
@Suite(.serialized) struct StickyTests {
    private func withThree(_ body: ([UInt16]) async throws -> Void) async throws {
        try await withEcho("a") { a, _ in
            try await withEcho("b") { b, _ in try await withEcho("c") { c, _ in try await body([a, b, c]) } }
        }
    }

    private func list(_ ports: some Sequence<UInt16>) -> String { "[" + ports.map { "127.0.0.1:\($0)" }.joined(separator: ", ") + "]" }

    @Test func aCookieKeepsAClientOnItsReplica() async throws {
        try await withThree { ports in
            try await withGateway("{ path: /, sticky: home, backends: \(list(ports)) }") { gateway in
                let first = try gateway.ask()
                let cookie = try #require(first.cookie)
                #expect(
                    cookie.hasPrefix("home=") && cookie.utf8.count == 21
                        && first.field("set-cookie") == cookie + "; Path=/; HttpOnly; SameSite=Lax")
                for field in ["Cookie: \(cookie)", "Cookie: other=1; \(cookie)", "cookie: x=\"y\";\(cookie);z=1"] {
                    for _ in 0..<3 {
                        let again = try gateway.ask("GET /", [field])
                        #expect(again.place == first.place && again.cookie == nil)
                    }
                }
                for field in [
                    "Cookie: home=", "Cookie: home=zzzzzzzzzzzzzzzz", "Cookie: home=0000000000000000",
                    "Cookie: Home=\(cookie.dropFirst(5))", "Cookie: \(cookie)0",
                ] {
                    let other = try gateway.ask("GET /", [field])
                    #expect(other.status == 200 && other.cookie?.hasPrefix("home=") == true, "\(field)")
                }
            }
        }
    }

    @Test func aReplicaThatIsGoneGivesItsClientsAway() async throws {
        try await withThree { ports in
            try await withGateway("{ path: /, sticky: home, backends: \(list(ports)) }") { gateway in
                let first = try gateway.ask()
                let cookie = try #require(first.cookie)
                let index = Int(first.place.utf8.first! - 97)
                gateway.gateway.routes[0].replicas[index].add(.disabled)
                let other = try gateway.ask("GET /", ["Cookie: \(cookie)"])
                #expect(other.place != first.place && other.cookie != nil && other.cookie != cookie)
                gateway.gateway.routes[0].replicas[index].remove(.disabled)
                let back = try gateway.ask("GET /", ["Cookie: \(cookie)"])
                #expect(back.place == first.place && back.cookie == nil)
                var left = ports
                left.remove(at: index)
                try await gateway.reload(["{ path: /, sticky: home, backends: \(list(left)) }"])
                let gone = try gateway.ask("GET /", ["Cookie: \(cookie)"])
                #expect(gone.place != first.place && gone.cookie != nil && gone.cookie != cookie)
            }
        }
    }

    /// One that answers only its first request, and another: the client goes on there, and its cookie says so.
    @Test func afterAFailureTheCookieNamesTheOther() async throws {
        let asked = Tally()
        try await withRaw({ fd in
            let head = receiveHead(fd)
            asked.add()
            if head.isEmpty || asked.count > 1 { return }
            let answer = "HTTP/1.1 200 OK\r\nX-Backend: bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            _ = send(fd, answer, answer.utf8.count, Int32(MSG_NOSIGNAL))
        }) { bad, _ in
            try await withEcho("good") { good, _ in
                try await withGateway("{ path: /, sticky: home, balance: round-robin, backends: [127.0.0.1:\(bad), 127.0.0.1:\(good)] }") {
                    gateway in
                    let first = try gateway.ask()
                    let cookie = try #require(first.cookie)
                    #expect(first.place == "bad")
                    let second = try gateway.ask("GET /", ["Cookie: \(cookie)"])
                    #expect(
                        second.status == 200 && second.place == "good" && second.all("set-cookie").count == 1 && second.cookie != cookie)
                    #expect(gateway.verdicts() == ["retry"])
                }
            }
        }
    }

    // MARK: canaries

    @Test func aCanaryTakesItsShareAndWhoAsksForIt() async throws {
        try await withThree { ports in
            func route(_ share: String, _ path: String) -> String {
                "{ path: \(path), backends: [127.0.0.1:\(ports[0])], canary: { backends: [127.0.0.1:\(ports[1])], share: \(share), "
                    + "header: X-Canary, cookie: canary } }"
            }
            try await withGateway(route("0%", "/none"), route("100%", "/all"), route("50%", "/half")) { gateway in
                for (target, fields, place) in [
                    ("/none", [], "a"), ("/all", [], "b"), ("/none", ["X-Canary: always"], "b"), ("/all", ["x-canary: Never"], "a"),
                    ("/none", ["Cookie: canary=always"], "b"),
                    ("/all", ["Cookie: x=1; canary=never"], "a"), ("/none", ["X-Canary: never", "Cookie: canary=always"], "a"),
                    ("/none", ["X-Canary: yes"], "a"),
                    ("/all", ["X-Canary: "], "b"),
                ] as [(String, [String], String)] {
                    let answer = try gateway.ask("GET \(target)", fields)
                    #expect(answer.place == place, "\(target) \(fields)")
                }
                var counts: [String: Int] = [:]
                for _ in 0..<200 { counts[try gateway.ask("GET /half").place, default: 0] += 1 }
                // Six deviations on each side.
                #expect(counts["a", default: 0] > 55 && counts["b", default: 0] > 55)
            }
        }
    }

    @Test func whoHasMetTheCanaryStaysWithIt() async throws {
        try await withThree { ports in
            let canary = "canary: { backends: [127.0.0.1:\(ports[1])], header: X-Canary }"
            try await withGateway("{ path: /, sticky: home, backends: [127.0.0.1:\(ports[0])], \(canary) }") { gateway in
                let met = try gateway.ask("GET /", ["X-Canary: always"])
                let cookie = try #require(met.cookie)
                let stays = try gateway.ask("GET /", ["Cookie: \(cookie)"]),
                    leaves = try gateway.ask("GET /", ["Cookie: \(cookie)", "X-Canary: never"])
                #expect(met.place == "b" && stays.place == "b" && stays.cookie == nil && leaves.place == "a" && leaves.cookie != nil)
            }
        }
    }

    // MARK: hashes

    /// Where each of many keys goes: the same place when it comes again, and not all to one.
    private func homes(_ balance: String, _ ask: (GatewayFixture, Int) throws -> RawAnswer) async throws {
        try await withThree { ports in
            try await withGateway("{ path: /, balance: \"\(balance)\", backends: \(list(ports)) }") { gateway in
                let homes = try (0..<40).map { try ask(gateway, $0).place }
                let again = try (0..<40).map { try ask(gateway, 39 - $0).place }
                #expect(Array(again.reversed()) == homes && Set(homes).count == 3)
            }
        }
    }

    @Test func fieldsCookiesPathsAndAddressesHaveAHome() async throws {
        try await homes("hash(header:X-User)") { try $0.ask("GET /\($1)?\($1)", ["x-user: user-\($1)"]) }
        try await homes("hash(cookie:sid)") { try $0.ask("GET /\($1)", ["Cookie: a=\($1); sid=user-\($1)"]) }
        try await homes("hash(path)") { try $0.ask("GET /item/\($1)?\(UInt32.random(in: 0 ... .max))") }
        try await homes("hash(client-ip)") { try $0.ask(from: 0x7F00_0010 + UInt32($1)) }
        try await homes("ip-hash") { try $0.ask(from: 0x7F00_0001 + UInt32($1) << 8 + UInt32.random(in: 0..<200)) }
    }

    /// Without the field there is no home, and the load is spread.
    @Test func whoNamesNothingIsSpread() async throws {
        try await withThree { ports in
            try await withGateway("{ path: /, balance: \"hash(header:X-User)\", backends: \(list(ports)) }") { gateway in
                let places = try (0..<6).map { _ in try gateway.ask().place }
                #expect(Set(places).count == 3)
            }
        }
    }
}
