import Basics
import Glibc
import Measurement
import Observability
import TestSupport
import Testing

@testable import Metering

/// /proc against real processes; what is expected is read from /proc as well, before and after, so that no time is assumed. One
/// at a time: some burn a processor, which the other tests want.
@Suite(.serialized) struct ProcessMeterTests {
    private let cpu = MeterKey(service: "s", replica: 1, metric: "cpu"), memory = MeterKey(service: "s", replica: 1, metric: "memory")

    /// CPU ticks of all live members of a group, by a slow reading of all of /proc.
    private func ticks(_ group: Int32) -> Double {
        var sum = 0.0
        for name in Files.list("/proc") where Int32(name) != nil {
            guard let text = Files.text("/proc/\(name)/stat"), let end = text.lastIndex(of: ")") else { continue }
            let fields = text[text.index(after: end)...].split(separator: " ")
            if fields[2] == "\(group)" { sum += Double(fields[11])! + Double(fields[12])! + Double(fields[13])! + Double(fields[14])! }
        }
        return sum
    }

    private func withChild(_ script: String, _ body: (Child) async throws -> Void) async throws {
        try await withFolder { folder in
            let child = try Child("/bin/sh", ["-c", script], log: folder + "/log")
            let result: Result<Void, any Error>
            do { result = .success(try await body(child)) } catch { result = .failure(error) }
            await child.destroy()
            try result.get()
        }
    }

