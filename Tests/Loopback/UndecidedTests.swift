import Basics
import EventLoops
import TestSupport
import Testing

/// What cannot be decided is refused: it is not up to a client whether a rule holds for its request.
@Suite(.serialized) struct UndecidedTests {
    private let good = "Authorization: Bearer 0123456789abcdef", bad = "Authorization: Bearer somebody-else"
    /// Few bytes, and more steps than an expression has.
    private let deep = "/private" + String(repeating: "/a", count: 20)
    private let folders = "^/(.*/)*private(/|$)"

    private func withTokens(_ body: (_ auth: String) async throws -> Void) async throws {
        try await withFolder { folder in
            try folder.put("tokens", "0123456789abcdef\n")
            try await body("auth: { bearer: \"\(folder)/tokens\" }")
        }
    }

    // MARK: routes

    @Test func aLongPathDoesNotFallToTheRouteBehind() async throws {
        try await withTokens { auth in
            try await withEcho("guarded") { guarded, _ in
                try await withEcho("open") { open, asked in
                    let route = "{ regex: '^/admin(/[^/]+)*$', \(auth), backends: [127.0.0.1:\(guarded)] }"
                    try await withGateway(route, "{ path: /, backends: [127.0.0.1:\(open)] }") { gateway in
                        let path = "/admin" + String(repeating: "/a", count: 1500)
                        let refused = try gateway.ask("GET \(path)")
                        #expect(refused.status == 401 && asked.count == 0)
                        let served = try gateway.ask("GET \(path)", [good])
                        #expect(served.place == "guarded")
                        let other = try gateway.ask("GET /admin/")
                        #expect(other.place == "open")
                    }
                }
            }
        }
    }

    @Test func aPathThatTakesTooManyStepsIsRefused() async throws {
        try await withTokens { auth in
            try await withEcho { port, asked in
                let backends = "backends: [127.0.0.1:\(port)]"
                try await withGateway("{ regex: '\(folders)', \(auth), \(backends) }", "{ path: /, \(backends) }") { gateway in
                    for fields in [[], [good]] {
                        let answer = try gateway.ask("GET \(deep)", fields)
                        #expect(answer.status == 400 && answer.body.contains("\"bad_path\"") && answer.body.contains("decided"))
                    }
                    // Its simplest writing is as deep as the other route's.
                    let escaped = try gateway.ask("GET \(deep.replacing("private", with: "%70rivate"))", [good])
                    #expect(escaped.status == 400 && escaped.body.contains("bad_path"))
                    #expect(asked.count == 0)
                    let plain = try gateway.ask("GET /other"), inside = try gateway.ask("GET /private/x")
                    #expect(plain.status == 200 && inside.status == 401)
                }
            }
        }
    }

    // MARK: rewrites

    @Test func aRewriteIsNotSwitchedOff() async throws {
        try await withEcho { port, asked in
            let long = "/" + String(repeating: "p", count: 200)
            try await withGateway(
                "{ path: /api, rewrite: { prefix: \(long) }, backends: [127.0.0.1:\(port)] }",
                "{ path: /, rewrite: { regex: '\(folders)', to: /outside }, backends: [127.0.0.1:\(port)] }"
            ) { gateway in
                for (target, reason) in [("/api/" + String(repeating: "a", count: 8100), "longer than 8192"), (deep, "decided")] {
                    let answer = try gateway.ask("GET \(target)")
                    #expect(answer.status == 400 && answer.body.contains("\"bad_path\"") && answer.body.contains(reason), "\(answer)")
                }
                #expect(asked.count == 0)
                let fits = try gateway.ask("GET /api/a")
                #expect(fits.body.hasPrefix("GET \(long)/a "))
            }
        }
    }

    // MARK: fields that came twice

    @Test func credentialsComeOnce() async throws {
        try await withTokens { auth in
            try await withEcho { port, asked in
                let backends = "backends: [127.0.0.1:\(port)]"
                try await withGateway("{ path: /in, \(auth), \(backends) }", "{ path: /, \(backends) }") { gateway in
                    for fields in [[good, bad], [bad, good], [good, good], [good, bad.lowercased()]] {
                        let answer = try gateway.ask("GET /in", fields)
                        #expect(answer.status == 400 && answer.body.contains("\"repeated_field\"") && answer.body.contains("authorization"))
                    }
                    #expect(asked.count == 0)
                    let once = try gateway.ask("GET /in", [good]), elsewhere = try gateway.ask("GET /", [good, bad])
                    #expect(once.status == 200 && elsewhere.status == 200)
                }
            }
        }
    }

    @Test func whatALimitCountsByComesOnce() async throws {
        try await withEcho { port, asked in
            let limit = "limit: [{ rate: 1/h, by: \"header:X-Key\" }]"
            try await withGateway("{ path: /, \(limit), backends: [127.0.0.1:\(port)] }") { gateway in
                for i in 0..<3 {
                    let answer = try gateway.ask("GET /", ["X-Key: \(i)", "X-Key: mine"])
                    // They share the bucket of those that have none.
                    #expect(i == 0 ? answer.status == 400 && answer.body.contains("x-key") : answer.status == 429)
                }
                #expect(asked.count == 0)
                let once = try gateway.ask("GET /", ["X-Key: mine"]), again = try gateway.ask("GET /", ["X-Key: mine"])
                #expect(once.status == 200 && again.status == 429)
            }
        }
    }

    /// Nor is it passed on in a spelling that a server may take for it.
    @Test func otherSpellingsOfSuchFieldsAreDropped() async throws {
        try await withEcho { port, _ in
            let backends = "backends: [127.0.0.1:\(port)]", limit = "limit: [{ rate: 1/h, by: \"header:X-Key\" }]"
            try await withGateway(
                "{ path: /, headers: { X-Admin: 'yes' }, \(backends) }", "{ path: /limited, \(limit), \(backends) }",
                "{ path: /, \(backends) }"
            ) { gateway in
                let seen = try gateway.ask("GET /", ["X_Admin: 1", "x.key: 2", "X_Other: 3"]).body
                #expect(seen.contains("X_Other: 3") && !seen.contains("X_Admin") && !seen.contains("x.key"), "\(seen)")
            }
        }
    }

    @Test func whatARouteAsksForComesOnce() async throws {
        try await withTokens { auth in
            try await withEcho { port, asked in
                let backends = "backends: [127.0.0.1:\(port)]"
                try await withGateway("{ path: /, headers: { X-Admin: 'yes' }, \(auth), \(backends) }", "{ path: /, \(backends) }") {
                    gateway in
                    for fields in [["X-Admin: no", "X-Admin: yes"], ["X-Admin: yes", "x-admin: no"]] {
                        let answer = try gateway.ask("GET /", fields + [good])
                        #expect(answer.status == 400 && answer.body.contains("\"repeated_field\""), "\(answer)")
                    }
                    #expect(asked.count == 0)
                    let guarded = try gateway.ask("GET /", ["X-Admin: yes"]),
                        neither = try gateway.ask("GET /", ["X-Admin: a", "X-Admin: b"])
                    #expect(guarded.status == 401 && neither.status == 200)
                }
            }
        }
    }
}
