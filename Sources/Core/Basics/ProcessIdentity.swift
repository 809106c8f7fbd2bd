/// Identifies a process across reuse of pids and restarts of the machine: pids are reused, but a pid together with its start time is not.
public enum ProcessIdentity {
    /// The id of the machine's present boot.
    public static let boot = Files.text("/proc/sys/kernel/random/boot_id")?.split(separator: "\n").first.map(String.init) ?? "unknown"

    /// The start time of a process: field 22 of /proc/<pid>/stat, in clock ticks. nil when there is no such process, or only its zombie.
    public static func startTime(_ pid: Int32) -> UInt64? {
        // The second field is the program's name in parentheses and may hold anything; what counts stands behind the last one.
        guard let text = Files.text("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
        return UInt64(fields[19])
    }
}
