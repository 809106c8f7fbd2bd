import Basics
import CLinux
import EventLoops
import Gateway
import Glibc
import HTTP
import Observability
import StackModel
import StoreKinds

/// Carries out what a `ReplicaMachine` says, for one process: starts it, watches its end, probes it, signals it, admits it to the
/// gateway. On the control loop.
final class ReplicaRunner {
    /// What kind of thing runs, and how it is asked whether it serves.
    enum Kind {
        /// Its port is chosen anew at each start.
        /// Without `http` it takes no requests, is not probed, and is ready once it has lived for 50 ms.
        case service(HTTPInterface?)
        /// A worker that is asked by a command or a connection.
        case checked(CheckSpec)
        /// It ends by itself.
        case task
        /// A node of a store, which has its own probe and keeps its port.
        case node(NodePlan, any Store)
    }

    let unit: String
    let number: Int
    let generation: Int
    let grace: Duration
    private(set) var machine: ReplicaMachine
    private(set) var pid: Int32 = 0
    private(set) var port: UInt16?
    /// Where its process listens beside its port; nil: nowhere.
    private(set) var socket: String?
    private(set) var startedAt = WallTime.now
    /// When its process began, and since when it has or has not served.
    private(set) var bornAt = MonotonicTime.now
    private(set) var servingChangedAt = MonotonicTime.now
    /// What the gateway sends to; a new one for each process, so that nothing is remembered of the one before.
    private(set) var replica: Replica?
    private(set) var isAdmitted = false
    private var everReady = false

    private let host: any ReplicaHost
    private let loop: EventLoop
    private let kind: Kind
    private let makeProgram: (UInt16, Int) throws -> Program
    /// Where the process with this life is to listen beside its port; nil: nowhere.
    private let makeSocket: (Int) throws -> String?
    /// The program of a check that is a command, for the same process.
    private let makeCheck: (UInt16, Int) throws -> Program
    private var check: CheckRun?
    private let log: String
    private var watch: ProcessWatch?
    private var timer: LoopTimer?
    private var probeTimer: LoopTimer?
    private var drainTimer: LoopTimer?
    /// Of the process that runs; nil for a service.
    private var nodeProbe: (any NodeProbe)?
    /// The node's part in its store, as it said last.
    private(set) var role: String?
    /// Asks the keeper again whether a node that is held back may start, and what was told of that last.
    private var holdTimer: LoopTimer?
    private var heldBecause: String?
    private var probes = 0
    /// Which process of the supervisor's it is: no two have the same, for a number is used again while the one before is being searched for.
    private var life = 0
    /// Whether the process that runs, or has just ended, got a SIGKILL from here.
    private var wasKilledHere = false
    private var quietChecks = 0
    /// What its processes had done when it last gave no answer.
    private var lastWork: ProcessWork?
    /// Looks whether a process that could not be watched has ended.
    private var unwatchedTimer: LoopTimer?

    /// A replica that starts is asked often, so that it serves as soon as it can; one that serves, once a second.
    private static let startingInterval = Duration.milliseconds(50)
    private static let servingInterval = Duration.seconds(1)
    /// A command costs a process each time.
    private static let startingCheckInterval = Duration.milliseconds(500)
    /// How soon a keeper that holds a node back is asked again.
    private static let holdInterval = Duration.seconds(1)
    private static let unwatchedInterval = Duration.milliseconds(10)

    init(
        unit: String, number: Int, generation: Int, kind: Kind, settings: ReplicaMachine.Settings, log: String,
        host: any ReplicaHost, makeCheck: @escaping (UInt16, Int) throws -> Program = { _, _ in throw SystemError("no check", 0) },
        makeSocket: @escaping (Int) throws -> String? = { _ in nil }, makeProgram: @escaping (UInt16, Int) throws -> Program
    ) {
        self.unit = unit
        self.number = number
        self.generation = generation
        self.kind = kind
        self.log = log
        self.host = host
        self.makeProgram = makeProgram
        self.makeSocket = makeSocket
        self.makeCheck = makeCheck
        loop = host.loop
        grace = settings.grace
        machine = ReplicaMachine(subject: "\(unit)/\(number)", settings: settings, now: loop.now)
        timer = nil
    }

