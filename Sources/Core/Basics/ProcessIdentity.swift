import Glibc

/// Identifies a process across reuse of pids and restarts of the machine: pids are reused, but a pid together with its start time is not.
public enum ProcessIdentity {
    /// The id of the machine's present boot.
    public static let boot = Files.text("/proc/sys/kernel/random/boot_id")?.split(separator: "\n").first.map(String.init) ?? "unknown"

    /// The start time of a process: field 22 of /proc/<pid>/stat, in clock ticks. nil when there is no such process, or only its zombie.
    /// Throws when the process could not be looked at for a want of our own, of descriptors say: such a process is not known to be gone.
    public static func startTime(_ pid: Int32) throws(SystemError) -> UInt64? {
        guard let fields = try ProcessList.status(pid), fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
        return UInt64(fields[19])
    }

    /// Whether the process that was started at `started` still runs. Throws as `startTime` does.
    public static func isRunning(_ pid: Int32, since started: UInt64) throws(SystemError) -> Bool { try startTime(pid) == started }
}

/// The processes of this machine, as /proc shows them. What is gone, or another user's and closed to us, is nil or left out. What cannot be
/// seen for a want of our own (descriptors, memory) throws: it is not absent.
public enum ProcessList {
    /// The ids of all processes.
    public static func all() throws(SystemError) -> [Int32] { try Files.entries("/proc").compactMap { Int32($0) } }

    /// One file of a process, by its name below /proc/<pid>. nil when the process is gone, or may not be looked at.
    public static func read(_ pid: Int32, _ name: String) throws(SystemError) -> [UInt8]? {
        try seen { () throws(SystemError) in try Files.read("/proc/\(pid)/\(name)") }
    }

    /// The names in one folder of a process. nil as with `read`.
    public static func entries(_ pid: Int32, _ name: String) throws(SystemError) -> [String]? {
        try seen { () throws(SystemError) in try Files.entries("/proc/\(pid)/\(name)") }
    }

    /// The fields of a process's `stat` behind the program's name: the first is its state, the second its parent. `task/<id>` before the
    /// name gives those of one thread. nil as with `read`.
    public static func status(_ pid: Int32, of part: String = "") throws(SystemError) -> [Substring]? {
        guard let bytes = try read(pid, part + "stat") else { return nil }
        let text = String(decoding: bytes, as: UTF8.self)
        // The program's name stands in parentheses and may hold anything; what counts stands behind the last one.
        return text.lastIndex(of: ")").map { text[text.index(after: $0)...].split(separator: " ") }
    }

    private static func seen<Value>(_ look: () throws(SystemError) -> Value) throws(SystemError) -> Value? {
        do { return try look() } catch {
            if error.isOwnWant { throw error }
            return nil
        }
    }
}
