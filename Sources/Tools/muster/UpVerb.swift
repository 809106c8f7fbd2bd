import Basics
import CLinux
import Glibc
import JSONCoding
import StackFile
import StackModel
import Supervision
import Synchronization

let upVerb = Verb(
    name: "up", summary: "run a stack on this machine",
    help: """
        usage: muster up [-d] [STACK] [--replicas SERVICE=N]...

        Runs the stack (default: muster.yaml here, else stacks/correlation.yaml): stores first, then services, and the gateway before
        them. In the foreground until Ctrl-C, with the services' lines in the order in which they are written, each with its replica's name;
        a second Ctrl-C ends the services at once, a third one the stores as well. With -d it returns when everything is ready. If the stack
        runs already, it is changed to what the file says now: what is new is started, routes are replaced, counts scaled, changed
        services rolled, and what the file has no longer is stopped. The data of a store stays until 'muster down --purge'.

          -d                       leave it running in the background
          --replicas SERVICE=N     so many replicas instead of what the file says

        example:
          muster up -d stacks/correlation.yaml --replicas correlation-engine=5
        """
) { arguments in
    try arguments.atMost(1, "one stack file")
    if arguments.has("--again") { return try superviseAgain(arguments) }
    let handle = try StackHandle(arguments.positional.first, isStarting: true)
    let counts = try replicaCounts(arguments.all("--replicas"), try handle.stack)
    if arguments.has("--supervise") { return try supervise(handle, counts, arguments) }
    if let pid = try handle.removedSupervisor() {
        throw Exit.failed(
            "the stack '\(handle.name)' still runs (its supervisor is process \(pid)), although its folder was removed: stop it first, with: "
                + "\(selfName) down \(handle.file)")
    }
    if try handle.isRunning { return try reconcile(handle, counts) }
    if arguments.has("-d") { return try startDetached(handle, arguments) }
    try watch(handle, arguments)
}

func replicaCounts(_ words: [String], _ stack: Stack) throws(Exit) -> [String: Int] {
    var counts: [String: Int] = [:]
    for word in words {
        let (service, count) = try parseCount(word, stack)
        guard let count else { throw .usage("--replicas \(word): a number is needed") }
        counts[service] = count
    }
    return counts
}

/// `SERVICE=N` or `SERVICE=auto` (nil).
func parseCount(_ word: String) throws(Exit) -> (String, Int?) {
    let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 2, parts[1] == "auto" || (Int(parts[1]).map { (0...1000).contains($0) } ?? false) else {
        throw .usage("'\(word)' is not SERVICE=N, with N from 0 to 1000")
    }
    return (parts[0], Int(parts[1]))
}

