import Basics

/// Tells a process that the kernel has ended for want of memory from one that somebody else has killed: both end by SIGKILL.
///
/// The evidence is the kernel's own count of such ends, `oom_kill` in /proc/vmstat (Linux 4.13), which counts those of the whole machine and
/// those of a cgroup's limit. It is looked at every second. An end by SIGKILL that this supervisor did not send, while the count has just
/// grown by one that nothing else has explained, is an end for want of memory. Where the kernel does not count (an older one, or a sandbox
/// that shows a count which never moves) there is no evidence, and nothing is taken for one.
struct MemoryKills {
    /// An end that was counted longer ago than this was another process's.
    static let window = Duration.seconds(3)
    /// More at once are not told apart: a machine that kills so many has other troubles.
    static let most = 1000

    private var known: UInt64?
    /// When each end was first seen in the count, of those that nothing has explained.
    private var unexplained: [MonotonicTime] = []

    /// The kernel's count as it is now; nil where it does not count. The first look is where counting begins.
    mutating func look(_ count: UInt64?, now: MonotonicTime) {
        unexplained.removeAll { now - $0 > MemoryKills.window }
        guard let count else { return }
        let grown = known.map { count.subtractingClamped($0) } ?? 0
        known = count
        for _ in 0..<min(grown, UInt64(MemoryKills.most)) where unexplained.count < MemoryKills.most { unexplained.append(now) }
    }

    /// A process has ended by a SIGKILL that this supervisor did not send. True when the kernel counts an end that nothing else has
    /// explained; it explains one.
    mutating func explainsAnEnd(_ count: UInt64?, now: MonotonicTime) -> Bool {
        look(count, now: now)
        guard !unexplained.isEmpty else { return false }
        unexplained.removeFirst()
        return true
    }

    /// What the kernel counts; nil where it does not.
    static func count(_ vmstat: String?) -> UInt64? {
        for line in (vmstat ?? "").split(separator: "\n") where line.hasPrefix("oom_kill ") { return UInt64(line.dropFirst(9)) }
        return nil
    }

    static func count() -> UInt64? { count(Files.text("/proc/vmstat")) }
}
