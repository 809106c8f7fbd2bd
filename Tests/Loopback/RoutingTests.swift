import Basics
import EventLoops
import TestSupport
import Testing

/// Which route takes a request, and what the backend is then asked for.
@Suite(.serialized) struct RoutingTests {
    private func page(_ name: String, _ conditions: String) -> String { "{ \(conditions), answer: { body: \(name) } }" }

    @Test func hostsAreComparedWithoutCasePortAndDot() async throws {
        try await withGateway(
            page("exact", "path: /, hosts: [shop.example.org]"), page("wild", "path: /, hosts: [\"*.Example.org\"]"),
            page("below", "path: /, hosts: [\"*.a.test\", b.test]")
        ) { gateway in
            for (host, body) in [
                ("shop.example.org", "exact"), ("SHOP.Example.ORG", "exact"), ("shop.example.org:8080", "exact"),
                ("shop.example.org.", "exact"),
                ("shop.example.org.:80", "exact"), ("x.example.org", "wild"), ("x.y.EXAMPLE.org:1", "wild"), ("b.test", "below"),
                ("c.a.test", "below"),
            ] {
                let answer = try gateway.ask("GET /", host: host)
                #expect(answer.status == 200 && answer.body == body, "\(host)")
            }
            for host in [
                "example.org", "evilexample.org", "shop.example.org.evil.test", "a.test", "xb.test", "[::1]", "[::1]:80", "127.0.0.1",
            ] {
                let answer = try gateway.ask("GET /", host: host)
                #expect(answer.status == 404 && answer.body.contains("no_route"), "\(host)")
            }
        }
    }

    /// Exact before expressions before prefixes, the longest prefix, expressions in the file's order; a host before any path.
    @Test func theMostParticularRouteTakesIt() async throws {
        try await withGateway(
            page("root", "path: /"), page("api", "path: /api"), page("longer", "path: /api/v1"), page("slash", "path: /dir/"),
            page("first", "regex: \"^/api/v[0-9]+/x$\""), page("second", "regex: \"^/api/.*x$\""), page("exact", "exact: /api/v1/x"),
            page("host", "path: /, hosts: [h.test]")
        ) { gateway in
            for (target, body) in [
                ("/", "root"), ("/other?x=/api", "root"), ("/api", "api"), ("/api?q", "api"), ("/api/", "api"), ("/apix/y", "root"),
                ("/api/v1", "longer"),
                ("/api/v1/z", "longer"), ("/api/v12/z", "api"), ("/api/v1/x", "exact"), ("/api/v1/x?y=1", "exact"),
                ("/api/v1/x/", "longer"), ("/api/v2/x", "first"),
                ("/api/v2/x?y", "first"), ("/api/qx", "second"), ("/dir", "root"), ("/dir/a", "slash"),
            ] {
                let answer = try gateway.ask("GET \(target)")
                #expect(answer.body == body, "\(target)")
            }
            let named = try gateway.ask("GET /api/v1/x", host: "h.test")
            #expect(named.body == "host")
        }
    }

    @Test func methodsAndFieldsAreConditions() async throws {
        try await withGateway(
            page("write", "path: /a, methods: [POST, PUT]"), page("beta", "path: /a, headers: { X-Version: beta }"),
            page("plain", "path: /a"),
            page("only", "path: /only, methods: [GET]")
        ) { gateway in
            for (line, fields, body) in [
                ("POST /a", [], "write"), ("PUT /a", ["X-Version: other"], "write"), ("GET /a", ["x-version: beta"], "beta"),
                ("GET /a", ["X-Version: Beta"], "plain"),
                ("GET /a", ["X-Version: betas"], "plain"), ("GET /a", [], "plain"), ("GET /only", [], "only"),
            ] as [(String, [String], String)] {
                let answer = try gateway.ask(line, fields)
                #expect(answer.body == body, "\(line) \(fields)")
            }
            for line in ["DELETE /only", "get /only", "GET /elsewhere", "OPTIONS *"] {
                let answer = try gateway.ask(line)
                #expect(answer.status == 404, "\(line)")
            }
        }
    }

