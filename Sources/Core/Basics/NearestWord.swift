/// The known word that was most likely meant: the smallest edit distance, at most a third of the word's
/// length (and at least 1, so that `por` finds `port`); nil when nothing is near. O(words × length²).
public func nearestWord(to word: String, in known: some Sequence<String>) -> String? {
    var best: (word: String, distance: Int)?
    let allowed = max(1, word.utf8.count / 3 + 1)
    let word = word.lowercased()
    for candidate in known {
        let other = candidate.lowercased()
        // So many letters at least are missing or too many: a long word costs nothing.
        guard abs(word.utf8.count - other.utf8.count) <= allowed else { continue }
        let distance = editDistance(word, other)
        if distance <= allowed, distance < best?.distance ?? .max { best = (candidate, distance) }
    }
    return best?.word
}

/// Optimal string alignment: insert, delete, replace, and swap of neighbours count one each.
func editDistance(_ a: String, _ b: String) -> Int {
    let a = Array(a.utf8), b = Array(b.utf8)
    var beforeLast = [Int](repeating: 0, count: b.count + 1)
    var last = Array(0...b.count)
    for i in 0..<a.count {
        var row = [Int](repeating: i + 1, count: b.count + 1)
        for j in 0..<b.count {
            let replaced = last[j] + (a[i] == b[j] ? 0 : 1)
            row[j + 1] = min(replaced, last[j + 1] + 1, row[j] + 1)
            if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { row[j + 1] = min(row[j + 1], beforeLast[j - 1] + 1) }
        }
        beforeLast = last
        last = row
    }
    return last[b.count]
}
