import Basics
import Gateway
import StackModel
import TestSupport
import Testing

/// Files are read once for each configuration: what replicas do never depends on them.
@Suite(.serialized) struct PublicationTests {
    private static func routes(_ folder: String) -> [String] {
        [
            "{ path: /, service: web, auth: { bearer: \"\(folder)/tokens\" } }",
            "{ path: /page, answer: { file: \"\(folder)/page\" } }",
        ]
    }

    private func put(_ folder: String, token: String = "a-token-of-the-tests", page: String = "closed") throws {
        try folder.put("tokens", token + "\n")
        try folder.put("page", page)
        try folder.put("admin", "an-admin-token-of-tests\n")
    }

    private func removeAll(_ folder: String) { for name in ["tokens", "page", "admin"] { Files.remove(folder + "/" + name) } }

    /// A replica on another port is served although every file that the configuration names is gone, and the rules of those files hold.
    @Test func aReplicaMovesWhenTheFilesAreGone() async throws {
        try await withFolder { folder in
            try put(folder)
            try await withNamed("old") { old in
                try await withNamed("new") { new in
                    let key = "admin-token-file: \(folder)/admin"
                    try await withWaking("{ path: /other, service: web }") { gateway in
                        let spec = try WakingGateway.spec(Self.routes(folder), keys: [key])
                        try await gateway.gateway.apply(spec) { $0 == "web" ? [WakingGateway.replica(old)] : [] }
                        let token = [("Authorization", "Bearer a-token-of-the-tests")]
                        let before = try await gateway.send(headers: token)
                        #expect(before.header("x-backend") == "old")
                        removeAll(folder)
                        await gateway.gateway.apply { $0 == "web" ? [WakingGateway.replica(new, 2)] : [] }
                        let after = try await gateway.send(headers: token), stranger = try await gateway.send()
                        #expect(after.header("x-backend") == "new" && stranger.status == 401)
                        let page = try await gateway.send("GET", "/page")
                        #expect(page.text == "closed")
                    }
                }
            }
        }
    }

    /// A reload reads anew. When a file cannot be read it fails and says which; routes, rules and what was set by hand stay as they were.
    @Test func aReloadReadsAnewOrChangesNothing() async throws {
        try await withFolder { folder in
            try put(folder)
            try await withNamed("a") { a in
                try await withNamed("b") { b in
                    let routes = [
                        "{ path: /, backends: [127.0.0.1:\(a)], auth: { bearer: \"\(folder)/tokens\" } }",
                        "{ path: /page, answer: { file: \"\(folder)/page\" } }",
                    ]
                    try await withGateway(routes[0], routes[1]) { gateway in
                        try await gateway.gateway.setBackends([BackendSpec(address: "127.0.0.1:\(b)", weight: 1)], of: "/")
                        for name in ["tokens", "page"] {
                            try put(folder, token: "another-token-of-tests", page: "open")
                            Files.remove(folder + "/" + name)
                            let error = await #expect(throws: (any Error).self) { try await gateway.reload(routes) }
                            #expect(error.map { "\($0)".contains("\(folder)/\(name)") } ?? false)
                            let old = try gateway.ask("GET /", ["Authorization: Bearer a-token-of-the-tests"])
                            let page = try gateway.ask("GET /page")
                            #expect(old.status == 200 && old.place == "b" && page.body == "closed")
                            #expect(gateway.gateway.backends(of: "/")?.map(\.address) == ["127.0.0.1:\(b)"])
                        }
                        try put(folder, token: "another-token-of-tests", page: "open")
                        try await gateway.reload(routes)
                        let old = try gateway.ask("GET /", ["Authorization: Bearer a-token-of-the-tests"])
                        let new = try gateway.ask("GET /", ["Authorization: Bearer another-token-of-tests"])
                        let page = try gateway.ask("GET /page")
                        #expect(old.status == 401 && new.status == 200 && new.place == "a" && page.body == "open")
                    }
                }
            }
        }
    }
}
