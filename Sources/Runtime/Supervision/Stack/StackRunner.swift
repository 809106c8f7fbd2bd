import Balancing
import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import Observability
import Redis
import Topology

/// Runs a stack on this machine: processes, stores and the gateway, from `start` until it has stopped. On the control loop; the pure
/// machines decide, this carries out.
final class StackRunner: ReplicaHost, ScalingHost {
    /// How the stack ended.
    enum Ending: Equatable {
        case stopped
        case failed(String)
    }

    let loop: EventLoop
    let httpClient: HTTPClient
    let folder: StackFolder
    let gateway: Gateway?
    /// Called when the gateway has taken routes: probes and discovery follow them.
    var onRoutes: () -> Void = {}
    let journal: Journal
    private(set) var stack: Stack
    private let stackFolder: String
    private var machine: StackMachine
    private var runners: [String: ReplicaRunner] = [:]
    private var stores: [String: RedisStore] = [:]
    private var keepers: [String: RedisClusterKeeper] = [:]
    private let environment: Environment
    private let mark: ProcessMark
    private let housekeeping: Housekeeping
    /// The supervisor before this one has crashed: what does not start now is no reason to stop the rest.
    private let isRestart: Bool
    private var hurry = 0
    private var lives = 0
    private var rollWaiters: [String: [(String?) -> Void]] = [:]
    private var publishing = false
    private var publishAgain = false
    /// Replicas that serve, and of which the gateway is yet to be told.
    private var awaitingPublication: [ReplicaRunner] = []
    private var inPublication: [ReplicaRunner] = []
    private var isDraining = false
    /// The gateway is taking the routes of a changed stack file.
    private var isApplying = false
    /// nil: the stack does not run yet.
    private(set) var scaling: ScalingLoop?
    private let metrics: MetricsRegistry
    /// Sizes that somebody asked for when the stack began.
    private var askedCounts: [String: Int]
    private var startFailure: String?
    /// Words for whoever watches.
    let tell: (String) -> Void
    private let onRunning: () -> Void
    private let onEnd: (Ending) -> Void

    init(
        stack: Stack, file: String, folder: StackFolder, mark: ProcessMark, isRestart: Bool, counts: [String: Int], gateway: Gateway?,
        journal: Journal, metrics: MetricsRegistry, loop: EventLoop, housekeeping: EventLoop,
        tell: @escaping (String) -> Void, onRunning: @escaping () -> Void, onEnd: @escaping (Ending) -> Void
    ) throws(StackFolder.Failure) {
        self.stack = stack
        self.folder = folder
        self.gateway = gateway
        self.journal = journal
        self.metrics = metrics
        askedCounts = counts
        self.loop = loop
        self.tell = tell
        self.onRunning = onRunning
        self.onEnd = onEnd
        stackFolder = Files.folder(of: Files.absolute(file))
        httpClient = HTTPClient(loop: loop, responseLimit: 1 << 20)
        var environment = Environment.inherited
        for name in [Watcher.watcherVariable, Watcher.folderVariable, Watcher.crashVariable] { environment.remove(name) }
        self.environment = environment
        self.mark = mark
        self.isRestart = isRestart
        self.housekeeping = Housekeeping(loop: loop, thread: housekeeping, folder: folder, mark: mark, tell: tell)
        var wanted: [String: Int] = [:]
        for service in stack.services { wanted[service.name] = counts[service.name] ?? service.replicas.lowerBound }
        machine = StackMachine(stores: Dictionary(uniqueKeysWithValues: stack.stores.map { ($0.name, $0.nodes) }), services: wanted)
        for store in stack.stores { stores[store.name] = try RedisStore(store, folder: folder.store(store.name)) }
        for service in stack.services where Program.find(service.command[0], stackFolder: stackFolder) == nil {
            let word = service.command[0]
            let parts = word.split(separator: " ")
            // One text with blanks was meant for a shell, which there is not.
            let hint =
                parts.count > 1 && service.command.count == 1
                ? ". 'command' is a list, a word an entry: command: [\(parts.joined(separator: ", "))]" : ""
            throw StackFolder.Failure(
                "service \(service.name): there is no program '\(word)' (looked beside the stack file, beside muster, and on PATH)\(hint)")
        }
        if !stack.stores.isEmpty, Program.find("redis-server", stackFolder: stackFolder) == nil {
            throw StackFolder.Failure(
                "store \(stack.stores[0].name) needs redis-server, which is not installed: apt-get install redis-server")
        }
    }

