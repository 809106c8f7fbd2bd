import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import TestSupport
import Testing

/// Backends over TLS: verified by CA and name, asked by the name of the file, never of the request.
@Suite(.serialized) struct SecureBackendTests {
    /// A gateway whose own listener stands in for a backend with TLS, with a certificate `server` for app.internal and 127.0.0.1.
    private func withBackend(_ clients: String = "", _ body: (SecureGateway, TLSFixtureNames) async throws -> Void) async throws {
        try await withSecureGateway(
            "{ path: /, answer: { body: inside } }",
            tls: { certificates in
                try await certificates.leaf("server", "DNS:app.internal,IP:127.0.0.1")
                try await certificates.leaf("gateway", "DNS:gateway")
                let file = certificates.file("server")
                return "certificates: [ { certificate: \(file).pem, key: \(file).key } ]"
                    + (clients.isEmpty ? "" : ", clients: [ { ca: \(certificates.authority), names: [app.internal] } ]")
            }
        ) { try await body($0, TLSFixtureNames($0.certificates)) }
    }

    struct TLSFixtureNames {
        let ca: String
        let own: String
        init(_ certificates: CertificateFixture) {
            ca = "ca: \(certificates.authority)"
            own = "certificate: \(certificates.file("gateway.pem")), key: \(certificates.file("gateway.key"))"
        }
    }

    @Test func aBackendIsVerifiedByItsAuthorityAndItsName() async throws {
        try await withBackend { backend, names in
            let at = "'https://127.0.0.1:\(backend.port)'"
            for (tls, status, word) in [
                ("{ \(names.ca) }", 200, "inside"), ("{ \(names.ca), name: app.internal }", 200, "inside"),
                ("{ \(names.ca), name: other.internal }", 502, "backend_tls_failed"), ("{}", 502, "backend_tls_failed"),
            ] {
                try await withGateway("{ path: /, backends: [\(at)], backend-tls: \(tls) }") { gateway in
                    for _ in 0..<2 {
                        let answer = try gateway.ask(host: "made-up.example")
                        #expect(answer.status == status && answer.body.contains(word), "\(tls): \(answer)")
                    }
                    if status == 502 { #expect(gateway.gateway.journal.entries().contains { "\($0.record)".contains("tls_failed") }) }
                }
            }
        }
    }

    @Test func theGatewayShowsItsOwnCertificate() async throws {
        try await withBackend("yes") { backend, names in
            let at = "'https://127.0.0.1:\(backend.port)'"
            try await withGateway(
                "{ path: /, host: app.internal, backends: [\(at)], backend-tls: { \(names.ca), name: app.internal, \(names.own) } }"
            ) {
                let answer = try $0.ask()
                #expect(answer.body == "inside")
            }
            try await withGateway(
                "{ path: /, retry: { attempts: 1 }, host: app.internal, backends: [\(at)], backend-tls: { \(names.ca), name: app.internal } }"
            ) {
                let answer = try $0.ask()
                #expect(answer.status == 502)
            }
        }
    }

    /// Probes and the header of a proxy: in plain, before TLS.
    @Test func probesAndIntroductions() async throws {
        try await withBackend { backend, names in
            let at = "'https://127.0.0.1:\(backend.port)'"
            for probe in ["{ path: /, interval: 50ms, fall: 1, rise: 1 }", "{ interval: 50ms, fall: 1, rise: 1 }"] {
                for (tls, isUp) in [("{ \(names.ca) }", true), ("{}", false)] {
                    try await withGateway("{ path: /, backends: [\(at)], probe: \(probe), backend-tls: \(tls) }") { fixture in
                        let prober = Prober(gateway: fixture.gateway, loop: fixture.client.loop)
                        prober.follow()
                        if !isUp { #expect(await eventually { fixture.gateway.routes[0].replicas[0].state == "down" }) }
                        try await Task.sleep(for: .milliseconds(200))
                        #expect((fixture.gateway.routes[0].replicas[0].state == "ready") == isUp)
                        try await fixture.reload(["{ path: /, answer: { body: x } }"])
                    }
                }
            }
        }
        try await withSecureGateway(
            "{ path: /, answer: { body: inside } }", keys: ["proxy-protocol: true", "trusted-proxies: 127.0.0.1"]
        ) { backend in
            try await withGateway(
                "{ path: /, proxy-protocol: v2, backends: ['https://127.0.0.1:\(backend.port)'], "
                    + "backend-tls: { ca: \(backend.certificates.authority) } }"
            ) {
                let answer = try $0.ask()
                #expect(answer.body == "inside")
            }
        }
    }

    @Test func whatDoesNotGoTogetherIsTold() async throws {
        for (route, word) in [
            ("{ path: /, backends: ['https://a:1', 'b:1'] }", "over TLS (https://) or none"),
            ("{ path: /, backends: ['https://a:1'], backend-tls: { name: 'a b' } }", "no host name"),
            ("{ path: /, backends: ['https://a:1'], backend-tls: { key: k } }", "no certificate"),
        ] {
            do {
                _ = try gatewaySpec([route])
                Issue.record("\(route) was taken")
            } catch { #expect("\(error)".contains(word), "\(error)") }
        }
        let spec = try gatewaySpec(["{ path: /, backends: ['https://a', 'https://[::1]:4443'] }"])
        guard case .backends(let backends) = spec.routes[0].target else { return }
        #expect(backends.map(\.address) == ["a:443", "[::1]:4443"])
    }
}
