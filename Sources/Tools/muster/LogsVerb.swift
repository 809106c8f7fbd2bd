import Basics
import Glibc
import Supervision

let logsVerb = Verb(
    name: "logs", summary: "what the replicas wrote; followed with -f",
    help: """
        usage: muster logs [SERVICE[/N] | gateway-access | supervisor] [-f] [-n LINES] [--stack FILE]

        Shows the end of each log, with the replica's name before each line. With -f, lines of several replicas come in the order in which
        they were written.

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
    func logs() throws(Exit) -> [String] { try names().compactMap(logName).filter(isWanted) }
    // Before the logs are read: what is written from now on is not missed.
    let isFollowed = arguments.has("-f") || arguments.has("--follow")
    let watch = isFollowed && Files.exists(handle.folder.logs) ? try LogWatch(handle.folder.logs) : nil
    let found = try logs()
    if found.isEmpty {
        throw Exit.failed(
            arguments.positional.first.map { "there is no log of '\($0)' in \(handle.folder.logs)" }
                ?? "there are no logs in \(handle.folder.logs)")
    }
    var followed: [String: LogTail] = [:]
    for name in found { followed[name] = try LogTail(path: "\(handle.folder.logs)/\(name).log", lines: lines, show: show(name)) }
    guard let watch else { return }
    while true {
        let news = watch.next(limit: 200)
        if readerHasGone { return }
        // Without news, too: the folder may have been removed and made anew (down --purge, up), and then the watch is of the one before.
        let names = if case .written(let files)? = news { files.compactMap(logName).filter(isWanted) } else { (try? logs()) ?? [] }
        // Replicas that came later are followed from their beginning.
        for name in names {
            followed[name, default: LogTail(fromStart: "\(handle.folder.logs)/\(name).log")].showNew(show: show(name))
        }
    }
}

/// Prints a log's lines with its name before each.
private func show(_ name: String) -> LogTail.Show {
    { line, begins, ends in
        printOut("\(begins ? name + " | " : "")\(String(decoding: line, as: UTF8.self))", terminator: ends ? "\n" : "")
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
