import Basics
import EventLoops

/// Where Redis is, and how to speak to it:
///
/// - `redis://[user][:password]@host[:port][/database]`: one server
/// - `redis+cluster://…@h1:p,h2:p`: a cluster, by some of its nodes
/// - `redis+sentinel://…@h1[:26379],h2/name[/database]`: the master of that name, which the sentinels know
/// - `rediss…` in place of `redis`: the same over TLS
///
/// After a `?`, with `&` between: `ca`, `cert`, `key` (files of TLS), `sentinel-user`, `sentinel-password-file`.
public struct RedisURL: Sendable, Equatable {
    public enum Topology: Sendable, Equatable {
        case single(Endpoint)
        case cluster(seeds: [Endpoint])
        case sentinel(sentinels: [Endpoint], master: String)
    }

    /// PEM files for TLS; the system's store of authorities is used where `ca` is nil.
    public struct TLS: Sendable, Equatable {
        public var ca: String?
        public var certificate: String?
        public var key: String?
    }

    public let topology: Topology
    public let user: String?
    public let password: String?
    public let database: Int
    /// The files for TLS; nil: without TLS.
    public let tls: TLS?
    /// The TLS context made from the files that `tls` names, which are read when the URL is.
    let tlsContext: TLSContext?
    public let sentinelUser: String?
    public let sentinelPasswordFile: String?
    /// The first line of that file, as it was when the URL was read.
    let sentinelPassword: String?

    /// The server, or the first of those that are named.
    public var endpoint: Endpoint {
        switch topology {
        case .single(let endpoint): endpoint
        case .cluster(let seeds): seeds[0]
        case .sentinel(let sentinels, _): sentinels[0]
        }
    }

    public struct Failure: Error, Equatable, CustomStringConvertible {
        /// What is wrong, without quoting the URL: there may be a password in it.
        public let reason: String
        public var description: String { "REDIS_URL: " + reason }
        init(_ text: String) { reason = text }
    }

    /// Most places that one URL may name.
    static let placeLimit = 64

    public init(_ text: String) throws(Failure) {
        guard let parts = URLCredentials(text) else {
            throw Failure("is not of the form redis://[user:password@]host[:port][/database]")
        }
        let scheme = parts.scheme
        let kind = scheme.split(separator: "+", omittingEmptySubsequences: false)
        let kinds = ["single", "cluster", "sentinel"]
        guard kind[0] == "redis" || kind[0] == "rediss", kind.count == 1 || kind.count == 2 && kinds.dropFirst().contains(String(kind[1]))
        else {
            // What stands there may be a password, too, when something was left out.
            let isWord = scheme.utf8.count <= 20 && scheme.utf8.allSatisfy { ($0 | 32) &- 97 < 26 || $0 == 43 }
            throw Failure(
                "\(isWord ? "'\(scheme)://'" : "what stands before '://'") is not known; redis://, redis+cluster:// and redis+sentinel:// are, and rediss for redis with TLS"
            )
        }
        let form = kind.count == 1 ? "single" : String(kind[1])
        // Messages never quote what may be a part of the password. Credentials end at the last '@', whatever is in them.
        var places = parts.rest
        var options: [String: String] = [:]
        if let question = places.firstIndex(of: "?") {
            options = try RedisURL.options(places[places.index(after: question)...])
            places = places[..<question]
        }
        var path: [Substring] = []
        if let slash = places.firstIndex(of: "/") {
            path = places[places.index(after: slash)...].split(separator: "/")
            places = places[..<slash]
        }
        let endpoints = try RedisURL.endpoints(places, defaultPort: form == "sentinel" ? 26379 : 6379)
        guard form != "single" || endpoints.count == 1 else {
            throw Failure("several hosts stand there: say redis+cluster:// or redis+sentinel://")
        }
        var master: String?
        if form == "sentinel" {
            guard let name = path.first else { throw Failure("the master's name is missing: redis+sentinel://host,host/name") }
            master = RedisURL.decoded(name)
            path.removeFirst()
        }
        guard path.count <= 1 else { throw Failure("too many '/' behind the host") }
        database = try RedisURL.database(path.first, in: form)
        switch form {
        case "cluster": topology = .cluster(seeds: endpoints)
        case "sentinel": topology = .sentinel(sentinels: endpoints, master: master ?? "")
        default: topology = .single(endpoints[0])
        }
        user = parts.user.map { RedisURL.decoded($0) }
        password = parts.password.map { RedisURL.decoded($0) }
        guard kind[0] == "rediss" || ["ca", "cert", "key"].allSatisfy({ options[$0] == nil }) else {
            throw Failure("ca, cert and key are for rediss")
        }
        guard (options["cert"] == nil) == (options["key"] == nil) else { throw Failure("cert and key go together") }
        let files = kind[0] == "rediss" ? TLS(ca: options["ca"], certificate: options["cert"], key: options["key"]) : nil
        tls = files
        do throws(TLSFailure) {
            tlsContext = try files.map { (files) throws(TLSFailure) in
                try TLSContext(authorities: files.ca, certificate: files.certificate, key: files.key)
            }
        } catch { throw Failure("\(error)") }
        sentinelUser = options["sentinel-user"]
        sentinelPasswordFile = options["sentinel-password-file"]
        sentinelPassword = try sentinelPasswordFile.map { (file) throws(Failure) in try RedisURL.password(in: file) }
    }

