import Basics
import EventLoops
import Gateway
import HTTP
import TestSupport
import Testing

/// The admin API refuses what it cannot read, and changes nothing then.
@Suite struct AdminStrictTests {
    private static let bearer = ("Authorization", "Bearer a-token-of-the-tests")

    private typealias Ask = (_ method: String, _ target: String, _ body: String?, _ type: String?) async throws -> HTTPClientResponse

    private func withAPI(_ body: (LiveGateway, UInt16, Ask) async throws -> Void) async throws {
        try await withFolder { folder in
            try folder.put("token", "a-token-of-the-tests\n")
            try await withNamed("a") { a in
                try await withLive("{ path: /, backends: [127.0.0.1:\(a)] }", more: ["admin-token-file: \(folder)/token"]) { gateway in
                    var router = Router()
                    AdminAPI.add(to: &router, gateway: gateway.gateway, reload: {})
                    try await withServer(gateway.client.loop, router) { admin in
                        try await body(gateway, a) { method, target, text, type in
                            let headers = [Self.bearer] + (type.map { [("Content-Type", $0)] } ?? [])
                            return try await gateway.client.send(
                                method, target, to: admin, headers: headers, body: text.map { Array($0.utf8) })
                        }
                    }
                }
            }
        }
    }

    private func names(_ gateway: LiveGateway) -> [String] { gateway.replicas.map(\.name) }

    @Test(arguments: [
        "", "?rout=/", "?route=%zz", "?route=%ff", "?route=", "?route", "?route=/&route=/", "?route=/&weight=3", "?ROUTE=/", "?route%zz=/",
    ])
    func aQueryThatCannotBeReadChangesNothing(query: String) async throws {
        try await withAPI { gateway, a, ask in
            let body = "{\"backends\": [\"127.0.0.1:9\"]}"
            let put = try await ask("PUT", "/api/backends\(query)", body, nil)
            #expect(put.status == 400 && put.text.hasPrefix("{\"error\""), "\(put.text)")
            let get = try await ask("GET", "/api/backends\(query)", nil, nil)
            #expect(get.status == 400 && names(gateway) == ["127.0.0.1:\(a)"])
        }
    }

    @Test(arguments: [
        ("\"weight\": \"9\"", "backends[0].weight"), ("\"weight\": 2.5", "backends[0].weight"), ("\"weight\": 1e30", "backends[0].weight"),
        ("\"weight\": true", "backends[0].weight"), ("\"weight\": null", "backends[0].weight"), ("\"weight\": -1", "backends[0].weight"),
        ("\"weight\": 257", "backends[0].weight"), ("\"wieght\": 9", "backends[0].wieght"), ("\"priority\": \"1\"", "backends[0].priority"),
        ("\"priority\": 8", "backends[0].priority"), ("\"weight\": 2, \"weight\": 3", "backends[0].weight"),
        ("\"weight\": [1]", "backends[0].weight"), ("\"weight\": 18446744073709551616", "backends[0].weight"),
    ])
    func aBackendThatCannotBeReadIsTold(member: String, field: String) async throws {
        try await withAPI { gateway, a, ask in
            let body = "{\"backends\": [{\"address\": \"127.0.0.1:9\", \(member)}]}"
            let refused = try await ask("PUT", "/api/backends?route=/", body, nil)
            #expect(refused.status == 400 && names(gateway) == ["127.0.0.1:\(a)"], "\(refused.text)")
            // A number beyond 64 bits is no JSON that the parser takes; it has no field.
            #expect(refused.text.contains("\"field\":\"\(field)\"") || member.contains("18446744073709551616"), "\(refused.text)")
        }
    }

    @Test(arguments: [
        "{\"backends\": [\"127.0.0.1:9\"], \"route\": \"/\"}", "{\"backend\": [\"127.0.0.1:9\"]}",
        "{\"backends\": [\"127.0.0.1:9\"], \"backends\": []}", "{\"backends\": {\"address\": \"127.0.0.1:9\"}}", "{\"backends\": [null]}",
        "{\"backends\": [{\"weight\": 1}]}", "{\"backends\": [{\"address\": 9}]}", "{\"backends\": \"127.0.0.1:9\"}",
        "{\"backends\": [{\"address\": \"127.0.0.1:9\", \"weight\": 0}]}", "backends=127.0.0.1:9", "{\"backends\": [\"127.0.0.1:9\"]} x",
    ])
    func aBodyOfAnotherShapeChangesNothing(body: String) async throws {
        try await withAPI { gateway, a, ask in
            let refused = try await ask("PUT", "/api/backends?route=/", body, nil)
            #expect(refused.status == 400 && names(gateway) == ["127.0.0.1:\(a)"], "\(refused.text)")
        }
    }

    @Test func theBodysTypeIsHeeded() async throws {
        try await withAPI { gateway, a, ask in
            let body = "{\"backends\": [\"127.0.0.1:\(a)\", \"127.0.0.1:9\"]}"
            for type in ["text/plain", "application/xml", "multipart/form-data; boundary=x", "application/json; charset=latin1", ""] {
                let refused = try await ask("PUT", "/api/backends?route=/", body, type)
                #expect(refused.status == 415 && names(gateway) == ["127.0.0.1:\(a)"], "\(type)")
            }
            // The last is what curl says of itself.
            for type in ["application/json", "Application/JSON; charset=\"UTF-8\"", "application/x-www-form-urlencoded"] {
                let done = try await ask("PUT", "/api/backends?route=/", body, type)
                #expect(done.status == 200 && names(gateway).count == 2, "\(type)")
            }
        }
    }

    @Test func replicasAndReloadTakeWhatTheyKnow() async throws {
        try await withAPI { gateway, a, ask in
            let name = "127.0.0.1:\(a)"
            for target in [
                "?name=\(name)", "?state=disabled", "?name=\(name)&state=Disabled", "?name=\(name)&stat=disabled",
                "?name=\(name)&state=disabled&state=ready", "?name=\(name)&state=disabled%", "?name=&state=ready",
            ] {
                let refused = try await ask("POST", "/api/replicas\(target)", nil, nil)
                #expect(refused.status == 400 && gateway.states == ["ready"], "\(target) \(refused.text)")
            }
            let withBody = try await ask("POST", "/api/replicas?name=\(name)&state=disabled", "{\"state\": \"ready\"}", nil)
            #expect(withBody.status == 400 && gateway.states == ["ready"])
            for target in ["/api/reload?file=x", "/api/state?route=/", "/api/requests/x?y=1"] {
                let refused = try await ask(target.hasPrefix("/api/reload") ? "POST" : "GET", target, nil, nil)
                #expect(refused.status == 400, "\(target)")
            }
        }
    }

    @Test func decisionsAreFilteredByWhatIsKnown() async throws {
        try await withAPI { _, _, ask in
            for query in [
                "?kind=ejects", "?without=routes", "?last=-1", "?last=1.5", "?last=+1", "?last=x", "?subjects=x", "?last=1&last=2",
            ] {
                let refused = try await ask("GET", "/api/why\(query)", nil, nil)
                #expect(refused.status == 400, "\(query)")
            }
            for query in ["", "?subject=", "?kind=eject&without=route&last=5&subject=a%20b", "?last=0"] {
                let answer = try await ask("GET", "/api/why\(query)", nil, nil)
                #expect(answer.status == 200, "\(query) \(answer.text)")
            }
        }
    }
}
