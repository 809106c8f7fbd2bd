import Basics

/// A stack, validated: what Supervision runs, the gateway serves and (later) Rendering writes. There is no other description.
public struct Stack: Sendable, Equatable {
    public let name: String
    public let services: [ServiceSpec]
    public let stores: [StoreSpec]
    public let gateway: GatewaySpec?

    public func service(_ name: String) -> ServiceSpec? { services.first { $0.name == name } }

    /// The same stack with another definition of one service.
    public func replacing(_ service: ServiceSpec) -> Stack {
        Stack(name: name, services: services.map { $0.name == service.name ? service : $0 }, stores: stores, gateway: gateway)
    }

    /// The same stack with other routes.
    public func replacing(gateway: GatewaySpec) -> Stack { Stack(name: name, services: services, stores: stores, gateway: gateway) }
}

/// Where something listens.
public struct ListenAddress: Sendable, Equatable, CustomStringConvertible {
    /// Numeric; `0.0.0.0` when only a port was given: every IPv4 address of the machine, and none of IPv6.
    public let host: String
    public let port: UInt16
    /// Only a port was given: the admin page then takes loopback.
    public let isBare: Bool

    public init(host: String, port: UInt16) {
        self.host = host
        self.port = port
        isBare = false
    }

    init?(_ text: String) {
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
    /// What is run, at least and at most; at the start the least.
    public let replicas: ClosedRange<Int>
    public let http: HTTPInterface?
    /// Thousandths of a core, and bytes; nil: not declared.
    public let cpu: Int?
    public let memory: Int?
    /// Stores whose address this service gets.
    public let uses: [String]
    public let environment: [EnvironmentVariable]
    /// From SIGTERM to SIGKILL.
    public let grace: Duration
    /// From start to ready; beyond it the replica is killed and counted as a crash.
    public let startTime: Duration
    /// nil: the count is whatever is asked for.
    public let scaling: ScalingSpec?
}

extension ServiceSpec {
    /// Why there may not be this many; nil when there may. A fixed count (`replicas: 3`) may be scaled to any, a range bounds it.
    public func refusal(of count: Int) -> String? {
        if replicas.lowerBound < replicas.upperBound, !replicas.contains(count) {
            return "\(name) is declared with \(replicas.lowerBound)..\(replicas.upperBound) replicas"
        }
        return (0...SchemaChecker.replicaLimit).contains(count) ? nil : "from 0 to \(SchemaChecker.replicaLimit) replicas"
    }
}

public struct EnvironmentVariable: Sendable, Equatable {
    public let name: String
    public let value: String
}

public struct HTTPInterface: Sendable, Equatable {
    /// In a container; on one machine the kernel gives each replica a port.
    public let port: UInt16
    public let live: String
    public let ready: String
    public let metrics: String?
}

public struct StoreSpec: Sendable, Equatable {
    public enum Role: String, Sendable, CaseIterable {
        /// Never evicts: a write that does not fit is refused.
        case state
        /// May evict the least recently used.
        case cache
    }
    public let name: String
    public let role: Role
    /// Bytes, of each node.
    public let memory: Int
    /// nil: the kernel chooses once, and the choice is kept in the data folder. Of a cluster's nodes the first; the others follow.
    public let port: UInt16?
    /// 1: a single server; 3 or more: a cluster.
    public let masters: Int
    /// Of each master.
    public let replicas: Int
    /// Within this a dead or hung master of a cluster is replaced.
    public let failover: Duration

    public var isCluster: Bool { masters > 1 }
    /// Servers that run.
    public var nodes: Int { masters * (replicas + 1) }
}