    /// A file that cannot be read, or has nothing in it, is not the same as no password.
    private static func password(in file: String) throws(Failure) -> String {
        let text: [UInt8]
        do { text = try Files.read(file, limit: 4096) } catch { throw Failure("sentinel-password-file: \(error)") }
        let line = String(decoding: text.prefix { $0 != 10 && $0 != 13 }, as: UTF8.self)
        if line.isEmpty { throw Failure("sentinel-password-file: the first line of \(file) is empty") }
        return line
    }

    public static func == (a: RedisURL, b: RedisURL) -> Bool {
        a.topology == b.topology && a.user == b.user && a.password == b.password && a.database == b.database && a.tls == b.tls
            && a.sentinelUser == b.sentinelUser
            && a.sentinelPasswordFile == b.sentinelPasswordFile && a.sentinelPassword == b.sentinelPassword
    }

    /// The same login for servers elsewhere: other nodes of a cluster, or a Unix socket, which no URL can name.
    public func with(_ topology: Topology) -> RedisURL { RedisURL(self, topology, database) }

    /// The same server, another database.
    public func with(database: Int) -> RedisURL { RedisURL(self, topology, database) }

    private init(_ other: RedisURL, _ topology: Topology, _ database: Int) {
        self.topology = topology
        user = other.user
        password = other.password
        self.database = database
        tls = other.tls
        tlsContext = other.tlsContext
        sentinelUser = other.sentinelUser
        sentinelPasswordFile = other.sentinelPasswordFile
        sentinelPassword = other.sentinelPassword
    }

    private static func endpoints(_ text: Substring, defaultPort: UInt16) throws(Failure) -> [Endpoint] {
        let parts = text.split(separator: ",", omittingEmptySubsequences: false)
        guard parts.count <= placeLimit else { throw Failure("more than \(placeLimit) hosts; a few are enough to find the others") }
        var found: [Endpoint] = []
        for part in parts {
            guard let endpoint = Endpoint(String(part), defaultPort: defaultPort) else {
                throw Failure(
                    "what stands behind '@' (or '://') is no "
                        + "host:port\(parts.count > 1 ? " (number \(found.count + 1) of \(parts.count))" : "")"
                )
            }
            found.append(endpoint)
        }
        return found
    }

    private static func database(_ text: Substring?, in form: String) throws(Failure) -> Int {
        guard let text else { return 0 }
        guard let number = Int(text), (0..<1_000_000).contains(number) else {
            throw Failure("the database behind the last '/' is no number")
        }
        guard form != "cluster" || number == 0 else { throw Failure("a cluster has database 0 only") }
        return number
    }

    private static func options(_ text: Substring) throws(Failure) -> [String: String] {
        let known = ["ca", "cert", "key", "sentinel-user", "sentinel-password-file"]
        var options: [String: String] = [:]
        for part in text.split(separator: "&") {
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard pair.count == 2, known.contains(String(pair[0])), !pair[1].isEmpty else {
                throw Failure("behind '?' stand \(known.joined(separator: ", ")), each with =value")
            }
            options[String(pair[0])] = decoded(pair[1])
        }
        return options
    }

    private static func decoded(_ text: Substring) -> String {
        var out: [UInt8] = []
        var bytes = Array(text.utf8)[...]
        while let byte = bytes.popFirst() {
            if byte == 37, bytes.count >= 2, let value = UInt8(String(decoding: bytes.prefix(2), as: UTF8.self), radix: 16) {
                out.append(value)
                bytes = bytes.dropFirst(2)
            } else {
                out.append(byte)
            }
        }
        return String(decoding: out, as: UTF8.self)
    }
}

extension RedisURL: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The URL with `***` for the password: it is never printed in another form.
    public var description: String {
        var scheme = tls == nil ? "redis" : "rediss", places: [Endpoint], path = ""
        switch topology {
        case .single(let endpoint): places = [endpoint]
        case .cluster(let seeds): (scheme, places) = (scheme + "+cluster", seeds)
        case .sentinel(let sentinels, let master): (scheme, places, path) = (scheme + "+sentinel", sentinels, "/" + master)
        }
        if database != 0 { path += "/\(database)" }
        let login =
            password == nil ? (user == nil ? "" : "***@") : "\(user ?? ""):***@"
        return "\(scheme)://\(login)\(places.map(\.description).joined(separator: ","))\(path)"
    }

    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: ["url": description]) }
}
