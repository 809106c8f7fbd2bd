import Basics

/// Checks the HTTP/1 parsers, for the fuzzer and for its replay in the tests: nil when all is well, else what was wrong.
///
/// Properties: no trap; never more bytes used than given; the same verdict when the bytes come in two pieces; every range of the table lies
/// in the head; a chunked body decodes alike in one piece and byte by byte; what a table says of its fields (upgrade, close, a value by
/// name) is what a slow reading of them says; a host is one to a slow reading, too.
public func checkHTTP1(_ input: [UInt8]) -> String? {
    input.withUnsafeBytes { raw in
        for line in raw.prefix(600).split(separator: 10, omittingEmptySubsequences: false).prefix(8) {
            let host = UnsafeRawBufferPointer(rebasing: line)
            if HeadParser.isHost(host) != isHostSlowly(Array(host)) { return "two readings of a host: \(host.string)" }
        }
        let whole = verdict(raw, split: raw.count)
        for split in [raw.count / 2, raw.count / 3] where verdict(raw, split: split) != whole {
            return "the split at \(split) changes the verdict"
        }
        if let wrong = responses(raw) { return wrong }
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
        if let wrong = fields(table) { preconditionFailure(wrong) }
        for host in values(table, "host") where !isHostSlowly(host) { preconditionFailure("a Host that is none went through") }
        let upgrade = table.upgrade.map(\.string) ?? "-"
        return
            "\(table.framing) \(table.targetText.string) \(table.fields.count) \(upgrade) \(table.keepsAlive) \(table.expectsContinue) "
            + "\(table.methodIsIdempotent)"
    } catch { return error.rawValue }
}

private func responses(_ raw: UnsafeRawBufferPointer) -> String? {
    let response = HeadTable(), toHead = HeadTable()
    let parsed: Void? = try? HeadParser.parseResponse(raw, into: response, toHead: false, limits: HTTPLimits())
    let parsedToHead: Void? = try? HeadParser.parseResponse(raw, into: toHead, toHead: true, limits: HTTPLimits())
    if (parsed == nil) != (parsedToHead == nil) { return "what was asked for changes whether a response can be read" }
    guard parsed != nil else { return nil }
    if toHead.framing != .none { return "an answer to HEAD has a body" }
    if response.status < 200 || response.status == 204 || response.status == 304, response.framing != .none {
        return "\(response.status) has a body"
    }
    return fields(response)
}

/// Compares what a table says of its fields with a slow reading of them.
private func fields(_ table: HeadTable) -> String? {
    for field in table.fields {
        let name = Array(table.text(field.name).string.lowercased().utf8)
        guard let value = table.value(name), let first = values(table, String(decoding: name, as: UTF8.self)).first else {
            return "a field is not found by its name"
        }
        if !value.elementsEqual(first) { return "not the first field of this name" }
    }
    let options = values(table, "connection").flatMap { $0.split(separator: 44) }.map { words($0) }
    if options.contains("close"), table.keepsAlive { return "close was taken back" }
    if !options.contains("keep-alive"), table.minorVersion == 0, table.keepsAlive { return "HTTP/1.0 stays open unasked" }
    if table.wantsUpgrade, !options.contains("upgrade") { return "an upgrade that nobody asked for" }
    guard let upgrade = table.upgrade else { return nil }
    if !table.wantsUpgrade || table.framing != .none || table.minorVersion != 1 { return "an upgrade where there can be none" }
    if upgrade.isEmpty || upgrade.contains(44) || !upgrade.elementsEqual(values(table, "upgrade").first ?? []) {
        return "an upgrade to nothing or to several"
    }
    return nil
}

/// The values of the fields of a name in lower case, by comparing all of them.
private func values(_ table: HeadTable, _ name: String) -> [[UInt8]] {
    table.fields.filter { table.text($0.name).string.lowercased() == name }.map { Array(table.text($0.value)) }
}

/// In lower case, without blanks at either end.
private func words(_ bytes: [UInt8].SubSequence) -> String {
    var part = bytes
    while part.first == 32 || part.first == 9 { part.removeFirst() }
    while part.last == 32 || part.last == 9 { part.removeLast() }
    return String(decoding: part, as: UTF8.self).lowercased()
}

/// `HeadParser.isHost`, read from the back: first the port is taken off, then what is left must be a name or an address in brackets.
private func isHostSlowly(_ bytes: [UInt8]) -> Bool {
    guard bytes.count <= 255 else { return false }
    let digits = Set("0123456789".utf8), hex = digits.union("abcdefABCDEF".utf8)
    let plain = digits.union("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~".utf8)
    var name = bytes
    let port = bytes.suffix(while: { digits.contains($0) })
    if port.count <= 5, port.count < bytes.count, bytes[bytes.count - port.count - 1] == 58 {
        // In brackets a colon is the address's own.
        let before = Array(bytes.dropLast(port.count + 1))
        if before.first != 91 || before.last == 93 { name = before }
    }
    if name.first == 91 {
        return name.count >= 4 && name.last == 93 && name.dropFirst().dropLast().allSatisfy { hex.contains($0) || $0 == 58 || $0 == 46 }
    }
    guard !name.isEmpty else { return false }
    var rest = name[...]
    while let byte = rest.popFirst() {
        if byte == 37 {
            guard rest.count >= 2, hex.contains(rest.removeFirst()), hex.contains(rest.removeFirst()) else { return false }
        } else if !plain.contains(byte) {
            return false
        }
    }
    return true
}

extension [UInt8] {
    fileprivate func suffix(while holds: (UInt8) -> Bool) -> ArraySlice<UInt8> {
        var from = count
        while from > 0, holds(self[from - 1]) { from -= 1 }
        return self[from...]
    }
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
