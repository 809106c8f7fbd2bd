import Basics
import Glibc
import Observability
import Supervision
import Synchronization

/// What `muster up` shows in the foreground: the supervisor's lines, and the services' as they write them, with the replica's name before each.
///
/// Nobody waits for it: lines go to `LogSink`s, which drop what a terminal that stands still does not take, and a thread of its own reads the
/// logs. Of what comes faster than `rate`, the end is shown and the rest counted; all of it stands in the logs.
final class Foreground: Sendable {
    private let folder: String
    /// Stores' logs are not shown: `muster logs` has them.
    private let stores: Set<String>
    private let watch: LogWatch
    private let lines: LogSink
    private let words: LogSink
    private let isColoured: Bool
    private let isOver = Atomic<Bool>(false)
    /// Where each log ended before this supervisor began.
    private let known: Mutex<[String: LogTail]>
    private let width = Mutex(0)

    /// Bytes a second, of all logs together: more than anybody reads.
    private static let rate = 2 << 20
    /// Of one log, what is read at once; of four times as much, only the end.
    private static let window = 64 << 10

    init(logs folder: String, stores: Set<String>) throws(SystemError) {
        self.folder = folder
        self.stores = stores
        watch = try LogWatch(folder)
        lines = Foreground.sink(1)
        words = Foreground.sink(2)
        isColoured = isColouredTerminal(1)
        var known: [String: LogTail] = [:]
        for name in try Files.entries(folder).compactMap(logName) {
            known[name] = try? LogTail(path: "\(folder)/\(name).log", lines: 0) { _, _, _ in }
        }
        self.known = Mutex(known)
    }

    private static func sink(_ descriptor: Int32) -> LogSink {
        LogSink(descriptor: descriptor) { sink, trouble in
            guard case .ended(let lines) = trouble else { return }
            Foreground.write("  \(lines) lines were not shown, because the terminal stood still; muster logs has them", to: sink)
        }
    }

    private static func write(_ text: String, to sink: LogSink) {
        var text = text + "\n"
        text.withUTF8 { sink.write(UnsafeRawBufferPointer($0), lines: 1) }
    }

    /// A line of the supervisor's own.
    func tell(_ text: String) { Foreground.write(text, to: words) }

    /// Begins to show the logs, on a thread of its own that ends with `finish`.
    func start() {
        detachThread { [self] in
            show()
            isOver.store(true, ordering: .releasing)
        }
    }

    /// Shows what is left, and waits for it for a moment at most.
    func finish() {
        watch.stop()
        for _ in 0..<500 where !isOver.load(ordering: .acquiring) { usleep(1000) }
        for sink in [lines, words] { sink.finish() }
    }

    private func show() {
        while true {
            let shown: Int
            switch watch.next(limit: -1) {
            case nil: continue
            case .stopped?:
                _ = showAll()
                return
            case .look?: shown = showAll()
            case .written(let files)?: shown = files.compactMap(logName).reduce(0) { $0 + showNew($1) }
            }
            // Not faster than the rate, and not for each byte that somebody writes.
            usleep(UInt32(max(1000, shown * 1_000_000 / Foreground.rate)))
        }
    }

    /// What cannot be listed now is shown when it is written to again.
    private func showAll() -> Int { ((try? Files.entries(folder)) ?? []).compactMap(logName).reduce(0) { $0 + showNew($1) } }

    private func showNew(_ name: String) -> Int {
        // `web-1` is the first replica of `web`.
        guard let dash = name.lastIndex(of: "-"), name[name.index(after: dash)...].allSatisfy(\.isNumber) else { return 0 }
        let unit = String(name[..<dash])
        guard !stores.contains(unit) else { return 0 }
        let prefix = prefix("\(unit)/\(name[name.index(after: dash)...])")
        return known.withLock { known in
            var tail = known[name] ?? LogTail(fromStart: "\(folder)/\(name).log")
            let count = tail.showNew(
                most: 4 * Foreground.window, window: Foreground.window,
                skipped: { Foreground.write("\(prefix)… \($0) bytes came too fast to be shown; muster logs has them", to: lines) }
            ) { line, _, _ in
                let bytes = Array(prefix.utf8) + line + [10]
                bytes.withUnsafeBytes { lines.write($0, lines: 1) }
            }
            known[name] = tail
            return count
        }
    }

    /// `web/1   | `, as wide as the widest so far, in the replica's colour.
    private func prefix(_ name: String) -> String {
        let width = width.withLock { width in
            width = max(width, min(name.count, 24))
            return width
        }
        let text = name + String(repeating: " ", count: max(0, width - name.count)) + " |"
        guard isColoured else { return text + " " }
        let colours = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94]
        let place = name.utf8.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xFFFF } % colours.count
        return "\u{1b}[\(colours[place])m\(text)\u{1b}[0m "
    }
}

/// Whether what is written there may have colours: a terminal that knows them, and nobody who does not want them (no-color.org).
func isColouredTerminal(_ descriptor: Int32) -> Bool {
    isatty(descriptor) == 1 && (environmentValue("NO_COLOR") ?? "").isEmpty && environmentValue("TERM") != "dumb"
}
