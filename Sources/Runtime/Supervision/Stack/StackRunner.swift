import Balancing
import Basics
import EventLoops
import Gateway
import Glibc
import HTTP
import Observability
import StackModel
import StoreKinds

/// Runs a stack on this machine, from `start` until it has stopped: carries out what the `StackMachine` decides, and tells it what the
/// units' runners say. What is published to the gateway, kept house of, scaled and asked for from outside are parts of their own
/// (`Publisher`, `Housekeeping`, `StackScaling`, `StackAdmin`). On the control loop.
final class StackRunner: ReplicaHost, ExternalHost {
    /// How the stack ended.
    enum Ending: Equatable {
        case stopped
        case failed(String)
    }

    let context: StackContext
    let httpClient: HTTPClient
    let units: UnitLauncher
    /// What the stack file says, as far as it was taken.
    var stack: Stack
    private var machine: StackMachine
    private(set) var runners: [String: ReplicaRunner] = [:]
    /// By the store's name.
    private(set) var externals: [String: ExternalRunner] = [:]
    private(set) lazy var publisher = Publisher(
        context, admitted: { [unowned self] in admitted },
        taken: { [unowned self] in apply(.ready(unit: $0.unit, number: $0.number)) })
    private(set) lazy var scaling = StackScaling(self, context, housekeeping, asked: asked, recorded: recorded)
    private let housekeeping: Housekeeping
    private let board: StoreBoard
    private let changes = UnitChanges()
    private var changeTimer: LoopTimer?
    private let asked: AskedSizes
    private let recorded: RecordedScaling?
    /// How often it was asked to hurry while it stops.
    private var hurry = 0
    private var isDraining = false
    private var lives = 0
    private var rollWaiters: [String: [(String?) -> Void]] = [:]
    /// What each service that is being rolled to a new definition was before: of its last roll that came to its end. It is what the stack
    /// says again when the roll is given up, however many definitions have followed each other meanwhile.
    private var rolledFrom: [String: ServiceSpec] = [:]
    private var startFailure: String?
    private let onRunning: () -> Void
    private let onEnd: (Ending) -> Void

    /// `counts`: the sizes that somebody asks for, by service. The others go on with the size that `recorded` has of a supervisor that was
    /// killed, if the stack file allows it, and else begin as the stack file says. Throws when something is missing that the stack needs.
    init(
        _ stack: Stack, counts: [String: Int], recorded: RecordedScaling?, context: StackContext, kinds: [any StoreKind],
        housekeeping: EventLoop,
        onRunning: @escaping () -> Void,
        onEnd: @escaping (Ending) -> Void
    ) throws(StackFolder.Failure) {
        self.stack = stack
        self.context = context
        asked = AskedSizes(stack.services, counts: counts, pasts: recorded?.pasts ?? [:], isRestart: context.isRestart)
        self.recorded = recorded
        self.onRunning = onRunning
        self.onEnd = onEnd
        httpClient = HTTPClient(loop: context.loop, responseLimit: 1 << 20, passesOver: true)
        self.housekeeping = Housekeeping(context, thread: housekeeping)
        board = StoreBoard(metrics: context.metrics)
        machine = StackMachine(StackRunner.layout(stack, asked.begin))
        do throws(StackFolder.Failure) { try FixedPorts.check(stack, sizes: asked.begin) } catch {
            // After a crash the rest of the stack is not kept from starting again by whoever has taken a port meanwhile: what needs the port
            // is tried again until it is free.
            guard context.isRestart else { throw error }
            context.tell("\(error); what needs it is tried again")
        }
        units = try UnitLauncher(stack, context, kinds: kinds)
        units.onStoreFailure = { [unowned self] in storeFailed($0) }
    }

    func start() {
        for line in asked.refusals { context.tell(line) }
        // The file of sizes is this supervisor's from now on, and begins with what goes on.
        for name in asked.recalled {
            context.record.take(ScalingLine(service: name, held: asked.held[name], .size(asked.begin[name] ?? 0)))
        }
        housekeeping.start { [unowned self] in Set(runners.values.flatMap(\.pids)).union(units.stepPids) }
        apply(.begin)
    }

    var phase: String { machine.phase.rawValue }
    var isQuiet: Bool { machine.isQuiet }

