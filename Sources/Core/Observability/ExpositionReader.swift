import Basics
import Glibc

/// Picks samples out of a metrics page (Prometheus' text format 0.0.4, or OpenMetrics) while it arrives.
///
/// The reader keeps no page: it holds at most one line of the bytes it was fed, and the figures it has found. Its memory is bounded by
/// `lineLimit` and `sampleLimit`, whatever the page's size. The same bytes give the same result however they are cut. Lines that none of
/// the selectors can mean are skipped unread, so a fault in them goes unseen; a line that a selector means and that cannot be read ends the
/// reading. Lines end with LF or CR LF. In OpenMetrics `# EOF` ends the page; in the text format it is a comment as any other. `isWhole`
/// says whether the page has the end that its format asks for.
///
/// - Complexity: a line that no selector means costs a look at its name and a search for its end; of the other lines the labels are read.
public struct ExpositionReader: Sendable {
    /// Why a page gives no figure.
    public enum Failure: Error, Equatable, Sendable, CustomStringConvertible {
        /// A line that a selector means does not follow the format. `line` is its number, from 1.
        case malformed(line: Int)
        /// A line that a selector means has more than `limit` bytes.
        case lineTooLong(line: Int, limit: Int)
        /// One selector means more samples than `limit`.
        case tooManySamples(limit: Int)
        /// The page has the same series twice, so that adding up would count it twice.
        case duplicate(line: Int)

        public var description: String {
            switch self {
            case .malformed(let line): "line \(line) is no sample: expected name{label=\"value\"} number"
            case .lineTooLong(let line, let limit): "line \(line) has more than \(limit) bytes"
            case .tooManySamples(let limit): "more than \(limit) samples match; name more labels"
            case .duplicate(let line): "line \(line) repeats a series of the same page"
            }
        }
    }

    /// The format of a page, as its content type says.
    public enum Format: Sendable {
        /// Prometheus' text format 0.0.4: each line has its LF, the last one too; times of samples are whole milliseconds.
        case text
        /// OpenMetrics 1.0: the page ends with `# EOF`; times of samples are seconds.
        case openMetrics
    }

    /// The samples that one selector has found, added up.
    public struct Total: Sendable, Equatable {
        /// The number of samples.
        public var count = 0
        /// The sum of the samples. NaN and infinities go through it as through any sum.
        public var sum = 0.0
        /// The smallest and the largest sample; NaN is neither. Both are 0 when there are no samples.
        public var least = 0.0
        public var most = 0.0
        /// The type that the page's `# TYPE` line gives (`counter`, `gauge`, …); nil when the page has no such line.
        public var type: String?
        /// The oldest and the newest of the times that samples carry; nil when none carries one.
        public var oldest: WallTime?
        public var newest: WallTime?

        mutating func add(_ value: Double, at time: WallTime?) {
            if let time {
                oldest = min(oldest ?? time, time)
                newest = max(newest ?? time, time)
            }
            least = count == 0 ? value : min(least, value)
            most = count == 0 ? value : max(most, value)
            sum += value
            count += 1
        }

        /// Compares two readings of a page. NaN is equal to NaN here.
        public static func == (a: Self, b: Self) -> Bool {
            func same(_ x: Double, _ y: Double) -> Bool { x == y || x.isNaN && y.isNaN }
            return a.count == b.count && a.type == b.type && same(a.sum, b.sum) && same(a.least, b.least) && same(a.most, b.most)
        }
    }

    /// The longest line that is read, in bytes: about ten times the longest that Prometheus' own exporters write.
    public static let lineLimit = 65_536
    /// The most samples that one selector may mean: as many as Prometheus' documentation advises for a whole page.
    public static let sampleLimit = 10_000

    /// The totals of the selectors, in the order in which the selectors were given.
    public private(set) var totals: [Total]
    /// The number of lines read, with comments and empty ones.
    public private(set) var lines = 0
    private let selectors: [SampleSelector]
    private let format: Format
    private let longestLine: Int
    private let mostSamples: Int
    /// The beginning of a line whose end has not come: at most `longestLine` + 1 bytes of it.
    private var kept: [UInt8] = []
    /// For each selector, in their order, the values that it means, by a number that stands for the labels: the same labels have the same
    /// number on every page that this process reads.
    public private(set) var series: [[Int: Double]]
    private var isOver = false

    /// Reads for all `selectors` at once, in one pass.
    public init(
        _ selectors: [SampleSelector], format: Format = .openMetrics, lineLimit: Int = lineLimit, sampleLimit: Int = sampleLimit
    ) {
        self.selectors = selectors
        self.format = format
        longestLine = max(lineLimit, 1)
        mostSamples = max(sampleLimit, 1)
        totals = Array(repeating: Total(), count: selectors.count)
        series = Array(repeating: [:], count: selectors.count)
    }

    /// Takes the next bytes of the page. `found` is called for each sample, with the index of its selector.
    public mutating func feed(_ bytes: UnsafeRawBufferPointer, _ found: (Int, ExpositionSample) -> Void = { _, _ in }) throws(Failure) {
        var rest = bytes
        while !isOver, let start = rest.baseAddress, !rest.isEmpty {
            guard let end = memchr(start, 10, rest.count) else { return keep(rest) }
            let length = UnsafeRawPointer(end) - start
            if kept.isEmpty {
                try line(rest.part(0, length), found)
            } else {
                keep(rest.part(0, length))
                try finishLine(found)
            }
            rest = rest.part(length + 1, rest.count - length - 1)
        }
    }

