import Basics
import HTTP2

@testable import HTTP

/// Checks a server's session of HTTP/2, for the fuzzer and for its replay in the tests: nil when all is well, else what was wrong. The input
/// is what comes after the preface.
///
/// Properties: no trap; the same is told when the bytes come in two pieces; a head that is taken reads the same when HTTP/1's parser reads it
/// as text; a body comes after its head and never after its end, and has the length that was declared; each stream ends once; what is sent
/// stays within bounds.
func checkHTTP2(_ input: [UInt8]) -> String? {
    let whole = HTTP2Probe(), halves = HTTP2Probe()
    whole.take(input[...])
    if whole.wrong == nil {
        halves.take(input[..<(input.count / 2)])
        halves.take(input[(input.count / 2)...])
    }
    if let wrong = whole.wrong ?? halves.wrong { return wrong }
    let one = whole.transcript, other = halves.transcript
    if one != other { return "two pieces say another thing:\n\(one)\n\(other)" }
    return nil
}

/// A session without a socket, and what it has told.
final class HTTP2Probe: HTTP2SessionOwner {
    private final class Probed: HTTP2Stream {
        unowned let probe: HTTP2Probe
        var said = "", length: Int?, body = 0, ends = 0, sawHead = false

        init(_ probe: HTTP2Probe) {
            self.probe = probe
            super.init()
        }

        override func headCame(_ table: HeadTable, ends: Bool) {
            sawHead = true
            if case .length(let count) = table.framing { length = count }
            said += "head \(table.methodText.string) \(table.targetText.string) \(table.framing) \(table.fields.count);"
            probe.compare(table)
        }
        override func bodyCame(_ bytes: UnsafeRawBufferPointer) {
            if !sawHead || ends > 0 || !isOpen { probe.note("a body outside of its message") }
            body += bytes.count
            credit(allBut: 0)
        }
        override func trailersCame(_ table: HeadTable) { said += "trailers \(table.fields.count);" }
        override func ended() {
            ends += 1
            if ends > 1 || !sawHead { probe.note("an end without a message") }
            if let length, length != body { probe.note("\(body) bytes of \(length)") }
            said += "end \(body);"
            answer("200")
        }
        override func mustAnswer(_ failure: HTTPFailure, ends: Bool) {
            said += "answer \(failure.status);"
            answer("431")
        }
        override func refused(_ fault: FieldFault) { said += "refused;" }
        override func closed(_ code: UInt32) { probe.over.append("\(id): \(said)") }

        private func answer(_ status: StaticString) {
            var fields = OutgoingFields()
            fields.add(":status", status)
            session?.respond(self, &fields, ends: false)
            let text: [UInt8] = [111, 107]
            text.withUnsafeBytes { append($0) }
            end()
        }
    }

    let table = HeadTable()
    var wrong: String?
    var over: [String] = []
    private var session: HTTP2Session?
    private var isOver = false

    init() { session = HTTP2Session(.server, HTTP2Settings(), owner: self) }

    func streamBegan() -> HTTP2Stream { Probed(self) }
    func hasOutput() {}
    func peerLeaves(last: Int32, code: UInt32) {}
    func pingAnswered() {}

    func note(_ wrong: String) { if self.wrong == nil { self.wrong = wrong } }

    private var began = false

    func take(_ input: ArraySlice<UInt8>) {
        guard let session, !isOver else { return }
        var bytes = Array(input)
        if !began { bytes = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + bytes }
        began = true
        isOver = !bytes.withUnsafeBytes { session.receive($0, now: MonotonicTime(nanoseconds: 1)) }
        produce(session)
    }

    private func produce(_ session: HTTP2Session) {
        var out = ByteBuffer()
        for _ in 0..<1000 {
            out.clear()
            session.produce(into: &out, most: 65_536)
            if out.isEmpty { return }
            if out.count > 65_536 + (1 << 20) { note("more was sent at once than fits") }
        }
        note("sending does not end")
    }

    /// What was told of streams whose requests were taken whole; what only began depends on where the bytes were cut.
    var transcript: String {
        session?.lost()
        return over.filter { $0.contains("end ") }.sorted().joined(separator: "\n")
    }

    /// Reads the head once more, as the text that HTTP/1 would have.
    func compare(_ head: HeadTable) {
        var text = Array(head.methodText) + [32] + Array(head.targetText) + Array(" HTTP/1.1\r\n".utf8)
        for field in head.fields { text += Array(head.text(field.name)) + [58, 32] + Array(head.text(field.value)) + [13, 10] }
        if head.framing == .chunked { text += Array("Transfer-Encoding: chunked\r\n".utf8) }
        text += [13, 10]
        let again = HeadTable()
        text.withUnsafeBytes { bytes in
            do throws(HTTPFailure) {
                try HeadParser.parseRequest(bytes, into: again, limits: HTTPLimits())
                if again.targetText.string != head.targetText.string { note("another target in HTTP/1") }
                let more = head.framing == .chunked ? 1 : 0
                if again.fields.count != head.fields.count + more { note("other fields in HTTP/1") }
                if again.isHead != head.isHead || again.expectsContinue != head.expectsContinue { note("another request in HTTP/1") }
            } catch { note("HTTP/1 does not take it: \(error) \(text)") }
        }
    }

    deinit { session?.lost() }
}