    func start() {
        housekeeping.start { [unowned self] in Set(runners.values.map(\.pid)) }
        apply(.begin)
    }

    var phase: String { machine.phase.rawValue }

    /// A signal to stop. The first stops as `shutDown` does; a second one ends services at once, a third one stores as well.
    func signalled() {
        guard isDraining else { return stopAsked() }
        hurry += 1
        tell(hurry == 1 ? "stopping at once: services are killed; once more kills stores, too" : "killing everything")
        apply(.shutDown)
        for runner in runners.values where hurry > 1 || stores[runner.unit] == nil { runner.killNow() }
    }

    /// Somebody wants the stack to stop.
    func stopAsked() {
        Watcher.hearsOfStop()
        shutDown()
    }

    /// Drains the gateway, then ends services, then stores.
    func shutDown() {
        guard !isDraining else { return }
        isDraining = true
        scaling?.stop()
        guard let gateway else { return apply(.shutDown) }
        tell("stopping: the gateway takes no more connections")
        let bound = LoopBound(self, on: loop)
        // Ends when the gateway is quiet, or after its grace.
        Task(executorPreference: loop) {
            _ = await gateway.drain(grace: .seconds(10))
            bound.value.apply(.shutDown)
        }
    }

    // MARK: the machine's wishes

    private func apply(_ event: StackMachine.Event) {
        for action in machine.handle(event) { perform(action) }
    }

    private func perform(_ action: StackMachine.Action) {
        switch action {
        case .start(let unit, let number, let generation): start(unit, number, generation)
        case .stop(let unit, let number): runners["\(unit)/\(number)"]?.stop()
        case .rollEnded(let service, let failure):
            journal.append(
                DecisionRecord(
                    .roll, subject: service, raw: "replace every replica", outcome: failure == nil ? "rolled" : "given up",
                    sentence: failure.map { "The roll of \(service) was given up: \($0)." }
                        ?? "\(service) is rolled: every replica is a new one.",
                    flip: failure == nil ? "a new replica that does not become ready" : "a new version that becomes ready and stays so"))
            let waiters = rollWaiters.removeValue(forKey: service) ?? []
            for done in waiters { done(failure) }
        case .entered(.running):
            followScaling()
            onRunning()
        case .entered(.stopped):
            for keeper in keepers.values { keeper.close() }
            onEnd(startFailure.map(Ending.failed) ?? .stopped)
        case .entered: break
        }
    }

    private func start(_ unit: String, _ number: Int, _ generation: Int) {
        let runner = stores[unit].map { makeStore($0, number) } ?? makeService(stack.service(unit)!, number, generation)
        runners["\(unit)/\(number)"] = runner
        runner.start()
    }

    private func makeStore(_ store: RedisStore, _ number: Int) -> ReplicaRunner {
        let path = Program.find("redis-server", stackFolder: stackFolder) ?? "redis-server"
        let environment = environment
        let server = store.nodes[number - 1]
        return ReplicaRunner(
            unit: store.spec.name, number: number, generation: 1, kind: .redis(server, keeper(store)),
            // Loading a large file takes its time, and PING fails meanwhile.
            settings: .init(startTime: .seconds(600)),
            log: folder.log(store.spec.name, number), host: self
        ) { [mark] _, life in
            var environment = environment
            environment[ProcessMark.variable] = mark.value(.init(unit: server.spec.name, number: number, life: life))
            return server.program(path, environment: environment)
        }
    }