    /// What is not done or does not run because a task failed, or because a service that it waits for ended without success; a line each.
    /// Empty: nothing.
    var failures: [String] {
        let held = machine.held
        func waiting(for name: String) -> String { held.filter { $0.value == name }.keys.sorted().joined(separator: ", ") }
        let tasks = stack.tasks.compactMap { task -> String? in
            guard case .failed(let why)? = machine.tasks[task.name] else { return nil }
            let waiting = waiting(for: task.name)
            return "the task \(task.name) failed: \(why)\(waiting.isEmpty ? "" : "; waiting for it: \(waiting)")\n"
                + lastLines(context.folder.log(task.name, 1))
        }
        return tasks
            + stack.services.filter { held.values.contains($0.name) }.map { service in
                let over = runners(of: service.name).first { $0.machine.phase == .completed && !$0.machine.trouble.isEmpty }
                let why = over.map { "\(service.name)/\($0.number) ended (\($0.machine.trouble))" } ?? "it ended"
                return
                    "the service \(service.name) is not ready: \(why) and is not started again, until muster roll \(service.name) replaces it; "
                    + "waiting for it: \(waiting(for: service.name))\n" + lastLines(context.folder.log(service.name, over?.number ?? 1))
            }
    }

    /// What the stack does now, for whoever may not change it.
    var standing: String { isDraining ? "stopping" : phase }

    /// Whether another definition can be taken now.
    var takesChanges: Bool { machine.phase == .running && !isDraining }

    /// Whether services can be given another size now.
    var takesSizes: Bool { !isDraining && (machine.phase == .running || machine.phase == .startingServices) }

    /// A signal to stop. The first stops as `shutDown` does; a second one ends services at once, a third one stores as well.
    func signalled() {
        guard isDraining else { return stopAsked() }
        hurry += 1
        context.tell(hurry == 1 ? "stopping at once: services are killed; once more kills stores, too" : "killing everything")
        apply(.shutDown)
        for runner in runners.values where hurry > 1 || !units.isStore(runner.unit) { runner.killNow() }
    }

    /// Somebody wants the stack to stop.
    func stopAsked() {
        Watcher.hearsOfStop()
        shutDown()
    }

    /// Drains the gateway, then ends services, then stores.
    private func shutDown() {
        guard !isDraining else { return }
        isDraining = true
        apply(.stopping)
        scaling.stop()
        guard let gateway = context.gateway else { return apply(.shutDown) }
        context.tell("stopping: the gateway takes no more connections")
        let bound = LoopBound(self, on: loop)
        // Ends when the gateway is quiet, or after its grace.
        Task(executorPreference: loop) {
            _ = await gateway.drain(grace: StackTimes.gatewayDrain)
            bound.value.apply(.shutDown)
        }
    }

    private func storeFailed(_ reason: String) {
        // After a crash the nodes may be copying from each other, for as long as that takes. One that was added stops nobody else.
        guard machine.phase == .startingStores, !context.isRestart else {
            for unit in changes.new where units.isStore(unit) { changes.failed(unit, reason) }
            return context.tell("\(reason); it is tried again")
        }
        startFailure = reason
        shutDown()
    }

    // MARK: the machine's wishes

    private func apply(_ event: StackMachine.Event) {
        for action in machine.handle(event) { perform(action) }
        changes.follow(machine)
    }

    private func perform(_ action: StackMachine.Action) {
        switch action {
        case .start(let unit, let number, let generation): start(unit, number, generation)
        case .stop(let unit, let number): stop(unit, number)
        case .startTask(let task): startTask(task)
        case .stopTask(let task): runners["\(task)/1"]?.stop()
        case .rollEnded(let service, let failure): rollEnded(service, failure)
        case .removed(let unit): removed(unit)
        case .entered(.running):
            scaling.follow()
            onRunning()
        case .entered(.stopped):
            units.close()
            context.record.take(ScalingLine(service: "", held: nil, .ended))
            onEnd(startFailure.map(Ending.failed) ?? .stopped)
        case .entered: break
        }
    }

    private func start(_ unit: String, _ number: Int, _ generation: Int) {
        if units.isExternal(unit) {
            let runner = units.external(unit, host: self)
            externals[unit] = runner
            return runner.start()
        }
        let runner: ReplicaRunner
        if units.isStore(unit) {
            runner = units.node(of: unit, number, host: self)
        } else {
            guard let spec = stack.service(unit) else {
                return context.tell("\(unit)/\(number) is not started: the stack has it no longer")
            }
            runner = units.replica(of: spec, number, generation, stack: stack.name, host: self)
        }
        runners["\(unit)/\(number)"] = runner
        runner.start()
    }

