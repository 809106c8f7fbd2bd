import Basics
import EventLoops

/// Where PostgreSQL is, and how to speak to it, in libpq's form:
///
///     postgresql://[user[:password]@][host[:port]][,host[:port]…][/database][?name=value&…]
///
/// Hosts are tried in their order. A host that begins with `/` (written `%2F` before the path, or as it is in `?host=`) is the directory of a
/// Unix socket. Without a host it is `/var/run/postgresql`, without a port 5432, without a user the process's own, without a database the
/// user's name. Behind `?`: `host`, `port` (lists with commas), `user`, `password`, `password-file` (Muster's own: its first line), `dbname`,
/// `application_name`, `options`, `connect_timeout` (seconds), `target_session_attrs`, `sslmode`, `sslrootcert`, `sslcert`, `sslkey`,
/// `channel_binding`.
public struct PostgresURL: Sendable, Equatable {
    /// One server that may be connected to.
    public struct Host: Sendable, Hashable, CustomStringConvertible {
        public let endpoint: Endpoint

        public init(_ endpoint: Endpoint) { self.endpoint = endpoint }

        /// The socket of the server with this port in this directory.
        public init(directory: String, port: UInt16 = 5432) {
            endpoint = .address(.unix("\(directory.hasSuffix("/") ? String(directory.dropLast()) : directory)/.s.PGSQL.\(port)"))
        }

        public var isSocket: Bool { if case .address(.unix) = endpoint { true } else { false } }
        public var description: String { endpoint.description }
    }

    /// What a server must be for a connection to it to be kept; see libpq's `target_session_attrs`.
    public enum Target: String, Sendable, CaseIterable {
        case any
        /// Takes writes: no standby, and transactions are not read-only by default.
        case readWrite = "read-write"
        case readOnly = "read-only"
        case primary
        case standby
        /// A standby, or where there is none any host.
        case preferStandby = "prefer-standby"
    }

    /// Whether the connection is encrypted, and how sure the server's name must be; see libpq's `sslmode`. Over a Unix socket there is no TLS.
    public enum Encryption: String, Sendable, CaseIterable {
        case disable
        /// TLS if the server has it; anybody between can take it away. libpq's default, and ours.
        case prefer
        /// TLS, with whatever certificate. As in libpq, the certificate's signer is checked where `sslrootcert` is given.
        case require
        case verifyCA = "verify-ca"
        case verifyFull = "verify-full"
    }

    /// Whether SCRAM is bound to the TLS channel, so that nobody between can pass its words on.
    public enum ChannelBinding: String, Sendable, CaseIterable {
        case disable
        case prefer
        case require
    }

    /// At least one.
    public var hosts: [Host]
    /// nil: the name of the process's own user.
    public var user: String?
    public var password: Secret?
    /// nil: the user's name.
    public var database: String?
    public var target = Target.any
    public var encryption = Encryption.prefer
    public var channelBinding = ChannelBinding.prefer
    /// PEM files for TLS; the system's store of authorities is used where `authorities` is nil.
    public var authorities: String?
    public var certificate: String?
    public var key: String?
    public var applicationName = "muster"
    /// Command-line options for the session, as `-c name=value`.
    public var options: String?
    /// Time limit for each host, its TLS and its login together.
    public var connectTime = Duration.seconds(5)

    public init(hosts: [Host], user: String? = nil, password: Secret? = nil, database: String? = nil) {
        precondition(!hosts.isEmpty)
        self.hosts = hosts
        self.user = user
        self.password = password
        self.database = database
    }

    /// Why a text is no URL. It never quotes what may be a part of the password.
    public struct Failure: Error, Equatable, CustomStringConvertible {
        public let reason: String
        public var description: String { "DATABASE_URL: " + reason }
        init(_ text: String) { reason = text }
    }

    /// Most hosts that one URL may name.
    static let hostLimit = 64
    /// Most bytes of a URL.
    static let sizeLimit = 65_536

