import Basics
import CLinux
import EventLoops
import Glibc
import Redis
import Sharding
import Synchronization

/// A redis-server of our own, for the length of one task: on a Unix socket in a private folder, without any port, writing nothing down.
/// Restore loads a snapshot into it, so that Redis itself reads what Redis wrote; a drill has an empty one as its target.
///
/// It ends with `end`, and with us: the kernel kills it when the thread that started it is no more (`setpriv --pdeathsig`, of util-linux),
/// which is the loop's, because a pool's threads come and go. Its folder is in TMPDIR, or /tmp.
final class ScratchServer: Sendable {
    let client: RedisClient
    let url: RedisURL
    private let folder: String
    private let pid: Int32
    private let loop: EventLoop
    private let options: RedisClient.Options
    /// Its end was seen: from then on the pid may be another process's.
    private let isReaped = Atomic<Bool>(false)

    /// Starts it, on the snapshot at `path` if there is one, and waits until it has loaded it. `tell` hears of a long load.
    static func start(snapshot path: String?, on loop: EventLoop, tell: @escaping @Sendable (String) -> Void)
        async throws(ProvisioningFailure) -> ScratchServer
    {
        let server: ScratchServer
        do { server = try await loop.run { try ScratchServer(snapshot: path, loop) } } catch {
            throw error as? ProvisioningFailure ?? ProvisioningFailure(.local, "\(error)")
        }
        do throws(ProvisioningFailure) { try await server.waitUntilLoaded(path, tell) } catch {
            await server.end()
            throw error
        }
        return server
    }

