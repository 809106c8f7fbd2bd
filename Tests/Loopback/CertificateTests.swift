import Basics
import EventLoops
import Gateway
import Glibc
import TestSupport
import Testing

/// Which certificate a client gets, which clients get in, and what changes while the gateway runs.
@Suite(.serialized) struct CertificateTests {
    /// What `openssl s_client` says of a connection.
    private func look(_ gateway: SecureGateway, _ options: String) async throws -> String {
        let result = try await run(
            try systemProgram("sh"),
            ["-c", "echo | timeout 20 openssl s_client -connect 127.0.0.1:\(gateway.port) -CAfile ca.pem \(options) 2>&1"],
            folder: gateway.certificates.folder)
        return result.output
    }

    private func entry(_ certificates: CertificateFixture, _ name: String) -> String {
        "{ certificate: \(certificates.file(name)).pem, key: \(certificates.file(name)).key }"
    }

    @Test func aCertificateByNameAndKind() async throws {
        try await withSecureGateway(tls: { certificates in
            try await certificates.leaf("first", "DNS:a.example", isRSA: true)
            try await certificates.leaf("second", "DNS:a.example,DNS:B.example")
            try await certificates.leaf("wild", "DNS:*.c.example")
            let all = ["first", "second", "wild"].map { entry(certificates, $0) }.joined(separator: ", ")
            return "certificates: [ \(all) ]"
        }) { gateway in
            for (options, subject) in [
                ("-servername a.example", "second"), ("-servername A.EXAMPLE", "second"), ("-servername b.example", "second"),
                ("-servername a.example -sigalgs RSA-PSS+SHA256", "first"), ("-servername x.c.example", "wild"),
                // The first certificate's names are all of the second's, too: a client that names nobody gets the one that it prefers.
                ("-servername x.y.c.example", "second"), ("-servername c.example", "second"), ("-noservername", "second"),
                ("-servername a.example -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "first"),
                ("-servername a.example -tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305", "second"),
            ] {
                let said = try await look(gateway, options)
                #expect(said.contains("subject=CN = \(subject)\n"), "\(options): \(said)")
            }
            for (options, word) in [
                ("-tls1_1 -cipher ALL:@SECLEVEL=0", "alert"), ("-tls1_2 -cipher AES128-SHA", "handshake failure"),
                ("-tls1_2 -cipher ECDHE-RSA-AES128-SHA256", "handshake failure"), ("-groups P-521", "handshake failure"),
                ("-alpn spdy/1", "no application protocol"),
            ] {
                let said = try await look(gateway, "-servername a.example " + options)
                #expect(said.contains(word) && !said.contains("BEGIN CERTIFICATE"), "\(options): \(said)")
            }
            let said = try await look(gateway, "-servername a.example -alpn h3,http/1.1")
            #expect(said.contains("ALPN protocol: http/1.1") && said.contains("TLS_AES_128_GCM_SHA256"), "\(said)")
            let chacha = try await look(gateway, "-servername a.example -ciphersuites TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256")
            #expect(chacha.contains("TLS_CHACHA20_POLY1305_SHA256"), "\(chacha)")
        }
    }

    @Test func whoIsStrictRefusesUnknownNames() async throws {
        try await withSecureGateway(tls: { certificates in
            try await certificates.leaf("a", "DNS:a.example")
            return "strict: true, certificates: [ \(entry(certificates, "a")) ]"
        }) { gateway in
            let said = try await look(gateway, "-servername b.example")
            #expect(said.contains("unrecognized name"), "\(said)")
            #expect(try await look(gateway, "-servername a.example").contains("subject=CN = a"))
            #expect(await eventually { gateway.failures("unknown_name") == 1 })
        }
    }

    /// A connection serves the names of its own place, and no others; a ticket counts under its name only.
    @Test func anotherHostNeedsAnotherConnection() async throws {
        try await withSecureGateway(tls: { certificates in
            try await certificates.leaf("ab", "DNS:a.example,DNS:b.example")
            try await certificates.leaf("c", "DNS:c.example")
            return "certificates: [ \(entry(certificates, "ab")), \(entry(certificates, "c")) ]"
        }) { gateway in
            for (host, status) in [
                ("a.example", "200"), ("A.Example:8443", "200"), ("b.example", "200"), ("a.example.", "200"), ("c.example", "421"),
                ("unknown.example", "200"), ("127.0.0.1:1", "200"),
            ] {
                let answer = try await gateway.ask("a.example", host: host)
                #expect(answer.status == status, "\(host): \(answer.text)")
            }
            #expect(try await gateway.ask("c.example", host: "unknown.example").text.contains("misdirected_request"))
            let script = """
                s() { (sleep 0.3; echo Q) | timeout 20 openssl s_client -connect 127.0.0.1:\(gateway.port) -CAfile ca.pem "$@" 2>&1 | grep -a -m1 -o 'Reused\\|New'; }
                for v in -tls1_3 -tls1_2; do
                    s $v -servername a.example -sess_out s.pem
                    s $v -servername a.example -sess_in s.pem
                    s $v -servername b.example -sess_in s.pem
                    s $v -servername c.example -sess_in s.pem
                done
                """
            let said = try await gateway.certificates.shell(script).split(separator: "\n").joined(separator: " ")
            #expect(said == "New Reused New New New Reused New New", "\(said)")
            #expect(await eventually { gateway.metric("gateway_tls_handshakes_total", "resumed") == 2 })
        }
    }

    /// Files that change are taken when they fit together; connections that are open keep theirs.
    @Test func changedFilesAreTakenWhenTheyFit() async throws {
        try await withSecureGateway(tls: { certificates in
            try await certificates.leaf("a", "DNS:localhost")
            try await certificates.leaf("b", "DNS:localhost")
            return "certificates: [ \(entry(certificates, "a")) ]"
        }) { gateway in
            let folder = gateway.certificates
            let keeper = CertificateKeeper(gateway: gateway.gateway, loop: gateway.loop)
            defer { withExtendedLifetime(keeper) {} }
            func subject() async throws -> String {
                let said = try await look(gateway, "-servername localhost")
                return said.split(separator: "\n").first { $0.hasPrefix("subject=") }.map { String($0.dropFirst(13)) } ?? said
            }
            func records(_ outcome: String) -> Int {
                gateway.gateway.journal.entries().filter { $0.record.kind == .certificate && $0.record.outcome == outcome }.count
            }
            #expect(try await subject() == "a")
            // The certificate comes first; its key follows: until then the old ones go on, and it is said.
            try await folder.shell("mv b.pem a.pem")
            #expect(await eventually { records("kept") == 1 })
            #expect(try await subject() == "a")
            try await folder.shell("mv b.key a.key")
            #expect(await eventually { records("taken") == 1 })
            #expect(try await subject() == "b")
            try await folder.shell("rm a.pem")
            #expect(await eventually { records("kept") == 2 })
            #expect(try await subject() == "b")
            // What has expired is served.
            try await folder.leaf("a", "DNS:localhost", days: -1)
            #expect(await eventually { records("taken") == 2 })
            #expect(try await look(gateway, "-servername localhost").contains("certificate has expired"))
        }
    }

    @Test func clientsShowCertificates() async throws {
        try await withEcho { backend, _ in
            try await withSecureGateway(
                "{ path: /, backends: [127.0.0.1:\(backend)] }",
                tls: { certificates in
                    try await certificates.leaf("server", "DNS:open.example,DNS:closed.example,DNS:ask.example")
                    try await certificates.shell(
                        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout clients.key -out clients.pem -days 2 "
                            + "-subj '/CN=Clients CA'; cp clients.pem ca2.pem; touch index.txt; echo 01 > crlnumber")
                    try await certificates.leaf("good", "DNS:good", ca: "clients")
                    try await certificates.leaf("revoked", "DNS:revoked", ca: "clients")
                    try await certificates.leaf("stranger", "DNS:stranger")
                    try await certificates.shell(
                        """
                        printf '[ca]\\ndefault_ca=c\\n[c]\\ndatabase=index.txt\\ncrlnumber=crlnumber\\ndefault_md=sha256\\ndefault_crl_days=1\\n' > ca.cnf
                        openssl ca -config ca.cnf -cert clients.pem -keyfile clients.key -revoke revoked.pem
                        openssl ca -config ca.cnf -cert clients.pem -keyfile clients.key -gencrl -out crl.pem
                        """)
                    let ca = certificates.file("clients.pem"), crl = certificates.file("crl.pem")
                    return
                        "certificates: [ \(entry(certificates, "server")) ], clients: [ { ca: \(ca), crl: \(crl), names: [closed.example], "
                        + "subject: true, fingerprint: true }, { ca: \(ca), need: false, names: [ask.example] } ]"
                }
            ) { gateway in
                let folder = gateway.certificates
                func client(_ name: String) throws -> TLSContext {
                    try TLSContext(authorities: folder.authority, certificate: folder.file("\(name).pem"), key: folder.file("\(name).key"))
                }
                // On every route and connection, what a client says of certificates goes no further.
                let forged = ["Client-Cert: :AAAA:", "client_cert: x", "CLIENT-CERT-CHAIN: y", "X-Client-Cert-Subject: z"]
                let open = try await gateway.ask("open.example", fields: forged)
                #expect(
                    open.status == "200" && !open.text.lowercased().contains("client-cert") && !open.text.contains("client_cert"),
                    "\(open.text)")
                let good = try await gateway.ask("closed.example", fields: forged, context: client("good"))
                #expect(
                    good.text.contains("X-Client-Cert-Subject: /CN=good\r\n") && good.text.contains("X-Client-Cert-Fingerprint: "),
                    "\(good.text)")
                let der = try await folder.shell("openssl x509 -in good.pem -outform DER | base64 -w0")
                #expect(good.text.contains("Client-Cert: :\(der):\r\n") && !good.text.contains("AAAA"), "\(good.text)")
                #expect(try await gateway.ask("closed.example").status != "200")
                #expect(try await gateway.ask("closed.example", context: client("revoked")).status != "200")
                #expect(try await gateway.ask("closed.example", context: client("stranger")).status != "200")
                #expect(await eventually { gateway.failures("client_certificate") == 3 }, "\(gateway.gateway.metrics.render())")
                let asked = try await gateway.ask("ask.example", context: client("good"))
                #expect(asked.text.contains("Client-Cert: :\(der):") && !asked.text.contains("Subject"))
                #expect(try await gateway.ask("ask.example").status == "200")
                // The way round: in by the open name, then another host.
                #expect(try await gateway.ask("open.example", host: "closed.example").status == "421")
                #expect(try await gateway.ask("ask.example", host: "closed.example", context: client("good")).status == "421")
                // Verified anew each time.
                let again = try client("good")
                for _ in 0..<2 { #expect(try await gateway.ask("closed.example", context: again).isResumed == false) }
            }
        }
    }