    public init(_ text: String) throws(Failure) {
        guard text.utf8.count <= PostgresURL.sizeLimit else { throw Failure("is longer than \(PostgresURL.sizeLimit) bytes") }
        guard let parts = URLCredentials(text) else {
            throw Failure("is not of the form postgresql://[user:password@]host[:port][/database]")
        }
        guard parts.scheme == "postgresql" || parts.scheme == "postgres" else {
            throw Failure("it does not begin with postgresql:// or postgres://")
        }
        var places = parts.rest
        var options: [String: String] = [:]
        if let question = places.firstIndex(of: "?") {
            options = try PostgresURL.options(places[places.index(after: question)...])
            places = places[..<question]
        }
        var database: String?
        if let slash = places.firstIndex(of: "/") {
            let name = places[places.index(after: slash)...]
            guard !name.contains("/") else {
                throw Failure("too many '/' behind the host; a socket's directory is written with %2F, or as ?host=")
            }
            if !name.isEmpty { database = try PostgresURL.decoded(name) }
            places = places[..<slash]
        }
        self.init(hosts: try PostgresURL.hosts(places, options["host"], options["port"]))
        user = try parts.user.map { (name) throws(Failure) in try PostgresURL.decoded(name) } ?? options["user"]
        let ownPassword = try parts.password.map { (text) throws(Failure) in try PostgresURL.decoded(text) } ?? options["password"]
        password = ownPassword.map { Secret($0) }
        self.database = database ?? options["dbname"]
        if let file = options["password-file"] {
            guard password == nil else { throw Failure("a password and a password-file stand there: one of them is enough") }
            password = Secret(try PostgresURL.password(in: file))
        }
        for name in [user, self.database, password?.reveal] where name?.utf8.contains(0) == true {
            throw Failure("a user, password or database with a zero byte (%00) in it")
        }
        try take(options)
    }

    private mutating func take(_ options: [String: String]) throws(Failure) {
        target = try PostgresURL.choice(options, "target_session_attrs") ?? .any
        if options["sslmode"] == "allow" { throw Failure("sslmode=allow is not known: say prefer, or disable") }
        encryption = try PostgresURL.choice(options, "sslmode") ?? .prefer
        channelBinding = try PostgresURL.choice(options, "channel_binding") ?? .prefer
        authorities = options["sslrootcert"]
        certificate = options["sslcert"]
        key = options["sslkey"]
        guard key == nil || certificate != nil else { throw Failure("sslkey has no sslcert beside it") }
        applicationName = options["application_name"] ?? applicationName
        self.options = options["options"]
        for text in [applicationName, self.options] where text?.utf8.contains(0) == true {
            throw Failure("an option has a zero byte (%00) in it")
        }
        if let time = options["connect_timeout"] {
            guard let seconds = Int(time), (1...86_400).contains(seconds) else {
                throw Failure("connect_timeout is in whole seconds, from 1 to 86400")
            }
            connectTime = .seconds(seconds)
        }
    }

