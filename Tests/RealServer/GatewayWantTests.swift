import Basics
import CLinux
import EventLoops
import Glibc
import HTTP
import TestSupport
import Testing

/// `muster gateway` in want: of descriptors, of a reader of its log, of space on the disk. It serves as well as it can, tells what it lacks,
/// blames nobody, and ends when it is told to.
@Suite(.serialized) struct GatewayWantTests {
    /// Starts the program by a shell, which may take something away from it first. `$BIN` and `$FILE` are the program and its file.
    private func withShell(
        _ script: String, more: [String] = [], _ route: String, _ body: (_ port: UInt16, _ admin: UInt16, Child) async throws -> Void
    ) async throws {
        try await withFolder { folder in
            let port = TestPorts.server(), admin = TestPorts.server()
            try folder.put("gateway.yaml", GatewayProcess.text(port, admin, more, [route]))
            let child = try Child(
                "/bin/sh", ["-c", script], environment: ["BIN": builtProgram("muster"), "FILE": folder + "/gateway.yaml"],
                log: folder + "/out", folder: folder)
            let result: Result<Void, any Error>
            do {
                let isUp = try await eventually { try isFreePort(admin) == false }
                try #require(isUp, "\(child.output)")
                result = .success(try await body(port, admin, child))
            } catch { result = .failure(error) }
            // Whoever has been waited for is gone.
            if kill(child.pid, 0) == 0 { await child.destroy() }
            try result.get()
        }
    }

