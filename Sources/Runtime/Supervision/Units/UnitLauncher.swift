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
    /// What every process inherits of this one's environment.
    private let environment: Environment
    /// Called with the reason when a store's nodes, which never were one store, cannot be made one.
    var onStoreFailure: (String) -> Void = { _ in }

    /// Throws when a program is missing that the stack needs.
    init(_ stack: Stack, _ context: StackContext) throws(StackFolder.Failure) {
        self.context = context
        var environment = Environment.inherited
        for name in [Watcher.watcherVariable, Watcher.folderVariable, Watcher.crashVariable] { environment.remove(name) }
        self.environment = environment
        for store in stack.stores { stores[store.name] = try RedisStore(store, folder: context.folder.store(store.name)) }
        for service in stack.services { try checkProgram(of: service) }
        if !stack.stores.isEmpty, Program.find("redis-server", stackFolder: context.fileFolder) == nil {
            throw StackFolder.Failure(
                "store \(stack.stores[0].name) needs redis-server, which is not installed: apt-get install redis-server")
        }
    }

    private func checkProgram(of service: ServiceSpec) throws(StackFolder.Failure) {
        let word = service.command[0]
        if Program.find(word, stackFolder: context.fileFolder) != nil { return }
        let parts = word.split(separator: " ")
        // One text with blanks was meant for a shell, which there is not.
        let hint =
            parts.count > 1 && service.command.count == 1
            ? ". 'command' is a list, a word an entry: command: [\(parts.joined(separator: ", "))]" : ""
        throw StackFolder.Failure(
            "service \(service.name): there is no program '\(word)' (looked beside the stack file, beside muster, and on PATH)\(hint)")
    }

    func isStore(_ unit: String) -> Bool { stores[unit] != nil }
    func storeURL(_ store: String) -> String? { stores[store]?.url }

    /// Node `number` (from 1) of a store of the stack.
    func node(of store: String, _ number: Int, host: any ReplicaHost) -> ReplicaRunner {
        let store = stores[store]!
        let path = Program.find("redis-server", stackFolder: context.fileFolder) ?? "redis-server"
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
        let settings = ReplicaMachine.Settings(startTime: spec.startTime, grace: spec.grace, isProbed: spec.http != nil)
        let path = Program.find(spec.command[0], stackFolder: context.fileFolder) ?? spec.command[0]
        var environment = environment
        environment["HOST"] = "127.0.0.1"
        environment["INSTANCE_ID"] = String(number)
        environment["MUSTER_STACK"] = stack
        environment["MUSTER_SERVICE"] = spec.name
        for store in spec.uses { environment["REDIS_URL"] = stores[store]?.url }
        let hasPort = spec.http != nil || !spec.environment.contains { $0.name == "PORT" }
        for variable in spec.environment { environment[variable.name] = variable.value }
        let folder = context.fileFolder
        return ReplicaRunner(
            unit: spec.name, number: number, generation: generation, kind: .service(spec.http),
            settings: settings, log: context.folder.log(spec.name, number), host: host
        ) { [mark = context.mark] port, life in
            var environment = environment
            // What is declared (for a worker: the reader refuses it elsewhere) is what the process gets.
            if hasPort { environment["PORT"] = String(port) }
            environment[ProcessMark.variable] = mark.value(.init(unit: spec.name, number: number, life: life))
            return Program(path: path, arguments: Array(spec.command.dropFirst()), environment: environment, folder: folder, input: [])
        }
    }

    /// The stack has stopped.
    func close() { for keeper in keepers.values { keeper.close() } }
}