    private func keeper(_ store: RedisStore) -> RedisClusterKeeper {
        if let known = keepers[store.spec.name] { return known }
        let keeper = RedisClusterKeeper(
            store, loop: loop, tell: tell, decided: { [unowned self] in journal.append($0) },
            onFailure: { [unowned self] reason in
                // After a crash the nodes may be copying from each other, for as long as that takes.
                if isRestart { return tell("\(reason); it is tried again") }
                startFailure = reason
                shutDown()
            })
        keepers[store.spec.name] = keeper
        return keeper
    }

    private func makeService(_ spec: ServiceSpec, _ number: Int, _ generation: Int) -> ReplicaRunner {
        let settings = ReplicaMachine.Settings(startTime: spec.startTime, grace: spec.grace, isProbed: spec.http != nil)
        let path = Program.find(spec.command[0], stackFolder: stackFolder) ?? spec.command[0]
        var environment = environment
        environment["HOST"] = "127.0.0.1"
        environment["INSTANCE_ID"] = String(number)
        environment["MUSTER_STACK"] = stack.name
        environment["MUSTER_SERVICE"] = spec.name
        for store in spec.uses { environment["REDIS_URL"] = stores[store]?.url }
        let hasPort = spec.http != nil || !spec.environment.contains { $0.name == "PORT" }
        for variable in spec.environment { environment[variable.name] = variable.value }
        let stackFolder = stackFolder
        return ReplicaRunner(
            unit: spec.name, number: number, generation: generation, kind: .service(spec.http),
            settings: settings, log: folder.log(spec.name, number), host: self
        ) { [mark] port, life in
            var environment = environment
            // What is declared (for a worker: the reader refuses it elsewhere) is what the process gets.
            if hasPort { environment["PORT"] = String(port) }
            environment[ProcessMark.variable] = mark.value(.init(unit: spec.name, number: number, life: life))
            return Program(path: path, arguments: Array(spec.command.dropFirst()), environment: environment, folder: stackFolder, input: [])
        }
    }

    // MARK: what runners tell

    func redisClient(_ server: RedisServer) -> RedisClient {
        var options = RedisClient.Options()
        options.maxConnections = 1
        options.name = "muster-supervisor"
        // The URL is made here of a number and hex digits, so it parses.
        let client = RedisClient(url: try! RedisURL(server.url), loop: loop, options: options)
        client.start()
        return client
    }

    func eject(_ service: String) -> PassiveHealth.Settings {
        let route = stack.gateway?.routes.first { $0.target == .service(service) }
        return route.map(Gateway.eject) ?? .init()
    }

    func nextLife() -> Int {
        lives += 1
        return lives
    }

    func spawned(_ runner: ReplicaRunner) { housekeeping.began(runner, isStore: stores[runner.unit] != nil) }

    func ended(_ runner: ReplicaRunner, _ pid: Int32, life: Int) {
        housekeeping.ended(runner, pid, life: life)
        scaling?.replicasChanged()
    }

    func signalStrays(_ runner: ReplicaRunner, life: Int, _ signal: Int32) { housekeeping.signalStrays(runner, life: life, signal) }

    /// A child has ended that may be no runner's.
    func childEnded() { housekeeping.childEnded() }

    func serving(_ runner: ReplicaRunner, _ isServing: Bool) {
        let name = "\(runner.unit)/\(runner.number)"
        scaling?.replicasChanged()
        if isServing {
            let place = address(of: runner).map { " on 127.0.0.1:\($0)" } ?? ""
            tell("\(runner.machine.state): \(name)\(place) (pid \(runner.pid))")
            // A replica counts as ready only when every loop of the gateway has its route; only then may an old one stop.
            if gateway != nil, stack.gateway != nil, runner.replica != nil {
                awaitingPublication.append(runner)
                membershipChanged()
            } else {
                apply(.ready(unit: runner.unit, number: runner.number))
            }
        } else {
            apply(.unready(unit: runner.unit, number: runner.number))
        }
    }