    /// Whether the bytes fed until now end as a page of its format does: with `# EOF`, or with the LF of a line. Ask before `finish`. A
    /// page that is not whole was cut off, and its last figure may be a part of one.
    public var isWhole: Bool {
        // OpenMetrics leaves the last LF to the writer.
        format == .openMetrics ? isOver || kept.elementsEqual("# EOF".utf8) : kept.isEmpty
    }

    /// Ends the page. A last line without its LF is read as a line.
    public mutating func finish(_ found: (Int, ExpositionSample) -> Void = { _, _ in }) throws(Failure) {
        if !isOver, !kept.isEmpty { try finishLine(found) }
        isOver = true
    }

    /// Bytes that are set aside for a line whose end has not come.
    var reserved: Int { kept.capacity }

    private mutating func keep(_ part: UnsafeRawBufferPointer) {
        kept.append(contentsOf: part.prefix(longestLine + 1 - kept.count))
    }

    private mutating func finishLine(_ found: (Int, ExpositionSample) -> Void) throws(Failure) {
        let whole = kept
        kept.removeAll(keepingCapacity: true)
        let result: Result<Void, Failure> = whole.withUnsafeBytes { bytes in
            do throws(Failure) { return .success(try line(bytes, found)) } catch { return .failure(error) }
        }
        try result.get()
    }

    /// One line without its LF.
    private mutating func line(_ bytes: UnsafeRawBufferPointer, _ found: (Int, ExpositionSample) -> Void) throws(Failure) {
        lines += 1
        let isTooLong = bytes.count > longestLine
        // What is too long is looked at as far as it would have been kept.
        var line = isTooLong ? bytes.part(0, longestLine) : bytes
        if !isTooLong, line.last == 13 { line = line.part(0, line.count - 1) }
        if line.first == 35 { return comment(line, isTooLong) }
        var start = 0
        while start < line.count, ExpositionText.isBlank(line[start]) { start += 1 }
        var sample: ExpositionSample?
        for (place, selector) in selectors.enumerated() where begins(line, start, selector) {
            if isTooLong { throw .lineTooLong(line: lines, limit: longestLine) }
            if sample == nil { sample = ExpositionText.sample(line, from: start + selector.nameBytes.count, format) }
            guard let sample else { throw .malformed(line: lines) }
            guard selector.takes(sample.labels) else { continue }
            guard totals[place].count < mostSamples else { throw .tooManySamples(limit: mostSamples) }
            guard series[place].updateValue(sample.value, forKey: ExpositionReader.identity(sample.labels)) == nil else {
                throw .duplicate(line: lines)
            }
            totals[place].add(sample.value, at: sample.time)
            found(place, sample)
        }
    }

    /// Whether the name at `start` is the selector's, whole.
    private func begins(_ line: UnsafeRawBufferPointer, _ start: Int, _ selector: SampleSelector) -> Bool {
        let end = start + selector.nameBytes.count
        guard end <= line.count, selector.nameBytes.withUnsafeBytes({ memcmp($0.baseAddress!, line.baseAddress! + start, $0.count) }) == 0
        else { return false }
        return end == line.count || !ExpositionText.isName(line[end], first: false, colons: true)
    }

    private func isNamed(_ selector: SampleSelector, _ name: UnsafeRawBufferPointer) -> Bool {
        name.count == selector.nameBytes.count && name.elementsEqual(selector.nameBytes)
    }

    /// A hash of the labels in whatever order. Two series of one hash would be taken for one and the page refused: with 10,000 series
    /// that happens once in 10^11 pages.
    private static func identity(_ labels: [ExpositionSample.Label]) -> Int {
        var all = 0
        for label in labels {
            var hasher = Hasher()
            hasher.combine(label.name)
            hasher.combine(label.value)
            all = all &+ hasher.finalize()
        }
        return all
    }

    /// `# TYPE name kind`, where OpenMetrics leaves the `_total` of a counter out; `# EOF`; anything else says nothing.
    private mutating func comment(_ line: UnsafeRawBufferPointer, _ isTooLong: Bool) {
        if isTooLong { return }
        let words = line.split(maxSplits: 4, whereSeparator: ExpositionText.isBlank).map { UnsafeRawBufferPointer(rebasing: $0) }
        guard let first = words.first, first.count == 1, words.count >= 2 else { return }
        if format == .openMetrics, words.count == 2, words[1].elementsEqual("EOF".utf8) {
            isOver = true
            return
        }
        guard words.count >= 4, words[1].elementsEqual("TYPE".utf8) else { return }
        let family = words[2]
        for (place, selector) in selectors.enumerated() {
            let isOwn = isNamed(selector, family)
            let isTotal =
                words[3].elementsEqual("counter".utf8) && selector.nameBytes.count == family.count + 6 && selector.name.hasSuffix("_total")
                && selector.nameBytes.starts(with: family)
            if isOwn || isTotal { totals[place].type = words[3].string }
        }
    }
}
