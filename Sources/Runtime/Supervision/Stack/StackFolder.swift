import Basics
import Glibc

/// Where a stack keeps what it must remember: `.muster/<stack>/` beside the stack file. Only its owner may enter.
///
/// - `VERSION`: the layout of this folder. - `lock`, `watcher`: held by the supervisor and its watcher while they live. - `control.sock`: how the other verbs
/// reach it; `socket`: where it is instead. - `file`: the stack file it was started from. - `id`: see `identity`. - `processes`: what it has
/// started. - `sockets/`: where replicas listen beside their ports, see `socket`. - `logs/`: a file a replica, and the gateway's access log. - `stores/<name>/`: data. - `scaling/`: what the autoscalers have
/// learned (`.demand`), and what replicas were seen to use (`.usage`). - `journal/`: see `StackJournal`.
public struct StackFolder: Sendable {
    static let version = "1"

    public let path: String
    public let stack: String

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
        public init(_ description: String) { self.description = description }
    }

    public init(stackFile: String, stack: String) { self.init(place: StackFolder.place(of: stackFile), stack: stack) }

    private init(place: String, stack: String) {
        path = "\(place)/\(stack)"
        self.stack = stack
    }

    private static func place(of stackFile: String) -> String { Files.folder(of: Files.absolute(stackFile)) + "/.muster" }

    /// The folders of all stacks that were ever started from files beside `stackFile`. Throws when they cannot be seen.
    public static func all(beside stackFile: String) throws(Failure) -> [StackFolder] {
        let place = place(of: stackFile)
        do throws(SystemError) { return try Files.entries(place).map { StackFolder(place: place, stack: $0) } } catch {
            if error.code == ENOENT { return [] }
            throw Failure("it cannot be seen which stacks run: \(error)")
        }
    }

    public var logs: String { path + "/logs" }

    public func store(_ name: String) -> String { "\(path)/stores/\(name)" }
    public func log(_ unit: String, _ number: Int) -> String { "\(logs)/\(unit)-\(number).log" }
    var accessLog: String { logs + "/gateway-access.log" }
    public var supervisorLog: String { logs + "/supervisor.log" }
    var scaling: String { path + "/scaling" }
    var journal: String { path + "/journal" }
    var processes: String { path + "/processes" }

    // MARK: whose it is

    /// The name of the stack file, beside the folder, from which the stack was last started or changed. nil: never, or by a version that did
    /// not write it down.
    /// Throws when that cannot be read.
    public var owner: String? { get throws(SystemError) { try firstLine("file") } }

    func setOwner(_ file: String) throws(SystemError) {
        try Files.replace(path + "/file", with: Array((Files.name(of: Files.absolute(file)) + "\n").utf8))
    }

    /// What distinguishes this folder from every other one, copies of it and folders at its old place included: its place on the disk, and a
    /// number that was drawn when it was made. It is in the environment of all that runs for this stack. Where the number is there and cannot
    /// be read, none is drawn: what runs by the old one would not be found again.
    func identity() throws(SystemError) -> String {
        var info = stat()
        guard stat(path, &info) == 0 else { throw SystemError("stat \(path)") }
        let file = path + "/id"
        var id = try firstLine("id") ?? ""
        if id.utf8.count != 16 {
            id = secretHex(bytes: 8)
            try Files.replace(file, with: Array((id + "\n").utf8))
        }
        return "\(info.st_dev)-\(info.st_ino)-\(id)"
    }

    /// `identity`, if one was ever drawn.
    func knownIdentity() throws(SystemError) -> String? { try firstLine("id") == nil ? nil : try identity() }

    private func firstLine(_ name: String) throws(SystemError) -> String? { try Files.firstLine("\(path)/\(name)") }

    // MARK: the control socket

    /// Where the supervisor is asked: `control.sock` in the folder, or where the supervisor wrote down that it is. Throws when what it wrote
    /// down cannot be read.
    public var controlSocket: String {
        get throws(SystemError) {
            // In a copy of the folder the note is about the original.
            guard let place = try firstLine("socket"), let identity = try knownIdentity(), place.hasSuffix("/\(identity).sock") else {
                return path + "/control.sock"
            }
            return place
        }
    }

    /// Chooses the control socket's place and writes it down, for verbs that are called with another environment or after the folder has
    /// been moved. A Unix socket's path has at most 107 bytes; a deeper folder uses one in a folder that nobody else can enter:
    /// XDG_RUNTIME_DIR, or /tmp/muster-<uid>.
    func placeControlSocket() throws -> String {
        let direct = path + "/control.sock"
        if direct.utf8.count <= 100 {
            unlink(path + "/socket")
            return direct
        }
        let socket = "\(try shortPlace(for: "the control socket"))/\(try identity()).sock"
        try Files.replace(path + "/socket", with: Array((socket + "\n").utf8))
        return socket
    }

    /// Folders with short paths, the best first.
    private var shortPlaces: [String] {
        [environmentValue("XDG_RUNTIME_DIR"), "/tmp/muster-\(getuid())"].compactMap { $0 }.filter {
            $0.hasPrefix("/") && $0.utf8.count <= 60
        }
    }

    /// A folder with a short path that nobody else can enter; it is made where it is not there. `what` is what is to be put there.
    private func shortPlace(for what: String) throws(Failure) -> String {
        var reason = ""
        for place in shortPlaces {
            if mkdir(place, 0o700) != 0, errno != EEXIST { continue }
            if StackFolder.isPrivate(place) { return place }
            reason = "; \(place) is no folder of yours alone"
        }
        throw Failure(
            "there is no place for \(what), because \(path) is too long for one\(reason): move the stack file to a folder with a shorter "
                + "path, or name one of yours alone in XDG_RUNTIME_DIR")
    }

    /// Not through a link, and not a folder that another user has made in time.
    private static func isPrivate(_ place: String) -> Bool {
        var info = stat()
        return lstat(place, &info) == 0 && info.st_mode & S_IFMT == S_IFDIR && info.st_uid == getuid() && info.st_mode & 0o077 == 0
    }

    // MARK: replicas' sockets

    private var sockets: String { path + "/sockets" }

    /// Where a process of a unit listens beside its port, in a folder that is there then. Another life is another socket, so that nobody
    /// reaches one process who means the one before. A unit with room for the largest numbers has its sockets in the stack's folder, another
    /// one in a folder with a short path.
    func socket(_ unit: String, _ number: Int, life: Int) throws(Failure) -> String {
        do throws(SystemError) {
            if sockets.utf8.count + unit.utf8.count + "/-1000-1000000000.sock".utf8.count <= 107 {
                try Files.makeInnerFolder(sockets)
                return "\(sockets)/\(unit)-\(number)-\(life).sock"
            }
        } catch { throw Failure("\(error)") }
        let folder: String
        do { folder = "\(try shortPlace(for: "its sockets"))/\(StackFolder.shortName(try identity()))" } catch { throw Failure("\(error)") }
        if mkdir(folder, 0o700) != 0, errno != EEXIST { throw Failure("\(SystemError("create folder \(folder)"))") }
        guard StackFolder.isPrivate(folder) else { throw Failure("\(folder) is no folder of yours alone: remove it") }
        return "\(folder)/\(life).sock"
    }

    /// Removes the folders of sockets, with what processes have left in them that were killed together with their supervisor.
    func removeSockets() {
        Files.remove(sockets)
        guard let identity = try? knownIdentity() else { return }
        for place in shortPlaces where StackFolder.isPrivate(place) { Files.remove("\(place)/\(StackFolder.shortName(identity))") }
    }

    /// Another identity has another name (FNV-1a, 64 bits): the identity itself would take up half of a path.
    private static func shortName(_ identity: String) -> String {
        var digest: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in identity.utf8 { digest = (digest ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return "muster-\(String(digest, radix: 36))"
    }

    // MARK: whether it runs

    public enum Standing: Equatable, Sendable {
        /// There is no folder: nothing runs that it knows of.
        case absent
        case idle
        case running
    }

    /// Whether a supervisor holds the lock; many may look at once. Throws when that cannot be seen, in another user's folder, say: not
    /// seeing a supervisor does not mean that there is none.
    public func standing() throws(Failure) -> Standing {
        let fd = open(path + "/lock", O_RDWR | O_CLOEXEC)
        guard fd >= 0 else {
            let failure = SystemError("open \(path)/lock")
            if failure.code == ENOENT {
                var info = stat()
                if stat(path, &info) == 0 { return .idle }
                if errno == ENOENT { return .absent }
            }
            throw Failure("it cannot be seen whether the stack '\(stack)' runs: \(failure)\(whose)")
        }
        defer { close(fd) }
        return flock(fd, LOCK_SH | LOCK_NB) == 0 ? .idle : .running
    }

    /// The process that starts the stack's supervisor again when it crashes. nil: there is none. Throws when that cannot be seen.
    public var watcher: Int32? {
        get throws(SystemError) {
            let fd = open(path + "/watcher", O_RDWR | O_CLOEXEC)
            guard fd >= 0 else {
                let failure = SystemError("open \(path)/watcher")
                if failure.code == ENOENT { return nil }
                throw failure
            }
            defer { close(fd) }
            if flock(fd, LOCK_SH | LOCK_NB) == 0 { return nil }
            return try firstLine("watcher").flatMap { Int32($0) }.flatMap { $0 > 1 ? $0 : nil }
        }
    }

    /// Makes this process the watcher, until it ends. False: another one is.
    func becomeWatcher() throws -> Bool {
        try Files.makeFolder(path, mode: 0o700)
        let fd = open(path + "/watcher", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard fd >= 0 else { throw SystemError("open \(path)/watcher") }
        guard flock(fd, LOCK_EX | LOCK_NB) == 0 else {
            close(fd)
            return false
        }
        let text = Array("\(getpid())\n".utf8)
        guard ftruncate(fd, 0) == 0, write(fd, text, text.count) == text.count else { throw SystemError("write \(path)/watcher") }
        return true
    }

    private var whose: String {
        var place = path
        while place.utf8.count > 1 {
            var info = stat()
            if stat(place, &info) == 0 {
                return info.st_uid == getuid() ? "" : "; \(place) is of the user with id \(info.st_uid): ask as that user"
            }
            place = Files.folder(of: place)
        }
        return ""
    }

    /// Makes the folder, or checks that the one there is of this version.
    func prepare() throws(Failure) {
        do {
            try Files.makeFolder(path, mode: 0o700)
            if let found = try firstLine("VERSION") {
                guard found == StackFolder.version else {
                    throw Failure(
                        "\(path) was made by another version of Muster (layout \(found), this one writes \(StackFolder.version)): move it "
                            + "away, or remove it with its data"
                    )
                }
            } else if try Files.entries(path).contains(where: { !["lock", "logs", "id", "file", "socket", "watcher"].contains($0) }) {
                throw Failure("\(path) has files but no VERSION, so it is not Muster's: move it away")
            }
            try Files.makeFolder(logs, mode: 0o700)
            try Files.replace(path + "/VERSION", with: Array((StackFolder.version + "\n").utf8))
        } catch let failure as Failure {
            throw failure
        } catch { throw Failure("\(error)") }
    }

    /// Takes the lock, which the kernel gives back when this process ends however it ends. nil: another supervisor has it.
    func lock() throws(Failure) -> Int32? {
        do throws(SystemError) { try Files.makeFolder(path, mode: 0o700) } catch { throw Failure("\(error)") }
        let fd = open(path + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard fd >= 0 else { throw Failure("\(SystemError("open \(path)/lock"))") }
        if flock(fd, LOCK_EX | LOCK_NB) == 0 { return fd }
        close(fd)
        return nil
    }
}
