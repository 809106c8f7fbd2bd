import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import StackFile
import StackModel
import Supervision
import Synchronization

/// Runs async work to its end from a verb, on a loop of its own.
func blocking<T: Sendable>(_ body: @escaping @Sendable (EventLoop) async throws -> T) throws -> T {
    let loop = try EventLoop()
    let slot = Mutex<Result<T, any Error>?>(nil)
    // Ends the loop with its result.
    Task(executorPreference: loop) {
        do {
            let value = try await body(loop)
            slot.withLock { $0 = .success(value) }
        } catch { slot.withLock { $0 = .failure(error) } }
        // Else the loop and its connections would keep each other: a verb that asks again and again would run out of descriptors.
        loop.closeStreams()
        loop.stop()
    }
    loop.run()
    return try slot.withLock { $0! }.get()
}

/// A stack as the verbs see it: its file, its folder, and the way to its supervisor.
///
/// Whoever only speaks to the supervisor needs the folder, and with it the stack's name, not a file that is in order: `find`.
struct StackHandle: Sendable {
    let file: String
    let name: String
    let folder: StackFolder
    /// What the file says; nil when it cannot be read now.
    let definition: Stack?
    /// Values of the environment that the stack file asked for.
    let variables: [String: String]
    /// Verbs find it without being told.
    let isDefault: Bool

    /// For verbs that act on what the file says. `path`, or `muster.yaml` here, or the correlation stack that comes with Muster.
    /// `isStarting`: to start it here, so that what its processes lack on this machine is told, too.
    init(_ path: String?, isStarting: Bool = false) throws(Exit) {
        (file, isDefault) = try StackHandle.choose(path, where: Files.exists)
        let asked = Mutex<[String: String]>([:])
        let stack = try readStack(file, isStarting: isStarting) { name in
            let value = environmentValue(name)
            if let value { asked.withLock { $0[name] = value } }
            return value
        }
        definition = stack
        name = stack.name
        variables = asked.withLock { $0 }
        folder = StackFolder(stackFile: file, stack: name)
        try checkOwner()
    }

    /// For verbs that speak to the supervisor: works while the file is being edited, lacks a variable, was moved or deleted, or gives the
    /// stack another name than when it was started. Says so when another file's stack is reached.
    static func find(_ path: String?) throws(Exit) -> StackHandle {
        let (file, isDefault) = try choose(path) { Files.exists($0) || (try? startedFrom($0))?.isEmpty == false }
        let text = try? Files.read(file, limit: 1 << 20)
        let definition = try? readStack(file)
        let name = definition?.name ?? text.flatMap(Stack.declaredName) ?? Stack.defaultName(of: file)
        let own = StackHandle(file: file, folder: StackFolder(stackFile: file, stack: name), definition: definition, isDefault: isDefault)
        if text == nil, try startedFrom(file).isEmpty, try own.standing() == .absent, try own.removedSupervisor() == nil {
            // Nothing was ever started from it: it is a slip of the pen, and not a stack that does not run.
            throw .usage("there is no file '\(file)', and no stack was started from it")
        }
        if try own.standing() != .running {
            var others: [StackFolder] = []
            for folder in try startedFrom(file) where folder.path != own.folder.path {
                if try standing(folder) == .running { others.append(folder) }
            }
            if others.count == 1 {
                printError("note: the stack '\(others[0].stack)' was started from \(file), which names no such stack now")
                return StackHandle(file: file, folder: others[0], definition: nil, isDefault: isDefault)
            }
            if others.count > 1 {
                throw .failed("several stacks run that were started from \(file): \(others.map(\.stack).joined(separator: ", "))")
            }
        }
        try own.checkOwner()
        return own
    }

    /// What the file says, for a handle that was made from a file in order.
    var stack: Stack {
        get throws(Exit) {
            if let definition { return definition }
            return try readStack(file)
        }
    }

    private init(file: String, folder: StackFolder, definition: Stack?, isDefault: Bool) {
        self.file = file
        name = folder.stack
        self.folder = folder
        self.definition = definition
        variables = [:]
        self.isDefault = isDefault
    }

    private static func choose(_ path: String?, where isThere: (String) -> Bool) throws(Exit) -> (String, Bool) {
        var candidates = ["muster.yaml", "stacks/correlation.yaml"]
        if let root = environmentValue("MUSTER_ROOT") { candidates.append("\(root)/stacks/correlation.yaml") }
        let byItself = candidates.first(where: isThere)
        guard let found = path ?? byItself else {
            throw .usage("which stack? There is neither muster.yaml nor stacks/correlation.yaml here")
        }
        return (found, byItself.map { Files.absolute($0) == Files.absolute(found) } ?? false)
    }

