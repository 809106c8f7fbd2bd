import Basics
import Measurement
import Synchronization

/// A replica's processes: the leader of its group, and the group.
public struct MeteredProcess: Sendable, Hashable {
    /// The service's name.
    public let service: String
    /// The replica's number.
    public let replica: Int
    /// The leader of its process group.
    public let pid: Int32
    /// The leader's start time (`ProcessIdentity.startTime`); nil to take what the first reading finds.
    public let started: UInt64?

    /// A replica that runs as the process group `pid`.
    public init(service: String, replica: Int, pid: Int32, started: UInt64? = nil) {
        self.service = service
        self.replica = replica
        self.pid = pid
        self.started = started
    }
}

/// CPU and memory of replicas, from /proc, all in one pass.
///
/// CPU is user and system time of all processes of the replica's group, and of their children that have ended and were waited for, in
/// milli-cores over the window; the kernel counts in ticks of 10 ms. Memory is the resident pages (anonymous, of files, shared) of all of
/// them, in bytes. That is not quite the working set that Kubernetes scales by (a cgroup's usage without inactive pages of files): it has
/// no page cache of files that are read and not mapped, it has mapped pages of files that nobody touched lately, and pages that processes
/// of one group share are counted for each (their proportional share, from smaps_rollup, was measured and left: 10 ms for a process of 280
/// MB, while its memory map is locked, against 10 µs for its line of stat). The kernel keeps it with an error of up to 64 pages a processor
/// and kind.
public final class ProcessMeter: Sendable {
    /// The metrics that it gives, by their names in `MeterKey.metric`.
    public static let cpu = "cpu", memory = "memory"

    private struct Watched {
        let process: MeteredProcess
        var started: UInt64?
        var time = ProcessGroupTime()
        var rate: CounterRate
    }

    private let window: Duration
    private let bounds: MachineBounds
    private let watched = Mutex<[Watched]>([])

    /// CPU is over `window`. `bounds`: what the machine can do; nil to ask it.
    public init(window: Duration, bounds: MachineBounds? = nil) {
        self.window = window
        self.bounds = bounds ?? ProcessScan.machine()
    }

    /// The replicas that there are now. Those that were there before, with the same process, keep what is known of them.
    public func follow(_ processes: [MeteredProcess]) {
        watched.withLock { watched in
            let known = Dictionary(watched.map { ($0.process, $0) }) { first, _ in first }
            watched = processes.map { process in
                known[process]
                    ?? Watched(
                        process: process, started: process.started,
                        rate: CounterRate("the CPU time of process \(process.pid)", window: window))
            }
        }
    }

    /// Looks at all of them once. CPU needs two looks. Blocks for the length of one pass over /proc. Where /proc cannot be read, all figures
    /// of the look are refused with the reason: nothing is said of any process.
    public func read() -> [MeterKey: Result<MeterFigure, MeterFault>] {
        let groups = Set(watched.withLock { $0.map(\.process.pid) })
        let at = MonotonicTime.now, ticks = ProcessScan.ticksSinceBoot
        let found: [Int32: [ProcessScan.Entry]]
        do throws(SystemError) { found = try ProcessScan.read(groups) } catch {
            let fault = MeterFault(.refused, "/proc could not be read: \(error)")
            return watched.withLock { watched in
                var all: [MeterKey: Result<MeterFigure, MeterFault>] = [:]
                for one in watched {
                    for metric in [ProcessMeter.cpu, ProcessMeter.memory] {
                        all[MeterKey(service: one.process.service, replica: one.process.replica, metric: metric)] = .failure(fault)
                    }
                }
                return all
            }
        }
        return watched.withLock { watched in
            var all: [MeterKey: Result<MeterFigure, MeterFault>] = [:]
            for i in watched.indices where groups.contains(watched[i].process.pid) {
                let process = watched[i].process
                let (cpu, memory) = figures(&watched[i], found[process.pid] ?? [], at, ticks)
                all[MeterKey(service: process.service, replica: process.replica, metric: ProcessMeter.cpu)] = cpu
                all[MeterKey(service: process.service, replica: process.replica, metric: ProcessMeter.memory)] = memory
            }
            return all
        }
    }

    private func figures(
        _ watched: inout Watched, _ entries: [ProcessScan.Entry], _ at: MonotonicTime, _ ticks: UInt64
    ) -> (cpu: Result<MeterFigure, MeterFault>, memory: Result<MeterFigure, MeterFault>) {
        let pid = watched.process.pid
        guard let leader = entries.first(where: { $0.member.pid == pid }), !leader.isZombie else {
            let fault = MeterFault(.gone, "process \(pid) of \(watched.process.service)/\(watched.process.replica) has ended")
            return (.failure(fault), .failure(fault))
        }
        let started = watched.started ?? leader.member.started
        watched.started = started
        guard leader.member.started == started else {
            let fault = MeterFault(
                .gone, "process \(pid) of \(watched.process.service)/\(watched.process.replica) has ended; another one has its number")
            return (.failure(fault), .failure(fault))
        }
        watched.time.look(entries.map(\.member), at: ticks)
        let seconds = Double(watched.time.total) / Double(ProcessScan.ticksPerSecond)
        return (cpu(&watched.rate, seconds, at), memory(entries, at))
    }

    private func cpu(_ rate: inout CounterRate, _ seconds: Double, _ at: MonotonicTime) -> Result<MeterFigure, MeterFault> {
        switch rate.add(seconds, at: at) {
        case .failure(let fault): return .failure(fault)
        case .success(let rate):
            let milliCores = rate.perSecond * 1000
            if let fault = bounds.fault(milliCores: milliCores) { return .failure(fault) }
            return .success(MeterFigure(milliCores, .milliCores, takenAt: at, window: rate.window, note: rate.note))
        }
    }

    private func memory(_ entries: [ProcessScan.Entry], _ at: MonotonicTime) -> Result<MeterFigure, MeterFault> {
        let pages = entries.reduce(UInt64(0)) { $0 &+ $1.residentPages }
        let bytes = Double(pages) * Double(ProcessScan.pageSize)
        if let fault = bounds.fault(bytes: bytes) { return .failure(fault) }
        return .success(MeterFigure(bytes, .bytes, takenAt: at))
    }
}
