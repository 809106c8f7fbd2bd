import Basics
import Glibc

extension MetricsRegistry {
    /// Adds the metrics that every process shows of itself, under the names that Prometheus' client libraries use.
    public func addProcessMetrics() {
        gauge("process_resident_memory_bytes", "Resident memory size in bytes.") {
            // /proc/self/statm: the second field is resident pages.
            let fields = Files.text("/proc/self/statm")?.split(separator: " ") ?? []
            return fields.count > 1 ? (Double(fields[1]) ?? 0) * Double(sysconf(Int32(_SC_PAGESIZE))) : 0
        }
        gauge("process_open_fds", "Number of open file descriptors.") {
            Double(Files.list("/proc/self/fd").count)
        }
        counter("process_cpu_seconds_total", "User and system CPU time spent, in seconds.") {
            var usage = rusage()
            guard getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 else { return 0 }
            func seconds(_ t: timeval) -> Double { Double(t.tv_sec) + Double(t.tv_usec) / 1e6 }
            return seconds(usage.ru_utime) + seconds(usage.ru_stime)
        }
        let start = Double(WallTime.now.milliseconds) / 1000
        gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.") { start }
    }
}