    /// The folders of stacks that were last started from this file, whatever it names now.
    private static func startedFrom(_ file: String) throws(Exit) -> [StackFolder] {
        let own = Files.name(of: Files.absolute(file))
        do {
            return try StackFolder.all(beside: file).filter { folder in
                // Another user's folder shows nothing, and was started from a file of that user's. What is no folder is no stack's.
                do throws(SystemError) { return try folder.owner == own } catch  where [EACCES, ENOTDIR, ELOOP].contains(error.code) {
                    return false
                }
            }
        } catch { throw .failed("\(error)") }
    }

    /// The process that starts the supervisor again; nil: there is none.
    var watcher: Int32? {
        get throws(Exit) {
            try StackHandle.seen("whether the supervisor is started again") { () throws(SystemError) in try folder.watcher }
        }
    }

    private static func seen<T>(_ what: String, _ look: () throws(SystemError) -> T) throws(Exit) -> T {
        do throws(SystemError) { return try look() } catch { throw .failed("\(what) cannot be seen: \(error)") }
    }

    /// Two files may name the same stack: whoever reaches the other one's is told. Two files that name none are never one stack; where the
    /// rest of their names is equal (`a.yaml`, `a.yml`), it is refused.
    private func checkOwner() throws(Exit) {
        try noteEarlierName()
        let known = try StackHandle.seen("which file the stack was started from") { () throws(SystemError) in try folder.owner }
        guard let owner = known, owner != Files.name(of: Files.absolute(file)) else { return }
        let other = Files.folder(of: Files.absolute(file)) + "/" + owner
        guard Files.exists(other) else {
            return printError("note: the stack '\(name)' was last started from \(owner), which is not there any more")
        }
        if (try? Files.read(file, limit: 1 << 20)).flatMap(Stack.declaredName) == nil {
            throw .failed(
                "the stack '\(name)' was started from \(owner), and \(file) is another file without a name for its stack: "
                    + "write 'stack: NAME' into one of them")
        }
        printError("note: the stack '\(name)' was last started from \(owner), not from \(Files.name(of: file))")
    }

    /// Versions that did not write down a folder's owner named a stack by less of its file's name: its data is then in another folder.
    private func noteEarlierName() throws(Exit) {
        guard !Files.exists(folder.path), (try? Files.read(file, limit: 1 << 20)).flatMap(Stack.declaredName) == nil else { return }
        let part = Files.name(of: file).split(separator: ".").first.map(String.init) ?? ""
        for name in [part, "stack"] where name != self.name && !name.isEmpty {
            let earlier = StackFolder(stackFile: file, stack: name)
            guard Files.exists(earlier.path) else { continue }
            let owner = try StackHandle.seen("which file \(earlier.path) is of") { () throws(SystemError) in try earlier.owner }
            if owner != nil { continue }
            printError(
                "note: this stack is called '\(self.name)' now. A version before this one may have run it as '\(name)': if it did, write "
                    + "'stack: \(name)' into \(file), and it is found with its data in \(earlier.path)")
        }
    }

    private static func standing(_ folder: StackFolder) throws(Exit) -> StackFolder.Standing {
        do throws(StackFolder.Failure) { return try folder.standing() } catch { throw .failed(error.description) }
    }

    /// Throws when it cannot be seen: then nothing is concluded from it.
    func standing() throws(Exit) -> StackFolder.Standing { try StackHandle.standing(folder) }

    /// The supervisor that goes on although its folder was removed.
    func removedSupervisor() throws(Exit) -> Int32? {
        guard try standing() == .absent else { return nil }
        do { return try Supervisor.ofRemovedFolder(folder) } catch {
            throw .failed("whether a supervisor still runs cannot be seen: \(error)")
        }
    }

    /// The watcher of a supervisor whose folder was removed.
    func watcher(of supervisor: Int32) throws(Exit) -> (pid: Int32, started: UInt64)? {
        try StackHandle.seen("whether the supervisor is started again") { () throws(SystemError) in
            try Supervisor.watcher(of: supervisor)
        }
    }

    var isRunning: Bool { get throws(Exit) { try standing() == .running } }

    func requireRunning() throws(Exit) {
        if try isRunning { return }
        if let pid = try removedSupervisor() {
            throw .failed(
                "the stack '\(name)' runs (its supervisor is process \(pid)), but its folder \(folder.path) was removed: it can only be stopped, "
                    + "with: \(selfName) down \(file)")
        }
        if try watcher != nil {
            throw .failed("the supervisor of the stack '\(name)' is being started (again); see \(folder.supervisorLog)")
        }
        throw .failed("the stack '\(name)' is not running; start it with: \(selfName) up \(file)")
    }

    /// Asks the supervisor; an answer other than 2xx is its own error message.
    func ask(_ method: String, _ path: String, _ body: [UInt8]? = nil, timeout: Duration = .seconds(10)) throws -> [UInt8] {
        do { return try content(try send(method, path, body, timeout: timeout), of: "the supervisor") } catch let error as HTTPClientError {
            throw silence(error)
        }
    }

