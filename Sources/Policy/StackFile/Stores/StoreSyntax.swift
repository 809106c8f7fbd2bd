import Sharding
import StackModel

/// What the stack file's reader knows of one kind of store: its keys, how they become settings, and what services are told.
protocol StoreSyntax {
    /// What the kind is, for the schema.
    static var about: String { get }
    /// The keys of a store that Muster runs. `external` is added to them.
    static var keys: ObjectSpec { get }
    /// What the URL of an external one may begin with, without `://`.
    static var schemes: [String] { get }
    /// The variable under which a service gets the address, unless it asks for another.
    static var variable: String { get }
    /// All variables that a service gets when the address arrives as `variable`, that one first.
    static func variables(_ variable: String) -> [String]
    /// Whether the address may have a password in it.
    static var hasPassword: Bool { get }
    /// The settings of a store that Muster runs. What contradicts itself is reported.
    static func settings(_ object: CheckedObject, _ report: (_ key: String, _ reason: String) -> Void) -> StoreSettings
}

extension StoreSyntax {
    static func variables(_ variable: String) -> [String] { [variable] }
    static var schema: ObjectSpec {
        ObjectSpec(
            keys.title,
            keys.keys + [
                KeySpec("external", .object(ExternalSyntax.keys), "one that somebody else runs: only where it is, none of the other keys")
            ])
    }
}

extension StoreKindName {
    /// The environment variable under which a service gets the address of such a store when the stack file names no other.
    var variable: String { syntax.variable }

    var syntax: any StoreSyntax.Type {
        switch self {
        case .redis: RedisSyntax.self
        case .memcached: MemcachedSyntax.self
        case .postgres: PostgresSyntax.self
        }
    }
}

/// An external store's URL, given or in a file.
enum ExternalSyntax {
    static let keys = ObjectSpec(
        "where an external store is (url or url-file)",
        [
            KeySpec("url", .string, "its URL; may have $NAME, ${NAME} and ${NAME:-default}, so that a password need not stand here"),
            KeySpec("url-file", .string, "a file with its URL, relative to the stack file; read at each start"),
        ])

    /// Most bytes of a file with a URL: 64 hosts of 100 characters, and a long password.
    static let sizeLimit = 8192

    /// Why this is no URL for the kind; nil when its beginning is right. The text itself is not quoted, because there may be a password in it.
    static func flaw(_ url: String, _ kind: any StoreSyntax.Type) -> String? {
        let known = kind.schemes.map { "\($0)://" }.joined(separator: ", ")
        if url.isEmpty { return "the URL is empty; expected one that begins with \(known)" }
        guard url.unicodeScalars.allSatisfy({ $0.value > 32 && $0.value != 127 && $0.value != 0xFFFD }) else {
            return "the URL has a blank, a line break or bytes that are no text in it; in a password they are written as %20, %0A and so on"
        }
        guard let mark = url.firstRange(of: "://") else { return "expected a URL that begins with \(known); there is no '://' in it" }
        let scheme = url[..<mark.lowerBound]
        if kind.schemes.contains(String(scheme)) {
            return url[mark.upperBound...].isEmpty ? "the URL names no host: \(scheme)://HOST:PORT" : nil
        }
        // What stands there may be a password, too, when something was left out.
        let isWord = scheme.utf8.count <= 20 && scheme.utf8.allSatisfy { ($0 | 32) &- 97 < 26 || $0 == 43 }
        return "expected a URL that begins with \(known), found \(isWord ? "'\(scheme)://'" : "something else before '://'")"
    }
}

enum RedisSyntax: StoreSyntax {
    static let about = "a Redis server or cluster, run beside the services"
    static let variable = "REDIS_URL"
    static let hasPassword = true
    static let schemes = ["redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"]
    static let keys = ObjectSpec(
        "a Redis",
        [
            KeySpec(
                "role", .choice(RedisSettings.Role.allCases.map(\.rawValue)), "state never evicts; cache may; needed unless it is external"),
            KeySpec("memory", .size, "maxmemory of each node; default 512Mi"),
            KeySpec(
                "port", .integer(1...65535),
                "where it listens; a cluster's nodes take the following ones; default: one that is free, kept from then on"),
            KeySpec("masters", .integer(1...100), "1 is a single server, 3 or more are a cluster; default 1"),
            KeySpec("replicas", .integer(0...5), "of each of a cluster's masters; default 1 in a cluster"),
            KeySpec("failover", .time(from: .milliseconds(1)), "a cluster replaces a master that is lost within this; default 3s"),
        ])

    static func settings(_ object: CheckedObject, _ report: (_ key: String, _ reason: String) -> Void) -> StoreSettings {
        let masters = object.integer("masters") ?? 1
        let settings = RedisSettings(
            role: RedisSettings.Role(rawValue: object.string("role") ?? "") ?? .state, memory: object.integer("memory") ?? 512 << 20,
            port: object.integer("port").map(UInt16.init), masters: masters, replicas: object.integer("replicas") ?? (masters > 1 ? 1 : 0),
            failover: object.duration("failover") ?? .seconds(3))
        let hasFailover = object.places["failover"] != nil
        if object.places["role"] == nil { report("", "'role' is missing (state never evicts; cache may)") }
        if masters == 2 { report("masters", "two masters cannot outvote a dead one: 1, or 3 and more") }
        if masters == 1, settings.replicas > 0 {
            report("replicas", "a single server has nobody who would let a replica take over: with masters: 3 a cluster does")
        }
        if masters == 1, hasFailover {
            report("failover", "a single server is restarted, not replaced: this is for a cluster, masters: 3 or more")
        }
        if masters > 1, settings.replicas == 0, hasFailover {
            report("failover", "nobody can take over from a master without replicas: replicas: 1 or more")
        }
        if masters > 1 {
            do throws(FailoverTime.Refusal) { _ = try FailoverTime.nodeTimeout(promise: settings.failover) } catch {
                report("failover", error.description)
            }
        }
        // The cluster bus takes the port 10,000 above.
        if masters > 1, let port = settings.port, Int(port) + settings.nodes + 10_000 > 65_536 {
            report(
                "port", "\(port) leaves no room: \(settings.nodes) nodes take the ports from it on, and the same plus 10000 for their bus")
        }
        return .redis(settings)
    }
}

enum MemcachedSyntax: StoreSyntax {
    static let about = "a memcached server: a cache in memory, empty after a restart"
    static let variable = "MEMCACHED_SERVERS"
    static let hasPassword = false
    static let schemes = ["memcached"]
    static let keys = ObjectSpec(
        "a memcached",
        [
            KeySpec("memory", .size(2 << 20...1 << 40), "memory for items, in whole MiB; default 64Mi"),
            KeySpec("port", .integer(1...65535), "where it listens; default: one that is free, kept from then on"),
            // With less it has no descriptors for itself.
            KeySpec("connections", .integer(64...65535), "most clients at once, some twenty of its own included; default 1024"),
        ])

    static func settings(_ object: CheckedObject, _ report: (_ key: String, _ reason: String) -> Void) -> StoreSettings {
        .memcached(
            MemcachedSettings(
                memory: object.integer("memory") ?? 64 << 20, port: object.integer("port").map(UInt16.init),
                connections: object.integer("connections") ?? 1024))
    }
}
