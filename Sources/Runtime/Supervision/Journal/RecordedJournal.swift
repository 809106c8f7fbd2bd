import Basics
import JSONCoding
import Observability

/// What a stack's journal files say. They may be of another version, damaged, cut off or huge: what cannot be read is passed over and
/// counted, and reading is bounded.
public struct RecordedJournal {
    public struct Decision {
        public let entry: Journal.Entry
        public let stamp: LineStamp

        /// How old it is: by a clock that nobody sets where that is possible, else by the time that was written down.
        public func age(_ now: MonotonicTime = .now, wall: WallTime = .now) -> Duration { stamp.age(now) ?? (wall - entry.at) }
    }

    /// Oldest first.
    public private(set) var decisions: [Decision] = []
    private var damaged = 0
    private var otherVersions = 0
    private var lost = 0
    private var leftOut = 0
    private let path: String

    /// Reads at most the last `limit` bytes of each file. Throws when a file is there and cannot be read.
    public init(_ folder: StackFolder, limit: Int = 2 << 20) throws(SystemError) {
        path = folder.journal
        let some = try add(StackJournal.File.decisions.path(in: folder), limit)
        let others = try add(StackJournal.File.samples.path(in: folder), limit)
        // Each is in its own order, whatever the clock has done; only between the two the time decides.
        decisions = RecordedJournal.merge(some, others)
    }

    public var isEmpty: Bool { decisions.isEmpty }

    /// What is missing, in one sentence; nil: nothing that is known of.
    public var trouble: String? {
        var parts: [String] = []
        func part(_ count: Int, _ one: String, _ many: String) { if count > 0 { parts.append("\(count) \(count == 1 ? one : many)") } }
        part(damaged, "line is damaged", "lines are damaged")
        part(otherVersions, "line is of another version of Muster", "lines are of another version of Muster")
        part(lost, "decision could not be written", "decisions could not be written")
        if leftOut > 0 { parts.append("the first \(leftOut) bytes of files that are too large were not read") }
        return parts.isEmpty ? nil : "not all of the journal in \(path) is here: \(parts.joined(separator: ", "))"
    }

    private mutating func add(_ file: String, _ limit: Int) throws(SystemError) -> [Decision] {
        let contents = try LineFile.read(file, limit: limit), document = JSONDocument()
        leftOut = leftOut.addingClamped(contents.leftOut)
        var found: [Decision] = []
        contents.each { line, hasEnded in
            switch JournalLine.read(line, document) {
            case .decision(let entry, let stamp): found.append(Decision(entry: entry, stamp: stamp))
            case .lost(let count): lost = lost.addingClamped(count)
            case .otherVersion: otherVersions += 1
            // The last line of a writer that was killed, or that writes it just now.
            case .damaged: if hasEnded { damaged += 1 }
            }
        }
        return found
    }

    private static func merge(_ a: [Decision], _ b: [Decision]) -> [Decision] {
        var merged: [Decision] = [], i = 0, j = 0
        merged.reserveCapacity(a.count + b.count)
        while i < a.count || j < b.count {
            if j == b.count || (i < a.count && a[i].entry.at <= b[j].entry.at) {
                merged.append(a[i])
                i += 1
            } else {
                merged.append(b[j])
                j += 1
            }
        }
        return merged
    }
}

/// Goes on reading a stack's journal while it is written, whichever supervisor writes it.
public struct JournalFollower {
    private var files: [LineFollower]
    private let document = JSONDocument()

    public init(_ folder: StackFolder) {
        files = [StackJournal.File.decisions, .samples].map { LineFollower($0.path(in: folder)) }
    }

    /// What was written since the last call; at first all that the files have. What cannot be read is passed over.
    public mutating func next() throws(SystemError) -> [RecordedJournal.Decision] {
        var found: [RecordedJournal.Decision] = []
        for i in files.indices {
            while true {
                let lines = try files[i].next()
                if lines.isEmpty { break }
                for line in lines {
                    if case .decision(let entry, let stamp) = JournalLine.read(line, document) {
                        found.append(.init(entry: entry, stamp: stamp))
                    }
                }
            }
        }
        return found
    }
}
