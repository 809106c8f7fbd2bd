import Basics
import EventLoops
import HTTP
import Testing

/// The PROXY protocol, both versions, and cookies: what comes in goes by bytes of others.
@Suite struct ProxyHeaderTests {
    private static let addresses = [
        "192.0.2.1", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::1", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ]

    private static func parse(_ bytes: some Sequence<UInt8>) throws(ProxyHeader.Failure) -> ProxyHeader.Parsed? {
        let all = Array(bytes)
        let result = all.withUnsafeBytes { raw in Result { () throws(ProxyHeader.Failure) in try ProxyHeader.parse(raw) } }
        return try result.get()
    }

    private static func render(_ version: ProxyHeader.Version, _ source: SocketAddress) -> [UInt8] {
        var out = ByteBuffer()
        ProxyHeader.render(version, source: source, into: &out)
        return Array(out.bytes)
    }

    @Test(arguments: addresses, [ProxyHeader.Version.one, .two]) func whatIsRenderedReadsAsItself(
        address: String, version: ProxyHeader.Version
    ) throws {
        for port in [0, 1, 80, 65535] as [UInt16] {
            let source = SocketAddress(try #require(IPAddress(address)), port: port)
            let header = Self.render(version, source)
            let parsed = try Self.parse(header + Array("GET / HTTP/1.1\r\n".utf8))
            #expect(parsed?.source == source && parsed?.length == header.count)
        }
    }

    private static let valid: [[UInt8]] = [
        Array("PROXY UNKNOWN\r\n".utf8), Array("PROXY UNKNOWN a b c d e\r\n".utf8),
        Array("PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n".utf8),
        Array("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n".utf8),
        Array("\r\n\r\n\0\r\nQUIT\n".utf8) + [0x20, 0, 0, 0],
        Array("\r\n\r\n\0\r\nQUIT\n".utf8) + [0x21, 0x11, 0, 15, 1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 0, 81, 4, 0, 0],
        Array("\r\n\r\n\0\r\nQUIT\n".utf8) + [0x21, 0x21, 0, 36] + [UInt8](repeating: 7, count: 36),
        Array("\r\n\r\n\0\r\nQUIT\n".utf8) + [0x21, 0x31, 0, 216] + [UInt8](repeating: 0, count: 216),
        Array("\r\n\r\n\0\r\nQUIT\n".utf8) + [0x20, 0xFF, 0x0F, 0xF0] + [UInt8](repeating: 9, count: 4080),
    ]

    @Test(arguments: valid) func everyTruncationWaitsForMore(header: [UInt8]) throws {
        for count in 0..<header.count {
            let parsed = try Self.parse(header.prefix(count))
            #expect(parsed == nil, "\(count) of \(header.count)")
        }
        let whole = try Self.parse(header)
        #expect(whole?.length == header.count)
    }

    /// Whatever comes: an answer, within the bytes that there are.
    @Test(arguments: valid) func noMutationTraps(header: [UInt8]) {
        var random = SeededRandom(seed: UInt64(header.count))
        for _ in 0..<4000 {
            var bytes = header
            for _ in 0...Int.random(in: 0..<4, using: &random) {
                let at = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                case 2: bytes.insert([0, 10, 13, 32, 80, 255].randomElement(using: &random)!, at: at)
                default: if bytes.count > 1 { bytes.remove(at: at) }
                }
            }
            guard let parsed = try? Self.parse(bytes) else { continue }
            #expect(parsed.length <= bytes.count && parsed.length > 0)
        }
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\n", "PROXZ UNKNOWN\r\n", "proxy unknown\r\n", "\r\n\r\nx", "\0",
    ]) func whatIsNoHeaderIsMissing(text: String) { #expect(throws: ProxyHeader.Failure.missing) { try Self.parse(text.utf8) } }

    @Test(arguments: [
        "PROXY \r\n", "PROXY \n", "PROXY UNKNOWNX\r\n", "PROXY TCP4\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n", "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "PROXY TCP6 [::1] [::1] 1 2\r\n",
        "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
    ]) func aFirstVersionThatIsWrongIsRefused(text: String) { #expect(throws: ProxyHeader.Failure.malformed) { try Self.parse(text.utf8) } }

    @Test func lengthsHaveTheirBounds() throws {
        let longest = Array("PROXY UNKNOWN ".utf8) + [UInt8](repeating: 120, count: 91)
        let parsed = try Self.parse(longest + [13, 10])
        #expect(parsed?.length == 107)
        #expect(throws: ProxyHeader.Failure.malformed) { try Self.parse(longest + [120, 13, 10]) }
        let signature = Array("\r\n\r\n\0\r\nQUIT\n".utf8)
        for rest in [
            [0x21, 0x11, 0x0F, 0xF1], [0x21, 0x11, 0, 11], [0x21, 0x21, 0, 35], [0x11, 0x11, 0, 12], [0x22, 0x11, 0, 12],
            [0x21, 0x41, 0, 12],
        ] as [[UInt8]] {
            #expect(throws: ProxyHeader.Failure.malformed) { try Self.parse(signature + rest + [UInt8](repeating: 0, count: 40)) }
        }
    }

    // MARK: cookies

    private func cookie(_ field: String, _ name: String) -> String? {
        Array(field.utf8).withUnsafeBytes { bytes in cookieValue(bytes, Array(name.utf8)).map { String(decoding: $0, as: UTF8.self) } }
    }

    @Test(arguments: [
        ("a=1", "1"), ("b=2; a=1", "1"), ("a=1; a=2", "1"), ("b=2;a=1", "1"), (" a=1 ", "1"), ("a=\"1\"", "1"), ("a=\"\"", ""), ("a=", ""),
        ("a=x=y", "x=y"),
        ("a=\"", "\""),
        ("aa=2; a=1", "1"), (";;; a=1;", "1"), ("b; a=1", "1"), ("a= 1", "1"), ("b=a=2; a=1", "1"),
    ]) func aCookieIsFound(field: String, value: String) { #expect(cookie(field, "a") == value) }

    @Test(arguments: ["", "a", "A=1", "aa=1", "b=a=1", "=1", ";", "a =1", "b=\"; c=\""]) func whatIsAnotherCookieIsNot(field: String) {
        #expect(cookie(field, "a") == nil)
    }

    @Test func aQuoteDoesNotHideASemicolon() { #expect(cookie("b=\"; a=1; c=\"", "a") == "1") }
}
