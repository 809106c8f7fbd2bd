import Balancing
import Basics
import EventLoops
import HTTP
import JSONCoding
import Observability
import Topology

/// What the admin port serves of the gateway. Reading needs nothing but the port; a change needs the admin token
/// (`Authorization: Bearer …`, see `gateway.admin-token-file`).
public enum AdminAPI {
    /// `onChange` is called after backends have been changed; `reload` reads the configuration anew, or throws why it was not taken.
    public static func add(
        to router: inout Router, gateway: Gateway, onChange: @escaping @Sendable () -> Void = {},
        reload: (@Sendable () async throws -> Void)? = nil
    ) {
        router.get("/metrics") { _, _ in
            refreshGauges(gateway)
            return .text(gateway.metrics.render(), type: "text/plain; version=0.0.4; charset=utf-8")
        }
        router.get("/api/state") { _, _ in .json(state(gateway, connections: await gateway.connectionCounts)) }
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
        guard let reload else { return }
        router.add("POST", "/api/reload") { request, _ in
            try authorize(request, gateway)
            do { try await reload() } catch { throw APIError(400, "not_reloaded", "the configuration before goes on: \(error)") }
            return .json { $0.member("routes", gateway.routes.count) }
        }
    }

    // MARK: changes

    private static func addChanges(to router: inout Router, gateway: Gateway, _ onChange: @escaping @Sendable () -> Void) {
        router.get("/api/backends") { request, _ in
            let label = request.queryValue("route") ?? "/"
            guard let backends = gateway.backends(of: label) else {
                throw APIError(404, "unknown_route", "there is no route '\(label)' with backends of its own")
            }
            return .json { $0.backends(backends) }
        }
        router.add("PUT", "/api/backends") { request, _ in
            try authorize(request, gateway)
            let label = request.queryValue("route") ?? "/", backends = try read(request.body)
            do throws(Gateway.Failure) { try await gateway.setBackends(backends, of: label) } catch {
                throw APIError(400, "bad_backends", error.description)
            }
            onChange()
            return .json { $0.backends(backends) }
        }
        router.add("POST", "/api/replicas") { request, _ in
            try authorize(request, gateway)
            let name = request.queryValue("name") ?? "", state = request.queryValue("state") ?? ""
            let replicas = gateway.routes.flatMap { $0.allReplicas }.filter { $0.name == name }
            if replicas.isEmpty { throw APIError(404, "unknown_replica", "no route has a replica '\(name)'") }
            for replica in replicas {
                switch state {
                case "disabled": replica.add(.disabled, because: "taken out by hand, over the API")
                case "ready":
                    replica.remove(.disabled, because: "put back by hand, over the API")
                    replica.seenServing()
                default: throw APIError(400, "bad_state", "state is 'disabled' or 'ready'", field: "state")
                }
            }
            gateway.replicasChanged()
            return .json {
                $0.member("name", name)
                $0.member("state", replicas[0].state)
            }
        }
    }

    private static func authorize(_ request: HTTPRequest, _ gateway: Gateway) throws {
        guard gateway.settings.hasToken else {
            throw APIError(403, "no_admin_token", "changes over the API need gateway.admin-token-file in the stack file")
        }
        let given = request.header("authorization") ?? ""
        let token = given.lowercased().hasPrefix("bearer ") ? String(given.dropFirst(7)) : ""
        guard Array(token.utf8).withUnsafeBytes({ gateway.settings.isAdminToken($0) }) else {
            throw APIError(401, "wrong_admin_token", "send the admin token as Authorization: Bearer …")
        }
    }

    /// `{"backends": [{"address": …, "weight": …, "priority": …}, "host:port"]}`
    private static func read(_ body: [UInt8]) throws -> [BackendSpec] {
        var out: [BackendSpec] = []
        do {
            try JSONDocument().parse(body) { root in
                guard let list = root["backends"]?.array else {
                    throw APIError(400, "bad_backends", "expected {\"backends\": [\"host:port\", …]}", field: "backends")
                }
                guard list.count <= 10_000 else { throw APIError(400, "too_many_backends", "at most 10000 backends", field: "backends") }
                for (i, entry) in list.enumerated() {
                    let address = entry.string ?? entry["address"]?.string ?? ""
                    let weight = entry["weight"]?.int ?? 1, priority = entry["priority"]?.int ?? 0
                    guard Endpoint(address) != nil, (0...256).contains(weight), (0...7).contains(priority) else {
                        throw APIError(
                            400, "bad_backend", "expected an address host:port, a weight of 0..256, a priority of 0..7",
                            field: "backends[\(i)]")
                    }
                    out.append(BackendSpec(address: address, weight: weight, priority: priority))
                }
            }
        } catch let error as APIError { throw error } catch { throw APIError(400, "bad_json", "\(error)") }
        return out
    }

    /// `/api/requests/ID`: what became of one of the latest requests, in the form of the decision journal.
    public static func addRequests(to router: inout Router, gateway: Gateway) {
        router.get("/api/requests/{id}") { _, parameters in
            let id = parameters.string("id")
            guard let found = await gateway.request(id) else {
                throw APIError(
                    404, "unknown_request",
                    "'\(id)' is not among the latest \(RecentRequests.capacity) requests of each thread; the access log has older ones")
            }
            return .json(Journal.json([Journal.Entry(at: found.at, record: found.record)]))
        }
    }

    /// `/api/why?subject=&kind=&without=&last=`: the decision journal, newest last; of one kind, all kinds but one, and the newest so many.
    public static func addWhy(to router: inout Router, journal: Journal) {
        router.get("/api/why") { request, _ in
            func value(_ name: String) -> String? { request.queryValue(name).flatMap { $0.isEmpty ? nil : $0 } }
            var entries = journal.entries(subject: value("subject"))
            if let kind = value("kind") { entries = entries.filter { $0.record.kind.rawValue == kind } }
            if let kind = value("without") { entries = entries.filter { $0.record.kind.rawValue != kind } }
            if let text = value("last") {
                guard let last = Int(text), last >= 0 else {
                    throw APIError(400, "invalid_number", "'\(text)' is not a whole number from 0", field: "last")
                }
                entries = entries.suffix(last)
            }
            return .json(Journal.json(entries))
        }
    }

    /// Those of replicas that are gone go, too. The same replica may stand in a route twice, as one of the canary's: it is told once.
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
        gateway.metrics.setGauges("gateway_replica_in_flight", "Requests under way on a replica.", inFlight)
        gateway.metrics.setGauges("gateway_replica_eligible", "1 when a replica may be chosen.", eligible)
    }

    static func state(_ gateway: Gateway, connections: [Int]) -> [UInt8] {
        var json = JSONWriter(reserving: 4096)
        json.beginObject()
        json.member("at", CalendarTime.render(.now))
        json.member("listen", gateway.address?.description ?? "")
        json.member("connections", connections.reduce(0, +))
        json.key("uptime_seconds")
        json.double(Double((MonotonicTime.now - gateway.started).nanoseconds / 1_000_000) / 1000)
        json.key("routes")
        json.beginArray()
        for route in gateway.routes { write(route, into: &json) }
        json.endArray()
        json.endObject()
        return json.bytes
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
        let answered = replica.requests.current - replica.failures.current
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