    func failedToStart(_ runner: ReplicaRunner) {
        let name = "\(runner.unit)/\(runner.number)", trouble = runner.machine.trouble
        tell("\(name) ended before it was ready: \(trouble)")
        apply(.failedToStart(unit: runner.unit, number: runner.number, reason: trouble))
        let isStarting = machine.phase == .startingStores || machine.phase == .startingServices
        guard isStarting, !isRestart, runner.machine.isLooping || trouble.hasPrefix("not ready") else { return }
        startFailure = "\(name) does not start: \(trouble)\n\(lastLines(folder.log(runner.unit, runner.number)))"
        shutDown()
    }

    /// The end of a log, for an error message.
    private func lastLines(_ path: String) -> String {
        let lines = Files.lastLines(path, 5)
        return lines.isEmpty
            ? "its log is empty (\(path))" : "the end of its log (\(path)):\n" + lines.map { "  | \($0)" }.joined(separator: "\n")
    }

    func finished(_ runner: ReplicaRunner) {
        runners["\(runner.unit)/\(runner.number)"] = nil
        tell("stopped: \(runner.unit)/\(runner.number)")
        apply(.stopped(unit: runner.unit, number: runner.number))
    }

    func decided(_ record: DecisionRecord) {
        journal.append(record)
        if record.kind == .restart { tell(record.sentence) }
    }

    func drainingBegan() { gateway?.replicasChanged() }

    func membershipChanged() {
        gateway?.replicasChanged()
        if publishing {
            publishAgain = true
            return
        }
        publish()
    }

    /// The replicas that serve now, by service.
    private var admitted: [String: [Replica]] {
        var lists: [String: [Replica]] = [:]
        for runner in runners.values.sorted(by: { $0.number < $1.number }) where runner.isAdmitted {
            if let replica = runner.replica { lists[runner.unit, default: []].append(replica) }
        }
        return lists
    }

    /// Gives the gateway the replicas that serve now. One publication at a time; changes meanwhile make one more. The gateway reads no file
    /// for it and always takes them: what the machine is told after it (an old replica may go) has happened.
    private func publish() {
        guard let gateway, stack.gateway != nil else { return }
        publishing = true
        inPublication = awaitingPublication
        awaitingPublication = []
        let published = admitted
        let bound = LoopBound(self, on: loop)
        // Ends when every loop of the gateway has taken the routes.
        Task(executorPreference: loop) {
            await gateway.apply { published[$0] ?? [] }
            bound.value.onRoutes()
            bound.value.published()
        }
    }

    private func published() {
        publishing = false
        let told = inPublication
        inPublication = []
        for runner in told where runner.machine.isServing { apply(.ready(unit: runner.unit, number: runner.number)) }
        if publishAgain, !publishing {
            publishAgain = false
            publish()
        }
    }

    // MARK: scaling

    func serviceMachine(_ service: String) -> ServiceMachine? { machine.services[service] }
    func runners(of service: String) -> [ReplicaRunner] { runners.values.filter { $0.unit == service }.sorted { $0.number < $1.number } }
    func storeURL(_ store: String) -> String? { stores[store]?.url }
    func setSize(_ service: String, _ count: Int, _ work: [Int: Int]) { apply(.scale(service: service, count: count, work: work)) }

    func startScaling() {
        let scaling = ScalingLoop(stack.services, host: self, gateway: gateway, metrics: metrics, folder: folder.scaling)
        self.scaling = scaling
        // A size that was asked for on the command line is a hand's.
        for (service, count) in askedCounts.sorted(by: { $0.key < $1.key }) {
            if let record = scaling.set(service, count, from: count) { journal.append(record) }
        }
        askedCounts = [:]
        scaling.start()
    }

