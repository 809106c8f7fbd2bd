import Basics
import CLinux
import EventLoops
import Gateway
import Glibc
import HTTP
import Observability
import Redis
import StackModel

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
        /// A single server, or a node of what its keeper keeps together.
        case redis(RedisServer, RedisClusterKeeper?)
    }

    let unit: String
    let number: Int
    let generation: Int
    let grace: Duration
    private(set) var machine: ReplicaMachine
    private(set) var pid: Int32 = 0
    private(set) var port: UInt16?
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
    /// The program of a check that is a command, for the same process.
    private let makeCheck: (UInt16, Int) throws -> Program
    private var check: CheckRun?
    private let log: String
    private var watch: ProcessWatch?
    private var timer: LoopTimer?
    private var probeTimer: LoopTimer?
    private var drainTimer: LoopTimer?
    private var redis: RedisClient?
    /// Which process of the supervisor's it is: no two have the same, for a number is used again while the one before is being searched for.
    private var life = 0
    /// Whether the process that runs, or has just ended, got a SIGKILL from here.
    private var wasKilledHere = false
    private var quietChecks = 0
    /// What its processes had done when it last gave no answer.
    private var lastWork: ProcessWork?

    /// A replica that starts is asked often, so that it serves as soon as it can; one that serves, once a second.
    private static let startingInterval = Duration.milliseconds(50)
    private static let servingInterval = Duration.seconds(1)
    /// A command costs a process each time.
    private static let startingCheckInterval = Duration.milliseconds(500)
    private static let probeTime = Duration.seconds(2)
    /// For a second question, of one that gave no answer to the first.
    private static let liveTime = Duration.seconds(1)
    private static let firstWordsTime = Duration.seconds(1)

    init(
        unit: String, number: Int, generation: Int, kind: Kind, settings: ReplicaMachine.Settings, log: String,
        host: any ReplicaHost, makeCheck: @escaping (UInt16, Int) throws -> Program = { _, _ in throw SystemError("no check", 0) },
        makeProgram: @escaping (UInt16, Int) throws -> Program
    ) {
        self.unit = unit
        self.number = number
        self.generation = generation
        self.kind = kind
        self.log = log
        self.host = host
        self.makeProgram = makeProgram
        self.makeCheck = makeCheck
        loop = host.loop
        grace = settings.grace
        machine = ReplicaMachine(subject: "\(unit)/\(number)", settings: settings, now: loop.now)
        timer = nil
    }

    func start() { handle(.start) }
    func stop() { handle(.stop) }
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
            for timer in [timer, probeTimer, drainTimer] { timer?.cancel() }
            host.finished(self)
        }
    }

    private func perform(_ action: ReplicaMachine.Action) {
        switch action {
        case .spawn: spawnWhenAllowed()
        case .terminate:
            signal(SIGTERM)
            host.signalStrays(self, life: life, SIGTERM)
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

    /// A node whose successor is being chosen waits for it.
    private func spawnWhenAllowed() {
        guard case .redis(_, let keeper?) = kind else { return spawn() }
        var isNow = true
        keeper.whenMayStart(number, isWanted: { [weak self] in isNow || self?.machine.phase == .starting }) { [weak self] in
            guard let self else { return }
            if isNow { return spawn() }
            if machine.phase == .starting {
                // The time for a start begins now: it was held for as long as its folder was not fit.
                for action in machine.begins(.now) { perform(action) }
                return spawn()
            }
            handle(.exited("was not started again"))
        }
        isNow = false
    }

    private func spawn() {
        life = host.nextLife()
        wasKilledHere = false
        do {
            let port = try choosePort()
            self.port = port
            startedAt = .now
            bornAt = .now
            servingChangedAt = .now
            pid = try makeProgram(port, life).start(log: log)
            host.spawned(self)
            let pid = pid
            watch = try ProcessWatch(pid: pid, loop: loop) { [unowned self] in exited(pid) }
        } catch {
            let reason = "\(error)"
            if pid > 0 {
                // It runs and cannot be watched: better not at all.
                signal(SIGKILL)
                var code: Int32 = 0
                while muster_reap(pid, &code) == 0 { usleep(1000) }
                host.ended(self, pid, life: life)
                pid = 0
            }
            let bound = LoopBound(self, on: loop)
            // After this event, not inside it.
            loop.execute { bound.value.handle(.spawnFailed(reason)) }
            return
        }
        if case .service(_?) = kind, let port {
            replica = Replica(
                name: "\(unit)/\(number)", endpoint: .address(.loopback(port: port)), startsDown: true, isNew: true, eject: host.eject(unit)
            )
        }
        if case .redis(let server, _) = kind { redis = host.redisClient(server) }
        probe(after: ReplicaRunner.startingInterval)
    }

    private func choosePort() throws -> UInt16 {
        switch kind {
        case .redis(let server, _): server.port
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
        watch = nil
        probeTimer?.cancel()
        drainTimer?.cancel()
        check?.cancel()
        redis?.close()
        redis = nil
        if case .redis(_, let keeper?) = kind, machine.isRunningUnasked { keeper.died(number) }
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
        guard asked == life, pid > 0, let port else { return }
        let bound = LoopBound(self, on: loop)
        let client = host.httpClient, redis = redis, http: HTTPInterface?
        if case .service(let interface) = kind { http = interface } else { http = nil }
        if case .checked(let spec) = kind { return runCheck(spec, asked, port) }
        if case .task = kind { return }
        // Ends with its answer or its time limit; the next one is only asked then.
        Task(executorPreference: loop) {
            let result: ReplicaMachine.Probe
            if let redis {
                result = await ReplicaRunner.ask(redis, bound)
            } else if let http {
                result = await ReplicaRunner.ask(client, http, port)
            } else {
                // Nothing to ask: a process that has lived for a moment is taken for well.
                result = .ready
            }
            bound.value.answered(asked, result)
        }
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
            spec, port: port, program: { [makeCheck] in try makeCheck(port, asked) }, loop: loop,
            isShort: { ReplicaRunner.isShortOfDescriptors }
        ) { [weak self] in self?.answered(asked, $0) }
        check?.start()
    }

    private static func ask(_ client: HTTPClient, _ http: HTTPInterface, _ port: UInt16) async -> ReplicaMachine.Probe {
        let question = "GET \(http.ready) on 127.0.0.1:\(port)", place = Endpoint.address(.loopback(port: port))
        do throws(HTTPClientError) {
            let response = try await client.send("GET", http.ready, to: place, timeout: probeTime)
            guard (200..<300).contains(response.status) else { return .unready("\(question) was answered with status \(response.status)") }
            return response.text.contains("\"status\":\"degraded\"") ? .degraded("\(question) says that it is degraded") : .ready
        } catch {
            if isAnswer(error) { return .unready("\(question): \(error.underlying)") }
            if isShortOfDescriptors { return .unasked("too many open files here") }
            let silence = "\(question): \(error.underlying)"
            guard error.code == .timeout, http.live != http.ready else { return .failed(silence) }
            // Its readiness may wait for something else, a database say. Whether it lives is another question, and any answer will do.
            do throws(HTTPClientError) {
                _ = try await client.send("GET", http.live, to: place, timeout: liveTime)
                return .unready("\(silence), while \(http.live) is answered")
            } catch { return isAnswer(error) ? .unready("\(silence), while \(http.live) is answered") : .failed(silence) }
        }
    }

    /// Nonsense, too much, or a connection that the server ends itself: it does something.
    private static func isAnswer(_ error: HTTPClientError) -> Bool { [.malformed, .tooLarge, .lost].contains(error.code) }

    private static func ask(_ redis: RedisClient, _ runner: LoopBound<ReplicaRunner>) async -> ReplicaMachine.Probe {
        do throws(RedisError) {
            _ = try await redis.send(RedisCommand("PING"))
            guard case .redis(_, let keeper?) = runner.value.kind else { return .ready }
            guard keeper.store.spec.isCluster else { return .ready }
            keeper.answered(runner.value.number)
            guard keeper.isFormed else { return .occupied("the cluster is not formed yet") }
            let info = try await redis.send(RedisCommand("CLUSTER INFO")).string ?? ""
            return info.hasPrefix("cluster_state:ok") ? .ready : .degraded("CLUSTER INFO: the cluster does not serve all slots")
        } catch {
            if let probe = answer(error.message, isAnswer: [.server, .authentication, .malformed].contains(error.code)) { return probe }
            if isShortOfDescriptors { return .unasked("too many open files here") }
            let port = runner.value.port ?? 0, loop = runner.value.loop
            // The client says why it has no connection, not whether the server reacts.
            let said = await withUnsafeContinuation { continuation in
                FirstWords.ask(port: port, within: firstWordsTime, on: loop) { continuation.resume(returning: $0) }
            }
            guard let said else { return .failed("PING on 127.0.0.1:\(port): \(error.message)") }
            return answer(said, isAnswer: said.hasPrefix("-") && !said.hasPrefix("-NOAUTH"))
                ?? .unready("PING on 127.0.0.1:\(port): \(error.message)")
        }
    }

    /// What an error of Redis means: it answers, and says what ails it. nil: `text` is no answer of the server's.
    private static func answer(_ text: String, isAnswer: Bool) -> ReplicaMachine.Probe? {
        guard isAnswer else { return nil }
        let words = "PING was answered with: \(text.hasPrefix("-") ? String(text.dropFirst()) : text)"
        return switch text.drop(while: { $0 == "-" }).prefix(while: { $0 != " " }) {
        case "LOADING", "BUSY": .occupied(words)
        // It reads and answers; what it refuses, its clients are told.
        case "MISCONF", "MASTERDOWN", "OOM", "READONLY", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN": .degraded(words)
        default: .unready(words)
        }
    }

    /// Whether this process can open no further file or socket: then nobody else is to blame.
    private static var isShortOfDescriptors: Bool {
        let spare = dup(2)
        if spare >= 0 { close(spare) }
        return spare < 0 && (errno == EMFILE || errno == ENFILE)
    }

    /// One that gave no answer is looked at: does it work? The first silence only makes the sample that the next one is compared with.
    private func judge(_ result: ReplicaMachine.Probe) -> ReplicaMachine.Probe {
        guard case .failed(let detail) = result, machine.phase != .starting else {
            lastWork = nil
            return result
        }
        let work = ProcessWork.sample(group: pid)
        defer { lastWork = work }
        return lastWork.map(work.isWork) == true ? .working(detail + ", while its processes are at work") : result
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
