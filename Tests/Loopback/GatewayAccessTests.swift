import Basics
import EventLoops
import TestSupport
import Testing

/// Who may ask, and for what.
@Suite(.serialized) struct GatewayAccessTests {
    /// `pass word`, as SHA-256 and as salted SHA-1 (salt `salt`); and the token `0123456789abcdef` as SHA-256.
    private let users = """
        # people
        ann:{SHA256}eJgOJX9BJDf7+TQ3h7wA7FsQY2QpvAALKQEHM1sIl4Y=
        bob:{SSHA}UFAL1Y6rU6p3E9OM0Q51KWVEkV1zYWx0\r

        """

    private func basic(_ pair: String) -> String {
        "Authorization: Basic " + Array(pair.utf8).withUnsafeBytes { encodeBase64($0) }
    }

    @Test func usersAreKnownByTheirPasswords() async throws {
        try await withFolder { folder in
            try folder.put("users", users)
            try await withGateway("{ path: /, auth: { basic: \"\(folder)/users\", realm: office }, answer: { body: inside } }") { gateway in
                for field in [basic("ann:pass word"), basic("bob:pass word"), basic("ann:pass word").lowercasedScheme] {
                    let answer = try gateway.ask("GET /", [field])
                    #expect(answer.status == 200 && answer.body == "inside", "\(field)")
                }
                let wrong = [
                    basic("ann:pass wor"), basic("ann:"), basic("ann"), basic("ANN:pass word"), basic(":pass word"), basic("eve:pass word"),
                    basic("ann:pass word:x"),
                    "Authorization: Basic", "Authorization: Basic ", "Authorization: Basic !!!!", "Authorization: Basic YW5u=OnBhc3M",
                    "Authorization: Bearer pass word",
                    "Authorization: Digest username=ann", "Authorization: ", "X-Other: 1",
                ]
                for field in wrong {
                    let answer = try gateway.ask("GET /", [field])
                    #expect(
                        answer.status == 401 && answer.field("www-authenticate") == "Basic realm=\"office\", charset=\"UTF-8\"", "\(field)")
                    let whole = answer.body + answer.fields.map(\.value).joined()
                    #expect(
                        !whole.contains("pass") && !whole.contains("inside") && !whole.contains("eJgOJX") && !whole.contains(folder),
                        "\(field)")
                }
            }
        }
    }

    @Test func tokensAreTakenPlainAndAsDigests() async throws {
        try await withFolder { folder in
            try folder.put("tokens", "plain-token-plain-token\n{SHA256}n59REfeyengfHx3d5evC3St5a/xzZcnCi1SOVkF2kp8=\n")
            try await withGateway("{ path: /, auth: { bearer: \"\(folder)/tokens\" }, answer: { body: inside } }") { gateway in
                for token in ["plain-token-plain-token", "0123456789abcdef", " 0123456789abcdef "] {
                    let answer = try gateway.ask("GET /", ["Authorization: Bearer \(token)"])
                    #expect(answer.status == 200, "\(token)")
                }
                for token in [
                    "plain-token-plain-toke", "plain-token-plain-token2", "", "{SHA256}n59REfeyengfHx3d5evC3St5a/xzZcnCi1SOVkF2kp8=",
                ] {
                    let answer = try gateway.ask("GET /", ["Authorization: Bearer \(token)"])
                    #expect(answer.status == 401 && answer.field("www-authenticate") == "Bearer realm=\"muster\"", "\(token)")
                    #expect(!answer.body.contains("plain-token"))
                }
            }
        }
    }

    @Test(arguments: ["ann:secret", "ann:{SHA256}dG9vIHNob3J0", "ann", "ann:$2y$05$abcdefghijklmnopqrstuv", "ann:{SHA256}!!!"])
    func aFileOfUsersThatIsWrongIsToldWithoutItsSecrets(line: String) async throws {
        try await withFolder { folder in
            try folder.put("users", "# first\n\(line)\n")
            let error = await #expect(throws: (any Error).self) {
                try await withGateway("{ path: /, auth: { basic: \"\(folder)/users\" }, answer: { body: x } }") { _ in }
            }
            let text = error.map { "\($0)" } ?? ""
            #expect(text.contains("users line 2") && !text.contains("secret") && !text.contains("dG9v") && !text.contains("abcdefghij"))
        }
    }

    @Test func addressesAreAllowedAndRefused() async throws {
        try await withGateway(
            "{ path: /inner, allow: [127.0.0.2, 127.1.0.0/16], refuse: [127.1.2.0/24], answer: { body: in } }",
            "{ path: /, refuse: [127.0.0.3], answer: { body: out } }"
        ) { gateway in
            for (target, from, status) in [
                ("/inner", 0x7F00_0002, 200), ("/inner", 0x7F01_0101, 200), ("/inner", 0x7F01_0201, 403), ("/inner", 0x7F00_0001, 403),
                ("/", 0x7F00_0001, 200),
                ("/", 0x7F00_0003, 403),
            ] as [(String, UInt32, Int)] {
                let answer = try gateway.ask("GET \(target)", ["X-Forwarded-For: 127.0.0.2"], from: from)
                #expect(answer.status == status, "\(target) \(from)")
                if status == 403 { #expect(answer.body.contains("address_refused")) }
            }
        }
    }

    private static let written = [
        "/admin", "/admin/", "/admin/x", "/admin?x", "//admin", "/%61dmin", "/%41dmin/../admin", "/admin;a=b", "/admin;/x", "/;a/admin",
        "/x/..;/admin", "/admin%2fx",
        "/./admin", "/%2e/admin", "/admin%00", "/admin%", "/\\admin", "/x/../admin", "/x/%2E%2e/admin", "///admin//", "/%2fadmin",
        "/admin%3bx", "/;/%61dmin;x/",
    ]

    /// As a backend may read it, not only as it is written.
    @Test func whatIsDeniedStaysDeniedHoweverItIsWritten() async throws {
        try await withEcho { port, tally in
            try await withGateway(
                "{ path: /, deny: [/admin], backends: [127.0.0.1:\(port)] }",
                "{ path: /, hosts: [slash.test], deny: [/admin/], backends: [127.0.0.1:\(port)] }"
            ) { gateway in
                for target in Self.written {
                    let answer = try gateway.ask("GET \(target)")
                    #expect(answer.status == 403 || answer.status == 400, "\(target)")
                }
                for target in ["/admin/", "//admin/", "/admin//", "/admin/x", "/admin;x/", "/admin/;x", "/admin%2f"] {
                    let answer = try gateway.ask("GET \(target)", host: "slash.test")
                    #expect(answer.status == 403, "\(target)")
                }
                #expect(tally.count == 0)
                for target in ["/administration", "/", "/x?/admin", "/x/admin", "/x;/admin", "/ADMIN"] {
                    let answer = try gateway.ask("GET \(target)")
                    #expect(answer.status == 200, "\(target)")
                }
            }
        }
    }

    /// What is denied is denied of the backend, too: a rewrite opens nothing.
    @Test func aRewriteDoesNotOpenWhatIsDenied() async throws {
        try await withEcho { port, tally in
            try await withGateway("{ path: /app, rewrite: { prefix: / }, deny: [/metrics], backends: [127.0.0.1:\(port)] }") { gateway in
                for target in ["/app/metrics", "/app/metrics/x", "/app/metrics?x", "/app//metrics", "/app/%6detrics", "/app/;a/metrics"] {
                    let answer = try gateway.ask("GET \(target)")
                    #expect(answer.status == 403, "\(target)")
                }
                #expect(tally.count == 0)
                let open = try gateway.ask("GET /app/metric")
                #expect(open.status == 200 && open.body.hasPrefix("GET /metric "))
            }
        }
    }
}

extension String {
    fileprivate var lowercasedScheme: String { replacing("Basic", with: "bAsIc") }
    private func replacing(_ word: String, with other: String) -> String {
        let parts = split(separator: word, maxSplits: 1, omittingEmptySubsequences: false)
        return parts.count == 2 ? "\(parts[0])\(other)\(parts[1])" : self
    }
}
