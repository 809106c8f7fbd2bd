import Basics
import EventLoops
import Glibc
import Synchronization

/// A real PostgreSQL of one test: its cluster is made by initdb (0.6 s), the server runs in the foreground as a child, at a Unix socket and on
/// 127.0.0.1. Run by root, the server is run as the user `postgres`. A server that is missing fails the test.
///
/// Roles: `postgres`, let in without a password at the socket, and with `PostgresServer.password` by SCRAM over TCP.
public final class PostgresServer: Sendable {
    public static let password = "test-password"

    public let port: UInt16
    /// The folder that has the data, the socket and the log.
    public let folder: String
    private let child: Child
    /// Whether its end has been seen: its number may be another process's by now.
    private let hasEnded = Atomic<Bool>(false)

    public var data: String { folder + "/data" }
    public var log: String { child.output }
    public var pid: Int32 { child.pid }

    /// At the Unix socket, without a password.
    public var url: String { "postgresql://postgres@/postgres?host=\(folder)&port=\(port)" }
    /// Over TCP, with the password.
    public var tcpURL: String { "postgresql://postgres:\(Self.password)@127.0.0.1:\(port)/postgres" }

    private init(folder: String, port: UInt16, child: Child) {
        self.folder = folder
        self.port = port
        self.child = child
    }

    // MARK: making servers

    /// Makes a cluster in a new folder `name` of `folder`, and starts its server. `settings` are lines for postgresql.conf, `access` lines for
    /// the beginning of pg_hba.conf.
    public static func start(
        in folder: String, name: String = "pg", port: UInt16? = nil, settings: [String] = [], access: [String] = []
    ) async throws -> PostgresServer {
        let own = try makeFolder(name, in: folder)
        let secret = own + "/password"
        try Files.replace(secret, with: Array("\(password)\n".utf8), mode: 0o644)
        try await run(
            "initdb",
            [
                "-D", own + "/data", "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile=\(secret)", "--no-sync",
                "--no-instructions", "-E", "UTF8", "--locale=C",
            ], in: own)
        let hba = own + "/data/pg_hba.conf"
        let lines = access + ["local replication all trust", "host replication all 127.0.0.1/32 scram-sha-256"]
        try write(hba, lines.joined(separator: "\n") + "\n" + (Files.text(hba) ?? ""))
        // Tests lose no power; the rest lets a standby follow at once and pg_rewind work.
        try add(
            [
                "fsync = off", "shared_buffers = 16MB", "wal_log_hints = on", "wal_retrieve_retry_interval = 200ms", "max_wal_senders = 10",
                "log_line_prefix = '%m [%p] '",
            ], to: own)
        return try await start(made: own, port: port ?? TestPorts.server(), settings)
    }

    /// A standby that follows this server, made by pg_basebackup (0.4 s) in a new folder `name` beside this one's; it streams as `name`, from a
    /// slot of that name.
    public func standby(_ name: String, port: UInt16? = nil, settings: [String] = []) async throws -> PostgresServer {
        let own = try Self.makeFolder(name, in: Files.folder(of: folder))
        try await Self.run(
            "pg_basebackup",
            [
                "-d", "host=\(folder) port=\(self.port) user=postgres application_name=\(name)", "-D", own + "/data", "-R", "-X", "stream",
                "-c", "fast", "-C", "-S", name, "--no-sync",
            ], in: own)
        return try await Self.start(made: own, port: port ?? TestPorts.server(), settings)
    }

    /// The same cluster's server once more, after it was stopped or killed.
    public func restarted(settings: [String] = []) async throws -> PostgresServer {
        try await Self.start(made: folder, port: port, settings)
    }

    private static func start(made own: String, port: UInt16, _ settings: [String]) async throws -> PostgresServer {
        // The last line of a name holds.
        try add(settings + ["port = \(port)", "listen_addresses = '127.0.0.1'", "unix_socket_directories = '\(own)'"], to: own)
        let (path, words) = try command("postgres", ["-D", own + "/data"], in: own)
        let child = try Child(path, words, log: own + "/server.log", folder: own)
        let server = PostgresServer(folder: own, port: port, child: child)
        // Its own word: "ready", or "standby" of one that takes reads.
        let isUp = await eventually(.seconds(20)) { ["ready", "standby"].contains(server.state) || !isAlive(child.pid) }
        guard isUp, isAlive(child.pid) else {
            await server.destroy()
            throw SystemError("postgres did not start: \(child.output)", ECONNREFUSED)
        }
        return server
    }

    /// The server's word for its state in postmaster.pid: `starting`, `ready`, `standby`, `stopping`; empty when there is none.
    public var state: String {
        let lines = (Files.text(data + "/postmaster.pid") ?? "").split(separator: "\n", omittingEmptySubsequences: false)
        // A killed server leaves its file behind.
        return lines.count > 7 && lines[0] == "\(pid)" ? String(lines[7].filter { $0 != " " }) : ""
    }

    // MARK: stopping

