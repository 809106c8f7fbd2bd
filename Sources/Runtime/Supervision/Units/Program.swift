import Basics
import CLinux
import Glibc

/// A program with its arguments and environment, ready to be started.
struct Program: Sendable {
    let path: String
    let arguments: [String]
    var environment: Environment
    let folder: String
    /// Who it runs as; nil: the user of this process.
    var user: ProcessUser?
    /// Written to its standard input; for secrets, which may stand in no argument and no file that others read.
    let input: [UInt8]

    /// Finds what a command names: a path (relative to `folder`), a program beside this one, or one on `path` (default: the PATH of this
    /// process).
    static func find(_ name: String, folder: String, path: String? = nil) -> String? {
        if name.contains("/") {
            let path = name.hasPrefix("/") ? name : "\(folder)/\(name)"
            return isProgram(path) ? path : nil
        }
        var folders = (path ?? environmentValue("PATH") ?? "/usr/bin:/bin").split(separator: ":").map {
            $0.hasPrefix("/") ? String($0) : "\(folder)/\($0)"
        }
        folders.insert(Files.folder(of: Files.absolute("/proc/self/exe")), at: 0)
        return folders.map { "\($0)/\(name)" }.first(where: isProgram)
    }

    /// A folder may be entered, which is no program.
    private static func isProgram(_ path: String) -> Bool {
        var info = stat()
        return access(path, X_OK) == 0 && stat(path, &info) == 0 && info.st_mode & S_IFMT == S_IFREG
    }

    /// Starts it in a process group of its own, its output appended to `log`.
    func start(log: String, newSession: Bool = false) throws(SystemError) -> Int32 {
        let out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard out >= 0 else { throw SystemError("open \(log)") }
        defer { close(out) }
        return try start(output: out, errors: out, newSession: newSession)
    }

    /// Starts it in a process group of its own (or a session of its own), its output to `output` and `errors`.
    func start(output: Int32, errors: Int32, newSession: Bool = false) throws(SystemError) -> Int32 {
        var ends: (Int32, Int32) = (-1, -1)
        if input.isEmpty {
            ends.0 = open("/dev/null", O_RDONLY | O_CLOEXEC)
            guard ends.0 >= 0 else { throw SystemError("open /dev/null") }
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
        let variables = environment.entries.map { entry in
            (entry + [0]).withUnsafeBytes { strdup($0.bindMemory(to: CChar.self).baseAddress!) }
        }
        let settings = variables + [nil]
        defer { for pointer in words + settings { free(pointer) } }
        let result =
            if let user {
                muster_spawn_as(
                    &pid, path, words, settings, ends.0, output, errors, folder, user.uid, user.gid, user.groups, Int32(user.groups.count))
            } else { muster_spawn(&pid, path, words, settings, ends.0, output, errors, newSession, folder, nil, 0) }
        guard result == 0 else { throw SystemError("start \(path) in \(folder)\(user.map { " as \($0.name)" } ?? "")", result) }
        return pid
    }
}

extension SystemError {
    /// Whether a process could not be started for want of something on this machine. `fork` says with EAGAIN that this user, or the control
    /// group, may have no more processes; other calls say something else by it.
    var isWantAtStart: Bool { isOwnWant || code == EAGAIN }
}

/// Variables for a process. Inherited values are bytes and stay what they are, also where they are no UTF-8.
struct Environment: Sendable {
    /// `NAME=value` each, without the zero at its end.
    private(set) var entries: [[UInt8]] = []

    init() {}

    /// What this process was given, for its children.
    static var inherited: Environment {
        var result = Environment()
        var entry = environ
        while let pointer = entry.pointee {
            let bytes = UnsafeBufferPointer(start: pointer, count: strlen(pointer)).map { UInt8(bitPattern: $0) }
            result.entries.append(bytes)
            entry += 1
        }
        return result
    }

    /// What every process gets of it (decision 51): where programs and temporary files are, whose process it is, language and time zone.
    /// Everything else is declared in the stack file.
    var clean: Environment {
        let names = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LANGUAGE"].map { Array("\($0)=".utf8) }
        var result = Environment()
        result.entries = entries.filter { entry in
            names.contains { entry.starts(with: $0) } || entry.starts(with: Array("LC_".utf8))
        }
        return result
    }

    /// The same with these variables in it.
    func with(_ variables: [(name: String, value: String)]) -> Environment {
        var result = self
        for (name, value) in variables { result[name] = value }
        return result
    }

    mutating func remove(_ name: String) {
        let start = Array("\(name)=".utf8)
        entries.removeAll { $0.starts(with: start) }
    }

    subscript(name: String) -> String? {
        get {
            entries.first { $0.starts(with: Array("\(name)=".utf8)) }.map {
                String(decoding: $0.dropFirst(name.utf8.count + 1), as: UTF8.self)
            }
        }
        set {
            remove(name)
            if let newValue { entries.append(Array("\(name)=\(newValue)".utf8)) }
        }
    }
}

/// How a process ended, in words.
func ending(_ code: Int32) -> String {
    if code >= 0 { return "exit status \(code)" }
    let names: [Int32: String] = [
        SIGKILL: "SIGKILL", SIGTERM: "SIGTERM", SIGSEGV: "SIGSEGV", SIGABRT: "SIGABRT", SIGILL: "SIGILL", SIGINT: "SIGINT",
        SIGBUS: "SIGBUS", SIGTRAP: "SIGTRAP", SIGFPE: "SIGFPE", SIGHUP: "SIGHUP", SIGQUIT: "SIGQUIT",
    ]
    return "killed by \(names[-code] ?? "signal \(-code)")"
}
