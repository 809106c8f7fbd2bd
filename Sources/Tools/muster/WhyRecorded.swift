import Basics
import Glibc
import JSONCoding
import Observability
import Supervision

/// `--since`: a time, or how long ago. How long ago is asked of a clock that nobody sets, where the journal was written since the machine
/// was started.
struct Since {
    let time: WallTime
    private let ago: Duration?

    /// nil: the option is not given.
    init?(_ arguments: Arguments) throws(Exit) {
        guard let text = arguments.value("--since"), let time = try ReplaySource.moment(text, "--since", before: .now) else { return nil }
        self.time = time
        ago = Duration(text: text)
    }

    func includes(_ decision: RecordedJournal.Decision) -> Bool { ago.map { decision.age() <= $0 } ?? (decision.entry.at >= time) }
}

/// Answers `muster why` from the stack's folder, when no supervisor does: after `down`, after a kill, and while one starts.
func explainRecorded(_ subject: String?, _ since: Since?, _ handle: StackHandle, _ arguments: Arguments) throws {
    if arguments.has("--csv") { return try printRecorded(subject, handle) }
    let journal = try recorded { () throws(SystemError) in try RecordedJournal(handle.folder) }
    guard let last = journal.decisions.last else {
        // The usual reason: nothing was ever started.
        try handle.requireRunning()
        throw Exit.failed("the supervisor of the stack '\(handle.name)' does not answer, and has written down nothing yet")
    }
    let found = journal.decisions.filter { concerns(subject, $0) && since?.includes($0) != false }
    if let subject, found.isEmpty { try checkRecorded(subject, journal, handle) }
    let until = CalendarTime.render(last.entry.at)
    printError(
        "note: no supervisor of the stack '\(handle.name)' answers; this is what was written down in \(handle.folder.path), until \(until)")
    if let trouble = journal.trouble { printError("note: \(trouble)") }
    try printDecisions(Journal.json(found.map(\.entry)), subject, arguments, before: "")
}

/// Shows what was decided, newest last, and goes on with what is decided from now on, whichever supervisor decides it.
func followJournal(_ subject: String?, _ since: Since?, _ handle: StackHandle, _ arguments: Arguments) throws {
    if try handle.standing() == .absent { try handle.requireRunning() }
    var follower = JournalFollower(handle.folder), isFirst = true
    let limit = try lineCount(arguments, default: arguments.has("--json") ? .max : 20)
    while true {
        let all = try recorded { () throws(SystemError) in try follower.next() }
        var found = all.filter {
            concerns(subject, $0) && (arguments.has("--routes") || arguments.has("--json") || $0.entry.record.kind != .route)
        }
        if isFirst {
            found = found.filter { since?.includes($0) != false }.sorted { $0.entry.at < $1.entry.at }.suffix(limit)
            isFirst = false
        }
        for one in found {
            if arguments.has("--json") {
                var json = JSONWriter(reserving: 512)
                Journal.write(one.entry.record, at: one.entry.at, to: &json)
                printOut(json.text)
            } else {
                try printDecisions(Journal.json([one.entry]), subject, arguments, before: "")
            }
        }
        if readerHasGone { return }
        usleep(200_000)
    }
}

/// Whoever read our output has gone, or what it goes to is full.
var readerHasGone: Bool {
    var reader = pollfd(fd: 1, events: 0, revents: 0)
    if poll(&reader, 1, 0) > 0, Int32(reader.revents) & (POLLERR | POLLHUP) != 0 { return true }
    return outputFailure.load(ordering: .relaxed) != 0
}

private func concerns(_ subject: String?, _ decision: RecordedJournal.Decision) -> Bool {
    guard let subject else { return true }
    return decision.entry.record.subject == subject || decision.entry.record.subject.hasPrefix(subject + "/")
}

/// A name that neither the file nor the journal has is a slip of the pen.
private func checkRecorded(_ subject: String, _ journal: RecordedJournal, _ handle: StackHandle) throws(Exit) {
    var known = ["supervisor"]
    if let stack = handle.definition { known += stack.services.map(\.name) + stack.tasks.map(\.name) + stack.stores.map(\.name) }
    for one in journal.decisions {
        let name = one.entry.record.subject
        known += [name, String(name.split(separator: "/").first ?? "")]
    }
    try refuseUnknown(subject, Array(Set(known)))
}

private func printRecorded(_ subject: String?, _ handle: StackHandle) throws {
    guard let subject else { throw Exit.usage("--csv is of one service") }
    let scaling = try recorded { () throws(SystemError) in try RecordedScaling(handle.folder) }
    guard let json = scaling.json(subject) else {
        try handle.requireRunning()
        throw Exit.failed("nothing was recorded of \(subject): it has not scaled by itself")
    }
    printError("note: no supervisor of the stack '\(handle.name)' answers; this is what was written down in \(handle.folder.path)")
    if scaling.skipped > 0 { printError("note: \(scaling.skipped) lines of it cannot be read (damaged, or of another version)") }
    try printRecording(json, of: subject)
}

private func recorded<T>(_ read: () throws(SystemError) -> T) throws(Exit) -> T {
    do throws(SystemError) { return try read() } catch { throw .failed("the journal cannot be read: \(error)") }
}
