import Basics
import CLinux
import Glibc
import Sharding

/// A redis-server that an operation started on this machine, in a session of its own, so that it outlives the terminal. What is known of it
/// stands in its folder: `redis.conf`, `redis.log`, and `process` (boot, pid, start time: pids are reused, the three are not).
///
/// One that somebody else has set up can be started again as well (`init(again:)`); of that one nothing is written down.
public struct NodeProcess: Sendable {
    public let folder: String
    public let port: UInt16
    /// The whole path of the file that it is started with.
    public let configuration: String
    /// What it is started with; nil: the redis-server that is installed.
    private let program: String?
    private let isOurs: Bool

    public init(folder: String, port: UInt16) {
        self.folder = folder
        self.port = port
        configuration = folder + "/redis.conf"
        program = nil
        isOurs = true
    }

    /// The server that runs as `pid` with this configuration, to be started again as it is, by the same program. It is one of ours when its
    /// folder says so. Refused when it could not be started again as it is.
    init(again pid: Int32, configuration: String, port: UInt16) throws(ProvisioningFailure) {
        func refusal(_ why: String) -> ProvisioningFailure {
            ProvisioningFailure(
                .refused, "\(why), so it could not be started again as it is after a kill", node: NodeAddress(host: "127.0.0.1", port: port)
            )
        }
        guard !configuration.isEmpty, Files.exists(configuration) else { throw refusal("has no configuration file") }
        let file = Files.absolute("/proc/\(pid)/exe")
        guard !file.hasPrefix("/proc/"), access(file, X_OK) == 0 else { throw refusal("runs a program that is not there any more") }
        // The same file may be several programs, by the name that it is called by: redis-server and redis-check-rdb are.
        let name = Files.text("/proc/\(pid)/comm")?.split(whereSeparator: \.isNewline).first.map { String($0) } ?? ""
        let called = "\(Files.folder(of: file))/\(name)", program = Files.absolute(called) == file ? called : file
        var info = stat()
        guard stat("/proc/\(pid)", &info) == 0, info.st_uid == geteuid() else { throw refusal("runs as another user") }
        let own = NodeProcess(folder: Files.folder(of: configuration), port: port)
        isOurs = own.configuration == configuration && own.pid == pid
        let works = Files.absolute("/proc/\(pid)/cwd")
        guard let start = isOurs ? own.folder : NodeProcess.startFolder(Files.text(configuration) ?? "", works: works) else {
            throw refusal("works in \(works), which its configuration names by a path from a folder that is not known")
        }
        folder = start
        self.port = port
        self.configuration = configuration
        self.program = program
    }

    /// Where a server was started that works in `works`: there, unless its configuration leads it there from elsewhere. nil: not known.
    static func startFolder(_ configuration: String, works: String) -> String? {
        let lines = configuration.split(whereSeparator: \.isNewline).map { $0.split(whereSeparator: { $0 == " " || $0 == "\t" }) }
        guard let words = lines.last(where: { $0.count > 1 && $0[0].lowercased() == "dir" }) else { return works }
        var place = words.dropFirst().joined(separator: " ").filter { $0 != "\"" && $0 != "'" }[...]
        if place.hasPrefix("/") { return works }
        while place.hasPrefix("./") { place = place.dropFirst(2) }
        while place.hasSuffix("/") || place.hasSuffix("/.") { place = place.dropLast() }
        if place.isEmpty || place == "." { return works }
        return works.hasSuffix("/\(place)") ? String(works.dropLast(place.count + 1)) : nil
    }

    /// `DIR/node-7001`.
    public init(under directory: String, port: UInt16) { self.init(folder: "\(directory)/node-\(port)", port: port) }

    /// Those that stand under a folder; none where there is no such folder. Throws when what is in it cannot be seen.
    public static func all(under directory: String) throws(SystemError) -> [NodeProcess] {
        let names: [String]
        do { names = try Files.entries(directory) } catch {
            if error.code == ENOENT { return [] }
            throw error
        }
        return names.compactMap { name in
            guard name.hasPrefix("node-"), let port = UInt16(name.dropFirst(5)) else { return nil }
            return NodeProcess(under: directory, port: port)
        }
    }

    /// Where it writes to while it has no log of its own. Whoever has set up another one has given it a log.
    public var log: String { isOurs ? folder + "/redis.log" : "/dev/null" }
    private var record: String { folder + "/process" }

    /// nil when it does not run, or that cannot be seen (`look` tells). The process of a folder that this one is a copy of is not this one's:
    /// it works in another folder.
    public var pid: Int32? { try? look() }

    /// The pid of its process; nil when it does not run. Throws when that cannot be seen: the record in its folder cannot be read, or the
    /// process that stands in it is another user's.
    public func look() throws(SystemError) -> Int32? {
        let text: [UInt8]
        do { text = try Files.read(record) } catch {
            if error.code == ENOENT { return nil }
            throw error
        }
        let words = String(decoding: text, as: UTF8.self).split(whereSeparator: \.isWhitespace)
        guard words.count == 3, words[0] == ProcessIdentity.boot, let pid = Int32(words[1]),
            let started = UInt64(words[2]), try ProcessIdentity.isRunning(pid, since: started)
        else { return nil }
        var target = stat(), own = stat()
        guard stat("/proc/\(pid)/cwd", &target) == 0 else {
            // It has just ended.
            if errno == ENOENT { return nil }
            throw SystemError("look at the process \(pid) of \(folder)")
        }
        guard stat(folder, &own) == 0 else { throw SystemError("look at \(folder)") }
        return target.st_dev == own.st_dev && target.st_ino == own.st_ino ? pid : nil
    }

