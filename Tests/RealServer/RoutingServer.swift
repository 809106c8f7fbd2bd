import Basics
import EventLoops
import Glibc
import TestSupport

/// A real PostgreSQL for the tests of routing, at 127.0.0.1 and without a password. Run by root, it is run as the user `postgres`. A server that
/// is missing fails the test.
final class RoutingServer: Sendable {
    let port: UInt16
    private let folder: String
    private let child: Child

    private init(folder: String, port: UInt16, child: Child) {
        self.folder = folder
        self.port = port
        self.child = child
    }

    /// Makes a cluster in `folder`, and starts its server.
    static func start(in folder: String, settings: [String] = []) async throws -> RoutingServer {
        let own = try make("main", in: folder)
        try await run("initdb", ["-D", own + "/data", "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"], in: own)
        try add("host replication all 127.0.0.1/32 trust", to: own + "/data/pg_hba.conf")
        return try await start(made: own, settings)
    }

    /// A standby of it, beside it.
    func standby(_ name: String) async throws -> RoutingServer {
        let own = try Self.make(name, in: Files.folder(of: folder))
        try await Self.run(
            "pg_basebackup",
            ["-d", "host=127.0.0.1 port=\(port) user=postgres", "-D", own + "/data", "-R", "-X", "stream", "-c", "fast", "--no-sync"],
            in: own)
        return try await Self.start(made: own, [])
    }

    private static func start(made own: String, _ settings: [String]) async throws -> RoutingServer {
        let port = TestPorts.server()
        let lines =
            settings + [
                "port = \(port)", "listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", "fsync = off", "shared_buffers = 16MB",
            ]
        try add(lines.joined(separator: "\n"), to: own + "/data/postgresql.conf")
        let (path, words) = try command("postgres", ["-D", own + "/data"])
        let server = RoutingServer(folder: own, port: port, child: try Child(path, words, log: own + "/server.log", folder: own))
        let isUp = await eventually(.seconds(120)) {
            guard let connection = try? PlainPostgres(port: port, database: "postgres") else { return !isAlive(server.child.pid) }
            connection.close()
            return true
        }
        guard isUp, isAlive(server.child.pid) else {
            await server.destroy()
            throw SystemError("postgres did not start: \(server.child.output)", ECONNREFUSED)
        }
        return server
    }

    func destroy() async {
        child.send(SIGQUIT)
        if await child.end(within: .seconds(5)) == nil { await child.destroy() }
    }

    // MARK: as the user postgres

    /// A folder that the server's user owns; those above let that user through.
    private static func make(_ name: String, in folder: String) throws -> String {
        let own = "\(folder)/\(name)"
        try Files.makeFolder(own, mode: 0o700)
        guard getuid() == 0 else { return own }
        chmod(folder, 0o711)
        guard let user = getpwnam("postgres"), chown(own, user.pointee.pw_uid, user.pointee.pw_gid) == 0 else {
            throw SystemError("the user postgres, who comes with the package postgresql", ENOENT)
        }
        return own
    }

    private static func add(_ text: String, to path: String) throws {
        let file = open(path, O_WRONLY | O_APPEND)
        let bytes = Array((text + "\n").utf8)
        guard file >= 0, write(file, bytes, bytes.count) == bytes.count else { throw SystemError("write \(path)") }
        close(file)
    }

    /// PostgreSQL's programs do not run as root.
    private static func command(_ name: String, _ arguments: [String]) throws -> (String, [String]) {
        let folders = Files.list("/usr/lib/postgresql").compactMap { Int($0) }.sorted(by: >).map { "/usr/lib/postgresql/\($0)/bin" }
        guard let folder = folders.first(where: { access("\($0)/\(name)", X_OK) == 0 }) else {
            throw SystemError("\(name) is not installed; ./muster test installs it", ENOENT)
        }
        guard getuid() == 0 else { return ("\(folder)/\(name)", arguments) }
        return (
            try systemProgram("setpriv"), ["--reuid=postgres", "--regid=postgres", "--init-groups", "\(folder)/\(name)"] + arguments
        )
    }

    private static func run(_ name: String, _ arguments: [String], in folder: String) async throws {
        let (path, words) = try command(name, arguments)
        let result = try await TestSupport.run(path, words, environment: ["HOME": folder], folder: folder)
        if result.status != 0 { throw SystemError("\(name): \(result.output)", EINVAL) }
    }
}