    @Test func plainClientsAreSentToHTTPSAndToldToStay() async throws {
        try await withSecureGateway(
            "{ path: /, answer: { body: hello } }", "{ path: /.well-known/acme-challenge/, answer: { body: token } }",
            tls: { certificates in
                try await certificates.leaf("a", "DNS:a.example,DNS:localhost")
                return "hsts: 365d, certificates: [ \(entry(certificates, "a")) ]"
            }
        ) { gateway in
            try await gateway.gateway.listen(on: .loopback(port: 0), as: .redirect(port: 8443))
            try await gateway.gateway.listen(on: .loopback(port: 0), as: .redirect(port: 443))
            let ports = gateway.gateway.addresses.compactMap(\.port)
            func ask(_ port: UInt16, _ line: String, _ host: String) throws -> RawAnswer {
                let socket = try RawSocket(port: port)
                socket.send("\(line) HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n")
                return RawAnswer(socket.receive())
            }
            let first = try ask(ports[1], "GET /x%20y?a=b", "a.example:8080")
            #expect(first.status == 308 && first.field("location") == "https://a.example:8443/x%20y?a=b")
            #expect(first.field("strict-transport-security") == nil)
            #expect(try ask(ports[2], "POST /", "a.example").field("location") == "https://a.example/")
            #expect(try ask(ports[2], "GET /", "[::1]:80").field("location") == "https://[::1]/")
            #expect(try ask(ports[2], "GET /.well-known/acme-challenge/x", "a.example").body == "token")
            #expect(try await gateway.ask("a.example").text.contains("Strict-Transport-Security: max-age=31536000\r\n"))
            #expect(try await !gateway.ask("localhost").text.contains("Strict-Transport-Security"))
        }
    }

