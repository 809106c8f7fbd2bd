import Basics

@testable import Caching

/// What the fuzzer and the replay check of the fields that a cache reads: nil when all is well, else what was wrong. The input is lines of
/// `name: value`, as the fields of a request and of an answer at once.
///
/// Properties: no trap; numbers in their bounds; a slow second reading of `Cache-Control` finds the same words; the common form of a field is
/// its own common form; a range lies within the body; ages and times left fit together at any time.
func checkCacheFields(_ input: [UInt8]) -> String? {
    var response = ResponseFacts(status: 200), request = RequestFacts(), controls: [[UInt8]] = []
    request.isGet = true
    for line in input.split(separator: 10).prefix(64) {
        guard let colon = line.firstIndex(of: 58) else { continue }
        let name = Array(line[..<colon]), value = Array(line[(colon + 1)...].drop { $0 == 32 })
        name.withUnsafeBytes { name in
            value.withUnsafeBytes { value in
                response.take(name, value)
                request.take(name, value)
            }
        }
        if String(decoding: name, as: UTF8.self).lowercased() == "cache-control" { controls.append(value) }
        if let wrong = forms(value) ?? ranges(value) ?? codings(value) ?? tags(value) { return wrong }
    }
    request.settle()
    return words(response.directives, controls) ?? numbers(response, request) ?? times(response, request)
}

/// The names of directives, read character by character.
private func slowNames(_ field: [UInt8]) -> [String] {
    var names: [String] = [], name: [UInt8] = [], isName = true, quoted = false, escaped = false, begins = false
    func keep() {
        let trimmed = name.drop { $0 == 32 || $0 == 9 }.reversed().drop { $0 == 32 || $0 == 9 }.reversed()
        names.append(String(decoding: trimmed.map { $0 &- 65 < 26 ? $0 | 32 : $0 }, as: UTF8.self))
    }
    for byte in field + [44] {
        if quoted {
            if escaped { escaped = false } else if byte == 92 { escaped = true } else if byte == 34 { quoted = false }
            continue
        }
        switch byte {
        case 44:
            keep()
            (name, isName) = ([], true)
        case 61 where isName: (isName, begins) = (false, true)
        case 34 where begins: (quoted, begins) = (true, false)
        default:
            if isName { name.append(byte) }
            begins = false
        }
    }
    // What stands before a quotation that does not end is a directive as well.
    if quoted { keep() }
    return names
}

private func words(_ found: ResponseDirectives, _ controls: [[UInt8]]) -> String? {
    let names = controls.flatMap(slowNames)
    let pairs: [(Bool, String)] = [
        (found.noStore, "no-store"), (found.isPrivate, "private"), (found.noCache, "no-cache"), (found.mustRevalidate, "must-revalidate"),
        (found.maxAge != nil, "max-age"), (found.sharedMaxAge != nil, "s-maxage"), (found.noTransform, "no-transform"),
    ]
    for (isFound, word) in pairs where isFound != names.contains(word) { return "\(word): \(isFound), and slowly \(names)" }
    return nil
}

private func numbers(_ response: ResponseFacts, _ request: RequestFacts) -> String? {
    let directives = response.directives, most = 1 << 31
    let all = [
        directives.maxAge, directives.sharedMaxAge, directives.staleIfError, directives.staleWhileRevalidate, response.age,
        request.directives.maxAge, request.directives.minFresh, request.directives.staleIfError,
    ]
    for number in all.compactMap({ $0 }) where !(0...most).contains(number) { return "the number \(number)" }
    if response.vary.count > ResponseFacts.mostVaryNames || response.tags.count > ResponseFacts.mostTags { return "too many names" }
    return nil
}

private func forms(_ value: [UInt8]) -> String? {
    for name in ["accept", "accept-encoding"].map({ Array($0.utf8) }) {
        let once = value.withUnsafeBytes { FieldForm.of(name, [$0]) }
        let twice = once.withUnsafeBytes { FieldForm.of(name, [$0]) }
        if once != twice { return "the form \(once) has the form \(twice)" }
    }
    return nil
}

private func ranges(_ value: [UInt8]) -> String? {
    for length in [0, 1, 10, 1 << 40] {
        if case .part(let range) = value.withUnsafeBytes({ ByteRange($0, length: length) }),
            range.isEmpty || range.lowerBound < 0 || range.upperBound > length
        {
            return "the range \(range) of \(length)"
        }
    }
    return nil
}

private func codings(_ value: [UInt8]) -> String? {
    let offered: [StaticString] = ["zstd", "br", "gzip"]
    guard let chosen = value.withUnsafeBytes({ AcceptedCoding.choose([$0], of: offered) }) else { return nil }
    if !offered.indices.contains(chosen) { return "coding \(chosen)" }
    let text = String(decoding: value, as: UTF8.self).lowercased()
    return text.contains(offered[chosen].description) || text.contains("*") ? nil : "a coding that nobody named"
}

private func tags(_ value: [UInt8]) -> String? {
    value.withUnsafeBytes { value in
        if !EntityTag.weaklyEqual(value, value) { return "a tag that is not itself" }
        _ = EntityTag.list(value, has: value)
        return nil
    }
}

private func times(_ response: ResponseFacts, _ request: RequestFacts) -> String? {
    let came = MonotonicTime(nanoseconds: 1 << 50)
    let freshness = Freshness(response, asked: came, came: came, cameWall: WallTime(milliseconds: 1_800_000_000_000))
    if freshness.lifetime < 0 || freshness.initialAge < 0 { return "lifetime \(freshness.lifetime), age \(freshness.initialAge)" }
    for now in [came, came + .seconds(5), MonotonicTime(nanoseconds: .max)] {
        let age = freshness.age(now), isFresh = freshness.left(now) > .zero
        if isFresh != (age < freshness.lifetime) { return "age \(age) of \(freshness.lifetime), fresh: \(isFresh)" }
        let reuse = Reuse(response, freshness), verdict = reuse.verdict(request.directives, now: now)
        if case .serve(isStale: true, _) = verdict.action, response.forbidsStale(trusted: false) { return "stale where it is forbidden" }
        if case .serve(isStale: false, _) = verdict.action, !isFresh { return "fresh where it is stale" }
        let stored = Storability.verdict(request, response, freshness, now: now)
        if stored == .stored, response.directives.noStore || response.directives.isPrivate || response.setsCookie { return "stored" }
        _ = reuse.mayServeOnError(request.directives, now: now)
    }
    return nil
}
