import Basics
import EventLoops
import Glibc
import HTTP
import TestSupport
import Testing

/// The gateway's program under its signals, while clients ask.
@Suite struct GatewayProcessTests {
    private static func route(_ backend: RawBackend, _ path: String = "/") -> String {
        "{ path: \(path), backends: [127.0.0.1:\(backend.port)] }"
    }

    @Test func aReloadLosesNothing() async throws {
        try await withPlainBackend { backend in
            try await withGatewayProcess([Self.route(backend)]) { gateway in
                let load = Load(port: gateway.port)
                #expect(await load.more(50))
                for i in 1...4 {
                    try gateway.write([Self.route(backend), "{ path: /new\(i), answer: { body: new\(i) } }"])
                    gateway.child.send(SIGHUP)
                    #expect(await gateway.logged(" reloaded", times: i))
                    let new = try await gateway.send("/new\(i)"), old = try await gateway.send("/new\(i - 1)")
                    #expect(new.text.hasPrefix("new\(i)") && old.text == "ok")
                    #expect(await load.more(50))
                }
                let failures = await load.end()
                #expect(failures.isEmpty, "of \(load.served.count): \(failures.prefix(5))")
                print("reload: \(load.served.count) requests, \(failures.count) failed")
            }
        }
    }

    /// What is wrong is told, and what was right before stays.
    @Test func aWrongFileChangesNothing() async throws {
        try await withPlainBackend { backend in
            try await withGatewayProcess([Self.route(backend)]) { gateway in
                for (i, wrong) in [
                    "{ path: /, bakends: [a:1] }", "{ path: /, service: x }", "{ path: /, answer: { file: /nowhere/page } }",
                ].enumerated() {
                    try gateway.write([wrong])
                    gateway.child.send(SIGHUP)
                    #expect(await gateway.logged("reload_failed", times: i + 1))
                    #expect(try await gateway.send().text == "ok")
                }
                #expect(gateway.log.contains("bakends") && gateway.log.contains("/nowhere/page"))
                Files.remove(gateway.file)
                gateway.child.send(SIGHUP)
                #expect(await gateway.logged("reload_failed", times: 4))
                #expect(try await gateway.send().text == "ok")
            }
        }
    }

    /// A successor takes the sockets over, twice in a row; of the requests meanwhile none is lost.
    @Test func aReplacementLosesNothing() async throws {
        try await withPlainBackend { backend in
            try await withGatewayProcess([Self.route(backend)]) { gateway in
                let load = Load(port: gateway.port)
                #expect(await load.more(50))
                try gateway.write([Self.route(backend), "{ path: /new, answer: { body: new } }"])
                gateway.child.send(SIGUSR2)
                let code = await gateway.child.end()
                #expect(code == 0, "\(gateway.log)")
                #expect(try await gateway.send("/new").text.hasPrefix("new"))
                #expect(try await gateway.ask("/health").status == 200)
                #expect(await load.more(50))
                let successor = try #require(gateway.successors.first)
                kill(successor, SIGUSR2)
                #expect(await gateway.logged(" stopped", times: 2))
                #expect(try await gateway.ask("/health").status == 200)
                #expect(await load.more(50))
                let failures = await load.end()
                #expect(failures.isEmpty, "of \(load.served.count): \(failures.prefix(5))")
                #expect(gateway.successors.count == 2)
                print("replacement: \(load.served.count) requests, \(failures.count) failed")
            }
        }
    }

