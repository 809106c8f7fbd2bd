import Basics

/// A validated stack: Supervision runs it, the gateway serves it and (later) Rendering writes it. There is no other description.
public struct Stack: Sendable, Equatable {
    public let name: String
    public let services: [ServiceSpec]
    public let stores: [StoreSpec]
    public let gateway: GatewaySpec?

    public init(name: String, services: [ServiceSpec], stores: [StoreSpec], gateway: GatewaySpec?) {
        self.name = name
        self.services = services
        self.stores = stores
        self.gateway = gateway
    }

    public func service(_ name: String) -> ServiceSpec? { services.first { $0.name == name } }

    /// The same stack with another definition of one service.
    public func replacing(_ service: ServiceSpec) -> Stack {
        Stack(name: name, services: services.map { $0.name == service.name ? service : $0 }, stores: stores, gateway: gateway)
    }

    /// The same stack with other routes.
    public func replacing(gateway: GatewaySpec) -> Stack { Stack(name: name, services: services, stores: stores, gateway: gateway) }
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
    /// The program and its arguments.
    public let command: [String]
    public let image: String?
    /// The least and the most replicas that run; at the start the least.
    public let replicas: ClosedRange<Int>
    public let http: HTTPInterface?
    /// The declared resources: thousandths of a core, and bytes; nil: not declared.
    public let cpu: Int?
    public let memory: Int?
    /// Stores whose address this service gets.
    public let uses: [String]
    public let environment: [EnvironmentVariable]
    /// The time from SIGTERM to SIGKILL.
    public let grace: Duration
    /// The longest time from start to ready; a replica that takes longer is killed, and that counts as a crash.
    public let startTime: Duration
    /// How the service is scaled; nil: the count is the one that somebody asks for.
    public let scaling: ScalingSpec?

    public init(
        name: String, command: [String], image: String?, replicas: ClosedRange<Int>, http: HTTPInterface?, cpu: Int?, memory: Int?,
        uses: [String], environment: [EnvironmentVariable], grace: Duration, startTime: Duration, scaling: ScalingSpec?
    ) {
        self.name = name
        self.command = command
        self.image = image
        self.replicas = replicas
        self.http = http
        self.cpu = cpu
        self.memory = memory
        self.uses = uses
        self.environment = environment
        self.grace = grace
        self.startTime = startTime
        self.scaling = scaling
    }
}

extension ServiceSpec {
    /// The most replicas that a service may have. The figure is ours: far more than one machine runs.
    public static let replicaLimit = 1000

    /// Why the service may not have this many replicas; nil when it may. A fixed count (`replicas: 3`) may be scaled to any, a range bounds
    /// it.
    public func refusal(of count: Int) -> String? {
        if replicas.lowerBound < replicas.upperBound, !replicas.contains(count) {
            return "\(name) is declared with \(replicas.lowerBound)..\(replicas.upperBound) replicas"
        }
        return (0...ServiceSpec.replicaLimit).contains(count) ? nil : "from 0 to \(ServiceSpec.replicaLimit) replicas"
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
    /// The port in a container; on one machine the kernel gives each replica a port.
    public let port: UInt16
    public let live: String
    public let ready: String
    public let metrics: String?

    public init(port: UInt16, live: String, ready: String, metrics: String?) {
        self.port = port
        self.live = live
        self.ready = ready
        self.metrics = metrics
    }
}

public struct StoreSpec: Sendable, Equatable {
    public enum Role: String, Sendable, CaseIterable {
        /// A store that never evicts: a write that does not fit is refused.
        case state
        /// A store that may evict the least recently used keys.
        case cache
    }
    public let name: String
    public let role: Role
    /// The memory of each node, in bytes.
    public let memory: Int
    /// The port; nil: the kernel chooses once, and the choice is kept in the data folder. For a cluster it is the port of the first node;
    /// the others follow.
    public let port: UInt16?
    /// The number of masters. 1: a single server; 3 or more: a cluster.
    public let masters: Int
    /// The number of replicas of each master.
    public let replicas: Int
    /// The longest time until a dead or hung master of a cluster is replaced.
    public let failover: Duration

    public init(name: String, role: Role, memory: Int, port: UInt16?, masters: Int, replicas: Int, failover: Duration) {
        self.name = name
        self.role = role
        self.memory = memory
        self.port = port
        self.masters = masters
        self.replicas = replicas
        self.failover = failover
    }

    public var isCluster: Bool { masters > 1 }
    /// The number of servers that run.
    public var nodes: Int { masters * (replicas + 1) }
}
