import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import TestSupport
import Testing

/// Something that listens on a port, as long as it is held.
private final class TakenPort {
    let port: UInt16
    private let fd: Int32

    init(_ port: UInt16) throws {
        self.port = port
        fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let bound = withUnsafeBytes(of: &address) {
            bind(fd, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t(MemoryLayout<sockaddr_in>.size))
        }
        guard bound == 0, listen(fd, 1) == 0 else { throw SystemError("listen on \(port)") }
    }

    deinit { close(fd) }
}

/// Stacks with stores of several kinds, run by us and by others.
@Suite(.serialized) struct KindsOfStoreTests {
    private static let stores = """
        stores:
          state: { redis: { role: state, memory: 64Mi, masters: 3, replicas: 1 } }
          cache: { memcached: { memory: 16MiB } }
          remote: { redis: { external: { url: "${REMOTE_URL}" } } }

        """

    private func variable(_ name: String, _ stack: SmallStack) async throws -> String {
        let hex = Array(try await stack.get("/env?name=\(name)").text.utf8)
        return String(
            decoding: stride(from: 0, to: hex.count - 1, by: 2).compactMap {
                UInt8(String(decoding: hex[$0..<$0 + 2], as: UTF8.self), radix: 16)
            }, as: UTF8.self)
    }

    /// What a memcached answers.
    private func ask(_ port: Int, _ text: String, until end: String) throws -> String {
        let socket = try RawSocket(port: UInt16(port))
        socket.send(text)
        return socket.receive { $0.contains(end) }
    }

    private func file(_ stack: SmallStack, admin: UInt16) throws -> String {
        try "services:\n" + stack.service("web", "uses: [state, cache, { store: remote, as: REMOTE }]") + Self.stores
            + stack.gateway("web", "admin: 127.0.0.1:\(admin)")
    }

    @Test(.timeLimit(.minutes(3))) func aClusterAMemcachedAndAnExternalRedisInOneStack() async throws {
        try await withFolder { place in
            let remote = try await RedisFixture(folder: place)
            try await withSmallStack { stack in
                let admin = TestPorts.server()
                try stack.put("s.yaml", try file(stack, admin: admin))
                try await stack.up(environment: ["REMOTE_URL": remote.url])
                try await usersAreTold(stack, remote)
                try await rowsShowThem(stack, remote)
                try await figuresAreThere(stack, admin)
                try await aDeadCacheComesBackWhereItWas(stack)
                await remote.destroy()
                try await anExternalStoreMayGo(stack)
                let again = try await RedisFixture(folder: place, port: remote.port)
                #expect(try await eventually { try await stack.row("remote/1").state == "ready" })
                try await nothingTellsThePassword(of: again, stack, admin)
                try await stack.muster("down", "s.yaml")
                #expect(stack.processes.isEmpty)
                // The cache has the port that it had.
                await again.destroy()
            }
        }
    }

    private func usersAreTold(_ stack: SmallStack, _ remote: RedisFixture) async throws {
        #expect(try await variable("REDIS_URL", stack).hasPrefix("redis+cluster://:"))
        #expect(try await variable("REMOTE", stack) == remote.url)
        let port = try required(try await stack.row("cache/1").port)
        #expect(try await variable("MEMCACHED_SERVERS", stack) == "127.0.0.1:\(port)")
        #expect(try ask(port, "set k 0 0 2\r\nhi\r\nget k\r\n", until: "END").contains("hi"))
    }

