import Basics
import Glibc
import Measurement

/// Reads the processes of some groups from /proc, in one pass over all processes.
///
/// - Complexity: one open, read and close for every process of the machine, whatever the number of groups: about 10 µs each, so 1.3 ms for
///   129 processes (a release build on two busy processors).
enum ProcessScan {
    /// One process as its stat line has it.
    struct Entry: Equatable, Sendable {
        let group: Int32
        /// Whether the process has ended and was not waited for yet: its times still count.
        let isZombie: Bool
        let member: ProcessGroupTime.Member
        let residentPages: UInt64
    }

    /// Clock ticks per second: the unit of the times in stat.
    static let ticksPerSecond = UInt64(max(sysconf(Int32(_SC_CLK_TCK)), 1))
    static let pageSize = UInt64(max(sysconf(Int32(_SC_PAGESIZE)), 1))

    /// Clock ticks since boot, by the clock of stat's start times.
    static var ticksSinceBoot: UInt64 {
        var time = timespec()
        guard clock_gettime(CLOCK_BOOTTIME, &time) == 0 else { return 0 }
        return UInt64(time.tv_sec) * ticksPerSecond + UInt64(time.tv_nsec) * ticksPerSecond / 1_000_000_000
    }

    /// Bounds of this machine: its processors and its memory.
    static func machine() -> MachineBounds {
        let pages = Double(max(sysconf(Int32(_SC_PHYS_PAGES)), 0))
        return MachineBounds(processors: max(sysconf(Int32(_SC_NPROCESSORS_CONF)), 1), memory: pages * Double(pageSize))
    }

    /// The members of each of `groups`. Processes that end meanwhile are left out, and so are those of others that this user may not see.
    /// Throws when /proc cannot be read as a whole, for want of a descriptor for example: which processes there are is then not known.
    static func read(_ groups: Set<Int32>) throws(SystemError) -> [Int32: [Entry]] {
        var found: [Int32: [Entry]] = [:]
        guard !groups.isEmpty else { return found }
        guard let folder = opendir("/proc") else { throw SystemError("open /proc") }
        defer { closedir(folder) }
        var buffer = [UInt8](repeating: 0, count: 1024)
        errno = 0
        while let next = readdir(folder) {
            let name = withUnsafePointer(to: &next.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { Int32(atoi($0)) }
            }
            // Other names begin with a letter, and are 0.
            if name > 0, let entry = try read(pid: name, &buffer), groups.contains(entry.group) {
                found[entry.group, default: []].append(entry)
            }
            errno = 0
        }
        if errno != 0 { throw SystemError("read /proc") }
        return found
    }

    /// nil: the process has ended, or is another user's and hidden.
    private static func read(pid: Int32, _ buffer: inout [UInt8]) throws(SystemError) -> Entry? {
        let fd = open("/proc/\(pid)/stat", O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else {
            switch errno {
            case ENOENT, ESRCH, EACCES, EPERM: return nil
            default: throw SystemError("open /proc/\(pid)/stat")
            }
        }
        let count = Glibc.read(fd, &buffer, buffer.count), code = errno
        close(fd)
        if count < 0, code != ESRCH { throw SystemError("read /proc/\(pid)/stat", code) }
        guard count > 0 else { return nil }
        return buffer.withUnsafeBytes { parse($0.part(0, count)) }
    }

    /// Reads one line of stat: `pid (name) state ppid pgrp …`, see proc_pid_stat(5). nil when it is no such line.
    static func parse(_ line: UnsafeRawBufferPointer) -> Entry? {
        // The name may hold anything; what counts stands behind the last parenthesis.
        guard let end = line.lastIndex(of: 41), line.count > end + 2, let pid = number(line, 0) else { return nil }
        var fields: [UInt64] = []
        fields.reserveCapacity(24)
        var at = end + 4
        // Fields 4 to 24; those that may be negative are read as 0 then.
        while fields.count < 21, at < line.count {
            fields.append(number(line, at) ?? 0)
            while at < line.count, line[at] != 32 { at += 1 }
            at += 1
        }
        guard fields.count == 21, let group = Int32(exactly: fields[1]), let id = Int32(exactly: pid) else { return nil }
        let state = line[end + 2]
        let own = fields[10] &+ fields[11], waited = fields[12] &+ fields[13]
        return Entry(
            group: group, isZombie: state == 90 || state == 88,
            member: ProcessGroupTime.Member(pid: id, started: fields[18], own: own, waited: waited), residentPages: fields[20])
    }

    private static func number(_ line: UnsafeRawBufferPointer, _ start: Int) -> UInt64? {
        var at = start, value: UInt64 = 0
        while at < line.count, line[at] &- 48 < 10 {
            value = value &* 10 &+ UInt64(line[at] - 48)
            at += 1
        }
        return at > start ? value : nil
    }
}
