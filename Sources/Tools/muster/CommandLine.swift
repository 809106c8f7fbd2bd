import Basics
import Glibc
import Synchronization

/// How a verb ended: 0 done, 1 the thing asked for failed or does not hold, 2 the command line or a file is wrong.
struct Exit: Error {
    let status: Int32
    let message: String

    static func failed(_ message: String) -> Exit { Exit(status: 1, message: message) }
    static func usage(_ message: String) -> Exit { Exit(status: 2, message: message) }
}

/// One verb: what it is called, its help, and what it does.
struct Verb: Sendable {
    let name: String
    let summary: String
    /// Shown by `--help`: usage, options, an example.
    let help: String
    /// Verbs of its own, as in `muster redis status`; then `run` is never called.
    var parts: [Verb] = []
    var flags = verbFlags
    var options = verbOptions
    /// What follows `--` is a command, and none of it is an option of the verb's.
    var takesCommand = false
    let run: @Sendable (Arguments) throws -> Void
}

/// A verb's arguments, taken apart against the options it knows.
struct Arguments {
    private(set) var positional: [String] = []
    private var flags: Set<String> = []
    private var values: [String: [String]] = [:]
    /// The words after `--`.
    private(set) var command: [String] = []

    /// `flags` stand alone, `options` take a value (`--name value` or `--name=value`).
    init(_ words: [String], flags known: Set<String>, options: Set<String>, takesCommand: Bool = false) throws(Exit) {
        var rest = words[...]
        if takesCommand, let mark = rest.firstIndex(of: "--") {
            command = Array(rest[(mark + 1)...])
            rest = rest[..<mark]
            if command.isEmpty { throw .usage("a command is needed after --") }
        }
        while let word = rest.popFirst() {
            guard word.hasPrefix("-"), word != "-" else {
                positional.append(word)
                continue
            }
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            if known.contains(word) {
                flags.insert(word)
            } else if options.contains(parts[0]) {
                guard let value = parts.count == 2 ? parts[1] : rest.popFirst() else { throw .usage("\(parts[0]) needs a value") }
                values[parts[0], default: []].append(value)
            } else {
                let hint = nearestWord(to: parts[0], in: known.union(options)).map { "; did you mean \($0)?" } ?? ""
                throw .usage("unknown option '\(word)'\(hint)")
            }
        }
    }

    func has(_ flag: String) -> Bool { flags.contains(flag) }
    func value(_ option: String) -> String? { values[option]?.last }
    func all(_ option: String) -> [String] { values[option] ?? [] }

    func atMost(_ count: Int, _ what: String) throws(Exit) {
        if positional.count > count { throw .usage("too many arguments: \(what)") }
    }
}

func printOut(_ text: String, terminator: String = "\n") {
    var text = text + terminator
    text.withUTF8 { writeAll(1, UnsafeRawBufferPointer($0)) }
}

func printError(_ text: String) {
    var text = text + "\n"
    text.withUTF8 { writeAll(2, UnsafeRawBufferPointer($0)) }
}

/// Writes all of `bytes`. What could not be written to the standard output is remembered: the verb then ends with status 1, whatever else
/// it did (`outputFailure`).
func writeAll(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) {
    var offset = 0
    while offset < bytes.count {
        let wrote = write(descriptor, bytes.baseAddress! + offset, bytes.count - offset)
        if wrote < 0, errno == EINTR { continue }
        if wrote < 0, errno == EAGAIN {
            var room = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            _ = poll(&room, 1, -1)
            continue
        }
        if wrote <= 0 {
            let code = errno
            if descriptor == 1 { _ = outputFailure.compareExchange(expected: 0, desired: code, ordering: .relaxed) }
            return
        }
        offset += wrote
    }
}

/// The error of the first write to the standard output that failed; 0: none did.
let outputFailure = Atomic<Int32>(0)

/// The status of a verb that ended with `status`. A reader that has gone wants no more (`muster logs | head`), and that is no failure.
private func withOutput(_ status: Int32) -> Int32 {
    let code = outputFailure.load(ordering: .relaxed)
    guard code != 0, code != EPIPE else { return status }
    printError("muster: the output could not be written: \(errorText(code))")
    return status == 0 ? 1 : status
}

let verbs: [Verb] = [
    initVerb, upVerb, downVerb, psVerb, logsVerb, scaleVerb, rollVerb, runVerb, whyVerb, replayVerb, loadVerb, gatewayVerb, redisVerb,
    postgresVerb, schemaVerb,
]

func runMuster(_ words: [String]) -> Int32 {
    // A reader of our output that goes away is no reason to die in the middle.
    signal(SIGPIPE, SIG_IGN)
    return withOutput(runVerb(words, among: verbs, called: "muster", overview: overview))
}

private func runVerb(_ words: [String], among verbs: [Verb], called caller: String, overview: String) -> Int32 {
    guard let name = words.first, name != "--help", name != "-h", name != "help" else {
        printOut(overview)
        return words.isEmpty ? 2 : 0
    }
    guard let verb = verbs.first(where: { $0.name == name }) else {
        let hint = nearestWord(to: name, in: verbs.map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
        printError("\(caller): there is no verb '\(name)'\(hint)\n\(caller) --help lists them.")
        return 2
    }
    let rest = Array(words.dropFirst()), path = "\(caller) \(name)"
    if !verb.parts.isEmpty { return runVerb(rest, among: verb.parts, called: path, overview: verb.help) }
    let own = verb.takesCommand ? rest.prefix { $0 != "--" } : rest[...]
    if own.contains("--help") || own.contains("-h") {
        printOut(verb.help)
        return 0
    }
    do {
        try verb.run(try Arguments(rest, flags: verb.flags, options: verb.options, takesCommand: verb.takesCommand))
        return 0
    } catch let exit as Exit {
        if !exit.message.isEmpty { printError("\(path): \(exit.message)") }
        if exit.status == 2 { printError("\(path) --help tells how it is used.") }
        return exit.status
    } catch {
        printError("\(path): \(error)")
        return 1
    }
}

let verbFlags: Set<String> = [
    "-d", "--json", "--purge", "-f", "--follow", "--supervise", "--background", "--again", "--csv", "--routes", "--resources",
    "--markdown",
]
let verbOptions: Set<String> = ["--replicas", "--stack", "--lines", "-n", "--request", "--admin"]

var overview: String {
    "Muster: declare a service once, run it as many.\n\nusage: muster VERB [arguments]\n\n"
        + verbs.map { "  \($0.name)\(String(repeating: " ", count: 10 - $0.name.count))\($0.summary)" }.joined(separator: "\n")
        + "\n\nmuster VERB --help tells more, with an example.\nStatus: 0 done, 1 failed, 2 wrong command line or file."
}
