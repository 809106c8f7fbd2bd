import Basics
import Glibc
import Redis
import Sharding

/// The password of a cluster, from a file that only its owner can read.
public enum RedisPassword {
    /// Below it a password can be tried out: Redis answers many thousand tries a second.
    public static let shortest = 16
    /// From examples and guides, and what stands in the seed documents; compared without case.
    static let known: Set<String> = [
        "alphapulse_redis_secret", "alphapulse_redis_secret_production_change_me", "your_secure_password", "your_strong_password",
        "changemechangeme", "passwordpassword",
        "redispassword123", "mysecretpassword", "supersecretpassword", "1234567890123456",
    ]

    /// The first line. Refused: a file that others can read, a password that is short or known (only where `isNew`: an old cluster has the
    /// one it has).
    public static func read(_ path: String, isNew: Bool) throws(ProvisioningFailure) -> String {
        var info = stat()
        guard stat(path, &info) == 0 else { throw ProvisioningFailure(.local, "\(SystemError("password file \(path)"))") }
        guard info.st_mode & 0o077 == 0 else {
            throw ProvisioningFailure(
                .refused, "others can read the password file \(path) (mode \(String(info.st_mode & 0o777, radix: 8))): chmod 600 \(path)")
        }
        let text: [UInt8]
        do { text = try Files.read(path, limit: 4096) } catch { throw ProvisioningFailure(.local, "\(error)") }
        let password = String(decoding: text.prefix { $0 != 10 && $0 != 13 }, as: UTF8.self)
        guard !password.isEmpty else { throw ProvisioningFailure(.refused, "the password file \(path) is empty") }
        if isNew, let reason = refusal(password) {
            throw ProvisioningFailure(.refused, "the password in \(path) \(reason); a good one: openssl rand -hex 24 > \(path)")
        }
        return password
    }

    /// Why it may not be a new cluster's password; never quotes it.
    public static func refusal(_ password: String) -> String? {
        if password.count < shortest { return "has \(password.count) characters; at least \(shortest) are needed" }
        if known.contains(password.lowercased()) || password.lowercased().contains("change_me")
            || password.lowercased().contains("changeme")
        {
            return "is a known default"
        }
        if Set(password).count < 6 { return "has fewer than six different characters" }
        return nil
    }
}

/// Who logs in. Printed, it names the user and hides the password.
public struct RedisCredentials: Sendable, CustomStringConvertible, CustomReflectable {
    public let user: String?
    public let password: String?

    /// A user without a password logs in with an empty one, which servers take for users that have `nopass`.
    public init(user: String? = nil, password: String?) {
        self.user = user
        self.password = password ?? user.map { _ in "" }
    }

    public var description: String { password == nil ? "nobody" : "\(user ?? "default"):***" }
    public var customMirror: Mirror { Mirror(self, children: ["login": description]) }

    func url(_ host: String) throws(RedisURL.Failure) -> RedisURL {
        guard let password else { return try RedisURL("redis://\(host)") }
        return try RedisURL("redis://\(RedisCredentials.escaped(user ?? "")):\(RedisCredentials.escaped(password))@\(host)")
    }

    /// Of the cluster that these nodes belong to.
    func clusterURL(_ nodes: [NodeAddress]) throws(RedisURL.Failure) -> RedisURL {
        let places = nodes.map(\.description).joined(separator: ",")
        guard let password else { return try RedisURL("redis+cluster://\(places)") }
        return try RedisURL("redis+cluster://\(RedisCredentials.escaped(user ?? "")):\(RedisCredentials.escaped(password))@\(places)")
    }

    /// Every byte but letters and digits as `%XX`, so that none means anything in a URL.
    private static func escaped(_ text: String) -> String {
        var out = ""
        for byte in text.utf8 {
            if (byte | 32) &- 97 < 26 || byte &- 48 < 10 {
                out.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                out += "%" + withUnsafeBytes(of: byte) { hexText($0) }
            }
        }
        return out
    }
}
