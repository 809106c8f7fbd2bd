import Testing

@testable import HTTP

/// What a head is taken for.
enum Outcome: Equatable, Sendable {
    case framing(BodyFraming)
    case refused(HTTPFailure)
}

func parse(_ text: String) -> Outcome {
    var bytes = Array(text.utf8)
    let limits = HTTPLimits()
    let table = HeadTable()
    return bytes.withUnsafeMutableBytes { raw in
        let raw = UnsafeRawBufferPointer(raw)
        do throws(HTTPFailure) {
            var scanner = HeadScanner()
            guard let length = try scanner.scan(raw, limits: limits) else { return .framing(.untilClose) }
            try HeadParser.parseRequest(UnsafeRawBufferPointer(rebasing: raw[..<length]), into: table, limits: limits)
            return .framing(table.framing)
        } catch { return .refused(error) }
    }
}

@Suite struct HeadParserTests {
    static let post = "POST / HTTP/1.1\r\nHost: a\r\n"
    static let get = "GET / HTTP/1.1\r\nHost: a\r\n"

    static let accepted: [(String, BodyFraming)] = [
        (get + "\r\n", .none), (post + "Content-Length: 5\r\n\r\n", .length(5)), (post + "Content-Length: 0\r\n\r\n", .none),
        (post + "Transfer-Encoding: chunked\r\n\r\n", .chunked), (post + "transfer-encoding:\tCHUNKED \r\n\r\n", .chunked),
        ("\r\n" + get + "\r\n", .none), ("GET http://a/x?y HTTP/1.1\r\nHost: A\r\n\r\n", .none),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", .none),
        ("GET / HTTP/1.0\r\n\r\n", .none), (get + "X: \r\n\r\n", .none), (get + "X: \u{fc}\r\n\r\n", .none),
        (get + "Host-X: b\r\n\r\n", .none),
        (post + "Content-Length: 000005\r\n\r\n", .length(5)), ("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", .none),
    ]

