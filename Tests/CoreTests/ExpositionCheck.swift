import Basics

@testable import Observability

/// What the fuzzer and its replay check of selectors and of the reader of metrics pages: nil when all is well, else what was wrong.
///
/// The first line of the input is a selector, the rest a page. Properties: no trap; a selector that reads is written in a form that reads
/// as the same; a page gives the same whole, cut in two, and byte by byte; a slow second reading, line by line, agrees.
func checkExposition(_ input: [UInt8]) -> String? {
    let first = input.firstIndex(of: 10) ?? input.count
    let page = Array(input.dropFirst(first + 1))
    var selectors = [try! SampleSelector("up{job!=\"x\"}"), try! SampleSelector("jobs_total")]
    if let selector = try? SampleSelector(String(decoding: input[..<first], as: UTF8.self)) {
        guard let again = try? SampleSelector(selector.description), again == selector else {
            return "a selector is written as another: \(selector)"
        }
        selectors.append(selector)
    }
    let whole = reading(page, selectors, pieces: page.count)
    for pieces in [1, max(1, page.count / 2), max(1, page.count / 3)] where reading(page, selectors, pieces: pieces) != whole {
        return "pieces of \(pieces) bytes change what the page says"
    }
    for (place, selector) in selectors.enumerated() {
        let alone = reading(page, [selector], pieces: max(1, page.count))
        let slow = slowReading(page, selector)
        if alone != slow { return "two readings of the page for \(selector): \(alone), slowly \(slow)" }
        if whole.failure == nil, alone.totals[0] != whole.totals[place] { return "\(selector) finds other samples when it is not alone" }
    }
    return nil
}

private let lineLimit = 200, sampleLimit = 20

private struct Outcome: Equatable {
    var totals: [ExpositionReader.Total] = []
    var samples: [ExpositionSample] = []
    var failure: ExpositionReader.Failure?
}

private func reading(_ page: [UInt8], _ selectors: [SampleSelector], pieces: Int) -> Outcome {
    var reader = ExpositionReader(selectors, lineLimit: lineLimit, sampleLimit: sampleLimit)
    var outcome = Outcome()
    do throws(ExpositionReader.Failure) {
        var at = 0
        while at < page.count {
            let piece = Array(page[at..<min(at + pieces, page.count)])
            let result: Result<Void, ExpositionReader.Failure> = piece.withUnsafeBytes { bytes in
                do throws(ExpositionReader.Failure) { return .success(try reader.feed(bytes) { outcome.samples.append($1) }) } catch {
                    return .failure(error)
                }
            }
            try result.get()
            at += pieces
        }
        try reader.finish { outcome.samples.append($1) }
    } catch { outcome.failure = error }
    outcome.totals = reader.totals
    return outcome
}

/// The same, by taking lines apart from their text with quotes masked.
private func slowReading(_ page: [UInt8], _ selector: SampleSelector) -> Outcome {
    var outcome = Outcome(totals: [ExpositionReader.Total()])
    var lines = page.split(separator: 10, omittingEmptySubsequences: false).map(Array.init)
    if lines.last?.isEmpty == true { lines.removeLast() }
    var seen: [[ExpositionSample.Label]] = []
    for (i, raw) in lines.enumerated() {
        let isTooLong = raw.count > lineLimit
        var text = Array(raw.prefix(lineLimit))
        if !isTooLong, text.last == 13 { text.removeLast() }
        if text.first == 35 {
            let words = isTooLong ? [] : text.split { $0 == 32 || $0 == 9 }.map { String(decoding: $0, as: UTF8.self) }
            if words == ["#", "EOF"] { break }
            if words.count >= 4, words[0] == "#", words[1] == "TYPE",
                utf8(words[2], selector.name) || words[3] == "counter" && utf8(words[2] + "_total", selector.name)
            {
                outcome.totals[0].type = words[3]
            }
            continue
        }
        let trimmed = Array(text.drop { $0 == 32 || $0 == 9 })
        let name = trimmed.prefix { $0 == 95 || $0 == 58 || (48...57).contains($0) || (65...90).contains($0 & 0xDF) && $0 < 128 }
        guard Array(name) == Array(selector.name.utf8) else { continue }
        if isTooLong {
            outcome.failure = .lineTooLong(line: i + 1, limit: lineLimit)
            break
        }
        guard let sample = slowSample(Array(trimmed.dropFirst(name.count))) else {
            outcome.failure = .malformed(line: i + 1)
            break
        }
        guard selector.takes(sample.labels) else { continue }
        guard outcome.samples.count < sampleLimit else {
            outcome.failure = .tooManySamples(limit: sampleLimit)
            break
        }
        let sorted = sample.labels.sorted { $0.name.lexicographicallyPrecedes($1.name) }
        guard !seen.contains(sorted) else {
            outcome.failure = .duplicate(line: i + 1)
            break
        }
        seen.append(sorted)
        outcome.samples.append(sample)
        let values = outcome.samples.map(\.value)
        outcome.totals[0].count = values.count
        outcome.totals[0].sum = values.reduce(0, +)
        outcome.totals[0].least = values.dropFirst().reduce(values[0]) { min($0, $1) }
        outcome.totals[0].most = values.dropFirst().reduce(values[0]) { max($0, $1) }
    }
    return outcome
}

