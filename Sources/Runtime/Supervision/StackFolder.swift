import Basics
import Glibc

/// Where a stack keeps what it must remember: `.muster/<stack>/` beside the stack file. Only its owner may enter.
///
/// - `VERSION`: the layout of this folder. - `lock`: held by the supervisor while it lives. - `control.sock`: how the other verbs
/// reach it. - `processes`: what it has started. - `logs/`: a file a replica, and the gateway's access log. - `stores/<name>/`: data.
/// - `scaling/`: what the autoscalers have learned (`.demand`), and what replicas were seen to use (`.usage`).
public struct StackFolder: Sendable {
    static let version = "1"

    public let path: String
    public let stack: String

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
        public init(_ description: String) { self.description = description }
    }

    public init(stackFile: String, stack: String) {
        path = Files.folder(of: Files.absolute(stackFile)) + "/.muster/" + stack
        self.stack = stack
    }

    public var logs: String { path + "/logs" }
    public var exists: Bool { Files.exists(path) }

    func store(_ name: String) -> String { "\(path)/stores/\(name)" }
    public func log(_ unit: String, _ number: Int) -> String { "\(logs)/\(unit)-\(number).log" }
    var accessLog: String { logs + "/gateway-access.log" }
    public var supervisorLog: String { logs + "/supervisor.log" }
    var scaling: String { path + "/scaling" }
    var processes: String { path + "/processes" }

    /// A Unix socket's path has at most 107 bytes; a deeper folder uses one under /tmp, named by a digest of the path.
    public var controlSocket: String {
        let direct = path + "/control.sock"
        if direct.utf8.count <= 100 { return direct }
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in path.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return "/tmp/muster-\(getuid())-\(String(hash, radix: 16)).sock"
    }

    /// Makes the folder, or checks that the one there is of this version.
    func prepare() throws(Failure) {
        let versionFile = path + "/VERSION"
        do {
            try Files.makeFolder(path, mode: 0o700)
            if let found = Files.text(versionFile)?.split(separator: "\n").first {
                guard found == StackFolder.version else {
                    throw Failure(
                        "\(path) was made by another version of Muster (layout \(found), this one writes \(StackFolder.version)): move it "
                            + "away, or remove it with its data"
                    )
                }
            } else if Files.list(path).contains(where: { $0 != "lock" && $0 != "logs" }) {
                throw Failure("\(path) has files but no VERSION, so it is not Muster's: move it away")
            }
            try Files.makeFolder(logs, mode: 0o700)
            try Files.replace(versionFile, with: Array((StackFolder.version + "\n").utf8))
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

    /// Whether a supervisor holds the lock. Many may look at once.
    var isLocked: Bool {
        let fd = open(path + "/lock", O_RDWR | O_CLOEXEC)
        guard fd >= 0 else { return false }
        defer { close(fd) }
        return flock(fd, LOCK_SH | LOCK_NB) != 0
    }
}
