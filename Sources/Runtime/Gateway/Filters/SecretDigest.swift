import COpenSSL

/// Digests of secrets, and their comparison. Both sides of every comparison of credentials go through this type.
enum SecretDigest {
    /// The digest of `bytes`; empty when the library fails, and an empty digest is equal to nothing.
    static func of(_ bytes: [UInt8], _ algorithm: OpaquePointer? = EVP_sha256()) -> [UInt8] {
        var out = [UInt8](repeating: 0, count: 64)
        var length: UInt32 = 0
        guard EVP_Digest(bytes, bytes.count, &out, &length, algorithm, nil) == 1 else { return [] }
        return Array(out[..<Int(length)])
    }

    /// Compares two digests; takes the same time wherever they differ.
    static func areEqual(_ a: [UInt8], _ b: [UInt8]) -> Bool { a.count == b.count && !a.isEmpty && CRYPTO_memcmp(a, b, a.count) == 0 }
}