    private func rowsShowThem(_ stack: SmallStack, _ remote: RedisFixture) async throws {
        let (_, output) = try await stack.muster("ps", "--json", "s.yaml")
        struct Shown {
            let name: String, kind: String?, role: String?, address: String?, hasPid: Bool, isExternal: Bool
        }
        let json = output.split(separator: "\n").first { $0.hasPrefix("[") } ?? "[]"
        let rows = try JSONDocument().parse(Array(json.utf8)) { root in
            (root.array ?? []).map {
                Shown(
                    name: "\($0["service"]?.string ?? "")/\($0["replica"]?.int ?? 0)", kind: $0["kind"]?.string, role: $0["role"]?.string,
                    address: $0["address"]?.string, hasPid: $0["pid"]?.int != nil, isExternal: $0["external"]?.bool ?? false)
            }
        }
        let state = rows.filter { $0.name.hasPrefix("state/") }
        #expect(state.count == 6 && state.allSatisfy { $0.kind == "redis" && $0.hasPid })
        #expect(state.count { $0.role == "master" } == 3 && state.count { $0.role == "replica" } == 3)
        let one = try required(rows.first { $0.name == "remote/1" })
        #expect(one.isExternal && !one.hasPid && one.kind == "redis" && one.address == "127.0.0.1:\(remote.port)" && one.role == "master")
        #expect(rows.first { $0.name == "cache/1" }?.kind == "memcached")
        let (_, table) = try await stack.muster("ps", "s.yaml")
        #expect(table.contains("127.0.0.1:\(remote.port)"))
    }

