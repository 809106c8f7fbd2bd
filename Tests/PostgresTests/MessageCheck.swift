import Basics

@testable import Postgres

/// What the fuzzer and its replay check of PostgreSQL's messages: nil when all is well, else what was wrong.
///
/// The first byte of the input says whose messages follow: 0 a server's, 1 a client's, 2 the first message of a connection, 3 a server's as
/// the answer to a simple text, 4 as the answer to two statements of the extended protocol, 5 an array in binary and 6 one as text. Properties:
/// no trap; a message that is read is written to the same bytes; a frame that has not come whole is no frame; an answer keeps no more
/// than its bound.
func checkMessages(_ input: [UInt8]) -> String? {
    guard let first = input.first else { return nil }
    return input.withUnsafeBytes { all in
        let bytes = all.part(1, all.count - 1)
        return switch first % 7 {
        case 0, 1: checkStream(bytes, isServers: first % 7 == 0)
        case 2: checkOpening(bytes)
        case 3, 4: checkAnswer(bytes, isSimple: first % 7 == 3)
        default: checkArray(bytes, isBinary: first % 7 == 5)
        }
    }
}

private let frameLimit = 4096

private func checkStream(_ bytes: UnsafeRawBufferPointer, isServers: Bool) -> String? {
    var at = 0
    while at < bytes.count {
        let rest = bytes.part(at, bytes.count - at)
        guard let frame = (try? MessageFrame.next(rest, limit: frameLimit)) ?? nil else { return nil }
        if frame.body.upperBound > rest.count || frame.body.count > frameLimit { return "a frame beyond its bytes" }
        let whole = Array(rest.part(0, frame.body.upperBound))
        for end in [1, 4, frame.body.upperBound - 1] where end > 0 && end < frame.body.upperBound {
            if ((try? MessageFrame.next(rest.part(0, end), limit: frameLimit)) ?? nil) != nil { return "a frame of \(end) bytes" }
        }
        let body = rest.part(frame.body.lowerBound, frame.body.count)
        if isServers {
            if let message = try? BackendMessage(kind: frame.kind, body) {
                if message.encoded != whole { return "a server's message is written as another: \(message)" }
                if case .dataRow(let row) = message, DataRow(row.values) != row { return "a row is written as another" }
            }
        } else if let message = try? FrontendMessage(kind: frame.kind, body) {
            if message.encoded != whole { return "a client's message is written as another: \(message)" }
            if case .proof(let proof) = message, let first = try? FrontendMessage.SASLFirst(proof), first.proof != proof {
                return "a first word of SASL is written as another"
            }
        }
        at += frame.body.upperBound
    }
    return nil
}

private func checkOpening(_ bytes: UnsafeRawBufferPointer) -> String? {
    guard let frame = (try? MessageFrame.opening(bytes, limit: OpeningMessage.limit)) ?? nil,
        let message = try? OpeningMessage(bytes.part(frame.body.lowerBound, frame.body.count))
    else { return nil }
    return message.encoded == Array(bytes.part(0, frame.body.upperBound)) ? nil : "a first message is written as another: \(message)"
}

private func checkAnswer(_ bytes: UnsafeRawBufferPointer, isSimple: Bool) -> String? {
    var limits = PostgresLimits()
    limits.rowBytes = 200
    limits.columns = 20
    var answer = AnswerMachine(simple: limits)
    if !isSimple {
        let kept = PreparedStatements.Kept(key: PreparedStatements.Key(text: "", types: []), name: "m1")
        answer = AnswerMachine(
            parts: [
                AnswerMachine.Part(kept: kept, closesOne: true, isNew: true, isDescribed: true, format: 0),
                AnswerMachine.Part(kept: kept, closesOne: false, isNew: false, isDescribed: false, format: 1),
            ], limits)
    }
    var at = 0
    do throws(ProtocolFailure) {
        while let frame = try MessageFrame.next(bytes.part(at, bytes.count - at), limit: frameLimit) {
            let body = bytes.part(at + frame.body.lowerBound, frame.body.count)
            if frame.kind == 90 {
                try answer.finish()
                if answer.error == nil, !isSimple, answer.results.count != 2 { return "an answer of \(answer.results.count) results for 2" }
                break
            }
            try answer.received(frame.kind, body)
            at += frame.body.upperBound
            if answer.results.reduce(0, { $0 + $1.size }) > limits.rowBytes { return "more rows than the bound" }
        }
    } catch { return nil }
    for result in answer.results {
        for row in result where row.texts.count != result.columns.all.count { return "a row of \(row.texts.count) values" }
    }
    return nil
}

private func checkArray(_ bytes: UnsafeRawBufferPointer, isBinary: Bool) -> String? {
    let cell = PostgresCell(bytes: bytes, isBinary: isBinary, type: 1007)
    guard let elements = PostgresArrayReader.elements(cell) else { return nil }
    if elements.reduce(0, { $0 + ($1.bytes?.count ?? 0) }) > bytes.count { return "an array of more bytes than there are" }
    _ = [Int32](cell: cell)
    _ = PostgresNumeric.text(bytes)
    return nil
}
