import Basics
import Glibc

/// What the processes of one group have done so far, as /proc counts it. Two samples tell work from a hang, when a process does not answer:
/// one that computes, waits for a processor or for a disk, or moves bytes, is busy; one whose numbers stand still hangs.
struct ProcessWork: Equatable {
    /// Nanoseconds that all threads together ran, or waited for a processor.
    var demand: UInt64 = 0
    /// Bytes read and written by read(2) and write(2), on files, pipes and sockets.
    var bytes: UInt64 = 0
    /// A thread waits for a disk right now, and cannot be interrupted.
    var waitsForDisk = false
    var at = MonotonicTime.now

    /// A fifth of one processor: a server that hangs beside a thread with a timer uses far less; one in the midst of a large request, more.
    private static let share = 5
    /// Enough for no keep-alive or log line to count as work.
    private static let movement: UInt64 = 65_536

    /// Whether the processes were at work between `earlier` and this sample.
    func isWork(since earlier: ProcessWork) -> Bool {
        if waitsForDisk, earlier.waitsForDisk { return true }
        let elapsed = UInt64(max((at - earlier.at).nanoseconds, 1))
        // A thread or process that ended takes its numbers along: less than before is no work, and no trap.
        let ran = demand > earlier.demand ? demand - earlier.demand : 0
        let moved = bytes > earlier.bytes ? bytes - earlier.bytes : 0
        return ran >= elapsed / UInt64(ProcessWork.share) || moved >= ProcessWork.movement
    }

    /// The processes of group `group`. Reads /proc of the whole machine: for processes that do not answer, not for every probe. Throws when
    /// they could not all be looked at: half of their work is no sample.
    static func sample(group: Int32) throws(SystemError) -> ProcessWork {
        var work = ProcessWork()
        for pid in try ProcessList.all() where getpgid(pid) == group {
            for thread in try ProcessList.entries(pid, "task") ?? [] {
                let part = "task/\(thread)/"
                let times = String(decoding: try ProcessList.read(pid, part + "schedstat") ?? [], as: UTF8.self).split(separator: " ")
                for time in times.prefix(2) { work.demand &+= UInt64(time) ?? 0 }
                if try ProcessList.status(pid, of: part)?.first == "D" { work.waitsForDisk = true }
            }
            let counts = String(decoding: try ProcessList.read(pid, "io") ?? [], as: UTF8.self)
            for line in counts.split(separator: "\n") where line.hasPrefix("rchar") || line.hasPrefix("wchar") {
                work.bytes &+= line.split(separator: " ").last.flatMap { UInt64($0) } ?? 0
            }
        }
        return work
    }
}
