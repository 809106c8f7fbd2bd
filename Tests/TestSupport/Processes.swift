import Basics
import CLinux
import EventLoops
import Glibc

/// A folder for one test, removed at its end.
public func withFolder<T>(_ body: (String) async throws -> T) async throws -> T {
    let path = "/tmp/muster-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    try Files.makeFolder(path, mode: 0o700)
    defer { Files.remove(path) }
    return try await body(path)
}

/// Where this package's own programs were built: beside the test runner.
public func builtProgram(_ name: String) -> String { Files.folder(of: Files.absolute("/proc/self/exe")) + "/" + name }

/// A program from the system; a missing one fails the test that asks for it.
public func systemProgram(_ name: String) throws -> String {
    for folder in (environmentValue("PATH") ?? "").split(separator: ":") + ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"] {
        if access("\(folder)/\(name)", X_OK) == 0 { return "\(folder)/\(name)" }
    }
    throw SystemError("\(name) is not installed; ./muster test installs it", ENOENT)
}

/// A child process whose output goes to a file.
public final class Child: Sendable {
    public let pid: Int32
    public let log: String

    public init(
        _ path: String, _ arguments: [String], environment: [String: String] = [:], log: String, folder: String = "/tmp",
        input: [UInt8] = []
    ) throws {
        self.log = log
        let out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        var ends: [Int32] = [0, 0]
        guard out >= 0, pipe(&ends) == 0 else { throw SystemError("open \(log)") }
        defer { for fd in [out] + ends { close(fd) } }
        _ = write(ends[1], input, input.count)
        var variables: [String: String] = [:]
        for name in ["PATH", "HOME", "LD_LIBRARY_PATH", "MUSTER_ROOT"] { variables[name] = environmentValue(name) }
        variables["PATH"] = variables["PATH"] ?? "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        variables.merge(environment) { $1 }
        let words = ([path] + arguments).map { strdup($0) } + [nil]
        let settings = variables.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in words + settings { free(pointer) } }
        var pid: Int32 = 0
        let result = muster_spawn(&pid, path, words, settings, ends[0], out, out, false, folder, nil, 0)
        guard result == 0 else { throw SystemError("start \(path)", result) }
        self.pid = pid
    }

    public var output: String { Files.text(log) ?? "" }
    public func send(_ signal: Int32) { kill(pid, signal) }

    /// Waits for its end; nil when it has not come within `limit`. The code is the exit status, or minus the signal.
    public func end(within limit: Duration = .seconds(20)) async -> Int32? {
        var code: Int32 = 0
        let ended = await eventually(limit) { muster_reap(pid, &code) == 1 }
        return ended ? code : nil
    }

    /// For a clean-up: SIGKILL to its group, and reaped.
    public func destroy() async {
        kill(-pid, SIGKILL)
        _ = await end(within: .seconds(5))
    }
}

/// Runs a program to its end.
public func run(
    _ path: String, _ arguments: [String], environment: [String: String] = [:], folder: String = "/tmp", input: [UInt8] = [],
    limit: Duration = .seconds(60)
) async throws -> (status: Int32, output: String) {
    try await withFolder { scratch in
        let child = try Child(path, arguments, environment: environment, log: scratch + "/out", folder: folder, input: input)
        guard let status = await child.end(within: limit) else {
            await child.destroy()
            throw SystemError("\(path) did not end within \(limit.brief): \(child.output)", ETIMEDOUT)
        }
        return (status, child.output)
    }
}

/// Whether a process runs; a zombie does not.
public func isAlive(_ pid: Int32) -> Bool { (try? ProcessIdentity.startTime(pid)) != nil }

extension Files {
    /// The names in a folder, sorted; none when it cannot be read.
    public static func list(_ path: String) -> [String] { (try? entries(path)) ?? [] }
}
