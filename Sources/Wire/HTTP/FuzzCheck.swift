import Basics

/// What the fuzzer and its replay in the tests check of the HTTP/1 parsers: nil when all is well, else what was wrong.
///
/// Properties: no trap; never more bytes used than given; the same verdict when the bytes come in two pieces; every range of the table lies in
/// the head; a chunked body decodes alike in one piece and byte by byte.
public func checkHTTP1(_ input: [UInt8]) -> String? {
    input.withUnsafeBytes { raw in
        let whole = verdict(raw, split: raw.count)
        for split in [raw.count / 2, raw.count / 3] where verdict(raw, split: split) != whole { return "the split at \(split) changes the verdict" }
        let response = HeadTable()
        _ = try? HeadParser.parseResponse(raw, into: response, toHead: false, limits: HTTPLimits())
        if chunks(raw, step: raw.count) != chunks(raw, step: 1) { return "chunks decode differently byte by byte" }
        return nil
    }
}

private func verdict(_ raw: UnsafeRawBufferPointer, split: Int) -> String {
    var scanner = HeadScanner()
    let table = HeadTable()
    let limits = HTTPLimits()
    do throws(HTTPFailure) {
        var length = split < raw.count ? try scanner.scan(raw.part(0, split), limits: limits) : nil
        if length == nil { length = try scanner.scan(raw, limits: limits) }
        guard let length else { return "incomplete" }
        precondition(length <= raw.count)
        try HeadParser.parseRequest(raw.part(0, length), into: table, limits: limits)
        for field in table.fields {
            precondition(Int(field.name.start + field.name.count) <= length && Int(field.value.start + field.value.count) <= length)
            _ = table.isNominated(field.name)
        }
        return "\(table.framing) \(table.targetText.string) \(table.fields.count)"
    } catch { return error.rawValue }
}

private func chunks(_ raw: UnsafeRawBufferPointer, step: Int) -> [UInt8]? {
    var decoder = ChunkDecoder()
    var body: [UInt8] = []
    var at = 0
    do throws(HTTPFailure) {
        while at < raw.count, !decoder.isDone {
            let piece = raw.part(at, min(max(step, 1), raw.count - at))
            let used = try decoder.decode(piece) { (bytes) throws(HTTPFailure) -> Bool in
                body.append(contentsOf: bytes)
                return true
            }
            precondition(used <= piece.count && used > 0)
            at += used
        }
        return body
    } catch { return nil }
}
