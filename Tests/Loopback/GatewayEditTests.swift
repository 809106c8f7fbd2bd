import EventLoops
import TestSupport
import Testing

/// What is changed in heads on the way, and what pages of other origins may read.
@Suite(.serialized) struct GatewayEditTests {
    @Test func requestFieldsAreSetAddedAndRemoved() async throws {
        try await withEcho { port, _ in
            let edits = "{ set: { X-Mode: inner, X-Forwarded-Proto: https }, add: { X-Tag: \"$mine\" }, remove: [Cookie, x-real-ip] }"
            try await withGateway("{ path: /, request-headers: \(edits), backends: [127.0.0.1:\(port)] }") { gateway in
                let answer = try gateway.ask("GET /", ["x-mode: outer", "X-MODE: twice", "X-Tag: theirs", "cOOkie: a=b", "X-Kept: 1"])
                let fields = RawAnswer("HTTP/1.1 200\r\n" + answer.body)
                #expect(fields.all("x-mode") == ["inner"] && fields.all("x-tag") == ["theirs", "$mine"] && fields.all("cookie").isEmpty)
                #expect(fields.all("x-kept") == ["1"] && fields.all("x-forwarded-proto") == ["https"] && fields.all("x-real-ip").isEmpty)
                #expect(fields.all("x-forwarded-for") == ["127.0.0.1"])
            }
        }
    }

    @Test func responseFieldsAreSetAddedAndRemoved() async throws {
        try await withEcho(fields: "Server: secret\r\nX-Powered-By: them\r\nCache-Control: public\r\nVary: Accept\r\nContent-Type: a/b\r\n")
        { port, _ in
            let edits = "{ set: { cache-control: no-store, Content-Type: text/x }, add: { Vary: Cookie }, remove: [server, X-POWERED-BY] }"
            try await withGateway(
                "{ path: /, response-headers: \(edits), backends: [127.0.0.1:\(port)] }",
                "{ path: /own, response-headers: \(edits), answer: { body: x } }"
            ) { gateway in
                let answer = try gateway.ask()
                #expect(
                    answer.all("cache-control") == ["no-store"] && answer.all("vary") == ["Accept", "Cookie"]
                        && answer.all("content-type") == ["text/x"])
                #expect(answer.field("server") == nil && answer.field("x-powered-by") == nil && answer.place == "a")
                let own = try gateway.ask("GET /own")
                #expect(own.all("cache-control") == ["no-store"] && own.all("vary") == ["Cookie"] && own.all("content-type") == ["text/x"])
            }
        }
    }

    // MARK: pages of other origins

    private let preflight = ["Access-Control-Request-Method: PUT"]

    @Test func aNamedOriginMayAskAndOthersMayNot() async throws {
        try await withEcho { port, tally in
            let cors =
                "{ origins: [\"https://app.test\", \"http://other.test:81\"], methods: [GET, PUT], headers: [x-a, x-b], expose: [x-c], "
                + "credentials: true, max-age: 5m }"
            try await withGateway("{ path: /, cors: \(cors), backends: [127.0.0.1:\(port)] }") { gateway in
                let allowed = try gateway.ask("OPTIONS /", ["Origin: https://app.test"] + preflight)
                #expect(allowed.status == 204 && allowed.body.isEmpty && allowed.field("content-length") == nil)
                #expect(
                    allowed.field("access-control-allow-origin") == "https://app.test"
                        && allowed.field("access-control-allow-credentials") == "true")
                #expect(
                    allowed.field("access-control-allow-methods") == "GET, PUT"
                        && allowed.field("access-control-allow-headers") == "x-a, x-b")
                #expect(allowed.field("access-control-max-age") == "300" && allowed.field("vary") == "Origin")
                for origin in ["https://evil.test", "https://app.test.evil.test", "http://app.test", "null", "https://app.test/"] {
                    let foreign = try gateway.ask("OPTIONS /", ["Origin: \(origin)"] + preflight)
                    #expect(
                        foreign.status == 204 && foreign.field("access-control-allow-origin") == nil && foreign.field("vary") == "Origin")
                    #expect(
                        foreign.field("access-control-allow-credentials") == nil && foreign.field("access-control-allow-methods") == nil)
                }
                #expect(tally.count == 0)
                let simple = try gateway.ask("GET /", ["Origin: http://other.test:81"])
                #expect(simple.status == 200 && simple.field("access-control-allow-origin") == "http://other.test:81")
                #expect(simple.field("access-control-expose-headers") == "x-c" && simple.field("access-control-allow-methods") == nil)
                let foreign = try gateway.ask("GET /", ["Origin: https://evil.test"])
                #expect(foreign.status == 200 && foreign.field("access-control-allow-origin") == nil && foreign.field("vary") == "Origin")
                let none = try gateway.ask("OPTIONS /", preflight)
                #expect(none.status == 200 && none.field("vary") == "Origin")
                #expect(tally.count == 3)
            }
        }
    }

    @Test func anyOriginMayAskWithoutCredentials() async throws {
        try await withGateway("{ path: /, cors: { origins: [\"*\"] }, answer: { body: x } }") { gateway in
            let preflight = try gateway.ask("OPTIONS /", ["Origin: https://any.test"] + preflight)
            #expect(
                preflight.status == 204 && preflight.field("access-control-allow-origin") == "*"
                    && preflight.field("access-control-allow-methods") == "GET, HEAD, POST")
            let simple = try gateway.ask("GET /", ["Origin: https://any.test"])
            #expect(
                simple.field("access-control-allow-origin") == "*" && simple.field("access-control-allow-credentials") == nil
                    && simple.field("vary") == nil)
        }
    }

    /// A preflight has no credentials; the request itself must have them, and a page may read that they were missing.
    @Test func aPreflightNeedsNoCredentials() async throws {
        try await withFolder { folder in
            try folder.put("tokens", "0123456789abcdef\n")
            try await withGateway(
                "{ path: /, cors: { origins: [\"https://app.test\"] }, auth: { bearer: \"\(folder)/tokens\" }, answer: { body: x } }"
            ) { gateway in
                let first = try gateway.ask("OPTIONS /", ["Origin: https://app.test"] + preflight)
                #expect(first.status == 204)
                let refused = try gateway.ask("GET /", ["Origin: https://app.test"])
                #expect(refused.status == 401 && refused.field("access-control-allow-origin") == "https://app.test")
                let admitted = try gateway.ask("GET /", ["Origin: https://app.test", "Authorization: Bearer 0123456789abcdef"])
                #expect(admitted.status == 200)
                // Not a preflight: it asks for nothing.
                let options = try gateway.ask("OPTIONS /", ["Origin: https://app.test"])
                #expect(options.status == 401)
            }
        }
    }
}
