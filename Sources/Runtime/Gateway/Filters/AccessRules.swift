import Basics
import COpenSSL
import HTTP
import StackModel

/// Decides who may ask on a route: which addresses, which credentials, and pages of which other origins.
struct AccessRules: Sendable {
    let allowed: [AddressRange]
    let refused: [AddressRange]
    let credentials: Credentials?
    let cors: CrossOrigin?

    init(_ spec: AccessSpec, route: String) throws(Gateway.Failure) {
        allowed = spec.allowed
        refused = spec.refused
        credentials = try Credentials(spec, route: route)
        cors = spec.cors.map(CrossOrigin.init)
    }

    /// Whether a client may ask, by its address. A client without one (a Unix socket) is on this machine and may.
    func admits(_ client: IPAddress?) -> Bool {
        guard let client else { return true }
        if refused.contains(where: { $0.contains(client) }) { return false }
        return allowed.isEmpty || allowed.contains { $0.contains(client) }
    }
}

/// Users and tokens, read once, together with the configuration. Memory holds only digests of tokens; passwords are digests in the file
/// already.
struct Credentials: Sendable {
    private enum Secret: Sendable, Equatable {
        case sha256([UInt8])
        case saltedSHA1(digest: [UInt8], salt: [UInt8])
    }
    private var users: [String: Secret] = [:]
    private var tokens: [[UInt8]] = []
    /// The challenge that a refused client is sent.
    let challenge: String
    private static let fileLimit = 1 << 20

    init?(_ spec: AccessSpec, route: String) throws(Gateway.Failure) {
        guard spec.basicFile != nil || spec.bearerFile != nil else { return nil }
        var challenges: [String] = []
        if spec.basicFile != nil { challenges.append("Basic realm=\"\(spec.realm)\", charset=\"UTF-8\"") }
        if spec.bearerFile != nil { challenges.append("Bearer realm=\"\(spec.realm)\"") }
        challenge = challenges.joined(separator: ", ")
        if let file = spec.basicFile {
            for (number, line) in try Credentials.lines(file, route) {
                guard let colon = line.firstIndex(of: ":"), let secret = Credentials.secret(line[line.index(after: colon)...]) else {
                    throw Gateway.Failure(
                        description:
                            "route \(route): \(file) line \(number): expected user:{SHA256}base64 or user:{SSHA}base64 (htpasswd's slow "
                            + "forms would hold up everyone)"
                    )
                }
                users[String(line[..<colon])] = secret
            }
        }
        if let file = spec.bearerFile {
            for (number, line) in try Credentials.lines(file, route) {
                if line.hasPrefix("{") {
                    guard case .sha256(let digest)? = Credentials.secret(line) else {
                        throw Gateway.Failure(
                            description: "route \(route): \(file) line \(number): expected a token, or {SHA256} and its digest in base64")
                    }
                    tokens.append(digest)
                } else {
                    tokens.append(SecretDigest.of(Array(line.utf8)))
                }
            }
        }
    }

    private static func lines(_ file: String, _ route: String) throws(Gateway.Failure) -> [(number: Int, text: Substring)] {
        let bytes: [UInt8]
        do throws(SystemError) { bytes = try Files.read(file, limit: fileLimit) } catch {
            throw Gateway.Failure(description: "route \(route): auth: \(error)")
        }
        let lines = String(decoding: bytes, as: UTF8.self).split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated()
        return lines.map { ($0 + 1, $1) }.filter { !$1.isEmpty && !$1.hasPrefix("#") }
    }

    private static func secret(_ text: Substring) -> Secret? {
        func decoded(_ prefix: String) -> [UInt8]? {
            guard text.hasPrefix(prefix) else { return nil }
            return Array(text.dropFirst(prefix.count).utf8).withUnsafeBytes { decodeBase64($0) }
        }
        if let bytes = decoded("{SHA256}"), bytes.count == 32 { return .sha256(bytes) }
        if let bytes = decoded("{SSHA}"), bytes.count > 20 { return .saltedSHA1(digest: Array(bytes[..<20]), salt: Array(bytes[20...])) }
        return nil
    }

    /// Whether an Authorization field's value names somebody who may.
    func admits(_ authorization: UnsafeRawBufferPointer?) -> Bool {
        guard let authorization, let space = authorization.firstIndex(of: 32), authorization.count <= 8192 else { return false }
        let scheme = authorization.part(0, space), rest = trimmed(authorization[(space + 1)...])
        if scheme.equals("bearer") {
            let given = SecretDigest.of(Array(rest))
            // Every token is looked at, so that the time tells nothing.
            return tokens.reduce(false) { SecretDigest.areEqual($1, given) || $0 }
        }
        guard scheme.equals("basic"), let pair = decodeBase64(rest), let colon = pair.firstIndex(of: 58) else { return false }
        let password = Array(pair[(colon + 1)...])
        switch users[String(decoding: pair[..<colon], as: UTF8.self)] {
        case .sha256(let digest)?: return SecretDigest.areEqual(digest, SecretDigest.of(password))
        case .saltedSHA1(let digest, let salt)?: return SecretDigest.areEqual(digest, SecretDigest.of(password + salt, EVP_sha1()))
        case nil: return false
        }
    }
}

/// Cross-origin resource sharing, as the Fetch standard has it.
struct CrossOrigin: Sendable {
    private let origins: [[UInt8]]
    private let any: Bool
    private let preflight: String
    private let exposed: String
    private let credentials: Bool

    init(_ spec: CORSSpec) {
        any = spec.origins.contains("*")
        origins = spec.origins.map { Array($0.utf8) }
        credentials = spec.credentials
        preflight =
            "Access-Control-Allow-Methods: \(spec.methods.joined(separator: ", "))\r\nAccess-Control-Allow-Headers: "
            + "\(spec.headers.joined(separator: ", "))\r\n"
            + "Access-Control-Max-Age: \(spec.maxAge.nanoseconds / 1_000_000_000)\r\n"
        exposed = spec.exposed.isEmpty ? "" : "Access-Control-Expose-Headers: \(spec.exposed.joined(separator: ", "))\r\n"
    }

    /// Fields of the answer to another origin.
    static let fields = [
        "access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-methods", "access-control-allow-headers",
        "access-control-max-age",
        "access-control-expose-headers",
    ]

    /// Whether the request is a preflight: a question whether a request may be made, rather than the request itself.
    static func isPreflight(_ table: HeadTable) -> Bool {
        table.methodText.isExactly("OPTIONS") && table.value(Array("origin".utf8)) != nil
            && table.value(Array("access-control-request-method".utf8)) != nil
    }

    /// The lines that let the request's origin read the answer; `Vary` alone when it may not.
    func lines(_ table: HeadTable, isPreflight: Bool) -> String {
        let vary = any ? "" : "Vary: Origin\r\n"
        guard let origin = table.value(Array("origin".utf8)) else { return vary }
        guard any || origins.contains(where: { $0.elementsEqual(origin) }) else { return vary }
        return vary + "Access-Control-Allow-Origin: \(any ? "*" : origin.string)\r\n"
            + (credentials ? "Access-Control-Allow-Credentials: true\r\n" : "")
            + (isPreflight ? preflight : exposed)
    }
}