    private func figuresAreThere(_ stack: SmallStack, _ admin: UInt16) async throws {
        for line in [
            "muster_store_up{store=\"remote\",kind=\"redis\",node=\"1\"} 1",
            "muster_store_up{store=\"cache\",kind=\"memcached\",node=\"1\"} 1",
            "muster_store_memory_limit_bytes{store=\"cache\",kind=\"memcached\",node=\"1\"} 16777216",
            "muster_store_connections{store=\"state\",kind=\"redis\",node=\"6\"}",
        ] {
            #expect(
                try await eventually { try await stack.get("/metrics", port: Int(admin)).text.contains(line) }, "\(line)")
        }
    }

    private func aDeadCacheComesBackWhereItWas(_ stack: SmallStack) async throws {
        let before = try await stack.row("cache/1")
        kill(before.pid, SIGKILL)
        #expect(
            try await eventually {
                let now = try await stack.row("cache/1")
                return now.pid > 0 && now.pid != before.pid && now.state == "ready" && now.port == before.port
            })
        // A cache may be empty.
        #expect(try ask(try required(before.port), "get k\r\n", until: "END") == "END\r\n")
    }

    private func anExternalStoreMayGo(_ stack: SmallStack) async throws {
        #expect(try await eventually(.seconds(20)) { try await stack.row("remote/1").state == "failed" })
        #expect(try await stack.row("web/1").state == "ready")
        let (status, words) = try await stack.muster("why", "remote", "--stack", "s.yaml")
        #expect(status == 0 && words.contains("remote (external, 127.0.0.1:") && words.contains("is away"), "\(words)")
    }

    /// Not in a log, in the arguments of a process, in what verbs print, or in a file of the stack's folder.
    private func nothingTellsThePassword(of remote: RedisFixture, _ stack: SmallStack, _ admin: UInt16) async throws {
        let pids = stack.processes
        #expect(pids.count >= 8)
        for pid in pids { #expect(!(Files.text("/proc/\(pid)/cmdline") ?? "").contains(remote.password)) }
        for name in Files.list("\(stack.folder)/.muster/s/logs") {
            #expect(!(Files.text("\(stack.folder)/.muster/s/logs/\(name)") ?? "").contains(remote.password), "\(name)")
        }
        for arguments in [["ps", "s.yaml"], ["ps", "--json", "s.yaml"], ["why", "--json", "--stack", "s.yaml"]] {
            let (_, words) = try await run(builtProgram("muster"), arguments, environment: [:], folder: stack.folder)
            #expect(!words.contains(remote.password), "\(arguments)")
        }
        for path in ["/metrics", "/api/replicas", "/api/stack", "/"] {
            #expect(try await !stack.get(path, port: Int(admin)).text.contains(remote.password), "\(path)")
        }
    }

    /// It answers on the connection that the probe has, refuses new clients, and is not taken for dead.
    @Test(.timeLimit(.minutes(2))) func aFullMemcachedIsDegraded() async throws {
        try await withSmallStack { stack in
            try stack.put("s.yaml", "stores:\n  cache: { memcached: { memory: 2Mi, connections: 64 } }\n")
            try await stack.up()
            let before = try await stack.row("cache/1"), port = try required(before.port)
            #expect(before.state == "ready")
            var held: [RawSocket] = []
            let isDegraded = try await eventually(.seconds(20)) {
                // A few more each time, so that some are refused between two probes.
                for _ in 0..<30 {
                    if let socket = try? RawSocket(port: UInt16(port)) { held.append(socket) }
                }
                if held.count > 300 { held.removeLast(200) }
                let now = try await stack.row("cache/1")
                return now.state == "degraded" && now.trouble.contains("it refused")
            }
            #expect(isDegraded)
            held = []
            #expect(try await eventually { try await stack.row("cache/1").state == "ready" })
            #expect(try await stack.row("cache/1").pid == before.pid)
        }
    }

    /// `up` says in one line where and why, starts nothing, and quotes no password.
    @Test(arguments: [
        ("redis: { external: { url: 'http://:hidden@h' } }", "s.yaml:2:34: stores.x.redis.external.url: expected a URL that begins with"),
        ("redis: { external: { url: '${NOT_SET_ANYWHERE}' } }", "s.yaml:2:34: stores.x.redis.external.url: NOT_SET_ANYWHERE is not set"),
        ("redis: { external: { url-file: none } }", "s.yaml:2:39: stores.x.redis.external.url-file: there is no file '"),
        ("redis: { external: { url-file: /dev/zero } }", "'/dev/zero' is no file"),
        (
            "redis: { external: { url: 'redis://:hidden@nowhere:port' } }",
            "s.yaml:2:34: stores.x.redis.external.url: what stands behind '@'"
        ),
        (
            "memcached: { external: { url: 'memcached://u:hidden@h' } }",
            "s.yaml:2:38: stores.x.memcached.external.url: memcached://HOST:PORT"
        ),
        ("memcached: { external: { url: 'memcached://h,,i' } }", "expected memcached://HOST:PORT,HOST:PORT with 1 to 64 servers"),
        ("memcached: { port: TAKEN }", "stores.x.memcached.port: port TAKEN is in use"),
    ])
    func aStoreThatCannotBeIsToldBeforeAnythingStarts(store: String, words: String) async throws {
        try await withSmallStack { stack in
            let port = TestPorts.server(), taken = try TakenPort(port)
            try stack.put("s.yaml", "stores:\n  x: { \(store.replacing("TAKEN", with: String(port))) }\n")
            let (status, told) = try await stack.muster("up", "-d", "s.yaml")
            #expect(status != 0 && told.contains(words.replacing("TAKEN", with: String(taken.port))), "\(told)")
            #expect(!told.contains("hidden") && stack.processes.isEmpty, "\(told)")
        }
    }

    @Test(.timeLimit(.minutes(2))) func anExternalStoreThatIsAwayAtTheStartIsTold() async throws {
        try await withSmallStack { stack in
            let port = TestPorts.server()
            try stack.put("s.yaml", "stores:\n  x: { redis: { external: { url: 'redis://:hidden@127.0.0.1:\(port)' } } }\n")
            let (status, told) = try await stack.muster("up", "-d", "s.yaml")
            let line = "s.yaml:2:34: stores.x.redis.external.url: the store at 127.0.0.1:\(port) is away (PING on 127.0.0.1:\(port)"
            #expect(status != 0 && told.contains(line) && !told.contains("hidden"), "\(told)")
            #expect(stack.processes.isEmpty)
        }
        try await withRedis { redis in
            try await withSmallStack { stack in
                try stack.put("s.yaml", "stores:\n  x: { redis: { external: { url: 'redis://:hidden@127.0.0.1:\(redis.port)' } } }\n")
                let (status, told) = try await stack.muster("up", "-d", "s.yaml")
                #expect(status != 0 && told.contains("is away (PING was answered with: WRONGPASS") && !told.contains("hidden"), "\(told)")
            }
        }
    }
}
