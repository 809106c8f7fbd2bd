import Basics

/// A validated stack: Supervision runs it, the gateway serves it and (later) Rendering writes it. There is no other description.
public struct Stack: Sendable, Equatable {
    public let name: String
    public let services: [ServiceSpec]
    /// What runs once before that which depends on it.
    public let tasks: [TaskSpec]
    public let stores: [StoreSpec]
    public let gateway: GatewaySpec?

    public init(name: String, services: [ServiceSpec], tasks: [TaskSpec] = [], stores: [StoreSpec], gateway: GatewaySpec?) {
        self.name = name
        self.services = services
        self.tasks = tasks
        self.stores = stores
        self.gateway = gateway
    }

    public func service(_ name: String) -> ServiceSpec? { services.first { $0.name == name } }
    public func task(_ name: String) -> TaskSpec? { tasks.first { $0.name == name } }

    /// What each service and task waits for before it is started: services until they are ready, tasks until they are done.
    public var dependencies: [String: [String]] {
        let all = services.map { ($0.name, $0.dependsOn) } + tasks.map { ($0.name, $0.dependsOn) }
        return Dictionary(all, uniquingKeysWith: { $1 }).filter { !$0.value.isEmpty }
    }

    /// The same stack with another definition of one service.
    public func replacing(_ service: ServiceSpec) -> Stack {
        Stack(name: name, services: services.map { $0.name == service.name ? service : $0 }, tasks: tasks, stores: stores, gateway: gateway)
    }

    /// The same stack, and what it lacks of the services, tasks and stores of another one.
    public func adding(_ other: Stack) -> Stack {
        Stack(
            name: name, services: services + other.services.filter { service($0.name) == nil },
            tasks: tasks + other.tasks.filter { task($0.name) == nil },
            stores: stores + other.stores.filter { store in !stores.contains { $0.name == store.name } }, gateway: gateway)
    }

    /// The same stack without these units.
    public func removing(_ gone: Set<String>) -> Stack {
        Stack(
            name: name, services: services.filter { !gone.contains($0.name) }, tasks: tasks.filter { !gone.contains($0.name) },
            stores: stores.filter { !gone.contains($0.name) }, gateway: gateway)
    }

    /// The same stack with the tasks of another one in place of its own of the same names.
    public func replacing(tasks other: [TaskSpec]) -> Stack {
        Stack(
            name: name, services: services, tasks: tasks.map { task in other.first { $0.name == task.name } ?? task }, stores: stores,
            gateway: gateway)
    }

    /// The names of all services, tasks and stores.
    public var units: [String] { services.map(\.name) + tasks.map(\.name) + stores.map(\.name) }

    /// The same stack with other routes.
    public func replacing(gateway: GatewaySpec) -> Stack {
        Stack(name: name, services: services, tasks: tasks, stores: stores, gateway: gateway)
    }
}

/// An address on which something listens.
public struct ListenAddress: Sendable, Equatable, CustomStringConvertible {
    /// The host as a numeric address; `0.0.0.0` when only a port was given: every IPv4 address of the machine, and none of IPv6.
    public let host: String
    public let port: UInt16
    /// Whether only a port was given: the admin page then takes loopback.
    public let isBare: Bool

    public init(host: String, port: UInt16) {
        self.host = host
        self.port = port
        isBare = false
    }

    /// Whether two sockets could not listen on both: they are the same, or one takes every address (`0.0.0.0`: of IPv4; `::`: of both).
    public func overlaps(_ other: ListenAddress) -> Bool {
        guard port == other.port, let mine = IPAddress(host), let its = IPAddress(other.host) else { return false }
        if mine == its || host == "::" || other.host == "::" { return true }
        return (host == "0.0.0.0" && its.ipv4 != nil) || (other.host == "0.0.0.0" && mine.ipv4 != nil)
    }

    /// Reads `HOST:PORT` or `PORT`; nil when the text is neither.
    public init?(_ text: String) {
        if let port = UInt16(text), port > 0 {
            host = "0.0.0.0"
            self.port = port
            isBare = true
            return
        }
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]), port > 0 else { return nil }
        var host = String(text[..<colon])
        if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
        if host == "localhost" { host = "127.0.0.1" }
        guard IPAddress(host) != nil else { return nil }
        self.host = host
        self.port = port
        isBare = false
    }

    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

public struct ServiceSpec: Sendable, Equatable {
    public let name: String
    /// How each of its processes is started.
    public let process: ProcessSpec
    public let image: String?
    /// The least and the most replicas that run; at the start the least.
    public let replicas: ClosedRange<Int>
    public let http: HTTPInterface?
    /// How a service without http is asked whether it is well; nil: it is not asked.
    public let check: CheckSpec?
    /// Whether a process that ends by itself is started again.
    public let restart: RestartPolicy
    /// Services that must be ready, and tasks that must be done, before this one is started.
    public let dependsOn: [String]
    /// The declared resources: thousandths of a core, and bytes; nil: not declared.
    public let cpu: Int?
    public let memory: Int?
    /// Stores whose address this service gets, each in a variable of its own.
    public let uses: [StoreUse]
    /// The time from SIGTERM to SIGKILL.
    public let grace: Duration
    /// The longest time from start to ready; a replica that takes longer is killed, and that counts as a crash.
    public let startTime: Duration
    /// How the service is scaled; nil: the count is the one that somebody asks for.
    public let scaling: ScalingSpec?