    /// Asks the supervisor to stop the stack. False: it cannot be reached and nothing was sent to it, or it ended while it was asked.
    func askToStop() throws -> Bool {
        do { _ = try content(try send("POST", "/api/down", [], timeout: .seconds(10)), of: "the supervisor") } catch let error
            as HTTPClientError
        {
            if error.retry == .nothingSent { return false }
            // Its connection broke: it may have ended while it was asked.
            for _ in 0..<100 where error.code == .lost {
                if try !isRunning { return false }
                usleep(20_000)
            }
            throw silence(error)
        }
        return true
    }

    private func send(_ method: String, _ path: String, _ body: [UInt8]?, timeout: Duration) throws -> HTTPClientResponse {
        let socket = try folder.controlSocket
        return try blocking { loop in
            try await HTTPClient(loop: loop).send(method, path, to: .address(.unix(socket)), body: body, timeout: timeout)
        }
    }

    private func silence(_ error: HTTPClientError) -> Exit {
        .failed("the supervisor does not answer at \((try? folder.controlSocket) ?? error.place): \(error.underlying)")
    }

    /// What runs, as its supervisor knows it.
    struct Running: Sendable {
        let services: [String]
        let tasks: [String]
        let stores: [String]
        let backends: [String]
        let listen: String
        let admin: String
        /// A path that the gateway takes for one of the services.
        let path: String
    }

    /// How long the stack may take to start and to stop. What runs counts, and else what the file says; where neither can be learned, the least
    /// is waited for. A supervisor that does not answer is asked for a moment only.
    func times() -> StackTimes {
        let declared = definition.map { StackTimes($0) } ?? StackTimes(startSeconds: 0, stopSeconds: 0)
        guard let body = try? ask("GET", "/api/stack", timeout: .seconds(2)) else { return declared }
        let told = try? JSONDocument().parse(body) { root -> StackTimes? in
            guard let start = root["start_seconds"]?.int, let stop = root["stop_seconds"]?.int else { return nil }
            return StackTimes(startSeconds: start, stopSeconds: stop)
        }
        return (told ?? nil) ?? declared
    }

    func running() throws -> Running {
        try JSONDocument().parse(try ask("GET", "/api/stack")) { root in
            func names(_ key: StaticString) -> [String] { (root[key]?.array ?? []).compactMap(\.string) }
            return Running(
                services: names("services"), tasks: names("tasks"), stores: names("stores"), backends: names("backends"),
                listen: root["listen"]?.string ?? "", admin: root["admin"]?.string ?? "", path: root["path"]?.string ?? "")
        }
    }

    /// The supervisor's phase, or nil while it does not answer.
    func phase() -> String? {
        guard let body = try? ask("GET", "/api/stack", timeout: .seconds(2)) else { return nil }
        return (try? JSONDocument().parse(body) { $0["phase"]?.string }) ?? nil
    }

    func rows() throws -> [PsRow] {
        try JSONDocument().parse(try ask("GET", "/api/replicas")) { root in
            (root.array ?? []).map { row in
                PsRow(
                    service: row["service"]?.string ?? "", kind: row["kind"]?.string, replica: row["replica"]?.int ?? 0,
                    pid: row["pid"]?.int ?? 0, port: row["port"]?.int, address: row["address"]?.string, state: row["state"]?.string ?? "",
                    restarts: row["restarts"]?.int ?? 0, since: row["since"]?.string ?? "", trouble: row["trouble"]?.string ?? "")
            }
        }
    }
}

/// The body of a 2xx answer; of another one, its error message.
func content(_ response: HTTPClientResponse, of asked: String) throws(Exit) -> [UInt8] {
    if (200..<300).contains(response.status) { return response.body }
    let message = (try? JSONDocument().parse(response.body) { $0["error"]?["message"]?.string }) ?? nil
    let code = (try? JSONDocument().parse(response.body) { $0["error"]?["code"]?.string }) ?? nil
    let words = message ?? "\(asked) answered \(response.status)"
    // What was asked for does not exist, or may not be: that is the command line's fault, not the stack's.
    if ["no_such_service", "out_of_range", "bad_stack"].contains(code) { throw .usage(words) }
    throw .failed(words)
}

struct PsRow: Sendable {
    let service: String
    let kind: String?
    let replica: Int
    let pid: Int
    let port: Int?
    /// Where an external store is.
    let address: String?
    let state: String
    let restarts: Int
    let since: String
    let trouble: String
}

/// How this program was called, for hints.
var selfName: String {
    guard let root = environmentValue("MUSTER_ROOT") else { return "muster" }
    return Files.absolute(root) == Files.absolute(".") ? "./muster" : Files.absolute(root) + "/muster"
}

/// Columns as wide as their widest cell.
func table(_ rows: [[String]]) -> String {
    guard let first = rows.first else { return "" }
    let widths = first.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
        var line = "  "
        for (cell, width) in zip(row, widths) { line += cell + String(repeating: " ", count: width - cell.count + 2) }
        while line.hasSuffix(" ") { line.removeLast() }
        return line
    }.joined(separator: "\n")
}
