import Basics
import Glibc

extension MetricsRegistry {
    /// Adds the metrics that every process shows of itself, under the names that Prometheus' client libraries use. A figure that the
    /// operating system does not give at that moment is NaN, which no alert takes for 0.
    public func addProcessMetrics() {
        gauge("process_resident_memory_bytes", "Resident memory size in bytes.") { ProcessFigures.residentBytes() ?? .nan }
        gauge("process_open_fds", "Number of open file descriptors.") { ProcessFigures.openDescriptors() ?? .nan }
        counter("process_cpu_seconds_total", "User and system CPU time spent, in seconds.") {
            var usage = rusage()
            guard getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 else { return .nan }
            func seconds(_ t: timeval) -> Double { Double(t.tv_sec) + Double(t.tv_usec) / 1e6 }
            return seconds(usage.ru_utime) + seconds(usage.ru_stime)
        }
        let start = Double(WallTime.now.milliseconds) / 1000
        gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.") { start }
    }
}

/// What /proc says of this process.
private enum ProcessFigures {
    /// nil: /proc cannot be read, for want of a descriptor for example.
    static func residentBytes() -> Double? {
        // The second field of statm is resident pages.
        guard let fields = Files.text("/proc/self/statm")?.split(separator: " "), fields.count > 1, let pages = Double(fields[1]) else {
            return nil
        }
        return pages * Double(sysconf(Int32(_SC_PAGESIZE)))
    }

    /// nil: the folder cannot be read; the usual reason is that no descriptor is free to read it with.
    static func openDescriptors() -> Double? {
        // One of them is the folder's own.
        (try? Files.entries("/proc/self/fd")).map { Double($0.count - 1) }
    }
}
