import Basics
import EventLoops
import Gateway
import HTTP
import JSONCoding
import Observability
import StackModel

/// What the supervisor answers on its Unix socket, which only its owner can reach: the other verbs of `muster` speak to it. The admin
/// port serves the reading half of it.
enum ControlAPI {
    static func addReading(to router: inout Router, _ admin: LoopBound<StackAdmin>) {
        addScaling(to: &router, admin)
        addResources(to: &router, admin)
        addStores(to: &router, admin)
        router.get("/api/replicas") { request, _ in
            _ = try request.query()
            return .json(replicas(admin.value.rows))
        }
        router.get("/api/stack") { request, _ in
            _ = try request.query()
            let stack = admin.value.runner, times = StackTimes(stack.stack)
            return .json { json in
                json.member("stack", stack.stack.name)
                json.member("phase", stack.phase)
                json.member("quiet", stack.isQuiet)
                json.member("failures", stack.failures)
                json.member("start_seconds", seconds(times.start))
                json.member("stop_seconds", seconds(times.stop))
                json.member("listen", stack.stack.gateway?.listen.description ?? "")
                json.member("admin", stack.stack.gateway?.admin?.description ?? "")
                json.member("path", tryPath(stack.stack))
                json.member("services", stack.stack.services.map(\.name))
                json.member("tasks", stack.stack.tasks.map(\.name))
                json.member("stores", stack.stack.stores.map(\.name))
                json.member("backends", backends(stack.stack))
            }
        }
    }

    /// More points than a timeline has are as many as it has.
    private static let mostPoints = 1_000_000

    private static func seconds(_ time: Duration) -> Int { Int(clamped: time.secondsAsDouble.rounded(.up)) }

    private static func backends(_ stack: Stack) -> [String] {
        (stack.gateway?.routes ?? []).flatMap { if case .backends(let list) = $0.target { list.map(\.address) } else { [String]() } }
    }

    /// A path that the gateway takes from anybody: the readiness of a service that has all paths, or else where the first route begins.
    private static func tryPath(_ stack: Stack) -> String {
        let open = (stack.gateway?.routes ?? []).filter { $0.match.hosts.isEmpty && $0.match.methods.isEmpty && $0.match.headers.isEmpty }
        for route in open where route.match.path == .prefix("/") {
            if case .service(let name) = route.target, let ready = stack.service(name)?.http?.ready { return ready }
        }
        for route in open {
            switch route.match.path {
            case .prefix(let path), .exact(let path): return path
            case .regex: continue
            }
        }
        return "/"
    }

    /// `service` and `points` (of the timeline; default 240, at most a day) narrow it.
    static func addScaling(to router: inout Router, _ admin: LoopBound<StackAdmin>) {
        router.get("/api/scaling") { request, _ in
            let query = try request.query("service", "points")
            let points = try query.integer("points", in: 0...mostPoints) ?? 240
            return .json(
                ScalingJSON.write(
                    admin.value.runner.scaling.scalers?.standings ?? [], only: query.filled("service"), points: points, admin.value.runner))
        }
    }

    /// What the services should be given; `service` narrows it.
    static func addResources(to router: inout Router, _ admin: LoopBound<StackAdmin>) {
        router.get("/api/resources") { request, _ in
            let service = try request.query("service").filled("service")
            guard let recorder = admin.value.runner.scaling.scalers?.resources else {
                throw APIError(
                    409, "not_running", "the stack is \(admin.value.runner.phase); what its services use is recorded once it runs")
            }
            return .json(ResourcesJSON.write(admin.value.runner.stack.services, only: service, recorder, now: .now))
        }
    }

