import TestSupport
import Testing

/// Each of a route's hosts is ranked by itself: what a route asks for is not passed by because of what else it names.
@Suite(.serialized) struct HostRankTests {
    private func page(_ name: String, _ conditions: String) -> String { "{ \(conditions), answer: { body: \(name) } }" }

    @Test func anExactHostBesideAWildcardIsExact() async throws {
        try await withFolder { folder in
            try folder.put("tokens", "a-token-of-the-tests\n")
            try await withGateway(
                "{ path: /, hosts: [admin.shop.example, \"*.adm.io\"], auth: { bearer: \"\(folder)/tokens\" }, answer: { body: guarded } }",
                page("open", "path: /, hosts: [\"*.shop.example\"]")
            ) { gateway in
                for host in ["admin.shop.example", "ADMIN.shop.EXAMPLE", "admin.shop.example:8080", "admin.shop.example.", "x.adm.io"] {
                    let answer = try gateway.ask(host: host)
                    #expect(answer.status == 401, "\(host)")
                }
                let open = try gateway.ask(host: "www.shop.example")
                #expect(open.body == "open")
            }
        }
    }

    /// A long wildcard beside a short one, in one route and in the other; and no order of the file changes it.
    @Test(arguments: [false, true]) func theLongestWildcardDecides(reversed: Bool) async throws {
        let routes = [
            page("mixed", "path: /, hosts: [\"*.a.example\", \"*.very.deep.b.example\", exact.c.example]"),
            page("deep", "path: /, hosts: [\"*.deep.a.example\", \"*.b.example\"]"),
            page("path", "exact: /x, hosts: [\"*.c.example\"]"),
            page("any", "exact: /x"),
        ]
        let order = reversed ? routes.reversed() : routes
        try await withGateway(order[0], order[1], order[2], order[3]) { gateway in
            for (host, body) in [
                ("x.a.example", "mixed"), ("x.deep.a.example", "deep"), ("x.b.example", "deep"), ("x.very.deep.b.example", "mixed"),
                ("exact.c.example", "mixed"), ("other.c.example", "path"), ("elsewhere.example", "any"),
            ] {
                let answer = try gateway.ask("GET /x", host: host)
                #expect(answer.body == body, "\(host)")
            }
        }
    }

    /// A backend may decode the escapes of a host, so a host with escapes is nobody that a pattern names.
    @Test func aHostWithEscapesIsNobody() async throws {
        try await withGateway(
            page("admin", "path: /, hosts: [admin.shop.example]"), page("wild", "path: /, hosts: [\"*.shop.example\"]")
        ) { gateway in
            for host in ["%61dmin.shop.example", "x%2e.shop.example", "admin%2eshop.example"] {
                let answer = try gateway.ask(host: host)
                #expect(answer.status == 404, "\(host)")
            }
        }
    }
}
