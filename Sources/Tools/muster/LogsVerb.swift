import Basics
import Glibc
import Supervision

let logsVerb = Verb(
    name: "logs", summary: "what the replicas wrote; followed with -f",
    help: """
        usage: muster logs [SERVICE[/N] | gateway-access | supervisor] [-f] [-n LINES] [--stack FILE]

        Shows the end of each log, with the replica's name before each line.

          -f          go on showing what is written
          -n LINES    so many lines of each (default 20)
          --stack FILE  another stack than the one that verbs take by themselves

        example:
          muster logs correlation-engine/2 -f
        """
) { arguments in
    try arguments.atMost(1, "one service or replica")
    let handle = try StackHandle.find(arguments.value("--stack"))
    let lines = try lineCount(arguments, default: 20)
    let isWanted = try logFilter(arguments.positional.first)
    func names() throws(Exit) -> [String] {
        do throws(SystemError) { return try Files.entries(handle.folder.logs) } catch {
            if error.code == ENOENT { throw .failed("there are no logs in \(handle.folder.logs)") }
            throw .failed("\(error)")
        }
    }
    func logs() throws(Exit) -> [String] { try names().filter { $0.hasSuffix(".log") }.map { String($0.dropLast(4)) }.filter(isWanted) }
    let found = try logs()
    if found.isEmpty {
        throw Exit.failed(
            arguments.positional.first.map { "there is no log of '\($0)' in \(handle.folder.logs)" }
                ?? "there are no logs in \(handle.folder.logs)")
    }
    var followed: [String: LogTail] = [:]
    for name in found { followed[name] = try LogTail(path: "\(handle.folder.logs)/\(name).log", name: name, lines: lines) }
    guard arguments.has("-f") || arguments.has("--follow") else { return }
    while true {
        usleep(200_000)
        // Whoever read our output has gone, or what it goes to is full.
        var reader = pollfd(fd: 1, events: 0, revents: 0)
        if poll(&reader, 1, 0) > 0, Int32(reader.revents) & (POLLERR | POLLHUP) != 0 { return }
        if outputFailure.load(ordering: .relaxed) != 0 { return }
        // Replicas that came later are followed from their beginning. A folder that is gone (down --purge) has no new ones.
        for name in (try? logs()) ?? [] where followed[name] == nil {
            followed[name] = try? LogTail(path: "\(handle.folder.logs)/\(name).log", name: name, lines: .max)
        }
        for name in followed.keys.sorted() { followed[name]!.showNew() }
    }
}

/// Which logs are meant: of one replica (`web/1`), of all replicas of a service (`web`), `supervisor` or `gateway-access`, or of every
/// replica. A log's name is `SERVICE-N`, and a service may be called `web-1`.
private func logFilter(_ word: String?) throws(Exit) -> (String) -> Bool {
    guard let word else { return { $0 != "gateway-access" && $0 != "supervisor" } }
    let parts = word.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    guard parts.count <= 2, !parts.contains("") else { throw .usage("'\(word)' is no SERVICE and no SERVICE/N") }
    if parts.count == 2 { return { $0 == "\(parts[0])-\(parts[1])" } }
    if word == "supervisor" || word == "gateway-access" { return { $0 == word } }
    return { name in name.hasPrefix(word + "-") && name.dropFirst(word.utf8.count + 1).allSatisfy(\.isNumber) }
}

/// `-n COUNT`.
func lineCount(_ arguments: Arguments, default fallback: Int) throws(Exit) -> Int {
    guard let text = arguments.value("-n") ?? arguments.value("--lines") else { return fallback }
    guard let value = Int(text), value >= 0 else { throw .usage("-n \(text): a count is needed") }
    return value
}

/// The end of one file, and what is added to it.
private struct LogTail {
    let path: String
    let name: String
    private var offset = 0
    /// The file behind the path: another one is read from its beginning.
    private var file: UInt64 = 0
    /// The last line that was shown has not ended yet.
    private var isInLine = false

    /// A log is bounded by its rotation; only this much of it is read at once. A longer line is shown in pieces.
    private static let window = 1 << 20

    init(path: String, name: String, lines: Int) throws(SystemError) {
        self.path = path
        self.name = name
        let (size, file) = try LogTail.look(path)
        self.file = file
        if lines == .max {
            showNew()
            return
        }
        let text = try Files.read(path, from: max(0, size - LogTail.window), limit: min(size, LogTail.window))
        offset = size
        for line in text.split(separator: 10).suffix(lines) { show(line, ends: true) }
    }

    mutating func showNew() {
        guard let (size, file) = try? LogTail.look(path) else { return }
        // Emptied by rotation, or another file.
        if size < offset || file != self.file { (offset, isInLine) = (0, false) }
        self.file = file
        while offset < size, let text = try? Files.read(path, from: offset, limit: min(size - offset, LogTail.window)), !text.isEmpty {
            // What has no end yet waits for it, unless it is longer than what is read at once.
            let end = text.lastIndex(of: 10).map { $0 + 1 } ?? (text.count == LogTail.window ? text.count : 0)
            guard end > 0 else { return }
            offset += end
            let lines = text[..<end].split(separator: 10, omittingEmptySubsequences: false)
            for (i, line) in lines.enumerated() {
                let ends = i < lines.count - 1
                if ends || !line.isEmpty { show(line, ends: ends) }
            }
        }
    }

    private mutating func show(_ line: ArraySlice<UInt8>, ends: Bool) {
        if !line.isEmpty || isInLine {
            printOut("\(isInLine ? "" : name + " | ")\(String(decoding: line, as: UTF8.self))", terminator: ends ? "\n" : "")
        }
        isInLine = !ends
    }

    private static func look(_ path: String) throws(SystemError) -> (size: Int, file: UInt64) {
        var info = stat()
        guard stat(path, &info) == 0 else { throw SystemError("stat \(path)") }
        return (Int(info.st_size), UInt64(info.st_ino))
    }
}
