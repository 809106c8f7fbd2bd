import Basics
import Provisioning
import Redis
import StackModel

/// Makes the runners of a stack's units: which program each one starts, with which arguments and environment, and who keeps a store's nodes
/// together. On the control loop.
final class UnitLauncher {
    private let context: StackContext
    private var stores: [String: RedisStore] = [:]
    private var keepers: [String: RedisClusterKeeper] = [:]
    /// What every process gets of this one's environment.
    private let environment: Environment
    /// Called with the reason when a store's nodes, which never were one store, cannot be made one.
    var onStoreFailure: (String) -> Void = { _ in }

    /// Throws when a program is missing that the stack needs.
    init(_ stack: Stack, _ context: StackContext) throws(StackFolder.Failure) {
        self.context = context
        environment = Environment.inherited.clean
        for store in stack.stores { stores[store.name] = try RedisStore(store, folder: context.folder.store(store.name)) }
        for service in stack.services {
            try checkProgram(of: service.process, "service \(service.name)")
            if let check = service.check?.command {
                try checkProgram(of: service.process.with(check), "service \(service.name), its check")
            }
        }
        for task in stack.tasks { try checkProgram(of: task.process, "task \(task.name)") }
        if !stack.stores.isEmpty, Program.find("redis-server", folder: context.fileFolder) == nil {
            throw StackFolder.Failure(
                "store \(stack.stores[0].name) needs redis-server, which is not installed: apt-get install redis-server")
        }
    }

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

    func isStore(_ unit: String) -> Bool { stores[unit] != nil }
    func storeURL(_ store: String) -> String? { stores[store]?.url }

    /// Node `number` (from 1) of a store of the stack.
    func node(of store: String, _ number: Int, host: any ReplicaHost) -> ReplicaRunner {
        let store = stores[store]!
        let path = Program.find("redis-server", folder: context.fileFolder) ?? "redis-server"
        let environment = environment
        let server = store.nodes[number - 1]
        return ReplicaRunner(
            unit: store.spec.name, number: number, generation: 1, kind: .redis(server, keeper(store)),
            // Loading a large file takes its time, and PING fails meanwhile.
            settings: .init(startTime: .seconds(600)),
            log: context.folder.log(store.spec.name, number), host: host
        ) { [mark = context.mark] _, life in
            var environment = environment
            environment[ProcessMark.variable] = mark.value(.init(unit: server.spec.name, number: number, life: life))
            return server.program(path, environment: environment)
        }
    }

    private func keeper(_ store: RedisStore) -> RedisClusterKeeper {
        if let known = keepers[store.spec.name] { return known }
        let journal = context.journal, tell = context.tell
        let keeper = RedisClusterKeeper(
            store, loop: context.loop, tell: tell, decided: { journal.append($0) },
            onFailure: { [unowned self] reason in
                // A cluster that was formed before is mended while its nodes run: ending them would leave nobody who could take over.
                if FormedMark.exists(for: store.folder) { return tell("\(reason); it is tried again") }
                onStoreFailure(reason)
            })
        keepers[store.spec.name] = keeper
        return keeper
    }

    /// A replica of a service.
    func replica(of spec: ServiceSpec, _ number: Int, _ generation: Int, stack: String, host: any ReplicaHost) -> ReplicaRunner {
        let settings = ReplicaMachine.Settings(
            startTime: spec.startTime, grace: spec.grace, isProbed: spec.http != nil || spec.check != nil, restart: spec.restart)
        let launch = launch(spec.process, uses: spec.uses, name: spec.name, number, stack: stack)
        let kind: ReplicaRunner.Kind = spec.check.map { .checked($0) } ?? .service(spec.http)
        func mark(_ life: Int) -> String { context.mark.value(.init(unit: spec.name, number: number, life: life)) }
        return ReplicaRunner(
            unit: spec.name, number: number, generation: generation, kind: kind, settings: settings,
            log: context.folder.log(spec.name, number), host: host,
            makeCheck: { port, life in
                guard let command = spec.check?.command else { throw SystemError("service \(spec.name) has no check", 0) }
                return try launch.program(command, port: port, mark: mark(life))
            },
            makeProgram: { port, life in try launch.program(port: port, mark: mark(life)) })
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

    private func launch(_ process: ProcessSpec, uses: [String], name: String, _ number: Int, stack: String) -> ProcessLaunch {
        ProcessLaunch(
            process, fileFolder: context.fileFolder, inherited: environment,
            given: given(to: name, uses: uses, number: String(number), stack: stack))
    }

    /// What a process of a unit is told beside what its stack file declares.
    func given(to name: String, uses: [String], number: String, stack: String) -> [String: String] {
        var given = OneOff.given(service: name, stack: stack, number: number)
        for store in uses { given["REDIS_URL"] = stores[store]?.url }
        return given
    }

    /// The stack has stopped.
    func close() { for keeper in keepers.values { keeper.close() } }
}