    func start() { handle(.start) }
    func stop() {
        keeper?.stops()
        handle(.stop)
    }
    /// Without any grace, for somebody who does not want to wait.
    func killNow() { signal(SIGKILL) }

    private func handle(_ event: ReplicaMachine.Event) {
        let served = machine.isServing, restarts = machine.restarts
        let actions = machine.handle(event, now: .now)
        for action in actions { perform(action) }
        var ended: String?? = nil
        for case .completed(let failure) in actions { ended = .some(failure) }
        if machine.isServing != served {
            servingChangedAt = .now
            if machine.isServing { everReady = true }
            // One that has ended as it should is told so, and not as one that stopped serving.
            if ended != .some(nil) { host.serving(self, machine.isServing) }
        }
        if let ended {
            if ended != nil, !everReady, !machine.settings.isTask { host.failedToStart(self) }
            host.completed(self, failure: ended)
        }
        if machine.restarts > restarts, !everReady { host.failedToStart(self) }
        if actions.contains(.finished) {
            for timer in [timer, probeTimer, drainTimer, holdTimer] { timer?.cancel() }
            host.finished(self)
        }
    }

    private func perform(_ action: ReplicaMachine.Action) {
        switch action {
        case .spawn: spawnWhenAllowed()
        case .terminate:
            signal(stopSignal)
            // The children of a server that has a signal of its own for a stop in order are ended by it.
            if stopSignal == SIGTERM { host.signalStrays(self, life: life, SIGTERM) }
        case .kill: signal(SIGKILL)
        case .setTimer(let id, let delay):
            timer?.cancel()
            timer = LoopTimer(loop: loop) { [weak self] in self?.handle(.timer(id)) }
            timer?.schedule(after: delay)
        case .admit:
            replica?.remove(.down, because: "its probe found it ready")
            replica?.seenServing()
            isAdmitted = true
            host.membershipChanged()
        case .withdraw:
            replica?.add(.down, because: "its probe found it not ready")
            if isAdmitted {
                isAdmitted = false
                host.membershipChanged()
            }
        case .drain: drain()
        case .decided(let record): host.decided(record)
        case .completed, .finished: break
        }
    }

    /// The children of this process that belong to it, and are reaped here.
    var pids: [Int32] { [pid, check?.pid ?? 0].filter { $0 > 0 } }

    /// The whole process group: what a replica started goes with it.
    private func signal(_ number: Int32) {
        if number == SIGKILL { wasKilledHere = true }
        if pid > 0 { kill(-pid, number) }
    }

    // MARK: starting and ending

    private var stopSignal: Int32 { if case .node(let plan, _) = kind { plan.stopSignal } else { SIGTERM } }

    private var keeper: (any StoreKeeper)? { if case .node(_, let store) = kind { store.keeper } else { nil } }

    /// A node that its keeper holds back waits for it.
    private func spawnWhenAllowed() {
        guard keeper != nil else { return spawn() }
        let bound = LoopBound(self, on: loop)
        // Ends with the keeper's verdict, which may wait for a successor to be chosen.
        Task(executorPreference: loop) {
            if let verdict = await bound.value.askKeeper() { bound.value.mayStart(verdict) }
        }
    }

    private func askKeeper() async -> StartVerdict? { await keeper?.mayStart(number) }

    private func mayStart(_ verdict: StartVerdict) {
        holdTimer = nil
        defer { if verdict == .start { keeper?.began(number) } }
        guard machine.phase == .starting else {
            heldBecause = nil
            return handle(.exited("was not started again"))
        }
        switch verdict {
        case .start:
            heldBecause = nil
            // The time for a start begins now: until now it was held back.
            for action in machine.begins(.now) { perform(action) }
            spawn()
        case .hold(let why):
            if heldBecause != why { host.held(self, why) }
            heldBecause = why
            holdTimer = LoopTimer(loop: loop) { [weak self] in self?.spawnWhenAllowed() }
            holdTimer?.schedule(after: ReplicaRunner.holdInterval)
        }
    }

    /// The folder of a store's node; nil for a service.
    var nodeFolder: String? { if case .node(let plan, _) = kind { plan.folder } else { nil } }

