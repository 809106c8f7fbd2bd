import Basics
import COpenSSL
import Synchronization

/// A client's end of SCRAM-SHA-256 (RFC 5802, 7677), with the binding to the TLS channel where there is one (RFC 5929, tls-server-end-point).
///
/// The server is believed only once it has proved that it knows the password's verifier: `finish` throws otherwise. Takes bytes and gives
/// bytes; it has no socket.
struct SCRAM {
    /// What a client says of the channel in its first words.
    enum Binding: Equatable {
        /// There is no TLS, or this client binds nothing.
        case none
        /// There is TLS and the server offered no binding: it will notice if somebody between has taken its offer out.
        case notOffered
        case serverEndPoint([UInt8])

        var header: String {
            switch self {
            case .none: "n,,"
            case .notOffered: "y,,"
            case .serverEndPoint: "p=tls-server-end-point,,"
            }
        }
    }

    struct Failure: Error, Equatable {
        let reason: String
        init(_ reason: String) { self.reason = reason }
    }

    /// PostgreSQL's own default is 4,096; this many take some 70 ms of the loop's time.
    static let iterationLimit = 200_000

    private let password: [UInt8]
    private let binding: Binding
    private let nonce: String
    private var serverSignature: [UInt8] = []

    var isBound: Bool { if case .serverEndPoint = binding { true } else { false } }

    var mechanism: String { if case .serverEndPoint = binding { "SCRAM-SHA-256-PLUS" } else { "SCRAM-SHA-256" } }

    /// `nonce`: 18 random bytes where nil.
    init(password: String, binding: Binding, nonce: String? = nil) throws(Failure) {
        self.password = try SCRAM.prepared(password)
        self.binding = binding
        if let nonce {
            self.nonce = nonce
        } else {
            var bytes = [UInt8](repeating: 0, count: 18)
            guard RAND_bytes(&bytes, 18) == 1 else { throw Failure("OpenSSL gives no random bytes") }
            self.nonce = bytes.withUnsafeBytes { encodeBase64($0) }
        }
    }

    /// The password as SASLprep (RFC 4013) leaves it: PostgreSQL takes every ASCII text as it is. Of other texts this client does not know
    /// the normal form, and says so instead of sending a proof of another text.
    static func prepared(_ password: String) throws(Failure) -> [UInt8] {
        guard password.utf8.allSatisfy({ $0 < 128 }) else {
            throw Failure(
                "the password has a letter that is not ASCII; such passwords are not known to SCRAM here: give the role one of ASCII")
        }
        guard !password.isEmpty else { throw Failure("the server asks for a password and there is none in the URL") }
        return Array(password.utf8)
    }

    /// The first words. PostgreSQL takes the name from the startup message and none here.
    var first: [UInt8] { Array((binding.header + bare).utf8) }

    private var bare: String { "n=,r=\(nonce)" }

    /// The proof, from the server's first words.
    mutating func prove(_ challenge: [UInt8]) throws(Failure) -> [UInt8] {
        let text = String(decoding: challenge, as: UTF8.self)
        let parts = text.split(separator: ",", omittingEmptySubsequences: false)
        guard parts.count >= 3, parts[0].hasPrefix("r="), parts[1].hasPrefix("s="), parts[2].hasPrefix("i=") else {
            throw Failure(
                text.hasPrefix("m=") ? "the server wants an extension that is not known" : "the server's challenge has no r=, s=, i=")
        }
        let whole = parts[0].dropFirst(2)
        guard whole.hasPrefix(nonce), whole.utf8.count > nonce.utf8.count, whole.utf8.count <= 1024 else {
            throw Failure("the server's nonce does not begin with ours: its words belong to another exchange")
        }
        guard let salt = SCRAM.base64(parts[1].dropFirst(2)), !salt.isEmpty, salt.count <= 1024 else {
            throw Failure("the server's salt is no base64, or has no or more than 1,024 bytes")
        }
        guard let iterations = Int32(parts[2].dropFirst(2)), iterations > 0 else {
            throw Failure("the server's number of iterations is none")
        }
        guard iterations <= SCRAM.iterationLimit else {
            throw Failure("the server wants \(iterations) iterations; at most \(SCRAM.iterationLimit) are made")
        }
        let keys = SCRAM.keys(password, salt, iterations)
        var bound = Array(binding.header.utf8)
        if case .serverEndPoint(let hash) = binding { bound += hash }
        let channel = bound.withUnsafeBytes { encodeBase64($0) }
        let final = "c=\(channel),r=\(whole)"
        let signed = Array("\(bare),\(text),\(final)".utf8)
        let signature = SCRAM.hmac(SCRAM.hash(keys.client), signed)
        let proof = zip(keys.client, signature).map { $0 ^ $1 }
        serverSignature = SCRAM.hmac(keys.server, signed)
        return Array("\(final),p=\(proof.withUnsafeBytes { encodeBase64($0) })".utf8)
    }

    /// Checks the server's own proof.
    func finish(_ words: [UInt8]) throws(Failure) {
        let text = String(decoding: words, as: UTF8.self)
        if text.hasPrefix("e=") { throw Failure("the server ended the exchange: \(text.dropFirst(2).prefix(100))") }
        let value = text.hasPrefix("v=") ? SCRAM.base64(text.dropFirst(2).prefix { $0 != "," }) : nil
        guard let value, !serverSignature.isEmpty, value.count == serverSignature.count,
            CRYPTO_memcmp(value, serverSignature, value.count) == 0
        else { throw Failure("the server has not proved that it knows the password's verifier: it is not the one it says it is") }
    }

    // MARK: the arithmetic

    private static func base64(_ text: Substring) -> [UInt8]? {
        let bytes = Array(text.utf8)
        return bytes.withUnsafeBytes { decodeBase64($0) }
    }

    struct Keys {
        let client: [UInt8]
        let server: [UInt8]
    }

    private struct Known: Hashable {
        let password: [UInt8]
        let salt: [UInt8]
        let iterations: Int32
    }

    /// Keys that were computed before, so that a pool's connections cost the iterations once. Forgotten all together when there are 64.
    private static let known = Mutex<[Known: Keys]>([:])

    /// ClientKey and ServerKey. About 1.5 ms for 4,096 iterations, the first time.
    static func keys(_ password: [UInt8], _ salt: [UInt8], _ iterations: Int32) -> Keys {
        let name = Known(password: password, salt: salt, iterations: iterations)
        if let keys = known.withLock({ $0[name] }) { return keys }
        var salted = [UInt8](repeating: 0, count: 32)
        password.withUnsafeBytes { text in
            _ = PKCS5_PBKDF2_HMAC(
                text.baseAddress?.assumingMemoryBound(to: CChar.self), Int32(text.count), salt, Int32(salt.count), iterations, EVP_sha256(),
                32,
                &salted)
        }
        let keys = Keys(client: hmac(salted, Array("Client Key".utf8)), server: hmac(salted, Array("Server Key".utf8)))
        known.withLock {
            if $0.count >= 64 { $0 = [:] }
            $0[name] = keys
        }
        return keys
    }

    static func hmac(_ key: [UInt8], _ text: [UInt8]) -> [UInt8] {
        var out = [UInt8](repeating: 0, count: 32), length: UInt32 = 0
        HMAC(EVP_sha256(), key, Int32(key.count), text, text.count, &out, &length)
        return out
    }

    static func hash(_ bytes: [UInt8]) -> [UInt8] {
        var out = [UInt8](repeating: 0, count: 32)
        SHA256(bytes, bytes.count, &out)
        return out
    }
}
