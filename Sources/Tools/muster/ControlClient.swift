import Basics
import EventLoops
import HTTP
import JSONCoding
import Supervision
import Synchronization
import Topology

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
        loop.stop()
    }
    loop.run()
    return try slot.withLock { $0! }.get()
}

/// A stack as the verbs see it: its file, its folder, and the way to its supervisor.
struct StackHandle: Sendable {
    let file: String
    let stack: Stack
    let folder: StackFolder
    /// Values of the environment that the stack file asked for.
    let variables: [String: String]
    /// Verbs find it without being told.
    let isDefault: Bool

    /// `path`, or `muster.yaml` here, or the correlation stack that comes with Muster.
    init(_ path: String?) throws(Exit) {
        var candidates = ["muster.yaml", "stacks/correlation.yaml"]
        if let root = environmentValue("MUSTER_ROOT") { candidates.append("\(root)/stacks/correlation.yaml") }
        let byItself = candidates.first(where: Files.exists)
        guard let found = path ?? byItself else {
            throw .usage("which stack? There is neither muster.yaml nor stacks/correlation.yaml here")
        }
        file = found
        isDefault = byItself.map { Files.absolute($0) == Files.absolute(found) } ?? false
        let asked = Mutex<[String: String]>([:])
        stack = try readStack(found) { name in
            let value = environmentValue(name)
            if let value { asked.withLock { $0[name] = value } }
            return value
        }
        variables = asked.withLock { $0 }
        folder = StackFolder(stackFile: found, stack: stack.name)
    }

    var isRunning: Bool { Supervisor.isRunning(folder) }

    func requireRunning() throws(Exit) {
        if !isRunning { throw .failed("the stack '\(stack.name)' is not running; start it with: \(selfName) up \(file)") }
    }

    /// Asks the supervisor; an answer other than 2xx is its own error message.
    func ask(_ method: String, _ path: String, _ body: [UInt8]? = nil, timeout: Duration = .seconds(10)) throws -> [UInt8] {
        let socket = folder.controlSocket
        let response = try blocking { loop in
            try await HTTPClient(loop: loop).send(method, path, to: .address(.unix(socket)), body: body, timeout: timeout)
        }
        return try content(response, of: "the supervisor")
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
                    pid: row["pid"]?.int ?? 0, port: row["port"]?.int, state: row["state"]?.string ?? "",
                    restarts: row["restarts"]?.int ?? 0, since: row["since"]?.string ?? "", trouble: row["trouble"]?.string ?? "")
            }
        }
    }
}

/// The body of a 2xx answer; of another one, its error message.
func content(_ response: HTTPClientResponse, of asked: String) throws(Exit) -> [UInt8] {
    if (200..<300).contains(response.status) { return response.body }
    let message = try? JSONDocument().parse(response.body) { $0["error"]?["message"]?.string }
    throw .failed((message ?? nil) ?? "\(asked) answered \(response.status)")
}

struct PsRow: Sendable {
    let service: String
    let kind: String?
    let replica: Int
    let pid: Int
    let port: Int?
    let state: String
    let restarts: Int
    let since: String
    let trouble: String
}

/// How this program was called, for hints.
var selfName: String { environmentValue("MUSTER_ROOT") == nil ? "muster" : "./muster" }

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