    /// The shell burns, or a child of the same group does.
    @Test(arguments: [
        "while :; do :; done", "(while :; do :; done) & wait", "while :; do (i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done); done",
    ])
    func cpuIsThatOfTheGroup(script: String) async throws {
        try await withChild(script) { child in
            let meter = ProcessMeter(window: .seconds(300), bounds: MachineBounds(processors: 64, memory: 1e15))
            meter.follow([MeteredProcess(service: "s", replica: 1, pid: child.pid, started: try ProcessIdentity.startTime(child.pid))])
            #expect(await eventually { ticks(child.pid) > 5 })
            let before = ticks(child.pid)
            #expect(failure(meter.read()[cpu]) == .tooEarly)
            let afterFirst = ticks(child.pid)
            // Half a second of a processor, however long that takes on a busy machine.
            #expect(await eventually(.seconds(60)) { ticks(child.pid) > afterFirst + 50 })
            let beforeLast = ticks(child.pid)
            let figure = try #require(try meter.read()[cpu]?.get())
            let after = ticks(child.pid)
            let counted = figure.value * figure.window.secondsAsDouble / 1000 * Double(ProcessScan.ticksPerSecond)
            // A child that ends just between a listing and its line is not seen by the test's own sum; each lives for some ticks.
            #expect(
                counted >= beforeLast - afterFirst - 15 && counted <= after - before + 15,
                "\(counted) of \(beforeLast - afterFirst)...\(after - before)")
            #expect(figure.unit == .milliCores)
        }
    }

    @Test func memoryIsWhatIsResident() async throws {
        try await withChild("exec sleep 600") { child in
            #expect(await eventually { Files.text("/proc/\(child.pid)/comm") == "sleep\n" })
            let meter = ProcessMeter(window: .seconds(1))
            meter.follow([MeteredProcess(service: "s", replica: 1, pid: child.pid)])
            let bytes = try #require(try meter.read()[memory]?.get().value)
            let status = Files.text("/proc/\(child.pid)/status") ?? ""
            let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") })
            let resident = try #require(Double(line.split(separator: " ").dropLast().last ?? "")) * 1024
            // The kernel's own error: 64 pages a processor, and kind.
            let allowed = 3 * 64 * 4096 * Double(sysconf(Int32(_SC_NPROCESSORS_CONF)))
            #expect(abs(bytes - resident) <= allowed)
            #expect(bytes > 0)
        }
    }

    @Test func anotherProcessOfTheSameNumberIsNotTaken() async throws {
        try await withChild("exec sleep 600") { child in
            let meter = ProcessMeter(window: .seconds(1))
            let started = try #require(try ProcessIdentity.startTime(child.pid))
            meter.follow([MeteredProcess(service: "s", replica: 1, pid: child.pid, started: started - 1)])
            #expect(failure(meter.read()[cpu]) == .gone && failure(meter.read()[memory]) == .gone)
            meter.follow([MeteredProcess(service: "s", replica: 1, pid: child.pid, started: started)])
            #expect(failure(meter.read()[memory]) == nil)
            child.send(SIGKILL)
            #expect(await eventually { self.failure(meter.read()[self.memory]) == .gone })
        }
    }

    @Test func moreThanTheMachineHasIsNotBelieved() async throws {
        try await withChild("exec sleep 600") { child in
            let meter = ProcessMeter(window: .seconds(1), bounds: MachineBounds(processors: 1, memory: 1000))
            meter.follow([MeteredProcess(service: "s", replica: 1, pid: child.pid)])
            // In the moment of its exec a process has no memory.
            let isTold = await eventually { failure(meter.read()[memory]) == .implausible }
            #expect(isTold)
        }
    }

    @Test func aStatLineIsReadWhateverTheNameHolds() throws {
        let line = "42 (a) R (b) c) S 1 40 40 0 -1 4194304 1 2 3 4 100 20 7 5 20 0 1 0 123456 999 777 1844"
        let entry = try #require(Array(line.utf8).withUnsafeBytes { ProcessScan.parse($0) })
        #expect(entry.group == 40 && !entry.isZombie && entry.residentPages == 777)
        #expect(entry.member == ProcessGroupTime.Member(pid: 42, started: 123_456, own: 120, waited: 12))
        for cut in 0..<40 {
            let parsed = Array(line.utf8.prefix(cut)).withUnsafeBytes { ProcessScan.parse($0) }
            #expect(parsed == nil)
        }
    }

    /// Every look has both figures; the time is told when one is missing, never judged.
    @Test func everyLookHasBothFigures() async throws {
        try await withChild("exec sleep 600") { child in
            let meter = ProcessMeter(window: .seconds(1))
            meter.follow([MeteredProcess(service: "s", replica: 1, pid: child.pid)])
            let processes = Files.list("/proc").count { Int($0) != nil }
            let began = MonotonicTime.now
            for _ in 0..<20 { #expect(meter.read().count == 2) }
            let each = (MonotonicTime.now - began) / 20
            #expect(each > .zero && processes > 0, "one look at \(processes) processes takes \(each.brief)")
        }
    }

    private func failure(_ result: Result<MeterFigure, MeterFault>?) -> MeterFault.Kind? {
        if case .failure(let fault) = result { fault.kind } else { nil }
    }

    /// Without a descriptor to read /proc with, nothing is said of any process: neither that it has ended, nor how many descriptors are
    /// open. In a process of its own, which has none left.
    @Test func ourOwnWantIsNoEndOfAProcess() async {
        await #expect(processExitsWith: .success) {
            let meter = ProcessMeter(window: .seconds(300))
            meter.follow([MeteredProcess(service: "s", replica: 1, pid: getpid())])
            let metrics = MetricsRegistry()
            metrics.addProcessMetrics()
            let memory = MeterKey(service: "s", replica: 1, metric: "memory")
            // The test's own process need not lead a group.
            setpgid(0, 0)
            guard case .success = meter.read()[memory], !metrics.render().contains("NaN") else { exit(2) }
            var limit = rlimit(rlim_cur: 64, rlim_max: 64)
            guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { exit(3) }
            while open("/dev/null", O_RDONLY) >= 0 {}
            for (_, result) in meter.read() {
                guard case .failure(let fault) = result, fault.kind == .refused,
                    fault.reason == "/proc could not be read: open /proc: Too many open files"
                else { exit(4) }
            }
            let page = metrics.render()
            guard page.contains("process_open_fds NaN\n"), page.contains("process_resident_memory_bytes NaN\n") else { exit(5) }
            // One is free: the folder can be listed, its files cannot be opened.
            close(63)
            for (_, result) in meter.read() {
                guard case .failure(let fault) = result, fault.kind == .refused, fault.reason.hasSuffix("/stat: Too many open files") else {
                    exit(6)
                }
            }
            guard metrics.render().contains("process_open_fds 63.0\n") else { exit(7) }
            close(62)
            guard case .success = meter.read()[memory] else { exit(8) }
            exit(0)
        }
    }
}