    /// All addresses that are listened on pass to a successor, each with its own sockets; a new one is opened.
    @Test func aReplacementPassesAllListeners() async throws {
        try await withPlainBackend { backend in
            try await withGatewayProcess([Self.route(backend)]) { gateway in
                let other = TestPorts.server(), first = Load(port: gateway.port)
                let both = "[127.0.0.1:\(gateway.port), 127.0.0.1:\(other)]"
                #expect(await first.more(50))
                try gateway.write(more: ["access-log: false", "threads: 2"], listen: both, [Self.route(backend)])
                gateway.child.send(SIGUSR2)
                #expect(await gateway.child.end() == 0, "\(gateway.log)")
                let second = Load(port: other)
                #expect(await second.more(50), "\(gateway.log)")
                kill(try #require(gateway.successors.last), SIGUSR2)
                #expect(await gateway.logged(" stopped", times: 2))
                #expect(await first.more(50))
                #expect(await second.more(50))
                for load in [first, second] {
                    let failures = await load.end()
                    #expect(failures.isEmpty, "of \(load.served.count): \(failures.prefix(5))")
                }
                #expect(gateway.log.split(separator: "\n").filter { $0.contains("gateway_listening") }.count == 5)
            }
        }
    }

    /// Many addresses with many threads: their sockets take more words than the programs of before could read.
    @Test func aReplacementPassesManySockets() async throws {
        try await withPlainBackend { backend in
            try await withGatewayProcess([Self.route(backend)]) { gateway in
                let addresses = (1...46).map { "127.0.0.\($0):\(gateway.port)" }
                func write() throws {
                    try gateway.write(
                        more: ["access-log: false", "threads: 4"], listen: "[\(addresses.joined(separator: ", "))]", [Self.route(backend)])
                }
                try write()
                gateway.child.send(SIGUSR2)
                #expect(await gateway.child.end() == 0, "\(gateway.log)")
                // Now one with all of them hands them on.
                kill(try #require(gateway.successors.last), SIGUSR2)
                #expect(await gateway.logged(" stopped", times: 2), "\(gateway.log)")
                #expect(gateway.successors.count == 2 && !gateway.log.contains("successor_ended"), "\(gateway.log)")
                for _ in 0..<8 {
                    for host in [1, 23, 46] as [UInt32] {
                        let client = try RawSocket(port: gateway.port, host: 0x7F00_0000 + host)
                        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                        #expect(client.receive().hasSuffix("ok"))
                    }
                }
            }
        }
    }

    /// Signals that come while a successor is being started start no other one.
    @Test func severalSignalsStartOneSuccessor() async throws {
        try await withPlainBackend { backend in
            try await withGatewayProcess([Self.route(backend)], more: ["access-log: false", "threads: 16"]) { gateway in
                for _ in 0..<40 {
                    gateway.child.send(SIGUSR2)
                    usleep(150)
                }
                let code = await gateway.child.end()
                #expect(code == 0, "\(gateway.log)")
                #expect(gateway.successors.count == 1, "\(gateway.log)")
                let text = try await gateway.send().text
                #expect(text == "ok")
            }
        }
    }

    /// A successor that cannot start leaves everything as it was, and the next one may try.
    @Test func aSuccessorThatCannotStartIsNone() async throws {
        try await withPlainBackend { backend in
            try await withGatewayProcess([Self.route(backend)]) { gateway in
                let load = Load(port: gateway.port)
                try gateway.write(["{ path: /, bakends: [a:1] }"])
                gateway.child.send(SIGUSR2)
                #expect(await gateway.logged("successor_ended"))
                #expect(gateway.log.contains("bakends"))
                #expect(try await gateway.send().text == "ok")
                try gateway.write([Self.route(backend)])
                gateway.child.send(SIGUSR2)
                let code = await gateway.child.end()
                #expect(code == 0)
                #expect(await load.more(20))
                let failures = await load.end()
                #expect(failures.isEmpty, "of \(load.served.count): \(failures.prefix(5))")
            }
        }
    }

    /// A successor takes clients when it knows where to send them, and not before; when it cannot find that out, the old process goes on.
    @Test func aSuccessorKnowsItsBackendsFirst() async throws {
        let server = try NameServer(["app.test": [.a("127.0.0.1")]], ttl: 200)
        defer { server.stop() }
        try await withPlainBackend { backend in
            let route = "{ path: /, backends-dns: { name: app.test, port: \(backend.port), server: 127.0.0.1:\(server.port) } }"
            try await withGatewayProcess([route]) { gateway in
                let first = try await gateway.send().text
                #expect(first == "ok")
                let load = Load(port: gateway.port)
                #expect(await load.more(20))
                server.fail(["1 app.test", "28 app.test"])
                gateway.child.send(SIGUSR2)
                #expect(await gateway.logged("successor_ended"))
                #expect(gateway.log.contains("no backends were found") && !gateway.log.contains("draining"), "\(gateway.log)")
                #expect(await load.more(20))
                // An answer that comes late is waited for.
                server.fail([])
                server.delay(300)
                gateway.child.send(SIGUSR2)
                let code = await gateway.child.end()
                #expect(code == 0 && gateway.log.contains("successor_started"))
                #expect(await load.more(50))
                let failures = await load.end()
                #expect(failures.isEmpty, "of \(load.served.count): \(failures.prefix(5))")
            }
        }
    }

    /// A process without a predecessor listens although its source is silent, and serves once it speaks.
    @Test func aSilentSourceDoesNotKeepThePortClosed() async throws {
        try await withPlainBackend { backend in
            try await withGatewayProcess(["{ path: /, backends-file: FOLDER/backends }", Self.route(backend, "/declared")]) { gateway in
                let unknown = try await gateway.send().status
                let declared = try await gateway.send("/declared").text
                #expect(unknown == 503 && declared == "ok")
                try Files.replace(gateway.folder + "/backends", with: Array("127.0.0.1:\(backend.port)\n".utf8))
                let isServed = try await eventually { try await gateway.send().text == "ok" }
                #expect(isServed)
            }
        }
    }

    /// What only a new process can change: more threads on the same port, and back; another port, and nobody is left on the old one.
    @Test func aSuccessorMayHaveOtherThreadsAndAnotherPort() async throws {
        try await withPlainBackend { backend in
            try await withGatewayProcess([Self.route(backend)]) { gateway in
                try gateway.write(more: ["access-log: false", "threads: 2"], [Self.route(backend)])
                gateway.child.send(SIGUSR2)
                let code = await gateway.child.end()
                try #require(code == 0, "\(gateway.log)")
                for _ in 0..<20 {
                    let client = try RawPeer(port: gateway.port)
                    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    #expect(client.answer().body == "ok")
                }
                let other = TestPorts.server()
                try gateway.write(port: other, [Self.route(backend)])
                kill(try #require(gateway.successors.last), SIGUSR2)
                #expect(await gateway.logged(" stopped", times: 2))
                let client = try RawPeer(port: other)
                client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                #expect(client.answer().body == "ok")
                let isRefused = await eventually { (try? RawPeer(port: gateway.port)) == nil }
                #expect(isRefused)
            }
        }
    }

    @Test(arguments: [SIGQUIT, SIGTERM]) func anEndFinishesWhatIsUnderWay(signal: Int32) async throws {
        let go = Tally()
        try await withRaw({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                while go.count == 0 { usleep(10_000) }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
            }
        }) { backend in
            try await withGatewayProcess([Self.route(backend)]) { gateway in
                let slow = try RawPeer(port: gateway.port)
                slow.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                #expect(await eventually { backend.made.count == 1 })
                gateway.child.send(signal)
                #expect(await gateway.logged("draining"))
                #expect(await eventually { (try? RawPeer(port: gateway.port)) == nil })
                go.add()
                let answer = slow.answer()
                #expect(answer.body == "late" && answer.head.contains("Connection: close"))
                let code = await gateway.child.end()
                #expect(code == 0)
                #expect(gateway.log.contains("connections_cut=0"))
            }
        }
    }

    @Test func backendsOnUnixSockets() async throws {
        var router = Router()
        router.post("/") { request, _ in .text("\(request.body.count) \(request.header("x-forwarded-for") ?? "")") }
        try await withGatewayProcess(["{ path: /, backends: [\"unix:FOLDER/app.sock\"] }"]) { gateway in
            let missing = try await gateway.send("/", "POST", body: [1])
            #expect(missing.status == 502 && missing.text.contains("backend_unreachable"))
            let loop = gateway.loop, routes = router, path = gateway.folder + "/app.sock"
            let server = try await loop.run {
                let server = HTTPServer(loop: loop, router: routes)
                try server.listen(on: .unix(path))
                return LoopBound(server, on: loop)
            }
            let answer = try await gateway.send("/", "POST", body: [1, 2, 3])
            #expect(answer.status == 200 && answer.text == "3 127.0.0.1")
            try await loop.run { server.value.drain(grace: .zero) {} }
        }
    }

    /// 15,000 clients that have asked once and keep their connection: each costs little, and others are served.
    @Test func idleConnectionsCostLittle() async throws {
        let script = """
            import resource, select, socket, sys
            resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
            port, count = int(sys.argv[1]), int(sys.argv[2])
            all = []
            for begin in range(0, count, 500):
                group = []
                for i in range(begin, min(begin + 500, count)):
                    s = socket.socket()
                    s.bind(("127.0.%d.%d" % (10 + i // 5000, 1 + i % 5), 0))
                    s.connect(("127.0.0.1", port))
                    s.send(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
                    group.append(s)
                for s in group:
                    s.settimeout(20)
                    if not s.recv(4096).startswith(b"HTTP/1.1 200 "): sys.exit("not served")
                all += group
            print("served", len(all), flush=True)
            sys.stdin.read()
            """
        try await withPlainBackend { backend in
            let count = 15_000
            try await withGatewayProcess(
                [Self.route(backend)], more: ["access-log: false", "limits: { connections: 20000, idle-time: 10m }"]
            ) { gateway in
                // What is made once is made before it is counted.
                for _ in 0..<50 { _ = try await gateway.send() }
                let before = GatewayProcess.resident(gateway.child.pid)
                let crowd = try Child(
                    try systemProgram("python3"), ["-c", script + "\nimport time; time.sleep(60)", "\(gateway.port)", "\(count)"],
                    log: gateway.folder + "/crowd.out")
                let isThere = await eventually(.seconds(40)) {
                    crowd.output.contains("served \(count)") || crowd.output.contains("not served")
                }
                #expect(isThere && crowd.output.contains("served \(count)"), "\(crowd.output)")
                let after = GatewayProcess.resident(gateway.child.pid)
                let each = Double(after - before) * 1024 / Double(count)
                print("idle connections: \(count), resident memory \(before) KiB before, \(after) KiB with them: \(Int(each)) bytes each")
                #expect(each < 4096)
                for _ in 0..<20 { #expect(try await gateway.send().text == "ok") }
                await crowd.destroy()
            }
        }
    }
}
