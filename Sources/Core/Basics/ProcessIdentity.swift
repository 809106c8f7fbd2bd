/// Which process of which boot a pid means: pids are reused, a pid with its start time is not.
public enum ProcessIdentity {
    /// Which boot of the machine this is.
    public static let boot = Files.text("/proc/sys/kernel/random/boot_id")?.split(separator: "\n").first.map(String.init) ?? "unknown"

    /// Field 22 of /proc/<pid>/stat, in clock ticks. nil when there is no such process, or only its zombie.
    public static func startTime(_ pid: Int32) -> UInt64? {
        // The second field is the program's name in parentheses and may hold anything; what counts stands behind the last one.
        guard let text = Files.text("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
        return UInt64(fields[19])
    }
}
