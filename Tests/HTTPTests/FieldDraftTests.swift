import Basics
import HTTP
import HTTP2
import Testing

/// Fields of HTTP/2 and what they become in HTTP/1: each rule, with what just passes and what does not.
@Suite struct FieldDraftTests {
    private typealias Fields = [(String, String)]

    private static let plain: Fields = [(":method", "GET"), (":scheme", "https"), (":authority", "a.example"), (":path", "/x?y")]

    /// A request with other pseudo-fields, or without: "-" leaves one out.
    private static func request(
        method: String = "GET", scheme: String = "http", authority: String = "a", path: String = "/", _ more: Fields = []
    ) -> Fields {
        [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)].filter { $0.1 != "-" } + more
    }

    private func take(
        _ fields: Fields, kind: FieldDraft.Kind = .request, ends: Bool = true, bytes: Int = 32_768, count: Int = 100, table: HeadTable
    ) -> FieldDraft.Verdict {
        var draft = FieldDraft()
        draft.begin(kind, sizeLimit: bytes, fieldLimit: count)
        for (name, value) in fields {
            Array(name.utf8).withUnsafeBytes { name in Array(value.utf8).withUnsafeBytes { draft.add(name, $0) } }
        }
        let verdict = draft.finish(ends: ends, into: table, key: { Array("key".utf8) })
        // The table points into the draft: what the test looks at is copied while it lives.
        seen = Seen(table)
        return verdict
    }

    private final class Seen {
        var method = "", target = ""
        var fields: [String] = []
        init() {}
        init(_ table: HeadTable) {
            method = table.methodText.string
            target = table.targetText.string
            fields = table.fields.map { "\(table.text($0.name).string): \(table.text($0.value).string)" }
        }
    }
    private final class Box { var seen = Seen() }
    private let box = Box()
    private var seen: Seen {
        get { box.seen }
        nonmutating set { box.seen = newValue }
    }

    @Test func aRequestFillsTheTableOfHTTP1() {
        let table = HeadTable()
        let verdict = take(Self.plain + [("accept", "*/*"), ("x-a", " b\t")], table: table)
        #expect(verdict == .taken)
        #expect(seen.method == "GET" && seen.target == "/x?y" && table.majorVersion == 2 && table.framing == .none)
        #expect(seen.fields == ["Host: a.example", "accept: */*", "x-a: b"])
    }

    @Test func cookiesBecomeOneField() {
        let table = HeadTable()
        let verdict = take(Self.request([("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]), table: table)
        #expect(verdict == .taken)
        #expect(seen.fields.filter { $0.hasPrefix("cookie") } == ["cookie: a=1; b=2; c=3"])
    }

    @Test func hostStandsForAnAuthority() {
        let table = HeadTable()
        #expect(take(Self.request(authority: "-", [("host", "b")]), table: table) == .taken)
        #expect(seen.fields == ["Host: b"])
        #expect(take(Self.request(authority: "B:80", [("host", "b:80")]), table: table) == .taken)
        #expect(seen.fields == ["Host: B:80"])
    }

    @Test func theBodysFramingFollowsFromItsLengthAndTheEnd() {
        let table = HeadTable()
        let cases: [(Fields, Bool, BodyFraming)] = [
            ([], true, .none), ([], false, .chunked), ([("content-length", "5")], false, .length(5)),
            ([("content-length", "0")], false, .none), ([("content-length", "0")], true, .none),
        ]
        for (fields, ends, framing) in cases {
            #expect(take(Self.request(method: "POST", fields), ends: ends, table: table) == .taken)
            #expect(table.framing == framing)
        }
    }

    @Test func anExtendedConnectBecomesAnUpgrade() {
        let table = HeadTable()
        let fields = Self.request(method: "CONNECT", path: "/chat", [("sec-websocket-version", "13")])
        let verdict = take([(":protocol", "websocket")] + fields, ends: false, table: table)
        #expect(verdict == .taken && seen.method == "GET" && table.framing == .none)
        #expect(
            seen.fields == ["Host: a", "sec-websocket-version: 13", "upgrade: websocket", "sec-websocket-key: key"])
        #expect(table.wantsUpgrade)
    }

    static let faults: [(String, [(String, String)], FieldFault)] = [
        ("a capital in a name", request([("X-A", "b")]), .badName),
        ("an empty name", request([("", "b")]), .badName),
        ("a space in a name", request([("x a", "b")]), .badName),
        ("a colon in a name", request([("x:a", "b")]), .badName),
        ("CR LF in a value", request([("x", "a\r\nhost: evil")]), .badValue),
        ("a lone LF in a value", request([("x", "a\nb")]), .badValue),
        ("NUL in a value", request([("x", "a\0b")]), .badValue),
        ("DEL in a value", request([("x", "a\u{7F}")]), .badValue),
        ("connection", request([("connection", "close")]), .connectionField),
        ("keep-alive", request([("keep-alive", "1")]), .connectionField),
        ("proxy-connection", request([("proxy-connection", "x")]), .connectionField),
        ("transfer-encoding", request([("transfer-encoding", "chunked")]), .connectionField),
        ("upgrade", request([("upgrade", "h2c")]), .connectionField),
        ("te: gzip", request([("te", "gzip")]), .badTE),
        ("te: trailers, gzip", request([("te", "trailers, gzip")]), .badTE),
        ("an unknown pseudo-field", [(":what", "x")] + request(), .unknownPseudoField),
        (":status in a request", [(":status", "200")] + request(), .unknownPseudoField),
        (":method twice", [(":method", "GET")] + request(), .repeatedPseudoField),
        (":path twice", [(":path", "/a")] + request(), .repeatedPseudoField),
        (":authority twice", [(":authority", "a")] + request(), .repeatedPseudoField),
        (":scheme twice", [(":scheme", "http")] + request(), .repeatedPseudoField),
        ("a late pseudo-field", request(path: "-", [("x", "y"), (":path", "/")]), .latePseudoField),
        ("no :method", request(method: "-"), .missingPseudoField),
        ("no :scheme", request(scheme: "-"), .missingPseudoField),
        ("no :path", request(path: "-"), .missingPseudoField),
        ("a method with a space", request(method: "GET /admin HTTP/1.1"), .badMethod),
        ("an empty method", request(method: ""), .badMethod),
        ("a method that is too long", request(method: String(repeating: "A", count: 33)), .badMethod),
        ("an empty path", request(path: ""), .badPath),
        ("a path without a slash", request(path: "x"), .badPath),
        ("an absolute path", request(path: "http://a/"), .badPath),
        ("a space in the path", request(path: "/a b"), .badPath),
        ("a line end in the path", request(path: "/ HTTP/1.1\r\nX: y"), .badPath),
        ("a tab in the path", request(path: "/a\tb"), .badPath),
        ("a fragment", request(path: "/a#b"), .badPath),
        ("bytes that are not ASCII in the path", request(path: "/ä"), .badPath),
        ("* for GET", request(path: "*"), .badPath),
        ("another scheme", request(scheme: "ftp"), .badScheme),
        ("a scheme with a path", request(scheme: "http://evil/"), .badScheme),
        ("a user in the authority", request(authority: "me@a"), .badAuthority),
        ("a path in the authority", request(authority: "a/b"), .badAuthority),
        ("a space in the authority", request(authority: "a b"), .badAuthority),
        ("an empty authority", request(authority: ""), .badAuthority),
        ("neither authority nor host", request(authority: "-"), .noAuthority),
        ("another host", request([("host", "b")]), .hostDiffers),
        ("host twice", request(authority: "-", [("host", "a"), ("host", "a")]), .hostDiffers),
        ("host with a user", request(authority: "-", [("host", "me@a")]), .badAuthority),
        ("content-length with a sign", request([("content-length", "+1")]), .badContentLength),
        ("content-length as a list", request([("content-length", "1, 1")]), .badContentLength),
        ("content-length empty", request([("content-length", "")]), .badContentLength),
        ("content-length twice", request([("content-length", "0"), ("content-length", "0")]), .badContentLength),
        ("content-length of many digits", request([("content-length", "1000000000000000000000")]), .badContentLength),
        ("a length and no body", request([("content-length", "1")]), .wrongLength),
        (":protocol without CONNECT", [(":protocol", "websocket")] + request(), .unknownPseudoField),
        ("CONNECT with a path", request(method: "CONNECT"), .unknownPseudoField),
    ]

    @Test func whatTwoCouldReadDifferentlyIsRefused() {
        for (what, fields, fault) in Self.faults {
            let table = HeadTable()
            #expect(take(fields, table: table) == .refused(fault), "\(what)")
        }
    }

    @Test func everyFaultOfFieldsIsTried() {
        let tried = Set(Self.faults.map(\.2)).union([.pseudoFieldInTrailers, .badStatus, .openTrailers, .malformed])
        #expect(Set(FieldFault.allCases) == tried)
    }

    @Test func whatIsWellFormedAndNotTakenIsAnswered() {
        let table = HeadTable()
        #expect(take([(":method", "CONNECT"), (":authority", "a:443")], table: table) == .answer(.badTarget))
        #expect(take(Self.request([("expect", "a miracle")]), table: table) == .answer(.badExpectation))
        #expect(take(Self.request([("x", "12345678901234567890")]), bytes: 200, table: table) == .answer(.headTooLarge))
        let many = (0..<5).map { ("x\($0)", "y") }
        #expect(take(Self.request(many), count: 4, table: table) == .answer(.headTooLarge))
        #expect(take(Self.request(Array(many.prefix(4))), count: 4, table: table) == .taken)
    }

    /// 32 bytes count for each field, so empty ones are not free; four times the limit is no request any more.
    @Test func aListIsCountedByItsFields() {
        var draft = FieldDraft()
        draft.begin(.request, sizeLimit: 1000, fieldLimit: 100)
        let name = Array("x".utf8)
        var fields = 0
        while !draft.isFlood {
            name.withUnsafeBytes { draft.add($0, UnsafeRawBufferPointer(start: nil, count: 0)) }
            fields += 1
        }
        #expect(fields == 4000 / 33 + 1)
    }

    @Test func trailersHaveNoPseudoFieldsAndNothingThatFrames() {
        let table = HeadTable()
        #expect(take([(":path", "/")], kind: .trailers, table: table) == .refused(.pseudoFieldInTrailers))
        #expect(take([("x", "y")], kind: .trailers, ends: false, table: table) == .refused(.openTrailers))
        let fields: Fields = [("content-length", "5"), ("host", "b"), ("authorization", "x"), ("grpc-status", "0")]
        #expect(take(fields, kind: .trailers, table: table) == .taken)
        #expect(seen.fields == ["grpc-status: 0"])
        #expect(take([("transfer-encoding", "chunked")], kind: .trailers, table: table) == .refused(.connectionField))
    }

    @Test func anAnswerHasAStatusAndNothingElse() {
        let table = HeadTable()
        #expect(take([(":status", "200"), ("content-length", "3")], kind: .answer, ends: false, table: table) == .taken)
        #expect(table.status == 200 && table.framing == .length(3))
        for status in ["", "20", "2000", "abc", "099", "600", "+20"] {
            #expect(take([(":status", status)], kind: .answer, table: table) == .refused(.badStatus), "\(status)")
        }
        #expect(take([("x", "y")], kind: .answer, table: table) == .refused(.missingPseudoField))
    }
}
