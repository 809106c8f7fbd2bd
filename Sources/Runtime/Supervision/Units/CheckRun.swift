import Basics
import CLinux
import EventLoops
import Glibc
import StackModel

/// One check of a worker: a command that must end with status 0, or a connection that must be taken. On the control loop.
final class CheckRun {
    private let spec: CheckSpec
    private let port: UInt16
    private let program: () throws -> Program
    private let loop: EventLoop
    private let reap: (Int32, inout Int32) -> Int32
    private var done: ((ReplicaMachine.Probe) -> Void)?
    private var watch: ProcessWatch?
    private var timer: LoopTimer?
    private var connection: Connection?
    private var isLate = false
    /// Of the command, while it runs.
    private(set) var pid: Int32 = 0

    /// `port` is the worker's own. `reap` is `muster_reap`, or a test's. `done` is called once, later, unless it is cancelled.
    init(
        _ spec: CheckSpec, port: UInt16, program: @escaping () throws -> Program, loop: EventLoop,
        reap: @escaping (Int32, inout Int32) -> Int32 = { muster_reap($0, &$1) },
        done: @escaping (ReplicaMachine.Probe) -> Void
    ) {
        self.spec = spec
        self.port = port
        self.program = program
        self.loop = loop
        self.reap = reap
        self.done = done
    }

    func start() {
        timer = LoopTimer(loop: loop) { [weak self] in self?.late() }
        timer?.schedule(after: spec.timeout)
        guard spec.command != nil else {
            connection = Connection(loop: loop) { [weak self] in self?.answered($0) }
            connection?.connect(to: .loopback(port: spec.port ?? port))
            return
        }
        do {
            let nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC)
            guard nowhere >= 0 else { throw SystemError("open /dev/null") }
            defer { close(nowhere) }
            pid = try program().start(output: nowhere, errors: nowhere)
            let pid = pid
            watch = try ProcessWatch(pid: pid, loop: loop) { [weak self] in self?.ended(pid) }
        } catch {
            cancelProcess()
            let reason = "the check could not be started: \(error)", isOurs = (error as? SystemError)?.isWantAtStart == true
            let bound = LoopBound(self, on: loop)
            // After this event, not inside it.
            loop.execute { bound.value.finish(isOurs ? .unasked(reason) : .unready(reason)) }
        }
    }

    /// The worker has ended: its check ends with it, and nobody is told.
    func cancel() {
        done = nil
        finish(.failed(""))
        cancelProcess()
    }

    private func cancelProcess() {
        guard pid > 0 else { return }
        watch?.stop()
        kill(-pid, SIGKILL)
        var code: Int32 = 0
        // One that waits for a disk ends when the disk answers, and nothing here may wait for that: the housekeeping reaps what is left.
        _ = reap(pid, &code)
        pid = 0
    }

    private func ended(_ ended: Int32) {
        kill(-ended, SIGKILL)
        var code: Int32 = 0
        let result = reap(ended, &code)
        pid = 0
        let words = "the check '\(spec.command?.program ?? "")'"
        if isLate { return finish(.failed("\(words) did not end within \(spec.timeout.brief)")) }
        finish(result == 1 && code == 0 ? .ready : .unready("\(words) ended with \(result == 1 ? ending(code) : "nothing known")"))
    }

    private func late() {
        isLate = true
        // Its end is told by its watch.
        if pid > 0 { kill(-pid, SIGKILL) } else { finish(.failed("\(place) took no connection within \(spec.timeout.brief)")) }
    }

    private var place: String { "port \(spec.port ?? port)" }

    private func answered(_ failure: CloseReason?) {
        guard let failure else { return finish(.ready) }
        let words = "\(place) takes no connection: \(failure)"
        finish(failure.isOwnWant ? .unasked(words) : .failed(words))
    }

    private func finish(_ result: ReplicaMachine.Probe) {
        timer?.cancel()
        timer = nil
        let open = connection
        connection = nil
        open?.leave()
        let told = done
        done = nil
        told?(result)
    }

    /// Tells whether a connection is taken, with nil, or why it is not.
    private final class Connection: Stream {
        private var told: ((CloseReason?) -> Void)?

        init(loop: EventLoop, _ told: @escaping (CloseReason?) -> Void) {
            self.told = told
            super.init(loop: loop)
        }

        func leave() {
            told = nil
            close()
        }

        override func connected() { tell(nil) }
        override func closed(_ reason: CloseReason) { tell(reason) }

        private func tell(_ failure: CloseReason?) {
            let once = told
            told = nil
            once?(failure)
        }
    }
}
