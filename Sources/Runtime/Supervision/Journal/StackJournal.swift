import Basics
import EventLoops
import Observability
import Synchronization

/// Writes a stack's journal to files in the stack's folder, so that it outlives the supervisor: `journal/decisions.jsonl`,
/// `journal/samples.jsonl` (kinds of which decisions come many times a second; they push no others out) and `journal/scaling.jsonl` (each
/// pass of an autoscaler). A line is a JSON object; each file is a `LineFile`, bounded in bytes.
///
/// `journal/sizes.jsonl` is no such file: it has a line for each service that was given a size, the last one, and is replaced when a size or
/// a hold changes. Passes of other services push no size out of it. It is empty after the end of a stack.
///
/// `take` may be called on any thread and never waits: lines are made and written on the housekeeping thread. When the files cannot be
/// written, that is told once, lines are kept for later within a bound, and what goes beyond it is counted, in the file too. Nothing else
/// stops for it. Files are not synchronised with the disk: a power cut may cost the last seconds, a killed process costs nothing that the
/// thread has written.
public final class StackJournal: Sendable {
    enum File: String, CaseIterable {
        case decisions, samples, scaling

        /// In bytes, of a file; with the earlier one it is twice as much: at most 10 MiB of the disk in all.
        var limit: Int { self == .samples ? 1 << 20 : 2 << 20 }

        static let sizes = "sizes.jsonl"

        func path(in folder: StackFolder) -> String { "\(folder.journal)/\(name)" }
        var name: String { rawValue + ".jsonl" }
    }

    private enum Item {
        case decision(Journal.Entry, LineStamp)
        case scaling(ScalingLine)
    }

    private struct State {
        var waiting: [Item] = []
        /// What did not fit in `waiting`.
        var lost = 0
        var isScheduled = false
        /// Of each service the line with its last size, until the stack ends. No bound but the number of services.
        var sizes: [String: ScalingLine] = [:]
        var haveSizesChanged = false

        mutating func note(_ line: ScalingLine) {
            guard let size = line.size else {
                (sizes, haveSizesChanged) = ([:], true)
                return
            }
            if let known = sizes[line.service], known.size == size, known.held == line.held { return }
            sizes[line.service] = ScalingLine(stamp: line.stamp, service: line.service, held: line.held, .size(size))
            haveSizesChanged = true
        }
    }

    /// Used on the housekeeping thread.
    private struct Writer {
        var folder: OpenFolder?
        var unwritten: [File: ArraySlice<[UInt8]>] = [:]
        /// What the file of sizes is to have; nil: it has that.
        var sizes: [UInt8]?
        var bytes = 0
        var lost = 0
        /// What was told last.
        var trouble = ""
    }

    private let state = Mutex(State())
    private let writer = Mutex(Writer())
    private let path: String
    private let thread: EventLoop
    private let limits: [File: Int]
    private let tell: @Sendable (String) -> Void

    /// Waiting for the thread: decisions and passes; and made lines that could not be written, in bytes.
    private static let mostWaiting = 4096
    private static let mostUnwritten = 1 << 20

    /// `thread` writes. `limits`: other bounds than `File.limit`.
    init(_ folder: StackFolder, thread: EventLoop, limits: [File: Int] = [:], tell: @escaping @Sendable (String) -> Void) {
        path = folder.journal
        self.thread = thread
        self.limits = limits
        self.tell = tell
    }

    func take(_ entry: Journal.Entry) { take(.decision(entry, LineStamp())) }
    func take(_ line: ScalingLine) { take(.scaling(line)) }

    private func take(_ item: Item) {
        let mustSchedule = state.withLock { state in
            if case .scaling(let line) = item { state.note(line) }
            if state.waiting.count < StackJournal.mostWaiting { state.waiting.append(item) } else { state.lost += 1 }
            let isScheduled = state.isScheduled
            state.isScheduled = true
            return !isScheduled
        }
        if mustSchedule { thread.execute { self.write() } }
    }

    /// Tries again to write what could not be written. Called now and then.
    func retry() {
        let mustSchedule = state.withLock { state in
            defer { state.isScheduled = true }
            return !state.isScheduled
        }
        if mustSchedule { thread.execute { self.write() } }
    }

    private func write() {
        let (items, lost, sizes) = state.withLock { state in
            defer { (state.waiting, state.lost, state.isScheduled, state.haveSizesChanged) = ([], 0, false, false) }
            return (state.waiting, state.lost, state.haveSizesChanged ? state.sizes : nil)
        }
        writer.withLock { writer in
            if let sizes { writer.sizes = sizes.sorted { $0.key < $1.key }.flatMap(\.value.bytes) }
            writer.lost = writer.lost.addingClamped(lost)
            for item in items { add(item, to: &writer) }
            write(&writer)
        }
    }

    private func add(_ item: Item, to writer: inout Writer) {
        let file: File, line: [UInt8]
        switch item {
        case .decision(let entry, let stamp): (file, line) = (entry.isFrequent ? .samples : .decisions, JournalLine.bytes(entry, stamp))
        case .scaling(let one): (file, line) = (.scaling, one.bytes)
        }
        writer.bytes += line.count
        writer.unwritten[file, default: []].append(line)
        while writer.bytes > StackJournal.mostUnwritten {
            // Samples first; a decision last.
            let victim = [File.samples, .scaling, .decisions].first { writer.unwritten[$0]?.isEmpty == false }!
            writer.bytes -= writer.unwritten[victim]!.removeFirst().count
            if victim == .decisions { writer.lost += 1 }
        }
    }

    private func write(_ writer: inout Writer) {
        guard writer.lost > 0 || writer.sizes != nil || writer.unwritten.values.contains(where: { !$0.isEmpty }) else { return }
        var failure: SystemError?
        do throws(SystemError) {
            // Once it was there, another one is not taken for it.
            if writer.folder == nil { writer.folder = try OpenFolder(path) }
            let folder = writer.folder!
            // Before the passes: after a crash between the two the sizes are those of the later one.
            if let sizes = writer.sizes {
                try folder.replace(File.sizes, with: sizes)
                writer.sizes = nil
            }
            for file in File.allCases where failure == nil {
                var lines = writer.unwritten[file] ?? []
                if file == .decisions, writer.lost > 0 { lines.append(JournalLine.lost(writer.lost, at: .now, LineStamp())) }
                if lines.isEmpty { continue }
                let result = LineFile(folder, name: file.name, limit: limits[file] ?? file.limit).append(lines)
                failure = result.failure
                let missing = file == .decisions && result.written == lines.count ? writer.lost : 0
                let kept = (writer.unwritten[file] ?? []).dropFirst(result.written)
                for line in (writer.unwritten[file] ?? []).prefix(result.written) { writer.bytes -= line.count }
                writer.unwritten[file] = kept
                if missing > 0 {
                    tell("\(missing) decisions are missing in the journal in \(path): they could not be written")
                    writer.lost = 0
                }
            }
        } catch { failure = error }
        let trouble = failure.map { "\($0)" } ?? ""
        if trouble != writer.trouble {
            tell(
                trouble.isEmpty
                    ? "the journal in \(path) is written again"
                    : "the journal in \(path) cannot be written: \(trouble). The stack goes on; decisions are kept in memory, and writing is "
                        + "tried again")
        }
        writer.trouble = trouble
    }
}
