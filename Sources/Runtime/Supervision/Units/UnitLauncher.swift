import Basics
import EventLoops
import StackModel
import StoreKinds

/// Makes the runners of a stack's units: which program each one starts, with which arguments and environment. Opens the stack's stores. On
/// the control loop.
final class UnitLauncher: StoreHost {
    private let context: StackContext
    private var stores: [String: any Store] = [:]
    private var specs: [String: StoreSpec] = [:]
    let kinds: [any StoreKind]
    /// What every process gets of this one's environment.
    private let environment: Environment
    private lazy var steps = StepRuns(loop: context.loop, environment: environment, mark: context.mark)
    private lazy var timings = StoreTimings(metrics: context.metrics)
    /// Called with the reason when a store's nodes, which never were one store, cannot be made one.
    var onStoreFailure: (String) -> Void = { _ in }

    /// Throws when a program is missing that the stack needs, or a store cannot be run on what lies in its folder.
    init(_ stack: Stack, _ context: StackContext, kinds: [any StoreKind]) throws(StackFolder.Failure) {
        self.context = context
        environment = Environment.inherited.clean
        self.kinds = kinds
        try add(stack)
    }

    /// Opens the stores of a stack that are not open, when every program is there that its services and tasks need. Throws, and opens none,
    /// when one is missing or a store cannot be run on what lies in its folder.
    func add(_ stack: Stack) throws(StackFolder.Failure) {
        for service in stack.services {
            try checkProgram(of: service.process, "service \(service.name)")
            if let check = service.check?.command {
                try checkProgram(of: service.process.with(check), "service \(service.name), its check")
            }
            if service.http?.hasSocket == true { try checkSocket(of: service.name) }
        }
        for task in stack.tasks { try checkProgram(of: task.process, "task \(task.name)") }
        var opened: [(StoreSpec, any Store)] = [], made: [StoreSpec] = []
        do throws(StackFolder.Failure) {
            for spec in stack.stores where stores[spec.name] == nil {
                if isUnknown(spec) { made.append(spec) }
                opened.append((spec, try open(spec)))
            }
        } catch {
            for (_, store) in opened { store.close() }
            for spec in made { discard(spec) }
            throw error
        }
        for (spec, store) in opened {
            stores[spec.name] = store
            specs[spec.name] = spec
        }
    }

    private func open(_ spec: StoreSpec) throws(StackFolder.Failure) -> any Store {
        guard let kind = kinds.first(where: { $0.name == spec.kind }) else {
            throw StackFolder.Failure("\(spec.place): \(spec.key): this program runs no store of this kind")
        }
        do throws(StoreFailure) {
            return try kind.open(StorePlan(spec: spec, folder: context.folder.store(spec.name), host: self))
        } catch { throw StackFolder.Failure(error.description) }
    }

    /// Whether no store of this name has ever been in the stack's folder.
    func isUnknown(_ spec: StoreSpec) -> Bool {
        kinds.first { $0.name == spec.kind }?.isUnknown(context.folder.store(spec.name)) ?? false
    }

    /// Removes what was made on the disk for a store that was new and has never served.
    func discard(_ spec: StoreSpec) { kinds.first { $0.name == spec.kind }?.discard(context.folder.store(spec.name)) }

    /// Nothing of a unit runs any more, and nothing of it is to. What a store has stored stays in its folder.
    func remove(_ unit: String) {
        stores.removeValue(forKey: unit)?.close()
        specs[unit] = nil
    }

    // MARK: what stores ask and tell

    var loop: EventLoop { context.loop }
    var tell: (String) -> Void { context.tell }
    func program(_ name: String) -> String? { Program.find(name, folder: context.fileFolder) }
    func decided(_ record: DecisionRecord) { context.journal.append(record) }
    func failed(_ reason: String) { onStoreFailure(reason) }
    func run(_ step: NodeStep) async -> StepEnding { await steps.run(step) }
    func endSteps(of store: String) { steps.end(store) }
    func took(_ store: String, _ phase: String, _ time: Duration) { timings.note(store, phase, time) }

    /// The processes of steps: children that are reaped here.
    var stepPids: [Int32] { steps.pids }

    private func checkProgram(of process: ProcessSpec, _ whose: String) throws(StackFolder.Failure) {
        guard ProcessLaunch.program(process, fileFolder: context.fileFolder) == nil else { return }
        let word = process.command.program
        // A list with one text that has blanks was meant for a shell, or for the form that is one line.
        let hint =
            word.contains(" ")
            ? ". It has a blank: write the command as one line ('command: \(word)') or with each word an entry of the list" : ""
        throw StackFolder.Failure(
            "\(whose): there is no program '\(word)' (looked in its folder, beside muster, and on PATH)\(hint)")
    }