    static func addChanging(
        to router: inout Router, _ admin: LoopBound<StackAdmin>, readStack: @escaping @Sendable (String, [String: String]) throws -> Stack
    ) {
        // On the control socket only: it has the stores' passwords.
        router.get("/api/environment") { request, _ in
            let service = try request.query("service").required("service")
            let given = try admin.value.given(to: service)
            return .json { json in
                json.key("variables")
                json.beginObject()
                for (name, value) in given.sorted(by: { $0.key < $1.key }) { json.member(name, value) }
                json.endObject()
            }
        }
        addOrders(to: &router, admin)
        router.post("/api/scale") { request, _ in
            let (service, count) = try parse(request, ["service", "replicas"]) { (body) throws(APIError) in
                // Absent means auto; anything but a whole number is a mistake.
                (try required("service", body), try body.integer("replicas", in: 0...Int.max))
            }
            try admin.value.scale(service, to: count)
            return .json { $0.member("done", true) }
        }
        router.post("/api/roll") { request, _ in
            let name = try parse(request, ["service"]) { (body) throws(APIError) in try required("service", body) }
            let failure: String? = try await withUnsafeThrowingContinuation { continuation in
                do throws(APIError) { try admin.value.roll(name) { continuation.resume(returning: $0) } } catch {
                    continuation.resume(throwing: error)
                }
            }
            if let failure { throw APIError(500, "roll_failed", failure) }
            return .json { $0.member("done", true) }
        }
        router.post("/api/apply") { request, _ in try await apply(request, admin, readStack) }
        router.post("/api/down") { request, _ in
            _ = try request.query()
            admin.value.runner.stopAsked()
            return .json { $0.member("done", true) }
        }
    }

    /// `file`, the counts asked for, and the caller's values of the variables that the file names (a supervisor's own environment is as
    /// old as its start). Answers when every roll has ended.
    private static func apply(
        _ request: HTTPRequest, _ admin: LoopBound<StackAdmin>, _ readStack: @Sendable (String, [String: String]) throws -> Stack
    ) async throws -> HTTPResponse {
        let (file, counts, variables) = try parse(request, ["file", "replicas", "environment"]) { (body) throws(APIError) in
            (
                try required("file", body), try body.map("replicas", "a whole number", \.int),
                try body.map("environment", "a string", \.string)
            )
        }
        let stack: Stack
        do { stack = try readStack(file, variables) } catch { throw APIError(400, "bad_stack", "\(error)") }
        if let name = counts.keys.sorted().first(where: { stack.service($0) == nil }) {
            throw APIError(404, "no_such_service", "the stack has no service '\(name)'", field: "replicas.\(name)")
        }
        let done = try await admin.value.change(to: stack, of: file, counts: counts)
        return .json { $0.member("changes", done) }
    }

    /// Reads a body that is an object with these keys and no others; nothing stands in the query.
    private static func parse<T>(
        _ request: HTTPRequest, _ known: [String], _ body: (JSONFields) throws(APIError) -> T
    ) throws(APIError) -> T {
        _ = try request.query()
        return try request.json { (root) throws(APIError) in try body(try JSONFields(root, known: known)) }
    }

    private static func required(_ name: String, _ body: JSONFields) throws(APIError) -> String {
        guard let value = try body.string(name) else { throw body.missing(name) }
        return value
    }

    /// The contract's array.
    static func replicas(_ rows: [StackAdmin.Row]) -> [UInt8] {
        var json = JSONWriter(reserving: rows.count * 160 + 16)
        json.beginArray()
        for row in rows {
            json.beginObject()
            json.member("service", row.service)
            if let kind = row.kind { json.member("kind", kind) }
            json.member("replica", row.number)
            json.key("pid")
            if let pid = row.pid { json.int(Int(pid)) } else { json.null() }
            json.key("port")
            if let port = row.port { json.int(Int(port)) } else { json.null() }
            if let place = row.place {
                json.member("external", true)
                json.member("address", place)
            }
            json.member("state", row.state)
            if let role = row.role { json.member("role", role) }
            json.member("restarts", row.restarts)
            json.member("since", CalendarTime.render(row.since))
            if !row.trouble.isEmpty { json.member("trouble", row.trouble) }
            json.endObject()
        }
        json.endArray()
        return json.bytes
    }
}
