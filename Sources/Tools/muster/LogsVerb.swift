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
    let handle = try StackHandle(arguments.value("--stack"))
    let lines = try lineCount(arguments, default: 20)
    let wanted = arguments.positional.first.map { $0.split(separator: "/").joined(separator: "-") }
    func names() -> [String] {
        Files.list(handle.folder.logs).filter { $0.hasSuffix(".log") }.map { String($0.dropLast(4)) }.filter { name in
            guard let wanted else { return name != "gateway-access" && name != "supervisor" }
            return name == wanted || name.hasPrefix(wanted + "-") && name.dropFirst(wanted.count + 1).allSatisfy(\.isNumber)
        }
    }
    let found = names()
    if found.isEmpty {
        throw Exit.failed(
            wanted.map { "there is no log of '\($0)' in \(handle.folder.logs)" } ?? "there are no logs in \(handle.folder.logs)")
    }
    var followed: [String: LogTail] = [:]
    for name in found { followed[name] = LogTail(path: "\(handle.folder.logs)/\(name).log", name: name, lines: lines) }
    guard arguments.has("-f") || arguments.has("--follow") else { return }
    while true {
        usleep(200_000)
        // Whoever read our output has gone.
        var reader = pollfd(fd: 1, events: 0, revents: 0)
        if poll(&reader, 1, 0) > 0, Int32(reader.revents) & (POLLERR | POLLHUP) != 0 { return }
        // Replicas that came later are followed from their beginning.
        for name in names() where followed[name] == nil {
            followed[name] = LogTail(path: "\(handle.folder.logs)/\(name).log", name: name, lines: .max)
        }
        for name in followed.keys.sorted() { followed[name]!.showNew() }
    }
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

    /// A log is bounded by its rotation; only this much of its end is read at once.
    private static let window = 1 << 20

    init(path: String, name: String, lines: Int) {
        self.path = path
        self.name = name
        let size = fileSize()
        let text = read(from: max(0, size - LogTail.window), to: size)
        offset = size
        show(text.split(separator: 10).suffix(lines))
    }

    mutating func showNew() {
        let size = fileSize()
        // Emptied by rotation.
        if size < offset { offset = 0 }
        guard size > offset else { return }
        let text = read(from: offset, to: min(size, offset + LogTail.window))
        guard let end = text.lastIndex(of: 10) else { return }
        offset += end + 1
        show(text[...end].split(separator: 10)[...])
    }

    private func show(_ lines: ArraySlice<ArraySlice<UInt8>>) {
        for line in lines { printOut("\(name) | \(String(decoding: line, as: UTF8.self))") }
    }

    private func fileSize() -> Int {
        var info = stat()
        return stat(path, &info) == 0 ? Int(info.st_size) : 0
    }

    private func read(from: Int, to: Int) -> [UInt8] {
        let fd = open(path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0, to > from else { return [] }
        defer { close(fd) }
        var bytes = [UInt8](repeating: 0, count: to - from)
        let got = pread(fd, &bytes, bytes.count, off_t(from))
        return got > 0 ? Array(bytes[..<got]) : []
    }
}
