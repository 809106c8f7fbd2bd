import Basics
import CLinux
import EventLoops
import Glibc
import Observability
import StoreKinds

/// Runs the programs that come before a store's node can start (`NodeStep`), each to its end or its time limit. On the control loop.
final class StepRuns {
    private final class Run {
        let store: String
        let pid: Int32
        var watch: ProcessWatch?
        var timer: LoopTimer?
        var isLate = false
        let done: (StepEnding) -> Void

        init(_ store: String, _ pid: Int32, _ done: @escaping (StepEnding) -> Void) {
            self.store = store
            self.pid = pid
            self.done = done
        }
    }

    private let loop: EventLoop
    private let environment: Environment
    private let mark: ProcessMark
    private var runs: [Int32: Run] = [:]

    init(loop: EventLoop, environment: Environment, mark: ProcessMark) {
        self.loop = loop
        self.environment = environment
        self.mark = mark
    }

    var pids: [Int32] { Array(runs.keys) }

    func run(_ step: NodeStep) async -> StepEnding {
        await withUnsafeContinuation { continuation in begin(step) { continuation.resume(returning: $0) } }
    }

    /// Ends the steps of a store; each is told as failed.
    func end(_ store: String) { for run in runs.values where run.store == store { kill(-run.pid, SIGKILL) } }

    private func begin(_ step: NodeStep, _ done: @escaping (StepEnding) -> Void) {
        do {
            var environment = environment.with(step.environment)
            // No life of the node: what a step leaves is ended with the stack.
            environment[ProcessMark.variable] = mark.value(.init(unit: step.store, number: step.number, life: 0))
            let program = Program(
                path: step.program, arguments: step.arguments, environment: environment, folder: step.folder,
                user: try step.user.map(ProcessUser.find) ?? nil, input: [])
            let pid = try program.start(log: step.output), run = Run(step.store, pid, done)
            runs[pid] = run
            run.watch = try ProcessWatch(pid: pid, loop: loop) { [unowned self] in ended(pid) }
            run.timer = LoopTimer(loop: loop) { [weak run] in
                run?.isLate = true
                kill(-pid, SIGKILL)
            }
            run.timer?.schedule(after: step.limit)
        } catch {
            // One that runs and cannot be watched is better not run at all; it is reaped as an orphan.
            for (pid, run) in runs where run.watch == nil {
                kill(-pid, SIGKILL)
                runs[pid] = nil
            }
            done(.failed("\(error)"))
        }
    }

    private func ended(_ pid: Int32) {
        guard let run = runs.removeValue(forKey: pid) else { return }
        kill(-pid, SIGKILL)
        var code: Int32 = 0
        let result = muster_reap(pid, &code)
        run.timer?.cancel()
        if result == 1, code == 0 { return run.done(.done) }
        run.done(.failed(run.isLate ? "it took too long" : result == 1 ? ending(code) : "how it ended is not known"))
    }
}

/// How long stores took for what they do, on the metrics page: the last time of each. On the control loop.
final class StoreTimings {
    private let metrics: MetricsRegistry
    private var times: [(store: String, phase: String, milliseconds: Int)] = []

    init(metrics: MetricsRegistry) { self.metrics = metrics }

    func note(_ store: String, _ phase: String, _ time: Duration) {
        times.removeAll { $0.store == store && $0.phase == phase }
        times.append((store, phase, Int(clamping: time.milliseconds)))
        metrics.setGauges(
            "muster_store_failover_milliseconds", "How long each phase of a store's last change of its primary took.",
            times.sorted { ($0.store, $0.phase) < ($1.store, $1.phase) }.map {
                ([("store", $0.store), ("phase", $0.phase)], $0.milliseconds)
            })
    }
}