    public init(
        name: String, process: ProcessSpec, image: String?, replicas: ClosedRange<Int>, http: HTTPInterface?, check: CheckSpec? = nil,
        restart: RestartPolicy = .always, dependsOn: [String] = [], cpu: Int?, memory: Int?, uses: [StoreUse], grace: Duration,
        startTime: Duration, scaling: ScalingSpec?
    ) {
        self.name = name
        self.process = process
        self.image = image
        self.replicas = replicas
        self.http = http
        self.check = check
        self.restart = restart
        self.dependsOn = dependsOn
        self.cpu = cpu
        self.memory = memory
        self.uses = uses
        self.grace = grace
        self.startTime = startTime
        self.scaling = scaling
    }
}

extension ServiceSpec {
    /// The most replicas that a service may have. The figure is ours: far more than one machine runs.
    public static let replicaLimit = 1000

    /// Two replicas cannot run side by side, because they would listen on the same port.
    public var isExclusive: Bool { http?.isFixed == true }

    /// Why the service may not have this many replicas; nil when it may. A fixed count (`replicas: 3`) may be scaled to any, a range bounds
    /// it.
    public func refusal(of count: Int) -> String? {
        if replicas.lowerBound < replicas.upperBound, !replicas.contains(count) {
            return "\(name) is declared with \(replicas.lowerBound)..\(replicas.upperBound) replicas"
        }
        if isExclusive, count > 1 { return "\(name) has a fixed port, which only one replica can have" }
        return (0...ServiceSpec.replicaLimit).contains(count) ? nil : "from 0 to \(ServiceSpec.replicaLimit) replicas"
    }
}

/// How a process is started: what everything that is started has in common.
public struct ProcessSpec: Sendable, Equatable {
    /// The program and its arguments.
    public let command: CommandLine
    /// The variables of `env-file` and `environment`, each once.
    public let environment: [EnvironmentVariable]
    /// The folder that it is started in, as the stack file has it; nil: the stack file's.
    public let workingDirectory: String?
    /// The user that it runs as (`NAME`, `UID`, perhaps with `:GROUP`); nil: whoever runs the stack.
    public let user: String?

    /// Files of which it is told by a variable each.
    public let secrets: [SecretFile]

    public init(
        command: CommandLine, environment: [EnvironmentVariable], workingDirectory: String?, user: String?, secrets: [SecretFile] = []
    ) {
        self.command = command
        self.environment = environment
        self.workingDirectory = workingDirectory
        self.user = user
        self.secrets = secrets
    }

    /// The same with another command.
    public func with(_ command: CommandLine) -> ProcessSpec {
        ProcessSpec(command: command, environment: environment, workingDirectory: workingDirectory, user: user, secrets: secrets)
    }
}

/// A file with a secret in it: the process is told where the file is, and the secret stands in no variable and no argument.
public struct SecretFile: Sendable, Equatable {
    public let name: String
    /// As the stack file has it.
    public let file: String

    public init(name: String, file: String) {
        self.name = name
        self.file = file
    }

    /// The variable that holds the file's path, as the images of databases have it: `NAME_FILE`.
    public var variable: String { name + "_FILE" }
}

/// Whether a process that ends by itself is started again, after a pause that grows when it ends again and again.
public enum RestartPolicy: String, Sendable, CaseIterable {
    case always
    /// Only when it ended with another exit status than 0, or by a signal.
    case onFailure = "on-failure"
    case never
}

/// How a worker is asked whether it is well: one of the two.
public struct CheckSpec: Sendable, Equatable {
    /// It ends with exit status 0 when the worker is well. nil: a connection is tried.
    public let command: CommandLine?
    /// The port on 127.0.0.1 that takes a connection when the worker is well; nil: the worker's own PORT.
    public let port: UInt16?
    /// From an answer to the next question.
    public let interval: Duration
    /// The longest time for an answer.
    public let timeout: Duration

    public init(command: CommandLine?, port: UInt16?, interval: Duration, timeout: Duration) {
        self.command = command
        self.port = port
        self.interval = interval
        self.timeout = timeout
    }
}

/// What runs once, to its end, before what depends on it is started.
public struct TaskSpec: Sendable, Equatable {
    public let name: String
    public let process: ProcessSpec
    /// Stores whose address it gets, each in a variable of its own.
    public let uses: [StoreUse]
    /// Services that must be ready, and tasks that must be done, before it is started.
    public let dependsOn: [String]
    /// The longest time until its end; a task that takes longer is killed and has failed.
    public let timeLimit: Duration
    /// The time from SIGTERM to SIGKILL when the stack is stopped meanwhile.
    public let grace: Duration

    public init(name: String, process: ProcessSpec, uses: [StoreUse], dependsOn: [String], timeLimit: Duration, grace: Duration) {
        self.name = name
        self.process = process
        self.uses = uses
        self.dependsOn = dependsOn
        self.timeLimit = timeLimit
        self.grace = grace
    }
}

public struct EnvironmentVariable: Sendable, Equatable {
    public let name: String
    public let value: String

    public init(name: String, value: String) {
        self.name = name
        self.value = value
    }
}

public struct HTTPInterface: Sendable, Equatable {
    /// The port in a container; on one machine the kernel gives each replica a port, unless this one is fixed.
    public let port: UInt16
    /// The one replica listens on `port`, also on one machine.
    public let isFixed: Bool
    /// Each replica also listens at a Unix socket, which it is given as SOCKET, and is asked there and not on its port.
    public let hasSocket: Bool
    public let live: String
    public let ready: String
    public let metrics: String?

    public init(port: UInt16, isFixed: Bool = false, hasSocket: Bool = false, live: String, ready: String, metrics: String?) {
        self.port = port
        self.isFixed = isFixed
        self.hasSocket = hasSocket
        self.live = live
        self.ready = ready
        self.metrics = metrics
    }
}
