import EventLoops

/// `redis://[user][:password]@host[:port][/database]`, or `redis+unix:///path`. TLS, Sentinel and Cluster have schemes of
/// their own, which this form refuses by name.
public struct RedisURL: Sendable, Equatable {
    public let endpoint: Endpoint
    public let user: String?
    public let password: String?
    public let database: Int

    public struct Failure: Error, Equatable, CustomStringConvertible {
        public let description: String
    }

    public init(_ text: String) throws(Failure) {
        guard let (scheme, afterScheme) = RedisURL.cut(text, at: "://") else {
            throw Failure(description: "REDIS_URL is not of the form redis://[user:password@]host[:port][/database]")
        }
        guard scheme == "redis" else {
            throw Failure(description: "REDIS_URL: '\(scheme)://' is not spoken by this build; redis:// is")
        }
        var rest = afterScheme
        var database = 0
        // Messages never quote what may be a part of the password. Credentials end at the last '@', whatever is in them.
        let hostStart = rest.lastIndex(of: "@") ?? rest.startIndex
        if let slash = rest[hostStart...].firstIndex(of: "/") {
            let path = rest[rest.index(after: slash)...]
            if !path.isEmpty {
                guard let number = Int(path), (0..<1_000_000).contains(number) else {
                    throw Failure(description: "REDIS_URL: the database behind the last '/' is no number")
                }
                database = number
            }
            rest = rest[..<slash]
        }
        var user: String?, password: String?
        if let at = rest.lastIndex(of: "@") {
            let credentials = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            rest = rest[rest.index(after: at)...]
            user = credentials[0].isEmpty ? nil : RedisURL.decoded(credentials[0])
            password = credentials.count == 2 ? RedisURL.decoded(credentials[1]) : nil
        }
        guard let endpoint = Endpoint(String(rest), defaultPort: 6379) else {
            throw Failure(description: "REDIS_URL: what stands behind '@' (or '://') is no host:port")
        }
        self.endpoint = endpoint
        self.user = user
        self.password = password
        self.database = database
    }

    private static func cut(_ text: String, at mark: String) -> (Substring, Substring)? {
        var start = text.startIndex
        while start < text.endIndex {
            if text[start...].hasPrefix(mark) { return (text[..<start], text[text.index(start, offsetBy: mark.count)...]) }
            start = text.index(after: start)
        }
        return nil
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