    /// An authority of the gateway's own signs for its names and no others, and is kept.
    @Test func anAuthorityOfItsOwn() async throws {
        try await withFolder { folder in
            let place = folder + "/own"
            func serve(_ names: String, _ body: (TLSContext, UInt16, EventLoop) async throws -> Void) async throws {
                let spec = try gatewaySpec(
                    ["{ path: /, answer: { body: x } }"], keys: ["tls: { hsts: 1d, certificates: \(names) }"])
                try await withLoop { loop in
                    let gateway = try Gateway(
                        spec, metrics: .init(), journal: .init(),
                        logger: .init(level: .error, format: .text, descriptor: 2, immediate: true),
                        accessLog: -1, folder: place)
                    defer { gateway.stop() }
                    try await gateway.apply(spec) { _ in [] }
                    try await gateway.listen(on: .loopback(port: 0), as: .secure)
                    try await body(try TLSContext(authorities: place + "/ca.pem"), gateway.address?.port ?? 0, loop)
                    _ = await gateway.drain(grace: .milliseconds(100))
                }
            }
            func handshakes(_ names: [String], _ context: TLSContext, _ port: UInt16, _ loop: EventLoop) async throws -> [Bool] {
                var all: [Bool] = []
                for name in names {
                    let talker = try await loop.run {
                        let talker = SecureTalker(loop: loop, "GET / HTTP/1.1\r\nHost: \(name)\r\nConnection: close\r\n\r\n")
                        talker.tls = context.session(to: name, port: port)
                        talker.connect(to: .loopback(port: port))
                        return LoopBound(talker, on: loop)
                    }
                    _ = try await eventually { try await loop.run { talker.value.reason != nil } }
                    all.append(try await loop.run { String(decoding: talker.value.got, as: UTF8.self).hasPrefix("HTTP/1.1 200") })
                }
                return all
            }
            try await serve("auto") { context, port, loop in
                let went = try await handshakes(["localhost", "127.0.0.1", "other.test"], context, port, loop)
                #expect(went == [true, true, false])
            }
            let first = try Files.read(place + "/ca.pem")
            try await serve("auto") { context, port, loop in
                let went = try await handshakes(["localhost"], context, port, loop)
                #expect(went == [true])
            }
            #expect(try Files.read(place + "/ca.pem") == first)
            for file in try Files.entries(place) {
                var info = stat()
                #expect(stat(place + "/" + file, &info) == 0 && info.st_mode & 0o077 == 0, "\(file)")
            }
            try await serve("{ auto: [app.test, '*.app.test'] }") { context, port, loop in
                let went = try await handshakes(["app.test", "x.app.test", "localhost"], context, port, loop)
                #expect(went == [true, true, false])
            }
            #expect(try Files.read(place + "/ca.pem") != first)
        }
    }

