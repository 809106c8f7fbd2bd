import Basics
import TestSupport
import Testing

/// HTTP/2 over TLS, by ALPN: curl is the client.
@Suite struct HTTP2SecureTests {
    private func curl(_ gateway: SecureGateway, _ arguments: [String]) async throws -> String {
        let all = ["-s", "--cacert", gateway.certificates.authority] + arguments + ["https://localhost:\(gateway.port)/x"]
        let result = try await run(try systemProgram("curl"), all)
        return result.output
    }

    @Test func theClientChoosesByALPN() async throws {
        try await withEcho { port, _ in
            try await withSecureGateway("{ path: /, backends: [127.0.0.1:\(port)] }") { gateway in
                let new = try await curl(gateway, ["--http2", "-w", "\n%{http_version}"])
                #expect(new.hasSuffix("\n2") && new.contains("X-Forwarded-Proto: https\r\n") && new.contains("Via: 2.0 muster"))
                let old = try await curl(gateway, ["--http1.1", "-w", "\n%{http_version}"])
                #expect(old.hasSuffix("\n1.1") && old.contains("Via: 1.1 muster"))
                let none = try await curl(gateway, ["--no-alpn", "-w", "\n%{http_version}"])
                #expect(none.hasSuffix("\n1.1"))
            }
        }
    }

    @Test func anOwnAnswerPasses() async throws {
        try await withSecureGateway("{ path: /, answer: { body: hello } }") { gateway in
            let said = try await curl(gateway, ["--http2", "-w", "%{http_version}"])
            #expect(said == "hello2")
        }
    }

    @Test func withoutTheKeyOnlyHTTP1IsOffered() async throws {
        try await withSecureGateway("{ path: /, answer: { body: hello } }", keys: ["http2: false"]) { gateway in
            let said = try await curl(gateway, ["--http2", "-w", "%{http_version}"])
            #expect(said == "hello1.1")
        }
    }
}
