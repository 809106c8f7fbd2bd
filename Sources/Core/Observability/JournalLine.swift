import Basics
import JSONCoding

/// When a line was written, on a clock that nobody sets: the machine's, since it was started, and which start that was.
public struct LineStamp: Sendable, Equatable {
    public let boot: String
    public let at: MonotonicTime

    public init(boot: String = LineStamp.boot, at: MonotonicTime = .now) {
        self.boot = boot
        self.at = at
    }

    /// How long ago that was. nil: the machine was started again since, or it cannot be told.
    public func age(_ now: MonotonicTime = .now, boot: String = LineStamp.boot) -> Duration? {
        guard !boot.isEmpty, boot == self.boot, at <= now else { return nil }
        return now - at
    }

    /// Distinguishes one start of this machine from every other; empty when the kernel does not say.
    public static let boot: String =
        (Files.text("/proc/sys/kernel/random/boot_id") ?? "").split(separator: "\n").first.map(String.init) ?? ""
}

/// A line of the journal's file: a JSON object with a version and a stamp, and a decision as `muster why --json` shows it.
public enum JournalLine {
    /// Of the lines' form. A line of another version is passed over.
    public static let version = 1
    /// No line is longer, in bytes.
    public static let longest = 32 << 10
    /// Of a record whose line would be longer, each text is cut to so many bytes.
    private static let shortened = 400

    public enum Content {
        case decision(Journal.Entry, LineStamp)
        /// So many decisions could not be written here.
        case lost(Int)
        case otherVersion
        case damaged
    }

    /// With its line feed. Passwords in URLs are hidden.
    public static func bytes(_ entry: Journal.Entry, _ stamp: LineStamp) -> [UInt8] {
        // Before anything is made of it: texts may be of any size.
        let isLong = entry.record.textBytes > longest / 4
        var json = line(isLong ? entry.record.shortened(to: shortened) : entry.record, entry.at, stamp)
        // Escaping makes some texts six times as long.
        if json.bytes.count >= longest { json = line(entry.record.shortened(to: shortened / 8), entry.at, stamp) }
        return json.bytes + [10]
    }

    private static func line(_ record: DecisionRecord, _ at: WallTime, _ stamp: LineStamp) -> JSONWriter {
        var json = begin(stamp, 512)
        Journal.writeMembers(record.mapTexts(hideCredentials), at: at, to: &json)
        json.endObject()
        return json
    }

    public static func lost(_ count: Int, at: WallTime, _ stamp: LineStamp) -> [UInt8] {
        var json = begin(stamp, 128)
        json.member("at", CalendarTime.render(at))
        json.member("lost", count)
        json.endObject()
        return json.bytes + [10]
    }

    /// An object with version and stamp in it, to be ended by whoever goes on.
    public static func begin(_ stamp: LineStamp, _ reserving: Int) -> JSONWriter {
        var json = JSONWriter(reserving: reserving)
        json.beginObject()
        json.member("v", version)
        json.member("boot", stamp.boot)
        json.member("mono_ns", Int(stamp.at.nanoseconds))
        return json
    }

    /// Version and stamp of a line that was written so. nil: it is damaged.
    public static func header(_ root: JSONElement) -> (version: Int, stamp: LineStamp)? {
        guard let version = root["v"]?.int else { return nil }
        guard let boot = root["boot"]?.string, let at = root["mono_ns"]?.int, at >= 0 else {
            return version == self.version ? nil : (version, LineStamp(boot: ""))
        }
        return (version, LineStamp(boot: boot, at: MonotonicTime(nanoseconds: Int64(at))))
    }

    /// What a line says; whatever is in it, it has an answer.
    public static func read(_ line: ArraySlice<UInt8>, _ document: JSONDocument) -> Content {
        guard line.count <= longest * 2 else { return .damaged }
        return (try? document.parse(Array(line)) { content($0) }) ?? .damaged
    }

    private static func content(_ root: JSONElement) -> Content {
        guard let (version, stamp) = header(root) else { return .damaged }
        guard version == self.version else { return .otherVersion }
        guard let time = root["at"]?.string, let at = try? CalendarTime.parse(time) else { return .damaged }
        if let lost = root["lost"] { return lost.int.map { .lost(max(0, $0)) } ?? .damaged }
        guard let kindText = root["kind"]?.string else { return .damaged }
        // A kind that this version does not know is of a later one.
        guard let kind = DecisionRecord.Kind(rawValue: kindText) else { return .otherVersion }
        func text(_ key: StaticString, of element: JSONElement) -> String? { element[key]?.string }
        guard let subject = text("subject", of: root), let raw = text("raw", of: root), let outcome = text("outcome", of: root),
            let sentence = text("sentence", of: root), let flip = text("flip", of: root), let inputs = root["inputs"]?.members,
            let constraints = root["constraints"]?.array
        else { return .damaged }
        var steps: [DecisionRecord.Constraint] = []
        for one in constraints {
            guard let name = text("name", of: one), let before = text("before", of: one), let after = text("after", of: one),
                let reason = text("reason", of: one)
            else { return .damaged }
            steps.append(.init(name, before: before, after: after, reason: reason))
        }
        var figures: [DecisionRecord.Input] = []
        for input in inputs {
            guard let value = input.value.string else { return .damaged }
            figures.append(.init(input.key, value))
        }
        let record = DecisionRecord(
            kind, subject: subject, inputs: figures, raw: raw, constraints: steps, outcome: outcome, sentence: sentence, flip: flip)
        return .decision(.init(at: at, record: record), stamp)
    }

    /// The text with the passwords of its URLs hidden. A URL ends at a blank.
    static func hideCredentials(_ text: String) -> String {
        guard text.contains("://"), text.utf8.contains(64) else { return text }
        return text.split(separator: " ", omittingEmptySubsequences: false).map { redacted(url: String($0)) }.joined(separator: " ")
    }
}

extension DecisionRecord {
    fileprivate func mapTexts(_ body: (String) -> String) -> DecisionRecord {
        DecisionRecord(
            kind, subject: body(subject), inputs: inputs.map { Input(body($0.name), body($0.value)) }, raw: body(raw),
            constraints: constraints.map {
                Constraint(body($0.name), before: body($0.before), after: body($0.after), reason: body($0.reason))
            },
            outcome: body(outcome), sentence: body(sentence), flip: body(flip))
    }

    /// Of all its texts together.
    fileprivate var textBytes: Int {
        var sum = 0
        func add(_ texts: String...) { for text in texts { sum = sum.addingClamped(text.utf8.count) } }
        add(subject, raw, outcome, sentence, flip)
        for input in inputs { add(input.name, input.value) }
        for one in constraints { add(one.name, one.before, one.after, one.reason) }
        return sum
    }

    /// Each text cut to `count` bytes, and of lists the first eight.
    fileprivate func shortened(to count: Int) -> DecisionRecord {
        DecisionRecord(
            kind, subject: subject, inputs: Array(inputs.prefix(8)), raw: raw, constraints: Array(constraints.prefix(8)), outcome: outcome,
            sentence: sentence, flip: flip
        ).mapTexts { $0.utf8.count > count ? String(decoding: $0.utf8.prefix(count), as: UTF8.self) + "…" : $0 }
    }
}