    func endScaling() {
        scaling?.stop()
        scaling = nil
    }

    // MARK: requests from outside

    /// Changes a service's count. nil `count` frees it: back to what the stack declares.
    func scale(_ service: String, to count: Int?) throws(APIError) {
        guard let spec = stack.service(service) else { throw unknown(service) }
        guard machine.phase == .running || machine.phase == .startingServices else {
            throw APIError(409, "not_running", "the stack is \(machine.phase.rawValue); scale it when it runs")
        }
        let before = machine.services[service]?.desired ?? 0, scales = scaling?.scales(service) ?? false
        // Freed, it goes on from where it is when it scales by itself, and else to what is declared.
        let wanted = count ?? (scales ? before : spec.replicas.lowerBound)
        try check(wanted, spec)
        let owned = scaling?.set(service, count, from: before)
        journal.append(
            owned
                ?? DecisionRecord(
                    .scale, subject: service, inputs: [.init("asked", count.map(String.init) ?? "auto"), .init("before", before)],
                    raw: String(wanted), outcome: String(wanted),
                    sentence:
                        "\(service) goes from \(before) to \(wanted) replicas: "
                        + "\(count == nil ? "its count was freed, and the stack declares \(wanted)" : "somebody asked for \(wanted)").",
                    flip: "muster scale \(service)=\(before)"))
        tell("scale: \(service) from \(before) to \(wanted)")
        apply(.scale(service: service, count: wanted))
    }

    private func check(_ count: Int, _ spec: ServiceSpec) throws(APIError) {
        if let reason = spec.refusal(of: count) { throw APIError(400, "out_of_range", reason, field: "replicas") }
    }

    /// Calls `done` with nil, or with why the roll was given up.
    func roll(_ service: String, _ done: @escaping (String?) -> Void) throws(APIError) {
        guard stack.service(service) != nil else { throw unknown(service) }
        rollWaiters[service, default: []].append(done)
        tell("roll: \(service)")
        journal.append(
            DecisionRecord(
                .roll, subject: service, raw: "replace every replica", outcome: "rolling",
                sentence: "A roll of \(service) begins: a new replica is ready before an old one is drained, one after the other.",
                flip: "nothing; somebody asked"))
        apply(.roll(service: service))
    }

