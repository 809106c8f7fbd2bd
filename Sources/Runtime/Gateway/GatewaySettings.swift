import Basics
import EventLoops
import HTTP
import StackModel

/// Settings that hold for all routes of a gateway; a reload makes new ones.
struct GatewaySettings: Sendable {
    let trusted: [AddressRange]
    let takesProxyProtocol: Bool
    let perClient: Int
    let takesHTTP2: Bool
    /// The listeners' TLS; nil: none has it.
    var tls: TLSServer?
    /// The field that tells browsers to ask for https only, as a whole line; nil: they are told nothing.
    let hsts: [UInt8]?
    /// Digest of the admin token; empty: there is no token.
    private let tokenDigest: [UInt8]

    init(_ spec: GatewaySpec, tls: TLSServer?) throws(Gateway.Failure) {
        trusted = spec.trustedProxies
        takesProxyProtocol = spec.takesProxyProtocol
        perClient = spec.limits.perClient
        takesHTTP2 = spec.takesHTTP2
        self.tls = tls
        hsts = spec.tls?.hsts.map { Array("Strict-Transport-Security: max-age=\($0.nanoseconds / 1_000_000_000)\r\n".utf8) }
        guard let file = spec.adminTokenFile else {
            tokenDigest = []
            return
        }
        let text: [UInt8]
        do throws(SystemError) { text = try Files.read(file, limit: 4096) } catch {
            throw Gateway.Failure(description: "gateway.admin-token-file: \(error)")
        }
        let token = String(decoding: text, as: UTF8.self).split(whereSeparator: \.isWhitespace).first.map(String.init) ?? ""
        guard token.utf8.count >= 16 else {
            throw Gateway.Failure(description: "gateway.admin-token-file: \(file): the token needs at least 16 characters")
        }
        tokenDigest = SecretDigest.of(Array(token.utf8))
    }

    /// Settings that trust nobody and ask for nothing.
    init() {
        trusted = []
        takesProxyProtocol = false
        perClient = 0
        takesHTTP2 = false
        tls = nil
        hsts = nil
        tokenDigest = []
    }

    var hasToken: Bool { !tokenDigest.isEmpty }

    func trusts(_ address: IPAddress?) -> Bool {
        guard !trusted.isEmpty, let address else { return false }
        return trusted.contains { $0.contains(address) }
    }

    func isAdminToken(_ given: UnsafeRawBufferPointer) -> Bool {
        guard hasToken, given.count <= 4096 else { return false }
        return SecretDigest.areEqual(tokenDigest, SecretDigest.of(Array(given)))
    }

    /// The client's address: the peer or, as far as the proxies before it are trusted, the last address in X-Forwarded-For that is no
    /// trusted proxy. An entry that is no address ends the search.
    func clientAddress(_ table: HeadTable, peer: IPAddress?, isTrusted: Bool) -> IPAddress? {
        guard isTrusted else { return peer }
        var found = peer
        for field in table.fields.reversed() where field.known == .xForwardedFor {
            for part in table.text(field.value).split(separator: 44).reversed() {
                guard part.count <= 64, let address = IPAddress(trimmed(part).string) else { return found }
                found = address
                if !trusts(address) { return found }
            }
        }
        return found
    }
}
