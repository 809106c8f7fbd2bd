import Basics
import Sharding

/// One redis-server's redis.conf, as a value.
///
/// No password is in it: `requirepass` and `masterauth` go by standard input (`secrets`). A line holds one directive and nothing behind it:
/// redis.conf has no comments at a line's end.
public struct RedisConfiguration: Sendable, Equatable {
    public enum Role: String, Sendable, CaseIterable {
        /// Never evicts, writes down everything once a second; in a cluster a lost slot stops the others too, rather than look whole.
        case state
        /// May evict the least recently used, writes nothing down; in a cluster the other slots go on when one is lost.
        case cache
    }

    /// What makes the server a node of a cluster.
    public struct Cluster: Sendable, Equatable {
        public var nodeTimeout: Duration
        /// What others are told to connect to, where it is not what the node sees of itself (containers, address translation).
        public var announceHost: String?
        public var announcePort: UInt16?
        public var announceBusPort: UInt16?
        /// The address that the node's own connections come from, such as `127.27.89.1`: on loopback it tells nodes apart, so that traffic
        /// between two of them can be cut. `announceHost` must then be set, or others take it for the node's address.
        public var bindSource: String?

        /// Of a node on this machine: its own connections come from an address that no other node has, `127.<port / 256>.<port % 256>.1`,
        /// which the kernel takes for loopback like all of 127.0.0.0/8.
        public static func local(port: UInt16, nodeTimeout: Duration) -> Cluster {
            Cluster(nodeTimeout: nodeTimeout, announceHost: "127.0.0.1", bindSource: "127.\(port >> 8).\(port & 255).1")
        }

        public init(
            nodeTimeout: Duration, announceHost: String? = nil, announcePort: UInt16? = nil, announceBusPort: UInt16? = nil,
            bindSource: String? = nil
        ) {
            self.nodeTimeout = nodeTimeout
            self.announceHost = announceHost
            self.announcePort = announcePort
            self.announceBusPort = announceBusPort
            self.bindSource = bindSource
        }
    }

    public var port: UInt16
    public var folder: String
    /// Bytes of maxmemory.
    public var memory: Int
    public var role: Role
    public var bind: [String]
    public var cluster: Cluster?
    /// What another node has, instead of what the role would have.
    public var likeness: Likeness?

    /// Settings that a node takes over from another one of its cluster, which may have been changed by hand. nil: as the role has it.
    public struct Likeness: Sendable, Equatable {
        public let policy: String?
        public let appendOnly: Bool?
        public let fsync: String?
        public let save: String?
        public let needsAllSlots: Bool?

        /// `settings` as `CONFIG GET` tells them. A value that none of these settings can have is left out, so that nothing else than these
        /// comes into a file.
        public init(_ settings: [String: String]) {
            func word(_ name: String) -> String? {
                settings[name].flatMap { word in
                    (1...32).contains(word.utf8.count) && word.utf8.allSatisfy { (97...122).contains($0) || $0 == 45 } ? word : nil
                }
            }
            func flag(_ name: String) -> Bool? { ["yes": true, "no": false][settings[name] ?? ""] }
            policy = word("maxmemory-policy")
            appendOnly = flag("appendonly")
            fsync = word("appendfsync")
            save = settings["save"].flatMap { text in
                text.utf8.count <= 200 && text.utf8.allSatisfy { (48...57).contains($0) || $0 == 32 } ? text : nil
            }
            needsAllSlots = flag("cluster-require-full-coverage")
        }

        /// What `CONFIG GET` is asked for.
        public static let names = ["maxmemory-policy", "appendonly", "appendfsync", "save", "cluster-require-full-coverage"]
    }

    public init(
        port: UInt16, folder: String, memory: Int, role: Role, bind: [String] = ["127.0.0.1"], cluster: Cluster? = nil,
        likeness: Likeness? = nil
    ) {
        self.likeness = likeness
        self.port = port
        self.folder = folder
        self.memory = memory
        self.role = role
        self.bind = bind
        self.cluster = cluster
    }

    /// What a replica that was away may miss and still catch up without a full copy: seconds of a busy master. Redis' own default is 1 MiB.
    public static let backlog = 16 << 20

    static let firstLine = "# Written by muster."

    /// AOF once a second and snapshots as documents 000 and 004 have them (900/1, 300/10, 60/10000).
    public var text: String {
        var lines = [
            RedisConfiguration.firstLine,
            "bind \(bind.joined(separator: " "))", "port \(port)", "dir \(RedisConfiguration.quoted(folder))", "maxmemory \(memory)",
            "maxmemory-policy \(likeness?.policy ?? (role == .state ? "noeviction" : "allkeys-lru"))",
            "appendonly \(likeness?.appendOnly ?? (role == .state) ? "yes" : "no")", "appendfsync \(likeness?.fsync ?? "everysec")",
        ]
        if let save = likeness?.save {
            lines.append("save \(save.isEmpty ? "\"\"" : save)")
        } else {
            lines += role == .state ? ["save 900 1", "save 300 10", "save 60 10000"] : ["save \"\""]
        }
        lines += ["tcp-backlog 511", "daemonize no", "loglevel notice"]
        if let cluster { lines += clusterLines(cluster) }
        return lines.joined(separator: "\n") + "\n"
    }

    private func clusterLines(_ cluster: Cluster) -> [String] {
        var lines = [
            "cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout \(cluster.nodeTimeout.nanoseconds / 1_000_000)",
            "cluster-require-full-coverage \(likeness?.needsAllSlots ?? (role == .state) ? "yes" : "no")",
            // A replica waits 5 s for company before its first copy otherwise, and until then its master cannot be replaced.
            "repl-diskless-sync-delay 0", "repl-backlog-size \(RedisConfiguration.backlog)",
        ]
        if let host = cluster.announceHost { lines.append("cluster-announce-ip \(host)") }
        if let port = cluster.announcePort { lines.append("cluster-announce-port \(port)") }
        if let port = cluster.announceBusPort { lines.append("cluster-announce-bus-port \(port)") }
        if let source = cluster.bindSource { lines.append("bind-source-addr \(source)") }
        return lines
    }

    /// For the server's standard input, behind `redis.conf -`.
    public static func secrets(password: String, isCluster: Bool) -> String {
        "requirepass \(quoted(password))\n" + (isCluster ? "masterauth \(quoted(password))\n" : "")
    }

    /// The same of a server that is to come back with the secrets that it has, as `CONFIG GET` tells them. What it has none of is left to its
    /// own configuration.
    static func secrets(_ known: [String: Secret]) -> String {
        secretNames.compactMap { name in
            known[name].flatMap { $0.reveal.isEmpty ? nil : "\(name) \(quoted($0.reveal))\n" }
        }.joined()
    }

    /// The settings by which a server knows its clients, and its master knows the server.
    static let secretNames = ["requirepass", "masterauth", "masteruser"]

    /// As redis.conf reads a value with spaces.
    public static func quoted(_ text: String) -> String {
        "\"" + text.flatMap { $0 == "\"" || $0 == "\\" ? "\\\($0)" : String($0) } + "\""
    }
}