    private func unknown(_ service: String) -> APIError {
        let hint = nearestWord(to: service, in: stack.services.map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
        return APIError(404, "no_such_service", "the stack has no service '\(service)'\(hint)", field: "service")
    }

    /// Gives the gateway the routes of a changed stack file, and answers when every loop of the gateway has them. Throws, and nothing has
    /// changed, when the gateway does not take them (a file that a route names cannot be read), or when `reconcile` would refuse.
    func takeRoutes(of new: Stack, counts: [String: Int]) async throws(APIError) {
        try checkChange(to: new, counts)
        guard let gateway, let spec = new.gateway, spec != stack.gateway else { return }
        guard !isApplying else { throw APIError(409, "busy", "another change of the stack is being made: try again when it is done") }
        isApplying = true
        defer { isApplying = false }
        let lists = admitted
        do throws(Gateway.Failure) { try await gateway.apply(spec) { lists[$0] ?? [] } } catch {
            tell("the gateway keeps the routes that it has: \(error)")
            throw APIError(409, "routes_refused", "the gateway keeps the routes that it has, and nothing was changed: \(error)")
        }
        stack = stack.replacing(gateway: spec)
        onRoutes()
        // Whoever came or went while the routes were taken.
        membershipChanged()
    }

    private func checkChange(to new: Stack, _ counts: [String: Int]) throws(APIError) {
        let same =
            Set(new.services.map(\.name)) == Set(stack.services.map(\.name)) && new.stores == stack.stores
            && new.gateway?.listen == stack.gateway?.listen && new.gateway?.admin == stack.gateway?.admin
            && new.gateway?.threads == stack.gateway?.threads && new.gateway?.accessLog == stack.gateway?.accessLog
            && new.name == stack.name
            && new.gateway?.limits == stack.gateway?.limits && new.gateway?.tracing == stack.gateway?.tracing
            && new.gateway?.limitStore == stack.gateway?.limitStore
        guard same else {
            throw APIError(
                409, "needs_restart",
                "services, stores or the gateway's addresses were added, removed or changed: run muster down, then muster up")
        }
        guard machine.phase == .running else {
            throw APIError(409, "not_running", "the stack is \(machine.phase.rawValue); change it when it runs")
        }
        for spec in new.services {
            if let count = counts[spec.name] { try check(count, spec) }
        }
    }

    /// Takes the services of a changed stack file while it runs, when the gateway has taken its routes (`takeRoutes`): counts are scaled and
    /// changed services rolled (`rolled` is called once for each, with why it was given up). Returns what is being done; throws, before
    /// anything has changed, when a change needs a new start.
    func reconcile(_ new: Stack, counts: [String: Int], rolled: @escaping (String, String?) -> Void) throws(APIError) -> (
        done: [String], rolls: Int
    ) {
        try checkChange(to: new, counts)
        let old = stack
        stack = new
        var done: [String] = []
        var rolls = 0
        followScaling()
        for spec in new.services {
            let before = old.service(spec.name)!
            // A count that the file does not allow (it was scaled, or the file has changed) goes back to what the file says.
            // One that scales by itself finds its own way there.
            let fits =
                spec.scaling != nil || spec.replicas == before.replicas && spec.replicas.contains(machine.services[spec.name]?.desired ?? 0)
            let wanted = counts[spec.name] ?? (fits ? nil : spec.replicas.lowerBound)
            if let wanted, wanted != machine.services[spec.name]?.desired {
                try scale(spec.name, to: wanted)
                done.append("\(spec.name) goes to \(wanted) replicas")
            }
            if !spec.runsLike(before) {
                done.append("\(spec.name) is rolled to its new definition")
                rolls += 1
                try roll(spec.name) { [unowned self] failure in
                    // What runs is what was there before: so says the stack from now on.
                    if failure != nil { stack = stack.replacing(before) }
                    rolled(spec.name, failure)
                }
            }
        }
        return (done, rolls)
    }

    var isQuiet: Bool { machine.phase == .running && machine.services.values.allSatisfy(\.isSettled) }

    // MARK: what is shown

    /// The port that a replica was told to listen on; nil for a worker, which listens on none that is known.
    private func address(of runner: ReplicaRunner) -> UInt16? {
        stores[runner.unit] != nil || stack.service(runner.unit)?.http != nil ? runner.port : nil
    }

    struct Row {
        let service: String
        let kind: String?
        let number: Int
        let pid: Int32
        let port: UInt16?
        let state: String
        let restarts: Int
        let since: WallTime
        let trouble: String
    }

    var rows: [Row] {
        let order = stack.stores.map(\.name) + stack.services.map(\.name)
        return runners.values.sorted {
            (order.firstIndex(of: $0.unit) ?? 0, $0.number) < (order.firstIndex(of: $1.unit) ?? 0, $1.number)
        }.map { runner in
            Row(
                service: runner.unit, kind: stores[runner.unit] == nil ? nil : "redis", number: runner.number, pid: runner.pid,
                port: address(of: runner), state: runner.machine.state, restarts: runner.machine.restarts, since: runner.startedAt,
                trouble: runner.machine.note)
        }
    }
}

extension ServiceSpec {
    /// Nothing differs that a running process would have to be replaced for.
    func runsLike(_ other: ServiceSpec) -> Bool {
        command == other.command && environment == other.environment && http == other.http && uses == other.uses && cpu == other.cpu
            && memory == other.memory && grace == other.grace && startTime == other.startTime
    }
}
