import Basics
import TestSupport
import Testing

@testable import Gateway
@testable import HTTP

/// Heads are rewritten into fields, whatever form these then take: here a list of pairs, as a protocol without text lines would have them.
@Suite struct HeadFieldsTests {
    /// Fields as pairs; what came as lines is taken apart.
    private struct Pairs: FieldSink {
        var code = 0
        var fields: [String] = []

        mutating func status(_ code: Int, reason: UnsafeRawBufferPointer) { self.code = code }
        mutating func field(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
            fields.append("\(name.string.lowercased())=\(value.string)")
        }
        mutating func field(_ name: StaticString, decimal: Int) { fields.append("\("\(name)".lowercased())=\(decimal)") }
        mutating func lines(_ lines: UnsafeRawBufferPointer) {
            for line in lines.string.split(separator: "\r\n") {
                let parts = line.split(separator: ":", maxSplits: 1)
                fields.append("\(parts[0].lowercased())=\(parts[1].drop { $0 == " " })")
            }
        }
    }

    private static let head =
        "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nConnection: x-private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n"
        + "Upgrade: h2c\r\nServer: s\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"

    private func rewritten<Sink: FieldSink & ~Copyable>(_ head: String, into sink: inout Sink) {
        let bytes = Array(head.utf8), table = HeadTable()
        bytes.withUnsafeBytes { bytes in
            do { try HeadParser.parseResponse(bytes, into: table, toHead: false, limits: HTTPLimits()) } catch {
                Issue.record("\(error)")
                return
            }
            let id = Array("id7".utf8), lines = Array("X-Added: yes\r\nRetry-After: 1\r\n".utf8)
            id.withUnsafeBytes { id in
                lines.withUnsafeBytes { lines in
                    HeadRewriter.response(
                        table, into: &sink, HeadRewriter.Additions(id: id, lines: lines, edits: nil), date: Array("Date: now\r\n".utf8))
                }
            }
        }
    }

    @Test func anAnswersFieldsAreTheSameInBothForms() {
        var pairs = Pairs(), text = ByteBuffer()
        rewritten(Self.head, into: &pairs)
        rewritten(Self.head, into: &text)
        #expect(pairs.code == 200)
        #expect(
            pairs.fields == [
                "content-length=3", "server=s", "set-cookie=a=1", "set-cookie=b=2", "date=now", "x-request-id=id7", "x-added=yes",
                "retry-after=1",
            ])
        var lines = Pairs()
        let all = text.bytes.string
        #expect(all.hasPrefix("HTTP/1.1 200 Fine\r\n"))
        Array(all.utf8.dropFirst("HTTP/1.1 200 Fine\r\n".utf8.count)).withUnsafeBytes { lines.lines($0) }
        #expect(lines.fields == pairs.fields)
    }

    /// What belongs to the connection between gateway and replica is no field of the answer.
    @Test func noFieldOfTheConnectionPasses() {
        var pairs = Pairs()
        rewritten(Self.head, into: &pairs)
        for name in ["connection", "keep-alive", "upgrade", "x-private", "transfer-encoding"] {
            #expect(!pairs.fields.contains { $0.hasPrefix(name + "=") }, "\(name)")
        }
    }

    @Test func anAnswerOfTheGatewaysOwnHasItsFieldsInBothForms() {
        var pairs = Pairs(), text = ByteBuffer()
        let answer = OwnAnswer(status: 429, type: "application/json", body: [1, 2], toHead: false)
        let none = UnsafeRawBufferPointer(start: nil, count: 0)
        let additions = HeadRewriter.Additions(id: none, lines: none, edits: nil)
        HeadRewriter.response(answer, into: &pairs, additions, date: Array("Date: now\r\n".utf8))
        HeadRewriter.response(answer, into: &text, additions, date: Array("Date: now\r\n".utf8))
        #expect(pairs.code == 429)
        #expect(pairs.fields == ["content-type=application/json", "content-length=2", "date=now", "x-request-id="])
        #expect(
            text.bytes.string
                == "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 2\r\nDate: now\r\nX-Request-Id: \r\n"
        )
    }

    /// The order of a route's filters: who may not ask at all is told first, and what lets other origins read the answer comes last.
    @Test func filtersStandInTheirOrder() {
        #expect(RouteFilter.allCases == [.addresses, .deniedPaths, .preflight, .repeats, .credentials, .fixedAnswer, .sharing])
    }
}
