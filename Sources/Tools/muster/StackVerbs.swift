import Basics
import Glibc
import JSONCoding
import StackFile
import Supervision

let downVerb = Verb(
    name: "down", summary: "stop a stack; its data stays",
    help: """
        usage: muster down [STACK] [--purge]

        Drains the gateway, stops services, then stores, and leaves no process behind, also when the supervisor was killed. The file need
        not be in order, or there: a stack is known by its folder (.muster/NAME beside the file).

          --purge     remove the stack's data and logs as well

        example:
          muster down --purge
        """
) { arguments in
    try arguments.atMost(1, "one stack file")
    let handle = try StackHandle.find(arguments.positional.first)
    let patience = handle.times().downLimit, limit = MonotonicTime.now + patience
    if try handle.isRunning {
        let wasAsked = try handle.askToStop(), isStillThere = try handle.isRunning
        if !wasAsked, !isStillThere, let watcher = try handle.watcher {
            // The supervisor ended by itself meanwhile: it must not have another life.
            kill(watcher, SIGTERM)
        }
        if !wasAsked, isStillThere {
            // It has no socket yet while it ends what one before it had left. Its watcher passes the signal on, and does not start it again.
            guard let watcher = try handle.watcher else {
                throw Exit.failed(
                    "the supervisor runs, cannot be reached at \(try handle.folder.controlSocket), and no watcher could pass on a signal")
            }
            printError("the supervisor cannot be reached at \(try handle.folder.controlSocket): it is told by a signal")
            kill(watcher, SIGTERM)
        }
        while try handle.isRunning {
            if MonotonicTime.now > limit {
                throw Exit.failed("it did not stop within \(patience.brief); see \(handle.folder.supervisorLog)")
            }
            usleep(20_000)
        }
        try waitForWatcher(handle, limit, patience)
        printError("\(handle.name) is down")
    } else if let watcher = try handle.watcher {
        // Between two lives of its supervisor: it must not have another one.
        kill(watcher, SIGTERM)
        try waitForWatcher(handle, limit, patience)
        printError("\(handle.name) is down; its supervisor had ended and was about to be started again")
    } else if let pid = try handle.removedSupervisor() {
        // The watcher's lock went with the folder, too.
        let watcher = try handle.watcher(of: pid)
        // Its socket went with the folder; a signal reaches it all the same.
        guard kill(pid, SIGTERM) == 0 else { throw Exit.failed("\(SystemError("end the supervisor, process \(pid)"))") }
        while try handle.removedSupervisor() != nil {
            if MonotonicTime.now > limit { throw Exit.failed("its supervisor, process \(pid), did not stop within \(patience.brief)") }
            usleep(50_000)
        }
        if let watcher {
            while try ProcessIdentity.isRunning(watcher.pid, since: watcher.started) {
                if MonotonicTime.now > limit { throw unended(watcher.pid, patience) }
                usleep(10_000)
            }
        }
        printError("\(handle.name) is down; its folder was removed while it ran")
    } else {
        printError("\(handle.name) was not running")
    }
    let purge = arguments.has("--purge")
    // Under the lock, so that neither processes nor data of a stack that has just been started anew are touched.
    guard let ended = try Supervisor.endLeftovers(in: handle.folder, purge: purge) else {
        throw Exit.failed("the stack was started again meanwhile; nothing was removed")
    }
    if ended.count > 0 { printError("ended \(ended.count) processes that a killed supervisor had left") }
    if let trouble = ended.trouble { throw Exit.failed(trouble) }
    if purge { printError("removed \(handle.folder.path)") }
}

/// The watcher goes after its supervisor, and ends what that one could not find.
private func waitForWatcher(_ handle: StackHandle, _ limit: MonotonicTime, _ patience: Duration) throws {
    while let watcher = try handle.watcher {
        if MonotonicTime.now > limit { throw unended(watcher, patience) }
        usleep(10_000)
    }
}

private func unended(_ watcher: Int32, _ patience: Duration) -> Exit {
    .failed("process \(watcher), which watches the supervisor, did not end within \(patience.brief)")
}

let psVerb = Verb(
    name: "ps", summary: "replicas, their state and addresses",
    help: """
        usage: muster ps [STACK] [--json]

        example:
          muster ps --json | python3 -m json.tool
        """
) { arguments in
    try arguments.atMost(1, "one stack file")
    let handle = try StackHandle.find(arguments.positional.first)
    // An empty list is said only of a stack that is known not to run.
    if arguments.has("--json"), try !handle.isRunning, try handle.removedSupervisor() == nil { printOut("[]") }
    try handle.requireRunning()
    if arguments.has("--json") { return printOut(String(decoding: try handle.ask("GET", "/api/replicas"), as: UTF8.self)) }
    printOut(psTable(try handle.rows(), try handle.running()))
}

let scaleVerb = Verb(
    name: "scale", summary: "fix or free a service's replica count",
    help: """
        usage: muster scale SERVICE=N|auto [STACK]

        Returns when the new count is ready and what is too much has been drained. 'auto' frees the count: it goes back to what
        the stack declares.

        example:
          muster scale correlation-engine=5
        """
) { arguments in
    try arguments.atMost(2, "SERVICE=N and a stack file")
    guard let word = arguments.positional.first else { throw Exit.usage("which service, and how many?") }
    let (service, count) = try parseCount(word)
    let handle = try StackHandle.find(arguments.positional.dropFirst().first ?? arguments.value("--stack"))
    try handle.requireRunning()
    var json = JSONWriter()
    json.beginObject()
    json.member("service", service)
    if let count { json.member("replicas", count) }
    json.endObject()
    _ = try handle.ask("POST", "/api/scale", json.bytes)
    try waitUntilQuiet(handle)
    let ready = try handle.rows().filter { $0.service == service }.count
    printError("\(service) has \(ready) replicas")
}

let rollVerb = Verb(
    name: "roll", summary: "replace every replica without losing a request",
    help: """
        usage: muster roll SERVICE [STACK]

        One after the other: a new replica is started and must be ready before an old one is drained and stopped. If the new one
        does not become ready, the roll ends there, the old ones go on serving, and the status is 1.

        example:
          muster roll correlation-engine
        """
) { arguments in
    try arguments.atMost(2, "a service and a stack file")
    guard let service = arguments.positional.first else { throw Exit.usage("which service?") }
    let handle = try StackHandle.find(arguments.positional.dropFirst().first ?? arguments.value("--stack"))
    try handle.requireRunning()
    var json = JSONWriter()
    json.beginObject()
    json.member("service", service)
    json.endObject()
    let start = MonotonicTime.now
    printError("rolling \(service); \(selfName) ps shows how far it is")
    _ = try handle.ask("POST", "/api/roll", json.bytes, timeout: .seconds(3600))
    printError("rolled \(service) in \((MonotonicTime.now - start).brief)")
}

let schemaVerb = Verb(
    name: "schema", summary: "every key of the stack file, for editors and readers",
    help: """
        usage: muster schema [--markdown]

        The JSON Schema of the stack file, with which an editor completes keys and marks mistakes.

          --markdown  the reference page instead: every key with its value, default and meaning

        example:
          muster schema > muster.schema.json
          # then, as the first line of a stack file:
          # yaml-language-server: $schema=muster.schema.json
        """
) { arguments in
    try arguments.atMost(0, "none is taken")
    if arguments.has("--markdown") { return printOut(stackReference(), terminator: "") }
    printOut(stackJSONSchema())
}
