import Balancing
import Basics
import EventLoops
import HTTP
import JSONCoding
import Observability
import StackModel

/// The gateway's part of the admin port. Reading needs nothing but the port; a change needs the admin token (`Authorization: Bearer …`, see
/// `gateway.admin-token-file`).
public enum AdminAPI {
    /// `onChange` is called after backends have been changed; `reload` reads the configuration anew, or throws the reason why it was not
    /// taken.
    public static func add(
        to router: inout Router, gateway: Gateway, onChange: @escaping @Sendable () -> Void = {},
        reload: (@Sendable () async throws -> Void)? = nil
    ) {
        router.get("/metrics") { _, _ in
            refreshGauges(gateway)
            return .text(gateway.metrics.render(), type: "text/plain; version=0.0.4; charset=utf-8")
        }
        router.get("/api/state") { request, _ in
            _ = try request.query()
            return .json(state(gateway, connections: await gateway.connectionCounts))
        }
        // The last is how HAProxy's exporters ask for it.
        for path in ["/stats", "/stats;csv", "/stats;csv;norefresh"] {
            router.get(path) { _, _ in
                .text(StatsCSV.render(gateway, connections: await gateway.connectionCounts), type: "text/plain; charset=utf-8")
            }
        }
        addRequests(to: &router, gateway: gateway)
        addWhy(to: &router, journal: gateway.journal)
        router.get("/health") { _, _ in .json { $0.member("status", "healthy") } }
        router.get("/") { _, _ in .text(AdminPage.html, type: "text/html; charset=utf-8") }
        addChanges(to: &router, gateway: gateway, onChange)
        addCache(to: &router, gateway: gateway)
        router.add("POST", "/api/certificates/reload") { request, _ in
            try authorize(request, gateway)
            _ = try request.query()
            try request.refuseBody()
            do throws(Gateway.Failure) { try await gateway.reloadCertificates() } catch {
                throw APIError(400, "not_reloaded", "the certificates before go on: \(error)")
            }
            return .json { $0.member("certificates", gateway.certificates.current.count) }
        }
        guard let reload else { return }
        router.add("POST", "/api/reload") { request, _ in
            try authorize(request, gateway)
            _ = try request.query()
            try request.refuseBody()
            do { try await reload() } catch { throw APIError(400, "not_reloaded", "the configuration before goes on: \(error)") }
            return .json { $0.member("routes", gateway.routes.count) }
        }
    }

    // MARK: changes

    private static func addChanges(to router: inout Router, gateway: Gateway, _ onChange: @escaping @Sendable () -> Void) {
        router.get("/api/backends") { request, _ in
            let label = try request.query("route").required("route")
            guard let backends = gateway.backends(of: label) else {
                throw APIError(404, "unknown_route", "there is no route '\(label)' with backends of its own")
            }
            return .json { $0.backends(backends) }
        }
        router.add("PUT", "/api/backends") { request, _ in
            try authorize(request, gateway)
            let label = try request.query("route").required("route"), backends = try request.json(read)
            do throws(Gateway.Failure) { try await gateway.setBackends(backends, of: label) } catch {
                throw APIError(400, "bad_backends", error.description)
            }
            onChange()
            return .json { $0.backends(backends) }
        }
        router.add("POST", "/api/replicas") { request, _ in
            try authorize(request, gateway)
            let query = try request.query("name", "state")
            try request.refuseBody()
            let name = try query.required("name"), state = try query.required("state")
            guard ["disabled", "ready"].contains(state) else {
                throw APIError(400, "bad_state", "state is 'disabled' or 'ready'", field: "state")
            }
            guard let now = gateway.setByHand(name, isOut: state == "disabled") else {
                throw APIError(404, "unknown_replica", "no route has a replica '\(name)'")
            }
            return .json {
                $0.member("name", name)
                $0.member("state", now)
            }
        }
    }

    static func authorize(_ request: HTTPRequest, _ gateway: Gateway) throws {
        guard gateway.settings.hasToken else {
            throw APIError(403, "no_admin_token", "changes over the API need gateway.admin-token-file in the stack file")
        }
        let given = request.header("authorization") ?? ""
        let token = given.lowercased().hasPrefix("bearer ") ? String(given.dropFirst(7)) : ""
        guard Array(token.utf8).withUnsafeBytes({ gateway.settings.isAdminToken($0) }) else {
            throw APIError(401, "wrong_admin_token", "send the admin token as Authorization: Bearer …")
        }
    }