    private func stop(_ unit: String, _ number: Int) {
        guard let external = externals.removeValue(forKey: unit) else {
            runners["\(unit)/\(number)"]?.stop()
            return
        }
        external.stop()
        let bound = LoopBound(self, on: loop)
        // After this event, not inside it.
        loop.execute { bound.value.apply(.stopped(unit: unit, number: number)) }
    }

    private func startTask(_ name: String) {
        context.tell("task \(name): started")
        // One that has run before has ended.
        let runner = units.task(stack.task(name)!, stack: stack.name, host: self)
        runners["\(name)/1"] = runner
        runner.start()
    }

    func completed(_ runner: ReplicaRunner, failure: String?) {
        let name = runner.unit
        if !runner.machine.settings.isTask {
            scaling.replicasChanged()
            return apply(failure == nil ? .ready(unit: name, number: runner.number) : .over(unit: name, number: runner.number))
        }
        apply(.taskEnded(name, failure: failure))
        for line in failures where failure != nil && line.hasPrefix("the task \(name) ") { context.tell(line) }
    }

    private func rollEnded(_ service: String, _ failure: String?) {
        context.journal.append(
            DecisionRecord(
                .roll, subject: service, raw: "replace every replica", outcome: failure == nil ? "rolled" : "given up",
                sentence: failure.map { "The roll of \(service) was given up: \($0)." }
                    ?? "\(service) is rolled: every replica is a new one.",
                flip: failure == nil ? "a new replica that does not become ready" : "a new version that becomes ready and stays so"))
        let before = rolledFrom.removeValue(forKey: service)
        // What runs is what was there before: so says the stack from now on.
        if failure != nil, let before { stack = stack.replacing(before) }
        let waiters = rollWaiters.removeValue(forKey: service) ?? []
        for done in waiters { done(failure) }
    }

    // MARK: what the other parts ask for

    /// How many replicas a service is to have, also when it is not started yet.
    func size(of service: String) -> Int? { machine.size(of: service) }
    func serviceMachine(_ service: String) -> ServiceMachine? { machine.services[service] }
    func runners(of service: String) -> [ReplicaRunner] { runners.values.filter { $0.unit == service }.sorted { $0.number < $1.number } }

    /// Sets a service's size; of those that go, the ones with the least `work`.
    func setSize(_ service: String, _ count: Int, _ work: [Int: Int] = [:]) {
        apply(.scale(service: service, count: count, work: work))
    }

    /// Replaces every replica of a service. Calls `done` with nil, or with why the roll was given up. `before` is what the service was, when
    /// its definition is another one now: whoever waits for a definition that is not rolled yet is told that it does not come.
    func roll(_ service: String, from before: ServiceSpec? = nil, _ done: @escaping (String?) -> Void) {
        if let before, rolledFrom[service] == nil {
            rolledFrom[service] = before
        } else if before != nil {
            let why = "another definition of \(service) has come meanwhile, and is rolled instead"
            for done in rollWaiters.removeValue(forKey: service) ?? [] { done(why) }
        }
        rollWaiters[service, default: []].append(done)
        apply(.roll(service: service, isExclusive: stack.service(service)?.isExclusive ?? false))
    }

    /// Opens the stores of a changed stack that this one does not have. Throws, and nothing has happened, when one of its units cannot be
    /// started at all.
    func open(_ new: Stack, counts: [String: Int]) throws(StackFolder.Failure) {
        try FixedPorts.check(new.removing(Set(stack.units)), sizes: counts)
        try units.add(new)
    }

    /// Starts the units of a changed stack that this one does not have, and whose stores are open; one such change at a time. Calls `ready`
    /// with nil when all of them are ready, or with why they are not: they are tried again then until they are removed.
    /// Tasks that are changed or have failed run again, when what they wait for is there; what is new waits for them. Returns their names.
    func add(_ new: Stack, counts: [String: Int], _ ready: @escaping (String?) -> Void) -> [String] {
        let added = new.units.filter { !machine.has($0) }
        let tasks = tasksToRun(new)
        stack = stack.adding(new).replacing(tasks: new.tasks)
        for unit in added { context.tell("the stack file has \(unit) now: it is started") }
        changes.add(added) { [unowned self] failure in
            changeTimer?.cancel()
            ready(failure)
        }
        waitForUnits(StackTimes(new).start + .seconds(30))
        apply(.add(StackRunner.layout(new, counts), tasks: tasks))
        return tasks
    }