    private func spawn() {
        life = host.nextLife()
        wasKilledHere = false
        do {
            let port = try choosePort()
            self.port = port
            socket = try makeSocket(life)
            dropSocket()
            startedAt = .now
            bornAt = .now
            servingChangedAt = .now
            pid = try makeProgram(port, life).start(log: log)
            host.spawned(self)
            let pid = pid
            watch = try ProcessWatch(pid: pid, loop: loop) { [unowned self] in exited(pid) }
        } catch {
            let reason = "\(error)", isOwnWant = (error as? SystemError)?.isWantAtStart == true
            if pid > 0 {
                // It runs and cannot be watched: better not at all.
                signal(SIGKILL)
                unwatchedTimer = LoopTimer(loop: loop) { [weak self] in self?.awaitUnwatched(reason, isOwnWant: isOwnWant) }
                unwatchedTimer?.schedule(after: ReplicaRunner.unwatchedInterval)
                return
            }
            let bound = LoopBound(self, on: loop)
            // After this event, not inside it.
            loop.execute { bound.value.handle(.spawnFailed(reason, isOwnWant: isOwnWant)) }
            return
        }
        if case .service(_?) = kind, let endpoint {
            replica = Replica(name: "\(unit)/\(number)", endpoint: endpoint, startsDown: true, isNew: true, eject: host.eject(unit))
        }
        if case .node(let plan, let store) = kind { nodeProbe = store.probe(plan) }
        probe(after: ReplicaRunner.startingInterval)
    }

    /// Where it is asked, and requests go to: its socket, if it is to have one, else its port. nil: it has not been started yet.
    var endpoint: Endpoint? { socket.map { .address(.unix($0)) } ?? port.map { .address(.loopback(port: $0)) } }

    /// Before its process begins nobody listens there, and after its end nobody does any more.
    private func dropSocket() { if let socket { unlink(socket) } }

    /// The next process is not started before this one is gone: both would have the same port and folder.
    private func awaitUnwatched(_ reason: String, isOwnWant: Bool) {
        var code: Int32 = 0
        guard muster_reap(pid, &code) != 0 else {
            unwatchedTimer?.schedule(after: ReplicaRunner.unwatchedInterval)
            return
        }
        unwatchedTimer = nil
        let ended = pid
        pid = 0
        dropSocket()
        host.ended(self, ended, life: life)
        handle(.spawnFailed(reason, isOwnWant: isOwnWant))
    }

    private func choosePort() throws -> UInt16 {
        switch kind {
        case .node(let plan, _): plan.port
        case .service(let http?) where http.isFixed: http.port
        case .service, .checked, .task: try freePort()
        }
    }

    private func exited(_ pid: Int32) {
        // What it started in its group must not outlive it. Before it is reaped: until then nobody else can have its number.
        kill(-pid, SIGKILL)
        var code: Int32 = 0
        let result = muster_reap(pid, &code)
        host.ended(self, pid, life: life)
        self.pid = 0
        dropSocket()
        watch = nil
        probeTimer?.cancel()
        drainTimer?.cancel()
        check?.cancel()
        if let nodeProbe {
            nodeProbe.close()
            self.nodeProbe = nil
            role = nil
            host.measured(unit, number, isUp: false, [])
        }
        if machine.isRunningUnasked { keeper?.died(number) }
        if result == 1, code == -SIGKILL, !wasKilledHere { host.killedByOthers(self) }
        handle(.exited(result == 1 ? ending(code) : "gone", isSuccess: result == 1 && code == 0))
    }

    // MARK: probing

    private func probe(after delay: Duration) {
        let life = life
        probeTimer?.cancel()
        probeTimer = LoopTimer(loop: loop) { [weak self] in self?.ask(life) }
        probeTimer?.schedule(after: delay)
    }

    private func ask(_ asked: Int) {
        guard asked == life, pid > 0, let port, let endpoint else { return }
        let bound = LoopBound(self, on: loop)
        let client = host.httpClient, http: HTTPInterface?
        if case .service(let interface) = kind { http = interface } else { http = nil }
        if case .checked(let spec) = kind { return runCheck(spec, asked, port) }
        if case .task = kind { return }
        if nodeProbe != nil { return askNode(asked) }
        // Ends with its answer or its time limit; the next one is only asked then.
        Task(executorPreference: loop) {
            // Without anything to ask, a process that has lived for a moment is taken for well.
            let result = if let http { await HTTPProbe(http, at: endpoint, client).ask() } else { ReplicaMachine.Probe.ready }
            bound.value.answered(asked, result)
        }
    }