    @Test(arguments: accepted) func takes(text: String, framing: BodyFraming) { #expect(parse(text) == .framing(framing)) }

    /// Request smuggling and its relatives: what another implementation could read differently.
    static let refused: [(String, HTTPFailure)] = [
        (post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", .lengthAndChunked),
        (post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", .lengthAndChunked),
        (post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", .badContentLength),
        (post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", .badContentLength),
        (post + "Content-Length: 5, 5\r\n\r\n", .badContentLength), (post + "Content-Length: +5\r\n\r\n", .badContentLength),
        (post + "Content-Length: -5\r\n\r\n", .badContentLength), (post + "Content-Length: 0x5\r\n\r\n", .badContentLength),
        (post + "Content-Length: 5 5\r\n\r\n", .badContentLength), (post + "Content-Length: \r\n\r\n", .badContentLength),
        (post + "Content-Length: 99999999999999999999\r\n\r\n", .badContentLength),
        (post + "Content-Length: 5;x\r\n\r\n", .badContentLength),
        (post + "Content-Length: \u{0665}\r\n\r\n", .badContentLength),
        (post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", .badTransferEncoding),
        (post + "Transfer-Encoding: chunked, chunked\r\n\r\n", .badTransferEncoding),
        (post + "Transfer-Encoding: xchunked\r\n\r\n", .badTransferEncoding),
        (post + "Transfer-Encoding: \"chunked\"\r\n\r\n", .badTransferEncoding),
        (post + "Transfer-Encoding: chunked;q=1\r\n\r\n", .badTransferEncoding),
        (post + "Transfer-Encoding: gzip, chunked\r\n\r\n", .badTransferEncoding),
        (post + "Transfer-Encoding: \r\n\r\n", .badTransferEncoding),
        (post + "Transfer-Encoding: gzip\r\n\r\n", .unknownTransferCoding),
        (post + "Transfer-Encoding: identity\r\n\r\n", .unknownTransferCoding),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", .badTransferEncoding),
        (post + "Transfer-Encoding : chunked\r\n\r\n", .badHeaderName), (post + "Content-Length : 5\r\n\r\n", .badHeaderName),
        (post + " Content-Length: 5\r\n\r\n", .foldedHeader), (post + "X: a\r\n b\r\n\r\n", .foldedHeader),
        (post + "X: a\r\n\tb\r\n\r\n", .foldedHeader),
        (post + "X\u{0}: a\r\n\r\n", .badHeaderName), (post + "X: a\u{0}b\r\n\r\n", .badHeaderValue),
        (post + "X: a\rb\r\n\r\n", .badHeaderValue),
        (post + "X: a\u{7f}\r\n\r\n", .badHeaderValue), (post + ": a\r\n\r\n", .badHeaderName), (post + "X\r\n\r\n", .badHeaderName),
        (post + "X(y): a\r\n\r\n", .badHeaderName), (post + "X: a\nY: b\r\n\r\n", .bareLineFeed),
        ("GET / HTTP/1.1\nHost: a\n\n", .bareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", .bareLineFeed), ("GET / HTTP/1.1\r\nHost: a\r\n\n", .bareLineFeed),
        ("GET / HTTP/1.1\r\n\r\n", .badHost), (get + "Host: b\r\n\r\n", .badHost), (get + "Host: a\r\n\r\n", .badHost),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", .badHost), ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", .badHost),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", .badHost),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", .badHost), ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", .badHost),
        ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", .badTarget), ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", .badTarget),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", .badTarget), ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", .badTarget),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", .badTarget),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", .badTarget), ("GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n", .badTarget),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", .badRequestLine), ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", .badRequestLine),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", .badRequestLine), ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", .badRequestLine),
        ("GET /\r\nHost: a\r\n\r\n", .badRequestLine),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", .badRequestLine), ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", .badRequestLine),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", .badRequestLine),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", .badVersion), ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", .badVersion),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", .badVersion),
        ("PRI * HTTP/2.0\r\n\r\n", .badVersion), ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", .badRequestLine),
        ("\r\n\r\n" + get + "\r\n", .badRequestLine),
        (post + "Expect: 200-ok\r\n\r\n", .badExpectation),
    ]

    @Test(arguments: refused) func refuses(text: String, failure: HTTPFailure) { #expect(parse(text) == .refused(failure)) }

    @Test func everyFailureHasAStatusAndASentence() {
        for failure in HTTPFailure.allCases {
            #expect((400...599).contains(failure.status))
            #expect(failure.message.utf8.count > 20)
        }
    }

    @Test func limitsHaveTheirOwnStatuses() {
        #expect(parse("GET /" + String(repeating: "a", count: 9000) + " HTTP/1.1\r\nHost: a\r\n\r\n") == .refused(.requestLineTooLong))
        #expect(parse("GET /" + String(repeating: "a", count: 9000)) == .refused(.requestLineTooLong))
        #expect(parse(Self.get + "X: " + String(repeating: "a", count: 40000) + "\r\n\r\n") == .refused(.headTooLarge))
        #expect(parse(Self.get + "X: " + String(repeating: "a", count: 40000)) == .refused(.headTooLarge))
        #expect(parse(Self.get + String(repeating: "X: a\r\n", count: 120) + "\r\n") == .refused(.headTooLarge))
    }

    /// A head that comes in any two pieces is found where it ends, and only there.
    @Test func findsTheEndWhereverTheBytesAreSplit() throws {
        let text = Array((Self.post + "X: y\r\nContent-Length: 3\r\n\r\nabc").utf8)
        try text.withUnsafeBytes { raw in
            for split in 0...text.count {
                var scanner = HeadScanner()
                let first = try scanner.scan(UnsafeRawBufferPointer(rebasing: raw[..<split]), limits: HTTPLimits())
                if split < text.count - 3 {
                    #expect(first == nil)
                    let second = try scanner.scan(raw, limits: HTTPLimits())
                    #expect(second == text.count - 3)
                } else {
                    #expect(first == text.count - 3)
                }
            }
        }
    }

    @Test func connectionTokens() throws {
        func keepsAlive(_ version: String, _ connection: String) -> Bool {
            var bytes = Array("GET / HTTP/\(version)\r\nHost: a\r\n\(connection)\r\n".utf8)
            let table = HeadTable()
            return bytes.withUnsafeMutableBytes {
                try? HeadParser.parseRequest(UnsafeRawBufferPointer($0), into: table, limits: HTTPLimits())
                return table.keepsAlive
            }
        }
        #expect(keepsAlive("1.1", ""))
        #expect(!keepsAlive("1.1", "Connection: close\r\n"))
        #expect(!keepsAlive("1.1", "Connection: x, CLOSE\r\n"))
        #expect(!keepsAlive("1.0", ""))
        #expect(keepsAlive("1.0", "Connection: keep-alive\r\n"))
    }

    /// Places in a head have 32 bits: whatever the settings say, a head that passes the ceiling is refused before it is parsed.
    @Test func noHeadIsLargerThanItsPlacesCanTell() {
        var limits = HTTPLimits()
        limits.head = 3 << 30
        limits.requestLine = 3 << 30
        let line = Array("GET / HTTP/1.1\r\nHost: a\r\nA: ".utf8)
        let bytes = line + [UInt8](repeating: 97, count: HTTPLimits.headCeiling + 1)
        var scanner = HeadScanner()
        #expect(throws: HTTPFailure.headTooLarge) { try bytes.withUnsafeBytes { _ = try scanner.scan($0, limits: limits) } }
        var other = HeadScanner()
        let target = Array("GET /".utf8) + [UInt8](repeating: 97, count: HTTPLimits.headCeiling + 1)
        #expect(throws: HTTPFailure.requestLineTooLong) { try target.withUnsafeBytes { _ = try other.scan($0, limits: limits) } }
    }
}