    /// Without a limit of its steps, one of these would take longer than the universe has. What it cuts off falls to no other route.
    @Test func anExpressionThatBacktracksCostsLittle() async throws {
        try await withGateway(page("slow", "regex: \"^/(a+)+$\""), page("never", "regex: \"^/(a|a)*b$\""), page("root", "path: /")) {
            gateway in
            let many = String(repeating: "a", count: 4000)
            for _ in 0..<5 {
                let answer = try gateway.ask("GET /\(many)!")
                #expect(answer.status == 400 && answer.body.contains("bad_path"))
            }
            let match = try gateway.ask("GET /aaa")
            #expect(match.body == "slow")
        }
    }

    // MARK: rewrites

    private func asked(_ route: String, _ targets: [String]) async throws -> [String] {
        var seen: [String] = []
        try await withEcho { port, _ in
            try await withGateway("{ \(route), backends: [127.0.0.1:\(port)] }") { gateway in
                for target in targets {
                    let answer = try gateway.ask("GET \(target)")
                    seen.append(answer.status == 200 ? String(answer.body.split(separator: " ")[1]) : "\(answer.status)")
                }
            }
        }
        return seen
    }

    @Test func aPrefixIsReplacedAndTheQueryKept() async throws {
        let toRoot = try await asked("path: /api, rewrite: { prefix: / }", ["/api", "/api/", "/api/x?y=/api", "/api?z", "/api//x"])
        #expect(toRoot == ["/", "/", "/x?y=/api", "/?z", "//x"])
        let toOther = try await asked("path: /api/, rewrite: { prefix: /v2 }", ["/api/", "/api/x%20y?q=a%2Fb"])
        #expect(toOther == ["/v2", "/v2/x%20y?q=a%2Fb"])
        let exact = try await asked("exact: /one, rewrite: { prefix: /two }", ["/one?x"])
        #expect(exact == ["/two?x"])
    }

    @Test func groupsOfAnExpressionStandInTheNewPath() async throws {
        let seen = try await asked(
            "path: /, rewrite: { regex: \"^/users/([0-9]+)/(.*)$\", to: \"/u/$2/$1/$$\" }",
            ["/users/42/a/b?q=/users/1/x", "/other", "/users/x/y"])
        #expect(seen == ["/u/a/b/42/$?q=/users/1/x", "/other", "/users/x/y"])
    }

    /// No path, or one that a backend would resolve to another place: neither the new target is sent nor the old one.
    @Test func aRewriteThatMakesNoTargetIsRefused() async throws {
        let noSlash = try await asked("path: /, rewrite: { regex: \"^/x\", to: \"x\" }", ["/xy"])
        #expect(noSlash == ["400"])
        let signs = try await asked("path: /, rewrite: { regex: \"^/y\", to: \"/ #\" }", ["/y"])
        #expect(signs == ["400"])
        let dots = try await asked(
            "path: /, rewrite: { regex: \"^/api-\", to: \"/\" }", ["/api-../secret", "/api-%2e%2e/secret", "/api-x"])
        #expect(dots == ["400", "400", "/x"])
    }