    /// Reads `{"backends": [{"address": …, "weight": …, "priority": …}, "host:port"]}`.
    private static func read(_ root: JSONElement) throws(APIError) -> [BackendSpec] {
        let body = try JSONFields(root, known: ["backends"])
        guard let list = try body.array("backends") else { throw body.missing("backends") }
        guard list.count <= 10_000 else { throw APIError(400, "too_many_backends", "at most 10000 backends", field: "backends") }
        var out: [BackendSpec] = []
        for (i, entry) in list.enumerated() {
            let field = "backends[\(i)]"
            var address = entry.string, weight = 1, priority = 0
            if address == nil {
                let fields = try JSONFields(entry, known: ["address", "weight", "priority"], at: field)
                address = try fields.string("address")
                weight = try fields.integer("weight", in: 0...256) ?? 1
                priority = try fields.integer("priority", in: 0...7) ?? 0
                if address == nil { throw fields.missing("address") }
            }
            guard let address, Endpoint(address) != nil else {
                throw APIError(400, "bad_backend", "'\(address ?? "")' is no host:port and no unix:/path", field: field)
            }
            out.append(BackendSpec(address: address, weight: weight, priority: priority))
        }
        if !out.isEmpty, out.allSatisfy({ $0.weight == 0 }) {
            throw APIError(400, "bad_backends", "all backends have weight 0, so nothing could be sent to any", field: "backends")
        }
        return out
    }

    /// `/api/requests/ID`: what became of one of the latest requests, in the form of the decision journal.
    public static func addRequests(to router: inout Router, gateway: Gateway) {
        router.get("/api/requests/{id}") { request, parameters in
            _ = try request.query()
            let id = parameters.string("id")
            guard let found = await gateway.request(id) else {
                throw APIError(
                    404, "unknown_request",
                    "'\(id)' is not among the latest \(RecentRequests.capacity) requests of each thread; the access log has older ones")
            }
            return .json(Journal.json([Journal.Entry(at: found.at, record: found.record)]))
        }
    }

    /// `/api/why?subject=&kind=&without=&last=&since=`: the decision journal, newest last; of one kind, all kinds but one, the newest so many,
    /// and what was decided at a time (RFC 3339) or later.
    public static func addWhy(to router: inout Router, journal: Journal) {
        router.get("/api/why") { request, _ in
            let query = try request.query("subject", "kind", "without", "last", "since")
            var entries = journal.entries(subject: query.filled("subject"))
            if let text = query.filled("since") {
                guard let since = try? CalendarTime.parse(text) else {
                    throw APIError(400, "bad_time", "'\(text)' is no time, such as 2026-11-21T08:00:00Z", field: "since")
                }
                entries = entries.filter { $0.at >= since }
            }
            if let kind = try kind("kind", query) { entries = entries.filter { $0.record.kind == kind } }
            if let kind = try kind("without", query) { entries = entries.filter { $0.record.kind != kind } }
            if let last = try query.integer("last", in: 0...Int.max) { entries = entries.suffix(last) }
            return .json(Journal.json(entries))
        }
    }

    private static func kind(_ name: String, _ query: QueryFields) throws(APIError) -> DecisionRecord.Kind? {
        guard let text = query.filled(name) else { return nil }
        if let kind = DecisionRecord.Kind(rawValue: text) { return kind }
        let known = DecisionRecord.Kind.allCases.map(\.rawValue)
        throw APIError(400, "unknown_kind", "'\(text)' is none of \(known.joined(separator: ", "))", field: name)
    }

    /// Sets the gauges of all replicas; those of replicas that are gone go, too. A replica may stand in a route twice, also as one of the
    /// canary's: it is told once.
    private static func refreshGauges(_ gateway: Gateway) {
        var inFlight: [(labels: [(String, String)], value: Int)] = [], eligible = inFlight
        for route in gateway.routes {
            var seen: Set<String> = []
            for replica in route.allReplicas where seen.insert(replica.name).inserted {
                let labels = [("route", route.label), ("replica", replica.name)]
                inFlight.append((labels, replica.inFlight))
                eligible.append((labels, replica.isEligible ? 1 : 0))
            }
        }
        let now = WallTime.now.milliseconds / 1000
        gateway.metrics.setGauges(
            "gateway_certificate_expiry_seconds", "Seconds until a certificate ends; below 0: it has ended.",
            gateway.certificates.current.map { one in
                ([("name", one.names.first ?? one.subject), ("kind", one.kind.rawValue)], Int(clamping: one.ends - now))
            })
        gateway.metrics.setGauges("gateway_replica_in_flight", "Requests under way on a replica.", inFlight)
        gateway.metrics.setGauges("gateway_replica_eligible", "1 when a replica may be chosen.", eligible)
    }