    /// That there is a place for its sockets is told before anything starts.
    private func checkSocket(of service: String) throws(StackFolder.Failure) {
        do throws(StackFolder.Failure) { _ = try context.folder.socket(service, 1, life: 0) } catch {
            throw StackFolder.Failure("services.\(service).http.socket: \(error)")
        }
    }

    func isStore(_ unit: String) -> Bool { stores[unit] != nil }
    func isExternal(_ unit: String) -> Bool { specs[unit]?.external != nil }
    /// What the stack file says of a store; nil for a service.
    func spec(_ unit: String) -> StoreSpec? { specs[unit] }
    /// The keeper of a store; nil: it has none, or there is no such store.
    func keeper(of store: String) -> (any StoreKeeper)? { stores[store]?.keeper }
    /// Counts something in a store; nil: nothing of the sort can be counted there.
    func gauge(_ store: String, _ length: MetricOrigin.Length) -> StoreGauge? { stores[store]?.gauge(length) }

    /// Node `number` (from 1) of a store of the stack.
    func node(of name: String, _ number: Int, host: any ReplicaHost) -> ReplicaRunner {
        let store = stores[name]!, plan = store.nodes[number - 1]
        let environment = environment.with(plan.environment)
        return ReplicaRunner(
            unit: name, number: number, generation: 1, kind: .node(plan, store),
            settings: .init(startTime: plan.startTime, grace: StackTimes.storeGrace),
            log: context.folder.log(name, number), host: host
        ) { [mark = context.mark] _, life in
            var environment = environment
            environment[ProcessMark.variable] = mark.value(.init(unit: name, number: number, life: life))
            return Program(
                path: plan.program, arguments: plan.arguments, environment: environment, folder: plan.folder,
                user: try plan.user.map(ProcessUser.find) ?? nil, input: plan.input)
        }
    }

    /// The probing of an external store.
    func external(_ name: String, host: any ExternalHost) -> ExternalRunner {
        ExternalRunner(unit: name, store: stores[name]!, host: host)
    }

    /// A replica of a service.
    func replica(of spec: ServiceSpec, _ number: Int, _ generation: Int, stack: String, host: any ReplicaHost) -> ReplicaRunner {
        let settings = ReplicaMachine.Settings(
            startTime: spec.startTime, grace: spec.grace, isProbed: spec.http != nil || spec.check != nil, restart: spec.restart)
        let launch = launch(spec.process, uses: spec.uses, name: spec.name, number, stack: stack)
        let kind: ReplicaRunner.Kind = spec.check.map { .checked($0) } ?? .service(spec.http)
        func mark(_ life: Int) -> String { context.mark.value(.init(unit: spec.name, number: number, life: life)) }
        func socket(_ life: Int) throws -> String? {
            spec.http?.hasSocket == true ? try context.folder.socket(spec.name, number, life: life) : nil
        }
        return ReplicaRunner(
            unit: spec.name, number: number, generation: generation, kind: kind, settings: settings,
            log: context.folder.log(spec.name, number), host: host,
            makeCheck: { port, life in
                guard let command = spec.check?.command else { throw SystemError("service \(spec.name) has no check", 0) }
                return try launch.program(command, port: port, mark: mark(life))
            },
            makeSocket: socket,
            makeProgram: { port, life in try launch.program(port: port, socket: try socket(life), mark: mark(life)) })
    }

    /// A run of a task.
    func task(_ spec: TaskSpec, stack: String, host: any ReplicaHost) -> ReplicaRunner {
        let launch = launch(spec.process, uses: spec.uses, name: spec.name, 1, stack: stack)
        return ReplicaRunner(
            unit: spec.name, number: 1, generation: 1, kind: .task,
            settings: .init(startTime: spec.timeLimit, grace: spec.grace, isProbed: false, isTask: true),
            log: context.folder.log(spec.name, 1), host: host
        ) { [mark = context.mark] port, life in
            try launch.program(port: port, mark: mark.value(.init(unit: spec.name, number: 1, life: life)))
        }
    }

    private func launch(_ process: ProcessSpec, uses: [StoreUse], name: String, _ number: Int, stack: String) -> ProcessLaunch {
        ProcessLaunch(
            process, fileFolder: context.fileFolder, inherited: environment,
            given: given(to: name, uses: uses, number: String(number), stack: stack))
    }

    /// What a process of a unit is told beside what its stack file declares.
    func given(to name: String, uses: [StoreUse], number: String, stack: String) -> [String: String] {
        var given = OneOff.given(service: name, stack: stack, number: number)
        for use in uses {
            for variable in stores[use.store]?.environment(for: use) ?? [] { given[variable.name] = variable.value.reveal }
        }
        return given
    }

    /// The stack has stopped.
    func close() { for store in stores.values { store.close() } }
}
