import Basics

/// Where something stands in a stack file, for messages. All places are equal: moving a key to another line changes nothing of a stack.
public struct SourcePlace: Sendable, Equatable, CustomStringConvertible {
    public let file: String
    public let line: Int
    public let column: Int

    public init(file: String, line: Int, column: Int) {
        self.file = file
        self.line = line
        self.column = column
    }

    public static func == (a: SourcePlace, b: SourcePlace) -> Bool { true }
    public var description: String { "\(file):\(line):\(column)" }
}

/// The kinds of store that a stack file knows, by the word that stands there.
public enum StoreKindName: String, Sendable, CaseIterable {
    case redis, memcached, postgres
}

/// A store of a stack: its kind, and how it is run or where it is.
public struct StoreSpec: Sendable, Equatable {
    public enum Form: Sendable, Equatable {
        /// Muster runs it.
        case run(StoreSettings)
        /// Somebody else runs it; Muster probes it and tells services where it is.
        case external(ExternalStore)
    }

    public let name: String
    public let kind: StoreKindName
    public let form: Form
    /// Where its settings begin in the stack file.
    public let place: SourcePlace

    public init(name: String, kind: StoreKindName, form: Form, place: SourcePlace) {
        self.name = name
        self.kind = kind
        self.form = form
        self.place = place
    }

    /// The key of this store in the stack file, for messages: `stores.cache.memcached`.
    public var key: String { "stores.\(name).\(kind.rawValue)" }
    /// The ports that the stack file fixes, the first node's first: of each server, and of a cluster's nodes those of their bus as well.
    public var fixedPorts: [UInt16] {
        switch form {
        case .external: []
        case .run(.redis(let settings)): settings.fixedPorts
        case .run(.memcached(let settings)): settings.port.map { [$0] } ?? []
        case .run(.postgres(let settings)): settings.fixedPorts
        }
    }
    /// nil: Muster runs it.
    public var external: ExternalStore? { if case .external(let external) = form { external } else { nil } }
    /// The number of servers that Muster runs for it; 0 for an external store.
    public var nodes: Int {
        switch form {
        case .external: 0
        case .run(.redis(let settings)): settings.nodes
        case .run(.memcached): 1
        case .run(.postgres(let settings)): settings.nodes
        }
    }
}

/// What a stack file says of a store that Muster runs, by its kind.
public enum StoreSettings: Sendable, Equatable {
    case redis(RedisSettings)
    case memcached(MemcachedSettings)
    case postgres(PostgresSettings)
}

/// A store that somebody else runs.
public struct ExternalStore: Sendable, Equatable {
    /// Its URL, with its password where it has one. The form is its kind's.
    public let url: Secret
    /// The key that told the URL: `stores.db.redis.external.url`.
    public let key: String
    public let place: SourcePlace

    public init(url: Secret, key: String, place: SourcePlace) {
        self.url = url
        self.key = key
        self.place = place
    }
}

/// That a service uses a store, and the environment variable that tells the service where the store is.
public struct StoreUse: Sendable, Equatable {
    public let store: String
    public let variable: String

    public init(store: String, variable: String) {
        self.store = store
        self.variable = variable
    }
}

/// A Redis server or cluster.
public struct RedisSettings: Sendable, Equatable {
    public enum Role: String, Sendable, CaseIterable {
        /// A store that never evicts: a write that does not fit is refused.
        case state
        /// A store that may evict the least recently used keys.
        case cache
    }
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

    public init(role: Role, memory: Int, port: UInt16?, masters: Int, replicas: Int, failover: Duration) {
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
    /// A cluster's nodes take the ports from the first one on, and those 10,000 above for their bus. Empty: the kernel chooses.
    public var fixedPorts: [UInt16] {
        guard let first = port else { return [] }
        let ports = (0..<nodes).map { Int(first) + $0 }
        return (isCluster ? ports + ports.map { $0 + 10_000 } : ports).compactMap { UInt16(exactly: $0) }
    }
}

/// A memcached server: a cache in memory that keeps nothing over a restart.
public struct MemcachedSettings: Sendable, Equatable {
    /// The memory for items, in bytes; memcached takes whole MiB, and a rest is not used.
    public let memory: Int
    /// The port; nil: one that is free, chosen once and kept from then on.
    public let port: UInt16?
    /// The most connections at once, some twenty descriptors of its own included; more of them are refused.
    public let connections: Int

    public init(memory: Int, port: UInt16?, connections: Int) {
        self.memory = memory
        self.port = port
        self.connections = connections
    }
}