private func utf8(_ a: String, _ b: String) -> Bool { Array(a.utf8) == Array(b.utf8) }

/// What follows a name. Each quoted value becomes one byte of 1, so that braces and commas can be looked for.
private func slowSample(_ rest: [UInt8]) -> ExpositionSample? {
    var masked: [UInt8] = [], values: [[UInt8]] = [], at = 0
    let opens = rest.first { $0 != 32 && $0 != 9 } == 123
    var after = rest
    if opens {
        while true {
            guard at < rest.count, rest[at] != 1 else { return nil }
            if rest[at] == 125 { break }
            if rest[at] != 34 {
                masked.append(rest[at])
                at += 1
                continue
            }
            var value: [UInt8] = []
            at += 1
            while true {
                guard at < rest.count else { return nil }
                if rest[at] == 34 { break }
                if rest[at] == 92, at + 1 < rest.count {
                    value += rest[at + 1] == 110 ? [10] : rest[at + 1] == 34 || rest[at + 1] == 92 ? [rest[at + 1]] : [92, rest[at + 1]]
                    at += 2
                } else {
                    value.append(rest[at])
                    at += 1
                }
            }
            at += 1
            values.append(value)
            masked.append(1)
        }
        after = Array(rest[(at + 1)...])
        masked.removeFirst(masked.firstIndex(of: 123)! + 1)
    } else {
        guard let first = rest.first, first == 32 || first == 9 else { return nil }
    }
    guard let labels = slowLabels(masked, values) else { return nil }
    // Without its exemplar: a # that follows a blank, or stands first.
    var words = after.split(omittingEmptySubsequences: true) { $0 == 32 || $0 == 9 }.map(Array.init)
    if let exemplar = words.firstIndex(where: { $0.first == 35 }) { words.removeSubrange(exemplar...) }
    guard words.count == 1 || words.count == 2 else { return nil }
    let numbers = words.compactMap { word -> Double? in
        let isPlain =
            word.count <= 64
            && word.allSatisfy { (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || [43, 45, 46].contains($0) }
        return isPlain ? Double(String(decoding: word, as: UTF8.self)) : nil
    }
    guard numbers.count == words.count, numbers.count == 1 || numbers[1].isFinite else { return nil }
    return ExpositionSample(value: numbers[0], labels: labels)
}

private func slowLabels(_ masked: [UInt8], _ values: [[UInt8]]) -> [ExpositionSample.Label]? {
    func trim(_ part: ArraySlice<UInt8>) -> [UInt8] {
        var part = part
        while let byte = part.first, byte == 32 || byte == 9 { part.removeFirst() }
        while let byte = part.last, byte == 32 || byte == 9 { part.removeLast() }
        return Array(part)
    }
    var parts = masked.split(separator: 44, omittingEmptySubsequences: false).map(trim)
    if parts.last?.isEmpty == true { parts.removeLast() }
    var labels: [ExpositionSample.Label] = []
    for (i, part) in parts.enumerated() {
        guard part.last == 1, i < values.count, let equals = part.firstIndex(of: 61) else { return nil }
        let name = trim(part[..<equals]), between = trim(part[(equals + 1)...])
        guard between == [1], let first = name.first, !(48...57).contains(first) else { return nil }
        guard name.allSatisfy({ $0 == 95 || (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) }) else {
            return nil
        }
        guard !labels.contains(where: { $0.name == name }) else { return nil }
        labels.append(ExpositionSample.Label(name: name, value: values[i]))
    }
    return labels
}