    private func ask(_ port: UInt16, _ target: String) async -> String {
        await onThread {
            guard let peer = try? RawPeer(port: port) else { return "" }
            peer.send("GET \(target) HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return String(decoding: peer.readToEnd(), as: UTF8.self)
        }
    }

    private func metric(_ admin: UInt16, _ name: String) async -> Double {
        for line in await ask(admin, "/metrics").split(separator: "\n") where line.hasPrefix(name + " ") {
            return Double(line.dropFirst(name.count + 1).filter { $0 != "\r" }) ?? 0
        }
        return 0
    }

    private func withFine(_ body: (UInt16) async throws -> Void) async throws {
        try await withRaw({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") { peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") }
        }) { try await body($0.port) }
    }

    // MARK: descriptors

    /// More clients than there are descriptors: no replica goes, it is told, idle clients give theirs back, and all is well afterwards.
    @Test func descriptorsThatRunOutAreNobodysFault() async throws {
        try await withFine { a in
            let route =
                "{ path: /, eject: { failures: 1 }, breaker: { failures: 1 }, probe: { interval: 100ms, fall: 1 }, backends: [127.0.0.1:\(a)] }"
            try await withShell("ulimit -n 48; exec \"$BIN\" gateway \"$FILE\"", more: ["access-log: false"], route) { port, admin, child in
                var clients: [RawPeer] = []
                for _ in 0..<200 { clients.append(try RawPeer(port: port)) }
                let told = await eventually { child.output.contains("gateway_short ") }
                #expect(told, "\(child.output)")
                // Each that gets an answer gets a good one or a clear one.
                var answers: [String] = []
                for client in clients.prefix(60) {
                    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    var limit = timeval(tv_sec: 0, tv_usec: 100_000)
                    setsockopt(client.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
                    answers.append(client.answer().head)
                }
                #expect(answers.allSatisfy { $0.isEmpty || $0.hasPrefix("HTTP/1.1 200 ") || $0.hasPrefix("HTTP/1.1 503 ") }, "\(answers)")
                clients = []
                let isWell = await eventually { await ask(port, "/").hasPrefix("HTTP/1.1 200 ") }
                #expect(isWell)
                let state = await ask(admin, "/api/state")
                #expect(state.contains("\"state\":\"ready\"") && !state.contains("ejected") && !state.contains("\"down\""), "\(state)")
                #expect(await metric(admin, "gateway_shortages_total") > 0)
                #expect(child.output.split(separator: "\n").count { $0.contains("gateway_short ") } <= 2, "\(child.output)")
                let isOver = await eventually(.seconds(15)) { child.output.contains("gateway_short_over") }
                #expect(isOver)
            }
        }
    }

    // MARK: addresses

    /// Whether a process may make a network of its own here.
    private static let makesNetworks: Bool = {
        guard let child = try? Child("/usr/bin/unshare", ["-rn", "ip", "link", "set", "lo", "up"], log: "/dev/null") else { return false }
        var status: Int32 = -1
        return waitpid(child.pid, &status, 0) == child.pid && status == 0
    }()

    /// Where IPv6 is switched off, connecting to an IPv6 address fails as it does when no port is free: but the address is to blame, and not
    /// this process.
    @Test(.enabled(if: makesNetworks)) func anAddressThatCannotBeReachedIsToBlame() async throws {
        try await withFolder { folder in
            try folder.put(
                "gateway.yaml",
                GatewayProcess.text(
                    8010, 8404, ["access-log: false"],
                    [
                        "{ path: /, eject: { failures: 3, at-most: 100% }, retry: { attempts: 1 }, backends: [\"[::1]:9\", \"[2001:db8::1]:9\"] }"
                    ]))
            let script = """
                ip link set lo up; echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
                "$BIN" gateway "$FILE" & gateway=$!
                ask() { exec 3<> /dev/tcp/127.0.0.1/$1 && printf 'GET %s HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n' $2 >&3 && cat <&3; }
                for i in $(seq 200); do ask 8404 /health > /dev/null 2>&1 && break; sleep 0.1; done
                for i in $(seq 10); do ask 8010 /; done
                ask 8404 /api/state; ask 8404 /metrics
                kill $gateway; wait $gateway; echo; echo ended $?
                """
            let child = try Child(
                "/usr/bin/unshare", ["-rn", "bash", "-c", script],
                environment: ["BIN": builtProgram("muster"), "FILE": folder + "/gateway.yaml"], log: folder + "/out", folder: folder)
            let code = await child.end(within: .seconds(60))
            let output = child.output
            #expect(code == 0 && output.contains("ended 0"), "\(output)")
            #expect(output.contains("backend_unreachable") && !output.contains("\"gateway_short\""), "\(output)")
            #expect(output.contains("\"state\":\"ejected\""), "\(output)")
            #expect(!output.contains("gateway_shortages_total 1"), "\(output)")
        }
    }

    // MARK: logs

    /// What the program is started with, in each case; nobody reads its log.
    @Test(arguments: [
        // A pipe whose reader has stopped; one whose reader goes; a full disk. Standard output and standard error alike.
        "mkfifo p; sleep 60 < p & exec \"$BIN\" gateway \"$FILE\" > p 2> p",
        "mkfifo p; head -c 10 < p > /dev/null & exec \"$BIN\" gateway \"$FILE\" > p 2> p",
        "exec \"$BIN\" gateway \"$FILE\" > /dev/full 2> /dev/full",
    ])
    func logsHoldNothingUp(script: String) async throws {
        try await withFine { a in
            try await withShell(script, "{ path: /, backends: [127.0.0.1:\(a)] }") { port, admin, child in
                let client = try RawPeer(port: port)
                let answered = await onThread {
                    var answered = 0
                    // 7 MB of log: more than a pipe and the sink's own memory take.
                    for _ in 0..<12_000 {
                        client.send("GET /\(String(repeating: "a", count: 500)) HTTP/1.1\r\nHost: a\r\n\r\n")
                        if client.answer().head.hasPrefix("HTTP/1.1 200 ") { answered += 1 } else { break }
                    }
                    return answered
                }
                #expect(answered == 12_000)
                #expect(await ask(port, "/").hasPrefix("HTTP/1.1 200 "))
                #expect(await ask(admin, "/api/state").hasPrefix("HTTP/1.1 200 "))
                let isCounted = await eventually { await metric(admin, "gateway_access_log_dropped_total") > 0 }
                #expect(isCounted)
                let began = MonotonicTime.now
                child.send(SIGTERM)
                #expect(await child.end(within: .seconds(10)) == 0)
                #expect(MonotonicTime.now - began < .seconds(8))
            }
        }
    }

    /// The access log's trouble is told in the other log, once.
    @Test func aFullDiskIsTold() async throws {
        try await withFine { a in
            try await withShell(
                "exec \"$BIN\" gateway \"$FILE\"", more: ["access-log: { format: true, file: /dev/full }"],
                "{ path: /, backends: [127.0.0.1:\(a)] }"
            ) { port, _, child in
                for _ in 0..<3 {
                    _ = await ask(port, "/")
                    usleep(1_100_000)
                }
                let lines = child.output.split(separator: "\n").filter { $0.contains("access_log_dropped") }
                #expect(lines.count == 1 && lines[0].contains("No space left on device"), "\(child.output)")
            }
        }
    }

    /// What was logged before the end is there after it.
    @Test func theLastLinesAreWritten() async throws {
        try await withFine { a in
            try await withShell("exec \"$BIN\" gateway \"$FILE\"", "{ path: /, backends: [127.0.0.1:\(a)] }") { port, _, child in
                _ = await ask(port, "/the-last-one")
                child.send(SIGTERM)
                #expect(await child.end(within: .seconds(10)) == 0)
                #expect(child.output.contains("\"GET /the-last-one\" 200") && child.output.contains("stopped"), "\(child.output)")
            }
        }
    }
}

extension String {
    /// A file in this folder.
    fileprivate func put(_ name: String, _ text: String) throws { try Files.replace(self + "/" + name, with: Array(text.utf8)) }
}