    private init(snapshot: String?, _ loop: EventLoop) throws {
        self.loop = loop
        guard let program = NodeProcess.program else {
            throw ProvisioningFailure(
                .local, "redis-server is not installed on this machine, and restore needs one (7.0 or later): apt-get install redis-server")
        }
        var template = Array("\(environmentValue("TMPDIR") ?? "/tmp")/muster-redis-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SystemError("create a folder in \(environmentValue("TMPDIR") ?? "/tmp")") }
        folder = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        do {
            let socket = folder + "/socket"
            // A socket's path may have 107 bytes.
            guard socket.utf8.count < 108 else {
                throw ProvisioningFailure(.local, "\(socket) is too long a path for a socket; set TMPDIR to a shorter one")
            }
            if let snapshot, symlink(Files.absolute(snapshot), folder + "/dump.rdb") != 0 { throw SystemError("link to \(snapshot)") }
            let lines = [
                "port 0", "unixsocket \(socket)", "unixsocketperm 700", "dir \(folder)", "dbfilename dump.rdb", "save \"\"",
                "appendonly no", "daemonize no",
                "rdbcompression no", "lazyfree-lazy-expire yes", "enable-module-command no",
                // Of its socket, which only we can open: see `loaded`.
                "enable-debug-command local",
            ]
            pid = try ScratchServer.spawn(program, folder, input: lines.joined(separator: "\n") + "\n")
            url = try RedisURL("redis://localhost").with(.single(.address(.unix(socket))))
        } catch {
            Files.remove(folder)
            throw error
        }
        var options = RedisClient.Options()
        options.maxConnections = 1
        // A key of a gigabyte is written in less.
        options.commandTime = .seconds(60)
        self.options = options
        client = RedisClient(url: url, loop: loop, options: options)
    }

    /// The same server, seen with another of its databases: only `letGo` is for this one, and not `end`.
    private init(_ other: ScratchServer, database: Int) {
        folder = other.folder
        pid = other.pid
        loop = other.loop
        options = other.options
        url = other.url.with(database: database)
        client = RedisClient(url: url, loop: loop, options: options)
        client.start()
    }

    func database(_ number: Int) -> ScratchServer { ScratchServer(self, database: number) }
    func letGo() { client.close() }

    /// Databases that have keys.
    func databases() async throws(ProvisioningFailure) -> [Int] {
        ClusterSession.databases(try await ask(RedisCommand("INFO", "keyspace"))).map(\.number)
    }

    private static func spawn(_ program: String, _ folder: String, input: String) throws(SystemError) -> Int32 {
        let out = open(folder + "/log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard out >= 0 else { throw SystemError("open \(folder)/log") }
        defer { close(out) }
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw SystemError("pipe") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        _ = write(ends[1], input, input.utf8.count)
        close(ends[1])
        defer { close(ends[0]) }
        let guardians: [String] = ["/usr/bin/setpriv", "/bin/setpriv"]
        let guardian = guardians.first { access($0, X_OK) == 0 }
        let words: [String] = (guardian.map { [$0, "--pdeathsig", "KILL"] } ?? []) + [program, "-"]
        let arguments = words.map { strdup($0) } + [nil]
        let settings: [String] = ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=\(folder)"]
        let variables = settings.map { strdup($0) } + [nil]
        defer { for pointer in arguments + variables { free(pointer) } }
        var pid: Int32 = 0
        let result = muster_spawn(&pid, words[0], arguments, variables, ends[0], out, out, false, folder, nil, 0)
        guard result == 0 else { throw SystemError("start \(words[0])", result) }
        return pid
    }

    private func waitUntilLoaded(_ path: String?, _ tell: @Sendable (String) -> Void) async throws(ProvisioningFailure) {
        let name = path ?? "an empty server"
        let begun = MonotonicTime.now
        var next = begun + .seconds(2)
        client.start()
        while true {
            var code: Int32 = 0
            if muster_reap(pid, &code) != 0 {
                isReaped.store(true, ordering: .relaxed)
                let last = Files.lastLines(folder + "/log", 4).joined(separator: "\n  ")
                throw ProvisioningFailure(.refused, "redis-server does not load \(name):\n  \(last)")
            }
            if let info = try? await client.send(RedisCommand("INFO", "persistence")).string {
                let fields = ClusterSession.fields(.simple(info))
                if fields["loading"] == "0" { return }
                if MonotonicTime.now >= next {
                    tell("loading \(name): \(fields["loading_loaded_perc"]?.split(separator: ".").first ?? "0") %")
                    next = .now + .seconds(2)
                }
            }
            await loop.sleep(.milliseconds(20))
        }
    }

    /// Keys that it found in the snapshot: those that it took, and those whose time had come before; `gone` of the first have expired since.
    ///
    /// From here on no key goes by itself: one whose time comes goes when it is looked at, so that each that goes is counted once
    /// (`RestoreSource.expired`).
    func loaded() async throws(ProvisioningFailure) -> (keys: Int, expired: Int, gone: Int) {
        _ = try await ask(RedisCommand("DEBUG SET-ACTIVE-EXPIRE", "0"))
        let gone = ClusterSession.fields(try await ask(RedisCommand("INFO", "stats")))["expired_keys"].flatMap { Int($0) } ?? 0
        let info = ClusterSession.fields(try await ask(RedisCommand("INFO", "persistence")))
        guard let keys = info["rdb_last_load_keys_loaded"].flatMap({ Int($0) }),
            let expired = info["rdb_last_load_keys_expired"].flatMap({ Int($0) })
        else {
            throw ProvisioningFailure(
                .local, "the redis-server of this machine does not say how many keys it loaded: 7.0 or later is needed")
        }
        return (keys, expired, gone)
    }

    func ask(_ command: RedisCommand) async throws(ProvisioningFailure) -> RESPValue {
        do { return try await client.send(command) } catch {
            throw ProvisioningFailure(.local, "the private redis-server: \(error.message)")
        }
    }

    func ask(all commands: [RedisCommand]) async throws(ProvisioningFailure) -> [RESPValue] {
        var values: [RESPValue] = []
        for result in await client.pipeline(commands) {
            do { values.append(try result.get()) } catch { throw ProvisioningFailure(.local, "the private redis-server: \(error.message)") }
        }
        return values
    }

    /// SIGKILL: it has nothing to write down. It was not reaped before, so that its pid is nobody else's yet.
    func end() async {
        client.close()
        if !isReaped.load(ordering: .relaxed) { kill(pid, SIGKILL) }
        var code: Int32 = 0
        while !isReaped.load(ordering: .relaxed), muster_reap(pid, &code) == 0 { await loop.sleep(.milliseconds(5)) }
        isReaped.store(true, ordering: .relaxed)
        Files.remove(folder)
    }
}

/// One key of a snapshot.
struct RestoreKey: Sendable {
    let name: [UInt8]
    /// Milliseconds since 1970; nil: it does not expire.
    let expiry: Int?
    /// Memory that it takes, as the server estimates it.
    let size: Int
    /// As DUMP writes it; nil where it is too large to come at once.
    let payload: [UInt8]?
}

/// A snapshot's keys, as a private server that loaded it hands them out: about a megabyte at a time, with what they hold. The next ones are
/// asked for before these are used. On the loop.
final class RestoreSource {
    /// Bytes of one answer that are aimed at, and beyond which no further key is written into it: several are on their way to the target at
    /// any time.
    static let stepBytes = 1 << 20
    /// Keys that one look goes on by; between them it adapts to their size.
    static let steps = 16...2000

    let server: ScratchServer
    private let limit: Int
    private var count = 128
    private var answer: Result<RESPValue, RedisError>?
    private var waiting: UnsafeContinuation<Void, Never>?
    private var isAsking = false
    private var isOver = false

    /// Keys that the walk met too late: their time had come, and nobody has seen them. Right where none goes by itself meanwhile.
    private(set) var expired = 0

    /// Keys whose time has come are left out, and counted. Within a script no time passes: only SCAN removes some.
    private static let script = RedisScript(
        """
        local function expired()
            return tonumber(string.match(redis.call('INFO', 'stats'), 'expired_keys:(%d+)') or '0')
        end
        local before = expired()
        local scan = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[2])
        local room, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
        local out, n = {scan[1], expired() - before}, 2
        for _, key in ipairs(scan[2]) do
            local expiry = redis.call('PEXPIRETIME', key)
            local size = redis.call('MEMORY', 'USAGE', key)
            if size then
                local payload = false
                if size <= limit and room > 0 then
                    payload = redis.call('DUMP', key)
                    room = room - #payload
                end
                out[n + 1], out[n + 2], out[n + 3], out[n + 4] = key, expiry, size, payload
                n = n + 4
            end
        end
        return out
        """)

    /// Keys of more than `limit` bytes come without what they hold.
    init(_ server: ScratchServer, limit: Int) {
        self.server = server
        self.limit = limit
    }

    /// The next keys; nil after the last. None is left out, and one may come twice.
    func next() async throws(ProvisioningFailure) -> [RestoreKey]? {
        if isOver { return nil }
        if !isAsking {
            _ = try await server.ask(RedisCommand("SCRIPT LOAD", RestoreSource.script.source))
            ask("0")
        }
        if answer == nil { await withUnsafeContinuation { waiting = $0 } }
        let parts: [RESPValue]?
        do { parts = try answer?.get().array } catch { throw ProvisioningFailure(.local, "the private redis-server: \(error.message)") }
        answer = nil
        guard let parts, let cursor = parts.first?.string, parts.count % 4 == 2 else {
            throw ProvisioningFailure(.local, "the private redis-server: an answer that is not understood")
        }
        var keys: [RestoreKey] = []
        keys.reserveCapacity(parts.count / 4)
        expired.addClamped(max(0, parts[1].int ?? 0))
        var bytes = 1
        for i in stride(from: 2, to: parts.count, by: 4) {
            let expiry = parts[i + 1].int ?? -1
            let key = RestoreKey(
                name: parts[i].bytes ?? [], expiry: expiry < 0 ? nil : expiry, size: parts[i + 2].int ?? 0, payload: parts[i + 3].bytes)
            bytes.addClamped(limit == 0 ? key.name.count : min(max(0, key.size), limit))
            keys.append(key)
        }
        count = min(
            max(count.multipliedClamped(by: RestoreSource.stepBytes) / max(1, bytes), count / 4, RestoreSource.steps.lowerBound), count * 4,
            RestoreSource.steps.upperBound)
        if cursor == "0" { isOver = true } else { ask(cursor) }
        return keys
    }

    private func ask(_ cursor: String) {
        isAsking = true
        var call = RestoreSource.script.call(keys: [])
        call.add(cursor)
        call.add(count)
        call.add(RestoreSource.stepBytes)
        call.add(limit)
        server.client.submit(call) { [self] result in
            answer = result
            waiting?.resume()
            waiting = nil
        }
    }

    /// What these hold, a megabyte or one key at a time; `body` gets each once. Those that have expired have none.
    func fetch(_ keys: [RestoreKey], _ body: (RestoreKey) async throws(ProvisioningFailure) -> Void) async throws(ProvisioningFailure) {
        var rest = keys[...]
        while !rest.isEmpty {
            var bytes = 0
            let group = rest.prefix { key in
                defer { bytes.addClamped(key.size) }
                return bytes == 0 || bytes.addingClamped(key.size) <= RestoreSource.stepBytes
            }
            rest = rest.dropFirst(group.count)
            let payloads = try await server.ask(all: group.map { RedisCommand("DUMP", key: $0.name) })
            for (key, payload) in zip(group, payloads) {
                try await body(RestoreKey(name: key.name, expiry: key.expiry, size: key.size, payload: payload.bytes))
            }
        }
    }
}
