import Basics
import Glibc
import Synchronization

/// The end of one log file, and what is added to it.
struct LogTail {
    /// Takes a piece of a line; `begins` and `ends` tell whether the line does. A line is given whole unless it is longer than the window.
    typealias Show = (_ line: ArraySlice<UInt8>, _ begins: Bool, _ ends: Bool) -> Void

    let path: String
    private var offset = 0
    /// The file behind the path: another one is read from its beginning.
    private var file: UInt64 = 0
    /// The last line that was shown has not ended yet.
    private var isInLine = false

    /// A log is bounded by its rotation; only this much of it is read at once. A longer line is shown in pieces.
    static let window = 1 << 20

    /// From the beginning of the file, also of one that is not there yet.
    init(fromStart path: String) { self.path = path }

    /// From the last `lines` lines on, which are shown.
    init(path: String, lines: Int, show: Show) throws(SystemError) {
        self.path = path
        let (size, file) = try LogTail.look(path)
        self.file = file
        let text = try Files.read(path, from: max(0, size - LogTail.window), limit: min(size, LogTail.window))
        offset = size
        for line in text.split(separator: 10).suffix(lines) { show(line, true, true) }
    }

    /// Shows what was added, and returns how many bytes that was. With `most`, of more than that only the end is shown, and `skipped` gets how
    /// much was left out.
    @discardableResult
    mutating func showNew(most: Int = .max, window: Int = window, skipped: (Int) -> Void = { _ in }, show: Show) -> Int {
        guard let (size, file) = try? LogTail.look(path) else { return 0 }
        // Emptied by rotation, or another file.
        if size < offset || file != self.file { (offset, isInLine) = (0, false) }
        self.file = file
        if size - offset > most {
            let next = size - min(most, window)
            if isInLine { show([], false, true) }
            skipped(next - offset)
            (offset, isInLine) = (next, false)
        }
        let start = offset
        while offset < size, let text = try? Files.read(path, from: offset, limit: min(size - offset, window)), !text.isEmpty {
            // What has no end yet waits for it, unless it is longer than what is read at once.
            let end = text.lastIndex(of: 10).map { $0 + 1 } ?? (text.count == window ? text.count : 0)
            guard end > 0 else { break }
            offset += end
            let lines = text[..<end].split(separator: 10, omittingEmptySubsequences: false)
            for (i, line) in lines.enumerated() {
                let ends = i < lines.count - 1
                guard ends || !line.isEmpty else { continue }
                if !line.isEmpty || isInLine { show(line, !isInLine, ends) }
                isInLine = !ends
            }
        }
        return offset - start
    }

    private static func look(_ path: String) throws(SystemError) -> (size: Int, file: UInt64) {
        var info = stat()
        guard stat(path, &info) == 0 else { throw SystemError("stat \(path)") }
        return (Int(info.st_size), UInt64(info.st_ino))
    }
}

/// Tells which logs of a folder were written to, in the order of the writes: so that lines of several replicas are shown in that order.
///
/// The kernel tells it (inotify). Where it has no place left for that, every log is looked at five times a second.
final class LogWatch: Sendable {
    enum News {
        case written([String])
        /// Look at every log: some news may have been lost.
        case look
        case stopped
    }

    private let events: Int32
    private let stopReading: Int32
    private let stopWriting: Int32

    init(_ folder: String) throws(SystemError) {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw SystemError("pipe") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        (stopReading, stopWriting) = (ends[0], ends[1])
        let descriptor = inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK))
        let wanted = UInt32(IN_MODIFY) | UInt32(IN_CREATE) | UInt32(IN_MOVED_TO)
        if descriptor >= 0, inotify_add_watch(descriptor, folder, wanted) < 0 {
            close(descriptor)
            events = -1
        } else {
            events = descriptor
        }
    }

    deinit { for descriptor in [events, stopReading, stopWriting] where descriptor >= 0 { close(descriptor) } }

    /// Ends a `next` that waits, and every later one.
    func stop() { _ = write(stopWriting, [0], 1) }

    /// Waits for news, at most `limit` milliseconds (-1: without end); nil: there was none.
    func next(limit: Int32) -> News? {
        var asked = [pollfd(fd: stopReading, events: Int16(POLLIN), revents: 0), pollfd(fd: events, events: Int16(POLLIN), revents: 0)]
        let ready = poll(&asked, 2, events < 0 ? 200 : limit)
        if asked[0].revents != 0 { return .stopped }
        if events < 0 { return .look }
        guard ready > 0, asked[1].revents != 0 else { return nil }
        var buffer = [UInt8](repeating: 0, count: 16_384)
        let count = read(events, &buffer, buffer.count)
        guard count > 0 else { return nil }
        return LogWatch.names(buffer[..<count])
    }

    /// The records are a watch, a mask, a cookie, the name's length and the name, with zeros behind it.
    private static func names(_ bytes: ArraySlice<UInt8>) -> News {
        func number(_ at: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(bytes[at + $1]) << (8 * UInt32($1)) } }
        var names: [String] = []
        var at = 0
        while at + 16 <= bytes.count {
            if number(at + 4) & UInt32(IN_Q_OVERFLOW) != 0 { return .look }
            let end = min(at + 16 + Int(number(at + 12)), bytes.count)
            let name = String(decoding: bytes[(at + 16)..<end].prefix { $0 != 0 }, as: UTF8.self)
            if names.last != name { names.append(name) }
            at = end
        }
        return .written(names)
    }
}

/// Which file of the folder is a log, and of what: `web-1.log` is `web-1`.
func logName(_ file: String) -> String? { file.hasSuffix(".log") ? String(file.dropLast(4)) : nil }