/// The same, of a service that the file has.
private func parseCount(_ word: String, _ stack: Stack) throws(Exit) -> (String, Int?) {
    let (name, count) = try parseCount(word)
    guard let service = stack.service(name) else {
        let hint = nearestWord(to: name, in: stack.services.map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
        throw .usage("the stack has no service '\(name)'\(hint)")
    }
    if let reason = count.flatMap(service.refusal) { throw .usage(reason) }
    return (name, count)
}

// MARK: in this process

/// The words that start this program as the stack's supervisor, or as its watcher.
private func words(_ handle: StackHandle, _ arguments: Arguments, _ flag: String) -> [String] {
    ["up", flag, handle.file] + arguments.all("--replicas").flatMap { ["--replicas", $0] }
}

/// Starts the supervisor as a child, and again when it has crashed, until it has ended for good.
private func watch(_ handle: StackHandle, _ arguments: Arguments) throws {
    var watcher = Watcher(
        folder: handle.folder, arguments: words(handle, arguments, "--supervise"), isForeground: !arguments.has("--background"),
        tell: { printError($0) })
    let status: Int32
    do { status = try watcher.run() } catch let failure as Supervisor.Failure { throw Exit.failed("\(failure); see \(selfName) ps") }
    // What went wrong has been told by the supervisor.
    if status != 0 { throw Exit(status: status, message: "") }
}

/// After a crash. The words are those of the first `up`; since then the stack may have been changed to what another file says, which is the
/// one that its folder names, and the file may have lost a service whose size was asked for.
private func superviseAgain(_ arguments: Arguments) throws {
    let handle = try StackHandle(try Watcher.currentFile(after: arguments.positional.first), isStarting: true)
    let stack = try handle.stack
    if let supervised = Watcher.supervised, supervised != handle.folder.path {
        throw Exit.failed("\(handle.file) names the stack '\(handle.name)' now, and not the one in \(supervised) that had crashed")
    }
    let words = arguments.all("--replicas").filter { word in
        guard let (name, count) = try? parseCount(word), let count, let service = stack.service(name) else { return false }
        return service.refusal(of: count) == nil
    }
    try supervise(handle, try replicaCounts(words, stack), arguments)
}

private func supervise(_ handle: StackHandle, _ counts: [String: Int], _ arguments: Arguments) throws {
    let start = MonotonicTime.now
    let isForeground = !arguments.has("--background")
    try Files.makeFolder(handle.folder.logs, mode: 0o700)
    let stack = try handle.stack
    let foreground = isForeground ? try Foreground(logs: handle.folder.logs, stores: Set(stack.stores.map(\.name))) : nil
    // In the background it goes to a file.
    let tell: @Sendable (String) -> Void = { line in if let foreground { foreground.tell(line) } else { printError(line) } }
    tell("starting \(handle.name) (\(handle.file)); data and logs in \(handle.folder.path)")
    foreground?.start()
    defer { foreground?.finish() }
    let supervisor = Supervisor(
        stack: stack, file: handle.file, counts: counts,
        manner: .init(isForeground: isForeground, isRestart: arguments.has("--again")), kinds: storeKinds,
        readStack: { file, variables in try readStack(file, isStarting: true) { variables[$0] } },
        tell: { line in tell("  \(line)") },
        onRunning: {
            tell("everything is ready after \((MonotonicTime.now - start).brief)")
            guard isForeground else { return }
            // Asking the supervisor from its own loop would wait for itself: a thread of its own asks.
            detachThread { if let text = try? summary(handle) { printOut(text + "\n\nCtrl-C stops the stack, a second one at once.") } }
        })
    do { try supervisor.run() } catch let failure as Supervisor.Failure {
        if failure.isRunningAlready { throw Exit.failed("\(failure); see \(selfName) ps") }
        throw Exit.failed("\(failure)")
    } catch let failure as StackFolder.Failure { throw Exit.failed("\(failure)") }
    tell("stopped")
}

func detachThread(_ body: @escaping @Sendable () -> Void) {
    final class Work: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    var thread = pthread_t()
    let work = Unmanaged.passRetained(Work(body))
    // Signals are the other threads' business; a thread has the mask with which it was made.
    var all = sigset_t(), before = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_SETMASK, &all, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    let result = pthread_create(
        &thread, nil,
        { raw in
            Unmanaged<Work>.fromOpaque(raw!).takeRetainedValue().body()
            return nil
        }, work.toOpaque())
    if result == 0 { pthread_detach(thread) } else { work.release() }
}

// MARK: in the background

/// Starts this program again in a session of its own, and waits until the stack is ready or has given up.
private func startDetached(_ handle: StackHandle, _ arguments: Arguments) throws {
    let log = handle.folder.supervisorLog
    try Files.makeFolder(handle.folder.logs, mode: 0o700)
    var shown = (try? Files.size(log)) ?? 0
    let pid = try Detached.start(arguments: words(handle, arguments, "--background"), log: log)
    printError("starting \(handle.name) (\(handle.file)); data and logs in \(handle.folder.path)")
    func showNew() {
        guard let text = try? Files.read(log, from: shown, limit: 1 << 20) else { return }
        // A line without an end waits for it, unless it fills all that is read.
        let end = text.lastIndex(of: 10).map { $0 + 1 } ?? (text.count == 1 << 20 ? text.count : 0)
        // The first line repeats what stands above.
        for line in text[..<end].split(separator: 10) where !line.starts(with: Array("starting ".utf8)) {
            printError(String(decoding: line, as: UTF8.self))
        }
        shown += end
    }
    while true {
        showNew()
        var code: Int32 = 0
        if muster_reap(pid, &code) != 0 {
            showNew()
            throw Exit(status: code == 2 ? 2 : 1, message: "the stack did not start (\(log))")
        }
        if handle.phase() == "running" { break }
        usleep(50_000)
    }
    showNew()
    printOut(try summary(handle))
    try tellFailures(handle)
}

/// A task that failed holds what depends on it: the rest runs, and the verb has not done what it was asked for.
private func tellFailures(_ handle: StackHandle) throws {
    let failures = try JSONDocument().parse(try handle.ask("GET", "/api/stack")) { ($0["failures"]?.array ?? []).compactMap(\.string) }
    if failures.isEmpty { return }
    throw Exit.failed(
        failures.joined(separator: "\n")
            + "\nthe rest runs; when the cause is mended, \(selfName) up \(handle.file) runs tasks that failed again")
}

// MARK: a stack that runs already

private func reconcile(_ handle: StackHandle, _ counts: [String: Int]) throws {
    var json = JSONWriter()
    json.beginObject()
    json.member("file", Files.absolute(handle.file))
    json.key("environment")
    json.beginObject()
    for (name, value) in handle.variables.sorted(by: { $0.key < $1.key }) { json.member(name, value) }
    json.endObject()
    json.key("replicas")
    json.beginObject()
    for (service, count) in counts.sorted(by: { $0.key < $1.key }) { json.member(service, count) }
    json.endObject()
    json.endObject()
    let changes = try JSONDocument().parse(try handle.ask("POST", "/api/apply", json.bytes, timeout: .seconds(3600))) {
        ($0["changes"]?.array ?? []).compactMap(\.string)
    }
    printError(changes.isEmpty ? "\(handle.name) runs already, as the file says" : changes.joined(separator: "\n"))
    try waitUntilQuiet(handle)
    printOut(try summary(handle))
    try tellFailures(handle)
}

/// Until every replica that there is to be is ready, and none is leaving.
func waitUntilQuiet(_ handle: StackHandle) throws {
    let limit = handle.times().quietLimit
    let deadline = MonotonicTime.now + limit
    while MonotonicTime.now < deadline {
        let body = try handle.ask("GET", "/api/stack")
        if try JSONDocument().parse(body, { $0["quiet"]?.bool }) == true { return }
        usleep(50_000)
    }
    throw Exit.failed("not every replica became ready within \(limit.brief); see \(selfName) ps and \(selfName) logs")
}

// MARK: what is shown

func summary(_ handle: StackHandle) throws -> String {
    let rows = try handle.rows(), running = try handle.running()
    let out = "\n" + psTable(rows, running)
    guard !running.listen.isEmpty else { return out }
    return out + "\n\n  try next:\n" + hints(handle, rows, running)
}

private func hints(_ handle: StackHandle, _ rows: [PsRow], _ running: StackHandle.Running) -> String {
    let place = running.listen.hasPrefix("0.0.0.0:") ? "127.0.0.1" + running.listen.dropFirst(7) : running.listen
    var out = "    curl http://\(place)\(running.path)\n"
    if !running.admin.isEmpty { out += "    open http://\(running.admin)/                 live state\n" }
    let service = running.services.first ?? "SERVICE"
    // The stack must be named where it is not the one that verbs take by themselves.
    let file = handle.isDefault ? "" : " \(handle.file)", option = handle.isDefault ? "" : " --stack \(handle.file)"
    out += "    \(selfName) scale \(service)=5\(file)     \(selfName) why\(option)     \(selfName) down\(file)"
    if let store = rows.first(where: { $0.kind == "redis" }), let port = store.port {
        out += "\n    REDISCLI_AUTH=$(cat \(handle.folder.path)/stores/\(store.service)/password) redis-cli -p \(port)"
    }
    return out
}

func psTable(_ rows: [PsRow], _ running: StackHandle.Running) -> String {
    var cells = [["SERVICE", "REPLICA", "STATE", "PID", "ADDRESS", "RESTARTS", "SINCE (UTC)"]]
    for row in rows {
        cells.append([
            row.service, String(row.replica), row.state, row.pid > 0 ? String(row.pid) : "-",
            row.address ?? row.port.map { "127.0.0.1:\($0)" } ?? "-",
            String(row.restarts), String(row.since.dropFirst(11).prefix(8)),
        ])
    }
    let troubles = rows.filter { !$0.trouble.isEmpty }.map { "\n  \($0.service)/\($0.replica): \($0.trouble)" }
    let out = table(cells) + troubles.joined()
    if running.listen.isEmpty { return out }
    return out + "\n\n  gateway on \(running.listen)" + (running.admin.isEmpty ? "" : ", its admin port on \(running.admin)")
}
