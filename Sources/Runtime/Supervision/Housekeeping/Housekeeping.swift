import Basics
import CLinux
import EventLoops
import Glibc

/// The supervisor's work with files and /proc that takes its time: log files, the list of processes, the search for processes that left
/// their group. It is done on a thread of its own, because on the control loop probes, failovers and the admin port would wait for a slow
/// disk. What is decided and told is on the control loop.
final class Housekeeping {
    private let loop: EventLoop
    private let thread: EventLoop
    private let folder: StackFolder
    private let mark: ProcessMark
    private let record: StackJournal
    private let tell: (String) -> Void
    private var table: ProcessTable
    private var rotation: LoopTimer?
    private var isRotating = false
    private var orphans: LoopTimer?
    /// What was last told of each kind of work that does not succeed: told once, not every 5 s.
    private var complaints: [String: String] = [:]

    private static let rotationInterval = Duration.seconds(5)
    private static let orphanDelay = Duration.milliseconds(500)

    init(_ context: StackContext, thread: EventLoop) {
        loop = context.loop
        self.thread = thread
        folder = context.folder
        mark = context.mark
        table = ProcessTable(identity: mark.stack)
        record = context.record
        tell = context.tell
    }

    /// `runnersPids`: the children that have a runner, which reaps them itself.
    func start(runnersPids: @escaping () -> Set<Int32>) {
        rotation = LoopTimer(loop: loop) { [unowned self] in
            rotateLogs()
            record.retry()
            rotation?.schedule(after: Housekeeping.rotationInterval)
        }
        rotation?.schedule(after: Housekeeping.rotationInterval)
        orphans = LoopTimer(loop: loop) { [unowned self] in reapOrphans(runnersPids) }
    }

    /// Does on the thread what takes its time, in the order in which it was asked for.
    func inBackground(_ work: @escaping @Sendable () -> Void) { thread.execute(work) }

    private func complain(_ about: String, _ trouble: String) {
        if complaints[about, default: ""] == trouble { return }
        complaints[about] = trouble
        if !trouble.isEmpty { tell(trouble) }
    }

    private func rotateLogs() {
        // A copy that takes longer than the interval is not begun twice.
        if isRotating { return }
        isRotating = true
        let logs = folder.logs, bound = LoopBound(self, on: loop), loop = loop
        thread.execute {
            let troubles = LogRotation.rotate(logs)
            loop.execute {
                bound.value.isRotating = false
                bound.value.complain("logs", troubles.joined(separator: "; "))
            }
        }
    }

    // MARK: the list of processes

    func began(_ runner: ReplicaRunner, isStore: Bool) {
        table.add(unit: runner.unit, number: runner.number, pid: runner.pid, isStore: isStore, grace: runner.grace)
        saveTable()
    }

    /// A process has ended: it is off the list, and what it has started elsewhere is ended.
    func ended(_ runner: ReplicaRunner, _ pid: Int32, life: Int) {
        table.remove(pid: pid)
        saveTable()
        let life = ProcessMark.Life(unit: runner.unit, number: runner.number, life: life)
        let mark = mark, bound = LoopBound(self, on: loop), loop = loop
        thread.execute {
            let outcome = mark.end(life)
            loop.execute { bound.value.tellStrays("\(life.unit)/\(life.number)", outcome) }
        }
    }

    private func tellStrays(_ name: String, _ outcome: ProcessMark.Ended) {
        let ended = outcome.ended
        if ended > 0 { tell("ended \(ended) process\(ended == 1 ? "" : "es") that \(name) had started outside of its process group") }
        if let trouble = outcome.trouble(of: name) { tell(trouble) }
    }

    private func saveTable() {
        let text = table.text, file = folder.processes, bound = LoopBound(self, on: loop), loop = loop
        thread.execute {
            var trouble = ""
            do throws(SystemError) { try Files.replace(file, with: Array(text.utf8)) } catch {
                trouble = "the list of processes cannot be written, so those of a killed supervisor are found by their mark only: \(error)"
            }
            let told = trouble
            loop.execute { bound.value.complain("table", told) }
        }
    }

    /// Sends a signal to processes of that life outside of its process group.
    func signalStrays(_ runner: ReplicaRunner, life: Int, _ signal: Int32) {
        let group = runner.pid, mark = mark
        let life = ProcessMark.Life(unit: runner.unit, number: runner.number, life: life)
        let bound = LoopBound(self, on: loop), loop = loop
        thread.execute {
            do throws(SystemError) {
                for pid in try mark.processes(of: life) where getpgid(pid) != group { kill(pid, signal) }
            } catch {
                let trouble = "the signal \(signal) reached only the process group of \(life.unit)/\(life.number): \(error)"
                loop.execute { bound.value.tell(trouble) }
            }
        }
    }

    // MARK: orphans

    /// A child has ended that may be an orphan: a process that became our child when its parent had ended.
    func childEnded() { if orphans?.isArmed == false { orphans?.schedule(after: Housekeeping.orphanDelay) } }

    private func reapOrphans(_ runnersPids: @escaping () -> Set<Int32>) {
        let known = LoopBound(runnersPids, on: loop), bound = LoopBound(self, on: loop), loop = loop
        thread.execute {
            guard let children = try? Orphans.children() else {
                // They are zombies a little longer: looked for again.
                loop.execute { bound.value.childEnded() }
                return
            }
            let zombies = children.filter(\.isZombie).map(\.pid)
            if zombies.isEmpty { return }
            loop.execute {
                // A runner's own child is its to reap; only the control loop knows which those are.
                let own = known.value()
                var code: Int32 = 0
                for pid in zombies where !own.contains(pid) { _ = muster_reap(pid, &code) }
            }
        }
    }
}