    /// Gateways that share a file of keys resume each other's sessions, also after it was rotated; a file that others may read is refused.
    @Test func keysOfTicketsAreShared() async throws {
        try await withFolder { folder in
            let file = folder + "/tickets"
            let one = TicketKeys(rotation: .seconds(60), now: MonotonicTime(nanoseconds: 0)), other = TicketKeys()
            #expect(other.take(one.text(), age: .seconds(30), now: MonotonicTime(nanoseconds: 0)) && other.text() == one.text())
            #expect(
                !one.timePassed(MonotonicTime(nanoseconds: 59_000_000_000)) && one.timePassed(MonotonicTime(nanoseconds: 60_000_000_000)))
            #expect(one.text().split(separator: 10).count == 3)
            for minute in 2...5 { _ = one.timePassed(MonotonicTime(nanoseconds: Int64(minute) * 60_000_000_000)) }
            #expect(one.text().split(separator: 10).count == 4)
            for wrong in ["", "muster ticket keys 1\n", "muster ticket keys 1\n00\n", "other\n"] {
                #expect(!one.take(Array(wrong.utf8), age: .zero, now: .now))
            }
            try await withSecureGateway(tls: { certificates in
                try await certificates.leaf("server", "DNS:localhost")
                return "tickets: { file: \(file) }, certificates: [ \(entry(certificates, "server")) ]"
            }) { gateway in
                var info = stat()
                #expect(stat(file, &info) == 0 && info.st_mode & 0o777 == 0o600)
                let context = try TLSContext(authorities: gateway.certificates.authority)
                #expect(try await gateway.ask(context: context).isResumed == false)
                #expect(try await gateway.ask(context: context).isResumed)
                // Other keys take their place: what was sealed before is not known any more.
                try Files.replace(file, with: other.text(), mode: 0o600)
                let keeper = CertificateKeeper(gateway: gateway.gateway, loop: gateway.loop)
                #expect(try await eventually { try await gateway.ask(context: context).isResumed == false })
                withExtendedLifetime(keeper) {}
                try await gateway.gateway.reloadCertificates()
                chmod(file, 0o644)
                do {
                    try await gateway.gateway.reloadCertificates()
                    Issue.record("a file that others may read was taken")
                } catch { #expect("\(error)".contains("chmod 600")) }
            }
        }
    }
}