    /// Whoever waits for added units is told when none of them has got ready for `limit`.
    private func waitForUnits(_ limit: Duration) {
        let left = changes.new.count
        changeTimer?.cancel()
        changeTimer = LoopTimer(loop: loop) { [unowned self] in
            if changes.new.isEmpty { return }
            if changes.new.count < left { return waitForUnits(limit) }
            changes.timePassed(machine, limit)
        }
        changeTimer?.schedule(after: limit)
    }

    /// Takes the definitions of a changed stack and what its units wait for, and with `runsTasks` runs the tasks that are changed or have
    /// failed. Returns the names of these. Units that the stack does not have are to be on their way out already (`remove`).
    func take(_ new: Stack, runsTasks: Bool) -> [String] {
        let tasks = runsTasks ? tasksToRun(new) : []
        stack = new
        apply(.add(StackRunner.layout(new, [:]), tasks: tasks))
        return tasks
    }

    /// Those that both stacks have, and that are changed or have failed.
    private func tasksToRun(_ new: Stack) -> [String] {
        new.tasks.filter { task in
            guard let before = stack.task(task.name) else { return false }
            if case .failed? = machine.tasks[task.name] { return true }
            return before != task
        }.map(\.name)
    }

    /// An added unit will not be ready, or what it waits for.
    func failedToAdd(_ why: String) { changes.fail(why) }

    /// The stores among these that were added and have never been ready.
    func neverReady(_ stores: [StoreSpec]) -> [StoreSpec] { stores.filter { changes.new.contains($0.name) } }

    /// Whether a service is being rolled, or a roll of it is about to begin.
    var isRolling: Bool { !rollWaiters.isEmpty }

    /// Whether units are to go, and have not ended yet.
    var isAnythingLeaving: Bool { machine.isAnythingLeaving }

    /// Whether a unit is to go, and has not ended yet.
    func isLeaving(_ unit: String) -> Bool { machine.isLeaving(unit) }

    /// Ends units, and calls `gone` when nothing of them runs any more. What stores have stored stays.
    func remove(_ units: [String], _ gone: @escaping () -> Void) {
        guard !units.isEmpty else { return gone() }
        changes.remove(units, gone)
        apply(.remove(units))
    }

    private func removed(_ unit: String) {
        if units.isStore(unit) { board.forget(unit) }
        units.remove(unit)
        // Of a task, or a worker that is over, the runner has stayed.
        runners = runners.filter { $0.value.unit != unit }
        changes.removed(unit)
        context.tell("\(unit) is removed")
    }

    /// Whether a unit has got as far as it is to get: a store or a service that is ready, a task that is done.
    func isReady(_ unit: String) -> Bool { machine.isReady(unit) }

    /// Whether a unit of this name runs, or is still ending.
    func has(_ unit: String) -> Bool { machine.has(unit) }

    /// An external store counts as one node, which is waited for and not run.
    private static func layout(_ stack: Stack, _ sizes: [String: Int]) -> StackMachine.Layout {
        StackMachine.Layout(
            stores: Dictionary(uniqueKeysWithValues: stack.stores.map { ($0.name, $0.external == nil ? $0.nodes : 1) }),
            services: Dictionary(
                uniqueKeysWithValues: stack.services.map { ($0.name, sizes[$0.name] ?? $0.replicas.lowerBound) }),
            tasks: stack.tasks.map(\.name), dependencies: stack.dependencies,
            exclusive: Set(stack.services.filter(\.isExclusive).map(\.name)))
    }

    /// The port that a replica was told to listen on; nil for a worker, which listens on none that is known.
    func address(of runner: ReplicaRunner) -> UInt16? {
        units.isStore(runner.unit) || stack.service(runner.unit)?.http != nil ? runner.port : nil
    }

    // MARK: what runners tell

    var loop: EventLoop { context.loop }

    var tell: (String) -> Void { context.tell }

    func held(_ runner: ReplicaRunner, _ why: String) {
        let name = "\(runner.unit)/\(runner.number)"
        context.tell("\(name) is not started: \(why)")
        changes.failed(runner.unit, "\(name) is not started: \(why)")
        context.journal.append(
            DecisionRecord(
                .restart, subject: name, inputs: [.init("folder", runner.nodeFolder ?? "")], raw: "start", outcome: "not started",
                sentence: "\(name) is not started: \(why).", flip: "the folder as it was"))
    }

