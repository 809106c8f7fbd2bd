import Basics
import EventLoops
import Gateway
import HTTP
import JSONCoding
import Observability
import Topology

/// What the supervisor answers on its Unix socket, which only its owner can reach: the other verbs of `muster` speak to it. The admin
/// port serves the reading half of it.
enum ControlAPI {
    static func addReading(to router: inout Router, _ runner: LoopBound<StackRunner>) {
        addScaling(to: &router, runner)
        addResources(to: &router, runner)
        router.get("/api/replicas") { _, _ in .json(replicas(runner.value.rows)) }
        router.get("/api/stack") { _, _ in
            let stack = runner.value
            return .json { json in
                json.member("stack", stack.stack.name)
                json.member("phase", stack.phase)
                json.member("quiet", stack.isQuiet)
                json.member("listen", stack.stack.gateway?.listen.description ?? "")
                json.member("admin", stack.stack.gateway?.admin?.description ?? "")
            }
        }
    }

    /// `service` and `points` (of the timeline; default 240, at most a day) narrow it.
    static func addScaling(to router: inout Router, _ runner: LoopBound<StackRunner>) {
        router.get("/api/scaling") { request, _ in
            let points = request.queryValue("points").flatMap(Int.init) ?? 240
            return .json(
                ScalingJSON.write(runner.value.scaling?.standings ?? [], only: request.queryValue("service"), points: points, runner.value))
        }
    }

    /// What the services should be given; `service` narrows it.
    static func addResources(to router: inout Router, _ runner: LoopBound<StackRunner>) {
        router.get("/api/resources") { request, _ in
            guard let recorder = runner.value.scaling?.resources else {
                throw APIError(409, "not_running", "the stack is \(runner.value.phase); what its services use is recorded once it runs")
            }
            return .json(ResourcesJSON.write(runner.value.stack.services, only: request.queryValue("service"), recorder, now: .now))
        }
    }

    static func addChanging(
        to router: inout Router, _ runner: LoopBound<StackRunner>, readStack: @escaping @Sendable (String, [String: String]) throws -> Stack
    ) {
        router.post("/api/scale") { request, _ in
            let (service, count) = try parse(request) { ($0["service"]?.string, $0["replicas"].map(\.int)) }
            // Absent means auto; anything but a whole number is a mistake.
            if case .some(nil) = count { throw APIError(400, "wrong_type", "must be a whole number", field: "replicas") }
            try runner.value.scale(try required(service, "service"), to: count ?? nil)
            return .json { $0.member("done", true) }
        }
        router.post("/api/roll") { request, _ in
            let name = try required(try parse(request) { $0["service"]?.string }, "service")
            let failure: String? = try await withUnsafeThrowingContinuation { continuation in
                do throws(APIError) { try runner.value.roll(name) { continuation.resume(returning: $0) } } catch {
                    continuation.resume(throwing: error)
                }
            }
            if let failure { throw APIError(500, "roll_failed", failure) }
            return .json { $0.member("done", true) }
        }
        router.post("/api/apply") { request, _ in try await apply(request, runner, readStack) }
        router.post("/api/down") { _, _ in
            runner.value.shutDown()
            return .json { $0.member("done", true) }
        }
    }

    /// `file`, the counts asked for, and the caller's values of the variables that the file names (a supervisor's own environment is as
    /// old as its start). Answers when every roll has ended.
    private static func apply(
        _ request: HTTPRequest, _ runner: LoopBound<StackRunner>, _ readStack: @Sendable (String, [String: String]) throws -> Stack
    ) async throws -> HTTPResponse {
        let (file, counts, variables) = try parse(request) { root in
            (
                root["file"]?.string, (root["replicas"]?.members ?? []).compactMap { member in member.value.int.map { (member.key, $0) } },
                (root["environment"]?.members ?? []).compactMap { member in member.value.string.map { (member.key, $0) } }
            )
        }
        let stack: Stack
        do { stack = try readStack(try required(file, "file"), Dictionary(variables) { $1 }) } catch {
            throw APIError(400, "bad_stack", "\(error)")
        }
        let failures = RollResults()
        let done: [String] = try await withUnsafeThrowingContinuation { continuation in
            do throws(APIError) {
                let (done, rolls) = try runner.value.reconcile(stack, counts: Dictionary(counts) { $1 }) { service, failure in
                    if let failure { failures.list.append("\(service): \(failure)") }
                    failures.ended += 1
                    if failures.ended == failures.expected { continuation.resume(returning: failures.done) }
                }
                failures.done = done
                failures.expected = rolls
                if rolls == failures.ended { continuation.resume(returning: done) }
            } catch { continuation.resume(throwing: error) }
        }
        if let first = failures.list.first { throw APIError(500, "roll_failed", first) }
        return .json { $0.member("changes", done) }
    }

    /// Filled on the control loop only, between one await and its resumption.
    private final class RollResults {
        var list: [String] = []
        var done: [String] = []
        var ended = 0
        var expected = -1
    }

    private static func parse<T>(_ request: HTTPRequest, _ body: (JSONElement) -> T) throws(APIError) -> T {
        do { return try JSONDocument().parse(request.body) { body($0) } } catch { throw APIError(400, "invalid_json", "\(error)") }
    }

    private static func required(_ value: String?, _ field: String) throws(APIError) -> String {
        guard let value else { throw APIError(400, "missing_field", "is missing", field: field) }
        return value
    }

    /// The contract's array.
    static func replicas(_ rows: [StackRunner.Row]) -> [UInt8] {
        var json = JSONWriter(reserving: rows.count * 160 + 16)
        json.beginArray()
        for row in rows {
            json.beginObject()
            json.member("service", row.service)
            if let kind = row.kind { json.member("kind", kind) }
            json.member("replica", row.number)
            json.member("pid", Int(row.pid))
            json.key("port")
            if let port = row.port { json.int(Int(port)) } else { json.null() }
            json.member("state", row.state)
            json.member("restarts", row.restarts)
            json.member("since", CalendarTime.render(row.since))
            if !row.trouble.isEmpty { json.member("trouble", row.trouble) }
            json.endObject()
        }
        json.endArray()
        return json.bytes
    }
}
