import Basics
import Glibc
import Sharding
import Synchronization

extension NodeTestimony {
    /// Reads what the folder of a node says; changes nothing. `keepsData`: the node is configured to write down what it has.
    ///
    /// Costs a few small files: of a snapshot only its header is read.
    public init(folder: String, address: NodeAddress, runs: Bool, keepsData: Bool) {
        var file: NodesFile?
        var flaw: String?
        let path = folder + "/nodes.conf"
        if Files.exists(path) {
            do {
                let text = String(decoding: try Files.read(path), as: UTF8.self)
                // A server that is killed at its very first write leaves an empty one, and begins anew.
                if !text.allSatisfy(\.isWhitespace) { file = try NodesFile(text) }
            } catch { flaw = "\(error)" }
        }
        self.init(
            address: address, folder: folder, runs: runs, file: file, flaw: flaw,
            data: keepsData ? NodeTestimony.data(in: folder) : .notKept, wasLastStarted: StartMark.isLast(folder))
    }

    /// Whether a redis.conf has its server write down what it holds.
    public static func keepsData(configuration path: String) -> Bool? {
        guard let text = Files.text(path) else { return nil }
        var words: [Substring]?
        for line in text.split(whereSeparator: \.isNewline) where line.hasPrefix("appendonly ") { words = line.split(separator: " ") }
        return words.map { $0.count > 1 && $0[1] == "yes" }
    }

    /// What a server with `appendonly yes` would load from a folder: the log that its manifest names, and nothing else.
    public static func data(in folder: String) -> Data {
        let log = folder + "/appendonlydir/appendonly.aof.manifest"
        let snapshot = folder + "/dump.rdb"
        guard Files.exists(log) else {
            // A log of servers before 7.0 is taken over by later ones.
            if let info = NodeTestimony.file(folder + "/appendonly.aof") {
                return .whole(Holding(keys: 0, appended: info.size, writtenAt: info.writtenAt))
            }
            guard let info = NodeTestimony.file(snapshot), info.size > 0 else { return .none }
            do {
                let header = try RDBFile.header(of: snapshot)
                if let reason = RedisVersion.refusal(of: header, in: snapshot) { return .unreadable(reason) }
                return .snapshotOnly(Holding(keys: header.keys, appended: 0, writtenAt: info.writtenAt))
            } catch { return .unreadable(error.description) }
        }
        return logged(log, folder, snapshot)
    }

    private static func logged(_ manifest: String, _ folder: String, _ snapshot: String) -> Data {
        guard let text = Files.text(manifest) else { return .unreadable("\(manifest) cannot be read") }
        var holding = Holding(keys: 0, appended: 0, writtenAt: 0)
        for line in text.split(whereSeparator: \.isNewline) where line.hasPrefix("file ") {
            let words = line.split(separator: " ")
            guard words.count >= 6, words[5] != "h" else { continue }
            let path = "\(folder)/appendonlydir/\(words[1])"
            guard let info = file(path) else {
                return .unreadable("\(manifest) names \(words[1]), which is not there: redis-server would not start")
            }
            holding.writtenAt = max(holding.writtenAt, info.writtenAt)
            guard words[5] == "b", path.hasSuffix(".rdb") else {
                holding.appended = holding.appended.addingClamped(info.size)
                continue
            }
            do {
                let header = try RDBFile.header(of: path)
                if let reason = RedisVersion.refusal(of: header, in: path) { return .unreadable(reason) }
                holding.keys = header.keys
            } catch { return .unreadable(error.description) }
        }
        // A proper stop writes the snapshot last, and what it says of the stream of writes is then true of the log.
        // A folder that was copied file by file may have them in another order, a moment apart.
        if let info = file(snapshot), info.writtenAt.addingClamped(1) >= holding.writtenAt, let header = try? RDBFile.header(of: snapshot),
            let id = header.fields["repl-id"], let offset = header.fields["repl-offset"].flatMap({ Int($0) })
        {
            holding.stream = .init(id: id, offset: offset, at: header.fields["ctime"].flatMap { Int($0) } ?? info.writtenAt)
        }
        return .whole(holding)
    }

    private static func file(_ path: String) -> (size: Int, writtenAt: Int)? {
        var info = stat()
        guard stat(path, &info) == 0, info.st_mode & S_IFMT == S_IFREG else { return nil }
        return (Int(info.st_size), info.st_mtim.tv_sec)
    }
}

/// Which snapshots the redis-server of this machine reads.
enum RedisVersion {
    /// Format that a server writes, and the highest that it reads.
    private static let formats: [(from: (Int, Int), format: Int)] = [((7, 0), 10), ((7, 2), 11), ((7, 4), 12)]

    /// Why it would not read a snapshot; nil when it does, or when that is not known.
    static func refusal(of header: RDBHeader, in path: String) -> String? {
        // Every server that is supported reads this one.
        guard header.version > 10, let program = NodeProcess.program, let version = installed(program) else { return nil }
        guard version.0 == 7, let known = formats.last(where: { $0.from <= version })?.format, header.version > known else { return nil }
        return
            "\(path) was written by Redis \(header.fields["redis-ver"] ?? header.fields["valkey-ver"] ?? "of a later version") (format "
            + "\(header.version)), and the installed redis-server \(version.0).\(version.1) reads up to format \(known): install "
            + "that version"
    }

    /// What the program said that was asked last: it is asked again when it is another one, after an upgrade, say.
    private static let known = Mutex<(program: String, version: (Int, Int)?)?>(nil)

    /// Major and minor of `redis-server --version`.
    private static func installed(_ program: String) -> (Int, Int)? {
        var info = stat()
        guard stat(program, &info) == 0 else { return nil }
        let asked = "\(program) \(info.st_dev) \(info.st_ino) \(info.st_size) \(info.st_mtim.tv_sec)"
        return known.withLock { known in
            if let known, known.program == asked { return known.version }
            let version = ask(program)
            known = (asked, version)
            return version
        }
    }

    private static func ask(_ program: String) -> (Int, Int)? {
        guard let said = try? Command.run(program, ["--version"], within: .seconds(5)),
            let at = said.split(separator: " ").first(where: { $0.hasPrefix("v=") })
        else { return nil }
        let parts = at.dropFirst(2).split(separator: ".").map { Int($0) }
        guard parts.count >= 2, let major = parts[0], let minor = parts[1] else { return nil }
        return (major, minor)
    }
}