    func measured(_ unit: String, _ number: Int, isUp: Bool, _ figures: [StoreFigure]) {
        guard let spec = units.spec(unit) else { return }
        board.note(store: unit, kind: spec.kind.rawValue, number: number, isUp: isUp, figures)
    }

    // MARK: what external stores' runners tell

    func answers(_ runner: ExternalRunner) {
        context.tell("\(runner.machine.state): \(runner.unit), an external store at \(runner.machine.place)")
        apply(.ready(unit: runner.unit, number: 1))
    }

    /// A stack that starts for the first time does not start without it. One whose supervisor has crashed has run without it, or may.
    func isAway(_ runner: ExternalRunner, _ reason: String) {
        guard let external = units.spec(runner.unit)?.external else { return }
        let words =
            "\(external.place): \(external.key): the store at \(runner.machine.place) is away (\(reason)): start it, or correct the URL"
        changes.failed(runner.unit, words)
        if context.isRestart, machine.phase != .running {
            context.tell("\(words); the stack goes on without it meanwhile")
            return apply(.ready(unit: runner.unit, number: 1))
        }
        guard machine.phase == .startingStores else { return }
        startFailure = words
        shutDown()
    }

    func eject(_ service: String) -> PassiveHealth.Settings {
        let route = stack.gateway?.routes.first { $0.target == .service(service) }
        return route.map(Gateway.eject) ?? .init()
    }

    func nextLife() -> Int {
        lives += 1
        return lives
    }

    func spawned(_ runner: ReplicaRunner) { housekeeping.began(runner, isStore: units.isStore(runner.unit)) }

    func ended(_ runner: ReplicaRunner, _ pid: Int32, life: Int) {
        housekeeping.ended(runner, pid, life: life)
        scaling.replicasChanged()
    }

    func killedByOthers(_ runner: ReplicaRunner) { scaling.scalers?.killedByOthers(runner.unit, runner.number) }

    func signalStrays(_ runner: ReplicaRunner, life: Int, _ signal: Int32) { housekeeping.signalStrays(runner, life: life, signal) }

    /// A child has ended that may be no runner's.
    func childEnded() { housekeeping.childEnded() }

    func serving(_ runner: ReplicaRunner, _ isServing: Bool) {
        scaling.replicasChanged()
        guard isServing else { return apply(.unready(unit: runner.unit, number: runner.number)) }
        let place = address(of: runner).map { " on 127.0.0.1:\($0)" } ?? "", socket = runner.socket.map { ", asked at unix:\($0)" } ?? ""
        context.tell("\(runner.machine.state): \(runner.unit)/\(runner.number)\(place)\(socket) (pid \(runner.pid))")
        if context.gateway != nil, runner.replica != nil {
            publisher.serves(runner)
        } else {
            apply(.ready(unit: runner.unit, number: runner.number))
        }
    }

    func failedToStart(_ runner: ReplicaRunner) {
        let name = "\(runner.unit)/\(runner.number)", trouble = runner.machine.trouble
        context.tell("\(name) ended before it was ready: \(trouble)")
        apply(.failedToStart(unit: runner.unit, number: runner.number, reason: trouble))
        let isStarting = machine.phase == .startingStores || machine.phase == .startingServices
        guard runner.machine.isLooping || runner.machine.phase == .completed || trouble.hasPrefix("not ready") else { return }
        let words = "\(name) does not start: \(trouble)\n\(lastLines(context.folder.log(runner.unit, runner.number)))"
        changes.failed(runner.unit, words)
        guard isStarting, !context.isRestart else { return }
        startFailure = words
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
        context.tell("stopped: \(runner.unit)/\(runner.number)")
        if runner.machine.settings.isTask {
            apply(.taskEnded(runner.unit, failure: "it was stopped"))
        } else {
            apply(.stopped(unit: runner.unit, number: runner.number))
        }
    }

    func decided(_ record: DecisionRecord) {
        context.journal.append(record)
        if record.kind == .restart { context.tell(record.sentence) }
    }

    func drainingBegan() { publisher.drainingBegan() }
    func membershipChanged() { publisher.membershipChanged() }

    /// The replicas that serve now, by service.
    private var admitted: [String: [Replica]] {
        var lists: [String: [Replica]] = [:]
        for runner in runners.values.sorted(by: { $0.number < $1.number }) where runner.isAdmitted {
            if let replica = runner.replica { lists[runner.unit, default: []].append(replica) }
        }
        return lists
    }
}