    static func state(_ gateway: Gateway, connections: [Int]) -> [UInt8] {
        var json = JSONWriter(reserving: 4096)
        json.beginObject()
        json.member("at", CalendarTime.render(.now))
        json.member("listen", gateway.addresses.map(\.description).joined(separator: ", "))
        json.member("connections", connections.reduce(0, +))
        json.key("uptime_seconds")
        json.double(Double((MonotonicTime.now - gateway.started).nanoseconds / 1_000_000) / 1000)
        json.key("certificates")
        json.beginArray()
        for one in gateway.certificates.current { write(one, into: &json) }
        json.endArray()
        json.key("routes")
        json.beginArray()
        for route in gateway.routes { write(route, into: &json) }
        json.endArray()
        json.endObject()
        return json.bytes
    }

    private static func write(_ certificate: ServerCertificate, into json: inout JSONWriter) {
        json.beginObject()
        json.key("names")
        json.beginArray()
        for name in certificate.names.prefix(100) { json.string(name) }
        json.endArray()
        json.member("kind", certificate.kind.rawValue)
        json.member("subject", certificate.subject)
        json.member("ends", CalendarTime.render(WallTime(milliseconds: certificate.ends.multipliedClamped(by: 1000))))
        // Rounded down: 0 is the last day.
        json.member("days", Int(clamping: (certificate.ends - WallTime.now.milliseconds / 1000) / 86400))
        json.endObject()
    }

    private static func write(_ route: Route, into json: inout JSONWriter) {
        let metrics = route.metrics
        json.beginObject()
        json.member("path", route.label)
        json.member("balance", route.spec.balancing.method)
        json.member("requests", metrics.classes.reduce(0) { $0 + $1.current })
        for (i, counter) in metrics.classes.enumerated() where i > 0 { json.member("status_\(i + 1)xx", counter.current) }
        json.member("retries", metrics.retries.current)
        json.member("upstream_failures", metrics.failures.current)
        json.member("limited", metrics.limited.current)
        json.member("shed", metrics.shed.current)
        json.member("hedges", metrics.hedges.current)
        json.member("tunnels", metrics.tunnels.current)
        if let cache = route.cache {
            json.key("cache")
            json.beginObject()
            for result in CacheNote.Result.allCases.dropFirst() { json.member("\(result)", cache.results[Int(result.rawValue)].current) }
            json.endObject()
        }
        if let hold = route.hold { json.member("held", hold.waiting.current) }
        let guards = route.guards.state
        if let breaker = guards.breaker { json.member("breaker", breaker) }
        if let limit = guards.limit {
            json.member("concurrency_limit", limit)
            json.member("in_flight", route.guards.inFlight)
        }
        for (name, share) in [("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)] {
            json.key(name)
            if let value = metrics.duration.quantile(share) { json.double(Double(value.nanoseconds / 1000) / 1000) } else { json.null() }
        }
        // Counts of each bucket, so that whoever asks twice can tell what happened between.
        let (counts, _) = metrics.duration.snapshot()
        json.key("latency_bounds_ms")
        json.beginArray()
        for bound in Histogram.latencyBounds { json.double(Double(bound.nanoseconds) / 1e6) }
        json.endArray()
        json.key("latency_counts")
        json.beginArray()
        for count in counts { json.int(count) }
        json.endArray()
        json.key("replicas")
        json.beginArray()
        for replica in route.replicas { write(replica, isCanary: false, into: &json) }
        for replica in route.canaryReplicas { write(replica, isCanary: true, into: &json) }
        json.endArray()
        json.endObject()
    }

    private static func write(_ replica: Replica, isCanary: Bool, into json: inout JSONWriter) {
        let reason = replica.reason
        json.beginObject()
        json.member("name", replica.name)
        json.member("address", replica.endpoint.description)
        json.member("state", replica.state)
        json.member("reason", reason.text)
        json.member("since", CalendarTime.render(reason.at))
        json.member("weight", replica.weight)
        json.member("priority", replica.priority)
        if isCanary { json.member("canary", true) }
        json.member("in_flight", replica.inFlight)
        json.member("requests", replica.requests.current)
        json.member("failures", replica.failures.current)
        json.member("errors", replica.errors.current)
        // All answers together, so that whoever asks twice can tell the mean of what was between.
        json.key("latency_ms")
        json.double(Double(replica.latency.current / 1000) / 1000)
        json.key("mean_ms")
        let answered = replica.answers.current
        if answered > 0 { json.double(Double(replica.latency.current / answered / 1000) / 1000) } else { json.null() }
        json.endObject()
    }
}

extension JSONWriter {
    fileprivate mutating func backends(_ backends: [BackendSpec]) {
        key("backends")
        beginArray()
        for backend in backends {
            beginObject()
            member("address", backend.address)
            member("weight", backend.weight)
            member("priority", backend.priority)
            endObject()
        }
        endArray()
    }
}