    @Test func theHostForTheBackendIsTheRoutes() async throws {
        try await withEcho { port, _ in
            try await withGateway(
                "{ path: /own, host: \"inner.test:81\", backends: [127.0.0.1:\(port)] }", "{ path: /, backends: [127.0.0.1:\(port)] }"
            ) { gateway in
                let own = try gateway.ask("GET /own", host: "outer.test").body
                #expect(
                    own.contains("\r\nHost: inner.test:81\r\n") && own.contains("\r\nX-Forwarded-Host: outer.test\r\n")
                        && !own.contains("Host: outer.test\r\nHost"))
                #expect(own.split(separator: "\r\n").filter { $0.hasPrefix("Host:") }.count == 1)
                let kept = try gateway.ask("GET /", host: "outer.test").body
                #expect(kept.contains("\r\nHost: outer.test\r\n"))
            }
        }
    }

    // MARK: answers of the gateway's own

    @Test func redirectsTakeTheRequestsParts() async throws {
        try await withGateway(
            "{ path: /old, redirect: { to: \"$scheme://$host/new$uri?from=$$host\", status: 301 } }",
            "{ path: /, redirect: { to: \"https://$host$uri\" } }"
        ) { gateway in
            let first = try gateway.ask("GET /old/x?y=1", host: "a.test:81")
            #expect(first.status == 301 && first.field("location") == "http://a.test:81/new/old/x?y=1?from=$a.test:81")
            let second = try gateway.ask("POST /p?q=%0d%0aX:1")
            #expect(second.status == 308 && second.all("location") == ["https://test/p?q=%0d%0aX:1"] && second.field("x") == nil)
            // HTTP/1.0 need not say which host: then there is no place to send it to.
            let socket = try RawSocket(port: gateway.endpoint.testPort)
            socket.send("GET /x HTTP/1.0\r\n\r\n")
            #expect(RawAnswer(socket.receive()).status == 400)
            let bytes = try gateway.ask("GET /\u{e9}")
            #expect(bytes.status == 400 && bytes.field("location") == nil)
        }
    }

    @Test func aTrustedProxyTellsTheScheme() async throws {
        let route = "{ path: /, redirect: { to: \"$scheme://$host$uri\" } }"
        try await withGateway(route, keys: ["trusted-proxies: [127.0.0.0/8]"]) { gateway in
            let secure = try gateway.ask("GET /", ["X-Forwarded-Proto: https"]).field("location")
            let plain = try gateway.ask("GET /", ["X-Forwarded-Proto: gopher"]).field("location")
            #expect(secure == "https://test/" && plain == "http://test/")
        }
        try await withGateway(route) { gateway in
            let untrusted = try gateway.ask("GET /", ["X-Forwarded-Proto: https"]).field("location")
            #expect(untrusted == "http://test/")
        }
    }

    @Test func answersStandForThemselves() async throws {
        try await withFolder { folder in
            try Files.replace(folder + "/page.html", with: Array("<p>soon</p>".utf8))
            try await withGateway(
                "{ path: /text, answer: { body: \"hello\" } }",
                "{ path: /file, answer: { status: 503, file: \"\(folder)/page.html\", type: text/html } }",
                "{ path: /none, answer: { status: 204 } }", "{ path: /same, answer: { status: 304 } }",
                "{ path: /type, answer: { body: \"{}\" }, response-headers: { set: { content-type: application/json } } }"
            ) { gateway in
                let text = try gateway.ask("GET /text")
                #expect(
                    text.status == 200 && text.body == "hello" && text.field("content-type") == "text/plain; charset=utf-8"
                        && text.field("retry-after") == nil)
                let head = try gateway.ask("HEAD /text")
                #expect(head.status == 200 && head.body.isEmpty && head.field("content-length") == "5")
                let maintenance = try gateway.ask("POST /file", ["Content-Length: 0"])
                #expect(maintenance.status == 503 && maintenance.body == "<p>soon</p>" && maintenance.field("content-type") == "text/html")
                #expect(maintenance.field("retry-after") == "60")
                // These have no body; what followed would be read as the next answer.
                for target in ["/none", "/same"] {
                    let empty = try gateway.ask("GET \(target)")
                    #expect(empty.body.isEmpty && empty.status == (target == "/none" ? 204 : 304))
                }
                let typed = try gateway.ask("GET /type")
                #expect(typed.all("content-type") == ["application/json"])
            }
        }
    }

    @Test func aFileThatIsNotThereIsTold() async throws {
        await #expect(throws: (any Error).self) { try await withGateway("{ path: /, answer: { file: /does/not/exist } }") { _ in } }
    }
}