    private static func choice<T: RawRepresentable & CaseIterable>(_ options: [String: String], _ name: String) throws(Failure) -> T?
    where T.RawValue == String {
        guard let text = options[name] else { return nil }
        guard let value = T(rawValue: text) else {
            throw Failure("\(name) is none of \(T.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        return value
    }

    /// A file that cannot be read, or has nothing in it, is not the same as no password.
    private static func password(in file: String) throws(Failure) -> String {
        let text: [UInt8]
        do { text = try Files.read(file, limit: 4096) } catch { throw Failure("password-file: \(error)") }
        let line = String(decoding: text.prefix { $0 != 10 && $0 != 13 }, as: UTF8.self)
        if line.isEmpty { throw Failure("password-file: the first line of \(file) is empty") }
        return line
    }

    private static func hosts(_ text: Substring, _ named: String?, _ ports: String?) throws(Failure) -> [Host] {
        let places: [Substring]
        if text.isEmpty {
            places = named.map { $0.split(separator: ",", omittingEmptySubsequences: false) } ?? ["/var/run/postgresql"]
        } else {
            guard named == nil else { throw Failure("hosts stand before the '/' and behind host=: one of them is enough") }
            places = text.split(separator: ",", omittingEmptySubsequences: false)
        }
        guard places.count <= hostLimit else { throw Failure("more than \(hostLimit) hosts") }
        let numbers = ports.map { $0.split(separator: ",", omittingEmptySubsequences: false) } ?? []
        guard numbers.count <= 1 || numbers.count == places.count else {
            throw Failure("port= names \(numbers.count) ports for \(places.count) hosts: one for all, or one for each")
        }
        var found: [Host] = []
        for (i, place) in places.enumerated() {
            let port = numbers.isEmpty ? "5432" : numbers[numbers.count == 1 ? 0 : i]
            guard let number = UInt16(port), number > 0 else { throw Failure("port= is not from 1 to 65535") }
            found.append(try host(place, number, text.isEmpty, "number \(i + 1) of \(places.count)"))
        }
        return found
    }

    private static func host(_ place: Substring, _ port: UInt16, _ isPlain: Bool, _ which: String) throws(Failure) -> Host {
        let text = isPlain ? String(place) : try decoded(place)
        if text.hasPrefix("/") {
            // A port may stand behind the directory: %2Frun%2Fpg:5433.
            let colon = text.lastIndex(of: ":").map { (text[..<$0], UInt16(text[text.index(after: $0)...])) }
            let (directory, own) = if let colon, let number = colon.1 { (String(colon.0), number) } else { (text, port) }
            let host = Host(directory: directory, port: own)
            guard case .address(.unix(let path)) = host.endpoint, path.utf8.count < 108 else {
                throw Failure("the path of the socket (\(which)) has more than 107 bytes")
            }
            return host
        }
        guard !text.isEmpty, let endpoint = Endpoint(text, defaultPort: port), !text.hasPrefix("unix:") else {
            throw Failure("what stands behind '@' (or '://') is no host:port (\(which))")
        }
        return Host(endpoint)
    }

    private static func options(_ text: Substring) throws(Failure) -> [String: String] {
        let known = [
            "host", "port", "user", "password", "password-file", "dbname", "application_name", "options", "connect_timeout",
            "target_session_attrs", "sslmode", "sslrootcert", "sslcert", "sslkey", "channel_binding",
        ]
        var options: [String: String] = [:]
        for part in text.split(separator: "&") {
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard pair.count == 2, known.contains(String(pair[0])), !pair[1].isEmpty else {
                throw Failure("behind '?' stand \(known.joined(separator: ", ")), each with =value")
            }
            options[String(pair[0])] = try decoded(pair[1])
        }
        return options
    }

    private static func decoded(_ text: Substring) throws(Failure) -> String {
        var out: [UInt8] = []
        var bytes = Array(text.utf8)[...]
        while let byte = bytes.popFirst() {
            if byte == 37 {
                guard bytes.count >= 2, let high = hexDigit(bytes[bytes.startIndex]), let low = hexDigit(bytes[bytes.startIndex + 1]) else {
                    throw Failure("a '%' without two hexadecimal digits behind it; the '%' itself is written %25")
                }
                out.append(high << 4 | low)
                bytes = bytes.dropFirst(2)
            } else {
                out.append(byte)
            }
        }
        guard let text = String(validating: out, as: UTF8.self) else { throw Failure("bytes (%..) that are no UTF-8") }
        return text
    }
}

extension PostgresURL: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The URL with `***` for the password: it is never printed in another form. Files and options are left out.
    public var description: String {
        let login = password == nil ? user.map { "\($0)@" } ?? "" : "\(user ?? ""):***@"
        let places = hosts.map { host in if case .address(.unix(let path)) = host.endpoint { "[\(path)]" } else { "\(host)" } }
        let kind = target == .any ? "" : "?target_session_attrs=\(target.rawValue)"
        return "postgresql://\(login)\(places.joined(separator: ","))\(database.map { "/\($0)" } ?? "")\(kind)"
    }

    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: ["url": description]) }
}