    private func askNode(_ asked: Int) {
        probes += 1
        let bound = LoopBound(self, on: loop), isMeasuring = machine.isServing && probes % ExternalRunner.turnsPerMeasurement == 1
        // Ends with the probe's answer or its time limit; the next one is only asked then.
        Task(executorPreference: loop) {
            guard let report = await bound.value.report() else { return }
            bound.value.answered(asked, report)
            guard isMeasuring, let figures = await bound.value.nodeProbe?.figures() else { return }
            bound.value.measured(asked, figures)
        }
    }

    /// nil: its process has ended meanwhile.
    private func report() async -> ProbeReport? { await nodeProbe?.ask() }

    private func answered(_ asked: Int, _ report: ProbeReport) {
        guard asked == life, pid > 0 else { return }
        let report = keeper?.answered(number, report) ?? report, served = machine.isServing
        role = report.role
        answered(asked, ReplicaMachine.Probe(report.answer))
        if machine.isServing != served { host.measured(unit, number, isUp: machine.isServing, []) }
    }

    private func measured(_ asked: Int, _ figures: [StoreFigure]) {
        if asked == life, pid > 0, machine.isServing { host.measured(unit, number, isUp: true, figures) }
    }

    private func answered(_ asked: Int, _ result: ReplicaMachine.Probe) {
        guard asked == life, pid > 0 else { return }
        handle(.probed(judge(result)))
        guard asked == life, pid > 0 else { return }
        probe(after: interval)
    }

    private var interval: Duration {
        guard case .checked(let spec) = kind else {
            return machine.phase == .starting ? ReplicaRunner.startingInterval : ReplicaRunner.servingInterval
        }
        let first = spec.command == nil ? ReplicaRunner.startingInterval : ReplicaRunner.startingCheckInterval
        return machine.phase == .starting ? min(first, spec.interval) : spec.interval
    }

    private func runCheck(_ spec: CheckSpec, _ asked: Int, _ port: UInt16) {
        check = CheckRun(
            spec, port: port, program: { [makeCheck] in try makeCheck(port, asked) }, loop: loop
        ) { [weak self] in self?.answered(asked, $0) }
        check?.start()
    }

    /// One that gave no answer is looked at: does it work? The first silence only makes the sample that the next one is compared with.
    private func judge(_ result: ReplicaMachine.Probe) -> ReplicaMachine.Probe {
        guard case .failed(let detail) = result, machine.phase != .starting else {
            lastWork = nil
            return result
        }
        do throws(SystemError) {
            let work = try ProcessWork.sample(group: pid)
            defer { lastWork = work }
            return lastWork.map(work.isWork) == true ? .working(detail + ", while its processes are at work") : result
        } catch { return .unasked("\(detail), and whether its processes are at work cannot be seen: \(error)") }
    }

    // MARK: draining

    private func drain() {
        replica?.add(.draining, because: "it finishes what it has and then goes")
        host.drainingBegan()
        quietChecks = 0
        drainTimer = LoopTimer(loop: loop) { [weak self] in self?.checkDrained() }
        drainTimer?.schedule(after: .milliseconds(10))
    }

    /// Two quiet looks in a row, because a gateway thread may have chosen this replica just before it was marked.
    private func checkDrained() {
        guard machine.phase == .draining else { return }
        quietChecks = replica?.inFlight ?? 0 == 0 ? quietChecks + 1 : 0
        if quietChecks >= 2 { return handle(.drained) }
        drainTimer?.schedule(after: .milliseconds(10))
    }
}

extension ReplicaMachine.Probe {
    /// What a probe of a store's node has found, in the machine's words.
    init(_ answer: NodeAnswer) {
        self =
            switch answer {
            case .ready: .ready
            case .degraded(let detail): .degraded(detail)
            case .unready(let detail): .unready(detail)
            case .occupied(let detail): .occupied(detail)
            case .failed(let detail): .failed(detail)
            case .unasked(let detail): .unasked(detail)
            }
    }
}
