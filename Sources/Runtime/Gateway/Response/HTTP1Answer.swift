import Basics
import HTTP

/// How a connection of HTTP/1 answers: heads as text, bodies framed as the client's version knows them.
///
/// What is written for one read of a replica's connection is gathered in the loop's scratch buffer and leaves in one call.
extension ProxyConnection {
    /// How the body of the answer under way goes to the client.
    enum BodyForm { case none, asIs, chunked, untilClose }

    func interim(_ table: HeadTable, _ edits: HeaderEdits?) {
        context.scratch.clear()
        HeadRewriter.interim(table, into: &context.scratch, edits: edits)
        context.scratch.append("\r\n")
        flush()
    }

    func respond(_ table: HeadTable, _ additions: HeadRewriter.Additions) {
        let upgrades = table.status == 101, close = upgrades ? false : mustClose()
        context.scratch.clear()
        HeadRewriter.response(table, into: &context.scratch, additions, date: context.dateLine())
        if upgrades {
            bodyForm = .none
            context.scratch.append("Connection: Upgrade\r\n")
            context.scratch.field("Upgrade", table.first(.upgrade) ?? UnsafeRawBufferPointer(start: nil, count: 0))
            context.scratch.append("\r\n")
            return
        }
        // 205 has an empty body, whatever came (RFC 9110, 15.3.6).
        bodyForm = table.status == 205 ? .none : form(additions.coding == nil || table.framing == .none ? table.framing : .chunked)
        if table.status == 205 { context.scratch.append("Content-Length: 0\r\n") }
        if bodyForm == .chunked { context.scratch.append("Transfer-Encoding: chunked\r\n") }
        // Over HTTP/2 an answer may end with its head and say no length; HTTP/1 would wait for its end.
        if table.majorVersion == 2, table.framing == .none, !isHead, ![204, 205, 304].contains(table.status),
            !table.contains(.contentLength)
        {
            context.scratch.append("Content-Length: 0\r\n")
        }
        // A 426 without it is none (RFC 9110, 15.5.22).
        let wanted = table.status == 426 ? table.first(.upgrade) : nil
        if let wanted { context.scratch.field("Upgrade", wanted) }
        if close || bodyForm == .untilClose {
            context.scratch.append(wanted == nil ? "Connection: close\r\n" : "Connection: close, Upgrade\r\n")
        } else if wanted != nil {
            context.scratch.append("Connection: Upgrade\r\n")
        } else if isOld {
            context.scratch.append("Connection: keep-alive\r\n")
        }
        context.scratch.append("\r\n")
    }

    private func form(_ framing: BodyFraming) -> BodyForm {
        switch framing {
        case .none: .none
        case .length: .asIs
        case .chunked, .untilClose: isOld ? .untilClose : .chunked
        }
    }

    func respond(_ answer: OwnAnswer, _ additions: HeadRewriter.Additions) {
        let close = mustClose()
        bodyForm = .asIs
        context.scratch.clear()
        HeadRewriter.response(answer, into: &context.scratch, additions, date: context.dateLine())
        if close { context.scratch.append("Connection: close\r\n") }
        context.scratch.append("\r\n")
        if !answer.toHead { context.scratch.append(answer.body) }
        flush()
    }

    func respond(_ answer: StoredAnswer, _ additions: HeadRewriter.Additions) {
        let close = mustClose()
        context.scratch.clear()
        HeadRewriter.response(answer, into: &context.scratch, additions)
        bodyForm = !answer.hasBody ? .none : answer.length != nil ? .asIs : isOld ? .untilClose : .chunked
        if bodyForm == .chunked { context.scratch.append("Transfer-Encoding: chunked\r\n") }
        if close || bodyForm == .untilClose {
            context.scratch.append("Connection: close\r\n")
        } else if isOld {
            context.scratch.append("Connection: keep-alive\r\n")
        }
        context.scratch.append("\r\n")
    }

    func pass(_ bytes: UnsafeRawBufferPointer) -> Bool {
        switch bodyForm {
        case .none: return false
        case .chunked:
            context.scratch.append(hex: bytes.count)
            context.scratch.append("\r\n")
            context.scratch.append(bytes)
            context.scratch.append("\r\n")
        case .asIs, .untilClose:
            // Large pieces go on as they stand in the read buffer; what is small is worth a copy that saves a call.
            if bodyForm == .asIs, bytes.count >= 16_384, context.scratch.isEmpty {
                write(bytes)
            } else {
                context.scratch.append(bytes)
            }
        }
        return true
    }

    func flush() {
        if context.scratch.isEmpty { return }
        write(context.scratch.bytes)
        context.scratch.clear(keeping: 262_144)
    }

    func endBody(_ trailers: UnsafeRawBufferPointer) {
        if bodyForm == .chunked {
            context.scratch.append("0\r\n")
            context.scratch.append(trailers)
            context.scratch.append("\r\n")
        }
        flush()
    }

    /// The end of the connection is the end of the answer, where nothing else tells it.
    func release() { responseFinished(close: bodyForm == .untilClose) }

    func breakOff() {
        context.scratch.clear(keeping: 262_144)
        resetOnClose()
        close()
    }
}
