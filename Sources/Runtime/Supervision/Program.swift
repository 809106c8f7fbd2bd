import Basics
import CLinux
import Glibc

/// A program with its arguments and environment, ready to be started.
struct Program: Sendable {
    let path: String
    let arguments: [String]
    let environment: [String: String]
    let folder: String
    /// Written to its standard input; for secrets, which may stand in no argument and no file that others read.
    let input: [UInt8]

    /// Finds what a command names: a path (relative to the stack file), a program beside this one, or one on PATH.
    static func find(_ name: String, stackFolder: String) -> String? {
        if name.contains("/") {
            let path = name.hasPrefix("/") ? name : "\(stackFolder)/\(name)"
            return access(path, X_OK) == 0 ? path : nil
        }
        var folders = (environmentValue("PATH") ?? "/usr/bin:/bin").split(separator: ":").map(String.init)
        folders.insert(Files.folder(of: Files.absolute("/proc/self/exe")), at: 0)
        return folders.map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
    }

    /// Starts it in a process group of its own, its output appended to `log`.
    func start(log: String, newSession: Bool = false) throws(SystemError) -> Int32 {
        let out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard out >= 0 else { throw SystemError("open \(log)") }
        defer { close(out) }
        var ends: (Int32, Int32) = (-1, -1)
        if input.isEmpty {
            ends.0 = open("/dev/null", O_RDONLY | O_CLOEXEC)
        } else {
            var made: [Int32] = [0, 0]
            // What is written here is far below a pipe's 64 KiB, so writing before anybody reads cannot block.
            precondition(input.count < 32_768)
            guard pipe(&made) == 0 else { throw SystemError("pipe") }
            ends = (made[0], made[1])
        }
        defer {
            close(ends.0)
            if ends.1 >= 0 { close(ends.1) }
        }
        if ends.1 >= 0 { _ = input.withUnsafeBytes { write(ends.1, $0.baseAddress, $0.count) } }
        var pid: Int32 = 0
        let words = ([path] + arguments).map { strdup($0) } + [nil]
        let variables = environment.sorted { $0.key < $1.key }.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in words + variables { free(pointer) } }
        let result = muster_spawn(&pid, path, words, variables, ends.0, out, out, newSession, folder, nil, 0)
        guard result == 0 else { throw SystemError("start \(path)", result) }
        return pid
    }
}

/// This process's environment, for children to inherit.
public func inheritedEnvironment() -> [String: String] {
    var result: [String: String] = [:]
    for line in Files.text("/proc/self/environ")?.split(separator: "\0") ?? [] {
        guard let equals = line.firstIndex(of: "=") else { continue }
        result[String(line[..<equals])] = String(line[line.index(after: equals)...])
    }
    return result
}

/// How a process ended, in words.
func ending(_ code: Int32) -> String {
    if code >= 0 { return "exit status \(code)" }
    let names: [Int32: String] = [
        SIGKILL: "SIGKILL", SIGTERM: "SIGTERM", SIGSEGV: "SIGSEGV", SIGABRT: "SIGABRT", SIGILL: "SIGILL", SIGINT: "SIGINT",
        SIGBUS: "SIGBUS",
    ]
    return "killed by \(names[-code] ?? "signal \(-code)")"
}