    /// SIGINT: ends sessions and stops in good order. SIGQUIT: at once, as after a crash.
    public func stop(_ signal: Int32 = SIGINT) async {
        child.send(signal)
        if await child.end() != nil { hasEnded.store(true, ordering: .relaxed) }
    }

    /// As a power cut takes it: the postmaster, and whatever it leaves behind, which may go on for a second.
    public func kill() async {
        child.send(SIGKILL)
        if await child.end() != nil { hasEnded.store(true, ordering: .relaxed) }
        _ = await eventually { leftBehind.isEmpty }
    }

    /// Processes that work in the data's folder.
    private var leftBehind: [Int32] {
        Files.list("/proc").compactMap { Int32($0) }.filter { pid in
            var path = [CChar](repeating: 0, count: 1024)
            let count = readlink("/proc/\(pid)/cwd", &path, path.count)
            guard count == data.utf8.count else { return false }
            let found = String(decoding: path[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if found == data { Glibc.kill(pid, SIGKILL) }
            return found == data
        }
    }

    /// For a clean-up.
    public func destroy() async {
        if hasEnded.load(ordering: .relaxed) { return }
        child.send(SIGQUIT)
        if await child.end(within: .seconds(5)) == nil { await child.destroy() }
    }

    // MARK: asking

    /// What psql answers, without headings, as the user `postgres`.
    @discardableResult
    public func sql(_ text: String) async throws -> String {
        let result = try await TestSupport.run(
            try systemProgram("psql"),
            ["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", folder, "-p", "\(port)", "-U", "postgres", "-d", "postgres"],
            input: Array((text + "\n").utf8))
        guard result.status == 0 else { throw SystemError("psql: \(result.output)", EINVAL) }
        return result.output.hasSuffix("\n") ? String(result.output.dropLast()) : result.output
    }

    /// Runs a program of PostgreSQL (`pg_rewind`, `pg_ctl`) as the server's user; one that fails throws what it said.
    @discardableResult
    public func tool(_ name: String, _ arguments: [String]) async throws -> String { try await Self.run(name, arguments, in: folder) }

    /// Writes a file that the server's user owns.
    public static func write(_ path: String, _ text: String, mode: mode_t = 0o600) throws {
        try Files.replace(path, with: Array(text.utf8), mode: mode)
        try give(path)
    }

    /// Adds lines to postgresql.conf; they hold from the next start or reload.
    public func configure(_ lines: [String]) throws { try Self.add(lines, to: folder) }

    private static func add(_ lines: [String], to own: String) throws {
        let path = own + "/data/postgresql.conf"
        try write(path, (Files.text(path) ?? "") + lines.map { $0 + "\n" }.joined())
    }

    /// Lets the server read its configuration anew.
    public func reload() { child.send(SIGHUP) }

    // MARK: the server's user and programs

    private static func makeFolder(_ name: String, in folder: String) throws -> String {
        let own = "\(folder)/\(name)"
        try Files.makeFolder(own, mode: 0o700)
        if geteuid() == 0 { chmod(folder, 0o711) }
        try give(own)
        return own
    }

    /// Makes the server's user the owner, when root runs the tests.
    private static func give(_ path: String) throws {
        guard geteuid() == 0 else { return }
        guard let entry = getpwnam("postgres") else { throw SystemError("there is no user postgres: install postgresql", ENOENT) }
        guard chown(path, entry.pointee.pw_uid, entry.pointee.pw_gid) == 0 else { throw SystemError("chown \(path)") }
    }

    private static func program(_ name: String) throws -> String {
        let versions = Files.list("/usr/lib/postgresql").compactMap { Int($0) }.sorted()
        guard let newest = versions.last(where: { access("/usr/lib/postgresql/\($0)/bin/\(name)", X_OK) == 0 }) else {
            return try systemProgram(name)
        }
        return "/usr/lib/postgresql/\(newest)/bin/\(name)"
    }

    private static func command(_ name: String, _ arguments: [String], in own: String) throws -> (String, [String]) {
        let path = try program(name)
        guard geteuid() == 0 else { return (path, arguments) }
        let words = ["--reuid=postgres", "--regid=postgres", "--init-groups", "env", "HOME=\(own)", path] + arguments
        return (try systemProgram("setpriv"), words)
    }

    @discardableResult
    private static func run(_ name: String, _ arguments: [String], in own: String) async throws -> String {
        let (path, words) = try command(name, arguments, in: own)
        let result = try await TestSupport.run(path, words, folder: own)
        guard result.status == 0 else { throw SystemError("\(name): \(result.output)", EINVAL) }
        return result.output
    }
}

/// A PostgreSQL for the length of one test.
public func withPostgres<T>(
    settings: [String] = [], access: [String] = [], _ body: (PostgresServer) async throws -> T
) async throws -> T {
    try await withFolder { folder in
        let server = try await PostgresServer.start(in: folder, settings: settings, access: access)
        let result: Result<T, any Error>
        do { result = .success(try await body(server)) } catch { result = .failure(error) }
        await server.destroy()
        return try result.get()
    }
}
