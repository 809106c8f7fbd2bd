import Basics
import EventLoops
import HTTP
import JSONCoding
import Observability

/// What the admin port serves of the gateway. Reading only; nothing here changes anything.
public enum AdminAPI {
    public static func add(to router: inout Router, gateway: Gateway) {
        router.get("/metrics") { _, _ in
            refreshGauges(gateway)
            return .text(gateway.metrics.render(), type: "text/plain; version=0.0.4; charset=utf-8")
        }
        router.get("/api/state") { _, _ in .json(state(gateway, connections: await gateway.connectionCounts)) }
        addWhy(to: &router, journal: gateway.journal)
        router.get("/health") { _, _ in .json { $0.member("status", "healthy") } }
        router.get("/") { _, _ in .text(AdminPage.html, type: "text/html; charset=utf-8") }
    }

    /// `/api/why?subject=`: the decision journal, newest last.
    public static func addWhy(to router: inout Router, journal: Journal) {
        router.get("/api/why") { request, _ in
            let subject = request.queryValue("subject").flatMap { $0.isEmpty ? nil : $0 }
            return .json(Journal.json(journal.entries(subject: subject)))
        }
    }

    private static func refreshGauges(_ gateway: Gateway) {
        for route in gateway.routes {
            for replica in route.replicas {
                let labels = [("route", route.label), ("replica", replica.name)]
                gateway.metrics.gauge("gateway_replica_in_flight", "Requests under way on a replica.", labels: labels).set(replica.inFlight)
                gateway.metrics.gauge("gateway_replica_eligible", "1 when a replica may be chosen.", labels: labels).set(replica.isEligible ? 1 : 0)
            }
        }
    }

    static func state(_ gateway: Gateway, connections: [Int]) -> [UInt8] {
        var json = JSONWriter(reserving: 4096)
        json.beginObject()
        json.member("at", CalendarTime.render(.now))
        json.member("listen", gateway.address?.description ?? "")
        json.member("connections", connections.reduce(0, +))
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
        json.member("path", route.spec.path)
        json.member("balance", route.spec.balance)
        json.member("requests", metrics.classes.reduce(0) { $0 + $1.current })
        for (i, counter) in metrics.classes.enumerated() where i > 0 { json.member("status_\(i + 1)xx", counter.current) }
        json.member("retries", metrics.retries.current)
        json.member("upstream_failures", metrics.failures.current)
        for (name, share) in [("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)] {
            json.key(name)
            if let value = metrics.duration.quantile(share) { json.double(Double(value.nanoseconds / 1000) / 1000) } else { json.null() }
        }
        json.key("replicas")
        json.beginArray()
        for replica in route.replicas {
            json.beginObject()
            json.member("name", replica.name)
            json.member("address", replica.endpoint.description)
            json.member("state", replica.state)
            json.member("weight", replica.weight)
            json.member("in_flight", replica.inFlight)
            json.member("requests", replica.requests.current)
            json.member("failures", replica.failures.current)
            json.endObject()
        }
        json.endArray()
        json.endObject()
    }
}
