import StackFile
import StackModel
import TestSupport
import Testing

/// Every route of the configuration can be reached, and none is passed by through another writing of its path.
@Suite(.serialized) struct PathFormTests {
    /// A route that says its name in a field of the answer. (Pages of the gateway's own have nothing behind them that could read a path
    /// otherwise, so they answer every writing.)
    private func page(_ name: String, _ conditions: String) -> (UInt16) -> String {
        { "{ \(conditions), response-headers: { set: { X-Route: \(name) } }, backends: [127.0.0.1:\($0)] }" }
    }

    /// nil: refused with 400.
    private func answers(_ routes: [(UInt16) -> String], _ expected: [(target: String, route: String?)]) async throws {
        try await withEcho { port, _ in
            try await withGateway(routes: routes.map { $0(port) }) { gateway in
                for (target, route) in expected {
                    let answer = try gateway.ask("GET \(target)")
                    if let route {
                        // The backend gets what the client sent.
                        #expect(answer.field("x-route") == route && answer.body.hasPrefix("GET \(target) "), "\(target): \(answer)")
                    } else {
                        #expect(answer.status == 400 && answer.body.contains("bad_path"), "\(target): \(answer)")
                    }
                }
            }
        }
    }

    @Test func patternsWithEscapesAreReached() async throws {
        try await answers(
            [
                page("cafe", "exact: /caf%C3%A9"), page("blank", "path: '/a%20b'"), page("slash", "path: '/one%2Ftwo'"),
                page("root", "path: /"),
            ],
            [
                ("/caf%C3%A9", "cafe"), ("/caf%c3%a9", "cafe"), ("/caf%C3%A9?x=%c3", "cafe"), ("/a%20b/c", "blank"), ("/a%20bc", "root"),
                ("/one%2Ftwo", "slash"), ("/one%2ftwo/x", "slash"), ("/one/two", "root"), ("/caf%C3%A8", "root"), ("/100%25", "root"),
                // Another writing of the same.
                ("/%63af%C3%A9", nil), ("//a%20b", nil), ("/a%20b;x", nil),
            ])
    }

    /// The configuration's own writing does not matter.
    @Test func patternsAreWrittenAnew() async throws {
        try await answers(
            [page("api", "path: '/%61pi'"), page("cafe", "exact: /caf%c3%a9"), page("root", "path: /")],
            [("/api/x", "api"), ("/%61pi/x", nil), ("/caf%C3%A9", "cafe"), ("/caf%c3%A9", "cafe")])
    }

    @Test func patternsWithParametersAreReached() async throws {
        try await answers(
            [page("one", "path: '/m;v=1'"), page("two", "exact: '/m;v=2'"), page("root", "path: /")],
            [
                ("/m;v=1", "one"), ("/m;v=1/x", "one"), ("/m;v=1?q", "one"), ("/m;v=2", "two"), ("/m;v=3", "root"), ("/m", "root"),
                ("/m;v=1;w=2", nil), ("/%6d;v=1", nil), ("/m%3Bv=1", nil), ("//m;v=2", nil),
            ])
    }

    @Test func patternsWithTwoSlashesAreReached() async throws {
        try await answers(
            [page("two", "path: '//x'"), page("one", "path: /x"), page("root", "path: /")],
            [("//x/y", "two"), ("/x/y", "one"), ("///x", nil)])
    }

    @Test func expressionsSeeEscapes() async throws {
        try await answers(
            [
                page("files", "regex: '^/files/[A-Za-z0-9%._-]+$'"), page("cafe", "regex: '^/caf%c3%a9$'"),
                page("item", "regex: '^/item;v=[0-9]+$'"), page("double", "regex: '^//d$'"), page("root", "path: /"),
            ],
            [
                ("/files/a%20b", "files"), ("/files/a%c3%a9", "files"), ("/files/a", "files"), ("/caf%C3%A9", "cafe"),
                ("/caf%c3%a9", "cafe"),
                ("/item;v=12", "item"), ("/item;v=x", "root"), ("//d", "double"), ("/files/a%2Fb", nil), ("/fil%65s/a", nil),
            ])
    }

    /// A picture's name behind a semicolon, which a servlet drops, must not lead around a guarded path; nor an escape of it.
    @Test func anotherWritingDoesNotPassBy() async throws {
        try await answers(
            [page("open", "regex: '^/secret.*[.]png$'"), page("guarded", "path: /secret"), page("root", "path: /")],
            [
                ("/secret/a", "guarded"), ("/secret/a.png", "open"), ("/secret/a;x.png", nil), ("/secret/a%3Bx.png", nil),
                ("/secret/a%3F.png", nil), ("/%73ecret/a", nil), ("/x;/secret", "root"), ("//secret/a", nil), ("/secre%74", nil),
            ])
    }

    @Test func deniedPathsAreComparedInOneForm() async throws {
        try await withGateway(routes: ["{ path: /, deny: ['/caf%C3%A9', '/m;v=1', '/a%20b', /metrics], answer: { body: x } }"]) { gateway in
            for target in [
                "/caf%C3%A9", "/caf%c3%a9", "/%63af%c3%a9/x", "/m;v=1", "/m%3Bv=1", "//m;v=1/x", "/a%20b", "/%61%20b", "/metrics",
                "/metric%73",
                "/metrics;x", "//metrics",
            ] {
                let answer = try gateway.ask("GET \(target)")
                #expect(answer.status == 403, "\(target): \(answer.status)")
            }
            for target in ["/caf%C3%A8", "/m;v=2", "/m", "/a%20bc", "/metricsx"] {
                let answer = try gateway.ask("GET \(target)")
                #expect(answer.status == 200, "\(target): \(answer.status)")
            }
        }
    }

    @Test(arguments: [
        #"path: '/a\b'"#, "exact: /a/../b", "path: /%2e%2e/x", "exact: /.", "path: /a%00", "exact: /%zz", "path: /%c0%af", "exact: '/a b'",
        "path: '/café'", "exact: '/a?b=1'", "path: '/a#b'", "regex: '^/café$'",
    ])
    func whatNoRequestCanReachIsRefused(conditions: String) {
        let text = "gateway:\n  listen: 1\n  routes:\n    - { \(conditions), answer: { body: x } }\n"
        let problems = #expect(throws: Problems.self) { try Stack.read(Array(text.utf8), path: "t.yaml") }
        #expect(problems?.list.first?.line == 4, "\(problems.map { "\($0)" } ?? "taken")")
    }

    @Test(arguments: [
        ("path: /a, hosts: [x.test, y.test]", "path: /a, hosts: [y.test]"), ("path: /a, methods: [GET, POST]", "path: /a, methods: [POST]"),
        ("path: /api", "path: '/%61pi'"), ("exact: /caf%c3%a9", "exact: /caf%C3%A9"),
        ("path: /a, methods: [GET, PUT]", "path: /a, methods: [PUT, GET]"), ("path: /a, hosts: [X.test]", "path: /a, hosts: [x.test]"),
    ])
    func whatAnotherRouteTakesBeforeIsTold(first: String, second: String) {
        let text = "gateway:\n  listen: 1\n  routes:\n    - { \(first), answer: { body: x } }\n    - { \(second), answer: { body: y } }\n"
        let problems = #expect(throws: Problems.self) { try Stack.read(Array(text.utf8), path: "t.yaml") }
        #expect(problems?.list.count == 1 && problems?.list.first?.line == 5, "\(problems.map { "\($0)" } ?? "taken")")
    }
}
