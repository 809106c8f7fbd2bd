import Basics
import EventLoops
import HTTP
import HTTP2

/// HTTP/2: fields go to the library in one call.
extension OutgoingFields: FieldSink {
    mutating func status(_ code: Int, reason: UnsafeRawBufferPointer) { add(":status", decimal: code) }

    mutating func field(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) { add(name, value) }

    mutating func field(_ name: StaticString, decimal: Int) { add(name, decimal: decimal) }

    mutating func lines(_ lines: UnsafeRawBufferPointer) { addLines(lines) }
}

/// How a stream of HTTP/2 answers.
extension ClientStream {
    func interim(_ table: HeadTable, _ edits: HeaderEdits?) {
        let http2 = connection.gateway.http2
        http2.fields.clear()
        HeadRewriter.interim(table, into: &http2.fields, edits: edits)
        session?.interim(self, &http2.fields)
    }

    func respond(_ table: HeadTable, _ additions: HeadRewriter.Additions) {
        let http2 = connection.gateway.http2
        if isConnect, table.status < 300 { return answerConnect(table, additions) }
        http2.fields.clear()
        HeadRewriter.response(table, into: &http2.fields, additions, date: connection.gateway.context.dateLine())
        hasBody = table.framing != .none && table.status != 205
        prioritize(table)
        session?.respond(self, &http2.fields, ends: !hasBody)
    }

    /// Agrees to an extended CONNECT. What is no agreement of the replica's and still looks like one would open a tunnel to nowhere.
    private func answerConnect(_ table: HeadTable, _ additions: HeadRewriter.Additions) {
        let http2 = connection.gateway.http2
        http2.fields.clear()
        guard table.status == 101 else {
            http2.fields.add(":status", decimal: 502)
            hasBody = false
            session?.respond(self, &http2.fields, ends: true)
            return
        }
        http2.fields.statusInstead = 200
        HeadRewriter.response(table, into: &http2.fields, additions, date: connection.gateway.context.dateLine())
        hasBody = true
        session?.respond(self, &http2.fields, ends: false)
    }

    /// The replica knows better than the client what is urgent (RFC 9218, 8).
    private func prioritize(_ table: HeadTable) {
        for field in table.fields where field.known == .other && field.name.count == 8 && table.text(field.name).equals("priority") {
            var urgency = 3, incremental = false
            for part in table.text(field.value).split(separator: 44) {
                let word = trimmed(part)
                if word.count == 3, word[0] == 117, word[1] == 61, word[2] &- 48 < 8 { urgency = Int(word[2] - 48) }
                if word.isExactly("i") || word.isExactly("i=?1") { incremental = true }
            }
            session?.prioritize(self, urgency: urgency, incremental: incremental)
        }
    }

    func respond(_ answer: OwnAnswer, _ additions: HeadRewriter.Additions) {
        let http2 = connection.gateway.http2
        http2.fields.clear()
        HeadRewriter.response(answer, into: &http2.fields, additions, date: connection.gateway.context.dateLine())
        let body = answer.toHead || isConnect && answer.status < 300 ? [] : answer.body
        hasBody = !body.isEmpty
        session?.respond(self, &http2.fields, ends: body.isEmpty)
        if !body.isEmpty {
            body.withUnsafeBytes { append($0) }
            end()
        }
    }

    func respond(_ answer: StoredAnswer, _ additions: HeadRewriter.Additions) {
        let http2 = connection.gateway.http2
        http2.fields.clear()
        HeadRewriter.response(answer, into: &http2.fields, additions)
        hasBody = answer.hasBody
        session?.respond(self, &http2.fields, ends: !hasBody)
    }

    func pass(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard hasBody else { return false }
        append(bytes)
        return true
    }

    func endBody(_ trailers: UnsafeRawBufferPointer) {
        if trailers.isEmpty { return end() }
        var fields = OutgoingFields()
        fields.addLines(trailers)
        end(trailers: fields)
    }
}
