import Basics
import Glibc

/// That a node's folder is the very one that a process was last started on.
///
/// A file in the folder (`start`) is made anew at each start, and what identifies it stands beside the folder (`node-2.start`). A folder that
/// was put back from a backup, or copied, has another file: nothing follows from that. Where they agree, nobody has exchanged the folder since.
public enum StartMark {
    private static func inside(_ folder: String) -> String { folder + "/start" }
    private static func beside(_ folder: String) -> String { folder + ".start" }

    /// Before a process is started on `folder`.
    public static func draw(_ folder: String) throws(SystemError) {
        let file = inside(folder)
        try Files.replace(file, with: [], mode: 0o600)
        guard let identity = identity(file) else { throw SystemError("stat \(file)") }
        try Files.replace(beside(folder), with: Array((identity + "\n").utf8), mode: 0o600)
    }

    /// Whether `folder` is the one that `draw` was last called for.
    public static func isLast(_ folder: String) -> Bool {
        guard let identity = identity(inside(folder)) else { return false }
        return Files.text(beside(folder)) == identity + "\n"
    }

    /// Its inode, and when that was last changed, to the nanosecond: a copy has another time, whatever was kept of the original.
    private static func identity(_ path: String) -> String? {
        var info = stat()
        guard stat(path, &info) == 0, info.st_mode & S_IFMT == S_IFREG else { return nil }
        return "\(info.st_ino) \(info.st_ctim.tv_sec) \(info.st_ctim.tv_nsec)"
    }
}