    /// Starts it unless it runs; true when it was started. The password goes by standard input, into no argument and no file.
    public func start(password: String) throws(ProvisioningFailure) -> Bool {
        try start(secrets: RedisConfiguration.secrets(password: password, isCluster: true))
    }

    /// The same with these lines behind its redis.conf. Whether one that is not ours runs, is for the caller to know.
    func start(secrets: String) throws(ProvisioningFailure) -> Bool {
        do throws(SystemError) {
            if isOurs, try look() != nil { return false }
            guard let program = program ?? NodeProcess.program else {
                throw SystemError("redis-server is not installed: apt-get install redis-server", 0)
            }
            if isOurs { try StartMark.draw(folder) }
            let pid = try spawn(program, input: Array(input(secrets).utf8))
            guard isOurs else { return true }
            do throws(SystemError) {
                let text = "\(ProcessIdentity.boot) \(pid) \(try ProcessIdentity.startTime(pid) ?? 0)\n"
                try Files.replace(record, with: Array(text.utf8), mode: 0o600)
            } catch {
                // A server that nobody could find again does not stay.
                kill(pid, SIGTERM)
                throw error
            }
            return true
        } catch { throw ProvisioningFailure(.local, "\(error)") }
    }

    /// What it reads at its start, behind its redis.conf.
    private func input(_ secrets: String) -> String {
        // The folder may have been copied or moved since its redis.conf was written: what counts is where it is now. What somebody else
        // has written stays as it is.
        guard isOurs, (Files.text(configuration) ?? "").hasPrefix(RedisConfiguration.firstLine) else { return secrets }
        return secrets + "dir \(RedisConfiguration.quoted(Files.absolute(folder)))\n"
    }

    /// Starts it if whoever killed it on purpose dies before it is known to be back.
    func restartLease(secrets: String) throws(ProvisioningFailure) -> FaultLease {
        guard let program = program ?? NodeProcess.program else { throw ProvisioningFailure(.local, "redis-server is not installed") }
        let quoted = FaultLease.quoted
        let start = "printf '%s' \"$secret\" | \(quoted(program)) \(quoted(configuration)) - >>\(quoted(log)) 2>&1 &"
        guard isOurs else { return try FaultLease(mend: "cd \(quoted(folder)) || exit 1\n\(start)", secret: input(secrets)) }
        // Whoever died may have started it already: the record then names a process that lives.
        let mend = """
            cd \(quoted(folder)) || exit 1
            if read -r boot pid started <process && [ "$boot" = \(quoted(ProcessIdentity.boot)) ]; then
              set -- $(sed 's/.*) //' "/proc/$pid/stat")
              [ "${20}" = "$started" ] && [ "$1" != Z ] && exit 0
            fi
            \(start)
            pid=$!
            set -- $(sed 's/.*) //' /proc/$pid/stat)
            umask 077
            printf '%s %s %s\\n' \(quoted(ProcessIdentity.boot)) "$pid" "${20}" >process.new && mv process.new process
            """
        return try FaultLease(mend: mend, secret: input(secrets))
    }

    /// SIGTERM: data is written out. Returns false when it did not run.
    public func terminate() -> Bool {
        guard let pid else { return false }
        kill(pid, SIGTERM)
        return true
    }

    /// The last lines of its log, for a message.
    public var lastWords: String {
        Files.lastLines(log, 3).joined(separator: "\n  ")
    }

    private func spawn(_ program: String, input: [UInt8]) throws(SystemError) -> Int32 {
        let out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard out >= 0 else { throw SystemError("open \(log)") }
        defer { close(out) }
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw SystemError("pipe") }
        defer { close(ends[0]) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        // Far below a pipe's 64 KiB, so writing before anybody reads cannot block.
        _ = input.withUnsafeBytes { write(ends[1], $0.baseAddress, $0.count) }
        close(ends[1])
        let words: [UnsafeMutablePointer<CChar>?] = [strdup(program), strdup(configuration), strdup("-"), nil]
        var variables: [UnsafeMutablePointer<CChar>?] = []
        for name in ["PATH", "HOME", "LANG"] { if let value = environmentValue(name) { variables.append(strdup("\(name)=\(value)")) } }
        variables.append(nil)
        defer { for pointer in words + variables { free(pointer) } }
        var pid: Int32 = 0
        let result = muster_spawn(&pid, program, words, variables, ends[0], out, out, true, folder, nil, 0)
        guard result == 0 else { throw SystemError("start \(program)", result) }
        return pid
    }

    public static var program: String? {
        let folders = (environmentValue("PATH") ?? "").split(separator: ":").map(String.init) + ["/usr/local/bin", "/usr/bin", "/bin"]
        return folders.map { "\($0)/redis-server" }.first { access($0, X_OK) == 0 }
    }
}
