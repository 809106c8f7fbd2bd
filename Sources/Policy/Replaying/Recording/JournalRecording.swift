import Autoscaling
import Basics
import JSONCoding

/// Reads the decision journal (`muster why --json`): the scale records' sizes and figures.
///
/// Of each record of kind `scale`: `at`, `subject` (a service), `inputs.replicas`, and of each other input the figure it begins with:
/// `87 % of the request, …`, `350m each, …`, `64 MiB each, …`, `120 each, …`, `900, …`. The live loop writes a decision down when it
/// differs from the one before, so a figure stands until the next record. A figure that is `unknown: …` ends the one before: from there on
/// nothing is known of the metric. Records of other kinds, and inputs that begin with neither, are passed over.
public enum JournalRecording {
    /// The most bytes of a journal; a journal holds some thousand records.
    public static let byteLimit = 64 << 20

    public static func read(_ bytes: [UInt8]) throws -> Recording {
        guard bytes.count <= byteLimit else { throw ReplayFailure(.tooLarge, "the journal has more than \(byteLimit >> 20) MiB") }
        var recording = Recording()
        recording.tellsChangesOnly = true
        do {
            try JSONDocument().parse(bytes) { root in
                guard let entries = root.array else {
                    throw ReplayFailure(.malformed, "a journal is an array, as muster why --json writes it; this is \(root.kind.article)")
                }
                for (index, entry) in entries.enumerated() where entry["kind"]?.string == DecisionRecord.Kind.scale.rawValue {
                    try add(entry, number: index, to: &recording)
                }
            }
        } catch let failure as JSONFailure { throw ReplayFailure(.malformed, "the journal is no JSON: \(failure)") }
        guard !recording.series.isEmpty else {
            throw ReplayFailure(
                .nothingToReplay,
                "the journal holds no decision to scale that was made from figures: let the service run with a scale: policy first")
        }
        return recording
    }

    private static func add(_ entry: JSONElement, number: Int, to recording: inout Recording) throws {
        func fail(_ what: String) -> ReplayFailure { ReplayFailure(.malformed, "record \(number + 1): \(what)") }
        guard let text = entry["at"]?.string, let at = try? CalendarTime.parse(text) else {
            throw fail("'at' is no time as RFC 3339 writes it")
        }
        guard let subject = entry["subject"]?.string, !subject.isEmpty else {
            throw fail("'subject' is missing: which service was scaled?")
        }
        for input in entry["inputs"]?.members ?? [] {
            let value = input.value.string ?? input.value.double.map { String($0) } ?? ""
            if input.key == "range" { continue }
            guard let figure = JournalFigure(value) else {
                if value.hasPrefix("unknown") { try recording.end(service: subject, metric: input.key, at: at) }
                continue
            }
            let isCount = input.key == "replicas"
            try recording.add(
                service: subject, metric: input.key, replica: nil, form: isCount ? .total : figure.form, at: at, value: figure.value)
        }
    }
}

/// The figure that an input of a scale record begins with.
struct JournalFigure: Equatable {
    /// Cores, bytes, or the metric's own unit; percent of the request.
    let value: Double
    let form: Recording.Form

    init?(_ text: String) {
        // Up to the comma stands the figure; behind it the target and what it asks for.
        let words = (text.split(separator: ",").first ?? "").split(separator: " ")
        guard var number = words.first else { return nil }
        var divisor = 1.0, factor = 1.0, rest = words.dropFirst()
        if number.hasSuffix("m") {
            number = number.dropLast()
            divisor = 1000
        }
        guard let figure = Double(number), figure.isFinite else { return nil }
        switch rest.first {
        case "MiB":
            factor = Double(1 << 20)
            rest = rest.dropFirst()
        case "%":
            value = figure
            form = .averagePercent
            return
        default: break
        }
        value = figure * factor / divisor
        form = rest.first == "each" ? .average : .total
    }
}
