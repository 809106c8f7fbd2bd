import Autoscaling
import Basics
import Observability
import StackModel

/// What the reader of `scale` has to know of its service.
struct ScaledService {
    let name: String
    let replicas: ClosedRange<Int>
    let cpu: Int?
    let memory: Int?
    let http: HTTPInterface?
}

extension StackReader {
    mutating func scaling(_ object: CheckedObject, _ service: ScaledService, stores: [StoreSpec]) -> ScalingSpec {
        let path = "services.\(service.name).scale"
        var metrics: [ScalingMetric] = [], origins: [MetricOrigin] = []
        let declared = object.objects("metrics")
        if declared.isEmpty {
            metrics.append(ScalingMetric("cpu", .resource(.cpu), .utilization(80)))
            origins.append(.cpu)
        }
        for (index, one) in declared.enumerated() {
            if let (metric, origin) = metric(one, "\(path).metrics[\(index)]", service, stores) {
                metrics.append(
                    ScalingMetric(metric.name, metric.source, metric.target, isReadableAtZero: origin.isReadableAtZero))
                origins.append(origin)
            }
        }
        if service.cpu == nil, zip(metrics, origins).contains(where: { $1 == .cpu && isShare($0) }) {
            checker.report(
                object.line, object.column, "\(path): cpu as a share needs something to be a share of: resources.cpu, such as 500m")
        }
        if service.memory == nil, zip(metrics, origins).contains(where: { $1 == .memory && isShare($0) }) {
            checker.report(
                object.line, object.column, "\(path): memory as a share needs something to be a share of: resources.memory, such as 512Mi")
        }
        var policy = ScalingPolicy(
            minimum: service.replicas.lowerBound, maximum: service.replicas.upperBound, metrics: metrics, behavior: behavior(object, path))
        policy.tolerance = object.fraction("tolerance").map { Tolerance(down: $0, up: $0) } ?? Tolerance()
        policy.groups = .init(
            cpuInitialization: object.duration("initialization") ?? .seconds(300),
            readinessDelay: object.duration("readiness-delay") ?? .seconds(30),
            warmUp: object.duration("warm-up") ?? .zero)
        policy.ceilings = ceilings(object, path, service)
        let spec = ScalingSpec(
            policy: policy, origins: origins, period: object.duration("every") ?? .seconds(15), idle: object.duration("idle"),
            floors: floors(object),
            offset: object.duration("offset") ?? .zero, forecast: object.duration("forecast"))
        checkScaling(spec, object, path, service)
        return spec
    }

    private func isShare(_ metric: ScalingMetric) -> Bool { if case .utilization = metric.target { true } else { false } }

    // MARK: metrics

    /// The keys of which one names the kind.
    private static let kinds = ["cpu", "memory", "requests", "concurrency", "latency", "metric", "redis", "kafka"]

    private mutating func metric(_ one: CheckedObject, _ path: String, _ service: ScaledService, _ stores: [StoreSpec]) -> (
        ScalingMetric, MetricOrigin
    )? {
        let given = Self.kinds.filter { one.places[$0] != nil }
        guard given.count == 1, let kind = given.first else {
            let found = given.isEmpty ? "found none of them" : "found \(given.joined(separator: " and "))"
            checker.report(one.line, one.column, "\(path): expected exactly one of \(Self.kinds.joined(separator: ", ")), \(found)")
            return nil
        }
        let allowed: [String: Set<String>] = [
            "metric": ["from", "average", "total"], "redis": ["list", "sorted-set", "stream", "group", "average", "total"],
            "kafka": ["group", "lag", "from"],
        ]
        for key in one.places.keys.sorted() where key != kind && !(allowed[kind] ?? []).contains(key) {
            let place = one.places[key]!
            checker.report(place.line, place.column, "\(path): '\(key)' says nothing about \(kind)")
        }
        // What is wrong with a value has been told already.
        guard one.values[kind] != nil else { return nil }
        switch kind {
        case "cpu", "memory": return usage(one, kind)
        case "requests":
            let rate = SchemaChecker.rate(one.string(kind)!)!
            return (ScalingMetric(kind, .replicas, .average(max(1, Int(clamped: (rate * 1000).rounded())))), .gateway(.requests))
        case "concurrency": return (ScalingMetric(kind, .replicas, .average(one.integer(kind)!)), .gateway(.concurrency))
        case "latency":
            // Thousandths of a millisecond.
            return (
                ScalingMetric("latency in ms", .object, .value(max(1, Int(one.duration(kind)!.nanoseconds / 1000)))), .gateway(.latency)
            )
        case "metric": return pageFigure(one, path, service)
        case "redis": return length(one, path, stores)
        default: return lag(one, path)
        }
    }

    private func usage(_ one: CheckedObject, _ kind: String) -> (ScalingMetric, MetricOrigin) {
        let source = ScalingMetric.Source.resource(kind == "cpu" ? .cpu : .memory), origin = kind == "cpu" ? MetricOrigin.cpu : .memory
        if let share = one.fraction(kind) {
            return (ScalingMetric(kind, source, .utilization(Int(clamped: (share * 100).rounded()))), origin)
        }
        // Bytes in thousandths, as Kubernetes counts a quantity.
        return (ScalingMetric(kind, source, .average(one.integer(kind)! * (kind == "cpu" ? 1 : 1000))), origin)
    }

    /// `average` or `total`, one of them.
    private mutating func target(_ one: CheckedObject, _ path: String) -> ScalingMetric.Target? {
        switch (one.integer("average"), one.integer("total")) {
        case (let each?, nil): return .average(each)
        case (nil, let all?): return .value(all)
        case (nil, nil):
            if one.places["average"] == nil, one.places["total"] == nil {
                checker.report(one.line, one.column, "\(path): how much is right? average: for each replica, or total: in all")
            }
            return nil
        default:
            checker.report(one.line, one.column, "\(path): average and total contradict each other; keep one")
            return nil
        }
    }

    private mutating func pageFigure(_ one: CheckedObject, _ path: String, _ service: ScaledService) -> (ScalingMetric, MetricOrigin)? {
        let selector = one.string("metric")!, target = target(one, path)
        do throws(SampleSelector.Failure) { _ = try SampleSelector(selector) } catch {
            let place = one.places["metric"]!
            checker.report(place.line, place.column, "\(path).metric: '\(selector)' selects nothing: \(error)")
            return nil
        }
        if let url = one.string("from") {
            guard isPage(url) else {
                let place = one.places["from"]!
                checker.report(
                    place.line, place.column,
                    "\(path).from: expected the address of a page, such as http://127.0.0.1:9121/metrics, found '\(url)'")
                return nil
            }
            return target.map { (ScalingMetric(selector, .external, $0), .page(url: url, selector: selector)) }
        }
        if service.http?.metrics == nil {
            checker.report(
                one.line, one.column, "\(path): the replicas have no page to read it from: set http.metrics, such as /metrics, or from")
        }
        guard let target else { return nil }
        // A total of the replicas' own figures is one figure about the service.
        if case .value = target { return (ScalingMetric(selector, .external, target), .replicaPage(selector: selector)) }
        return (ScalingMetric(selector, .replicas, target), .replicaPage(selector: selector))
    }

    /// `http://`, a name or an IPv4 address, a port unless it is 80, and a path.
    private func isPage(_ url: String) -> Bool {
        guard url.hasPrefix("http://"), url.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else { return false }
        let place = url.dropFirst(7).prefix { $0 != "/" }.split(separator: ":", omittingEmptySubsequences: false)
        guard (1...2).contains(place.count), let host = place.first, !host.isEmpty,
            host.utf8.allSatisfy({ ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 45 || $0 == 46 })
        else { return false }
        return place.count == 1 || UInt16(place[1]).map { $0 > 0 } ?? false
    }

    private mutating func length(_ one: CheckedObject, _ path: String, _ stores: [StoreSpec]) -> (ScalingMetric, MetricOrigin)? {
        let store = one.string("redis")!
        let place = one.places["redis"]!
        if let found = stores.first(where: { $0.name == store }), found.kind != .redis {
            checker.report(
                place.line, place.column, "\(path).redis: the store '\(store)' is a \(found.kind.rawValue), in which nothing is counted so")
        } else if !declaredStores.contains(store) {
            let hint = checker.nearest(to: store, in: declaredStores).map { "; did you mean '\($0)'?" } ?? ""
            checker.report(place.line, place.column, "\(path).redis: there is no store '\(store)'\(hint)")
        }
        let keys = ["list", "sorted-set", "stream"].filter { one.places[$0] != nil }
        guard keys.count == 1, let key = one.string(keys[0]) else {
            checker.report(one.line, one.column, "\(path): which length? exactly one of list, sorted-set, stream")
            return nil
        }
        if one.places["group"] != nil, keys[0] != "stream" { checker.report(one.line, one.column, "\(path): only a stream has groups") }
        let length: MetricOrigin.Length =
            keys[0] == "list" ? .list(key) : keys[0] == "stream" ? .stream(key, group: one.string("group")) : .sortedSet(key)
        return target(one, path).map { (ScalingMetric("\(keys[0]) \(key)", .external, $0), .length(store: store, length)) }
    }

    private mutating func lag(_ one: CheckedObject, _ path: String) -> (ScalingMetric, MetricOrigin)? {
        for key in ["group", "lag", "from"] where one.places[key] == nil {
            checker.report(
                one.line, one.column,
                "\(path): '\(key)' is missing: kafka needs its group, the lag that one replica may have, and from, an exporter's page")
            return nil
        }
        guard let topic = one.string("kafka"), let group = one.string("group"), let lag = one.integer("lag"), let page = one.string("from")
        else { return nil }
        guard isPage(page) else {
            let place = one.places["from"]!
            checker.report(
                place.line, place.column,
                "\(path).from: expected the address of an exporter's page, such as http://127.0.0.1:9308/metrics, found '\(page)'")
            return nil
        }
        return (
            ScalingMetric("lag of \(group) on \(topic)", .external, .average(lag)),
            .lag(topic: topic, group: group, page: page, threshold: lag)
        )
    }

    // MARK: pace, floors, ceilings

    private mutating func behavior(_ object: CheckedObject, _ path: String) -> ScalingBehavior? {
        guard object.places["up"] != nil || object.places["down"] != nil else { return nil }
        let behavior = ScalingBehavior(up: rules(object.object("up"), .up), down: rules(object.object("down"), .down))
        for contradiction in behavior.contradictions { checker.report(object.line, object.column, "\(path).\(contradiction)") }
        return behavior
    }

    private func rules(_ object: CheckedObject?, _ defaults: ScalingRules) -> ScalingRules {
        guard let object else { return defaults }
        let period = object.duration("every") ?? .seconds(60)
        var policies: [ScalingRules.Policy] = []
        if let pods = object.integer("pods") { policies.append(.init(.pods, pods, per: period)) }
        if let percent = object.integer("percent") { policies.append(.init(.percent, percent, per: period)) }
        let selections: [String: ScalingRules.Selection] = ["max": .max, "min": .min, "disabled": .disabled]
        return ScalingRules(
            stabilization: object.duration("stabilization"), selection: object.string("select").flatMap { selections[$0] },
            policies: policies.isEmpty ? nil : policies,
            tolerance: object.fraction("tolerance"), defaults: defaults)
    }

    private func floors(_ object: CheckedObject) -> [ScheduleFloor] {
        object.objects("floors").compactMap { floor in
            guard let at = floor.string("at"), let replicas = floor.integer("replicas") else { return nil }
            return ScheduleFloor(text: at, replicas: replicas)
        }
    }

    private mutating func ceilings(_ object: CheckedObject, _ path: String, _ service: ScaledService) -> [Ceiling] {
        guard let declared = object.object("ceilings") else { return [] }
        var kinds: [Ceiling.Kind] = []
        for one in declared.objects("connections") {
            guard let name = one.string("of"), let limit = one.integer("limit"), let each = one.integer("each") else { continue }
            kinds.append(.connections(of: name, limit: limit, each: each, reserved: one.integer("reserved") ?? 0))
        }
        if let one = declared.object("partitions"), let topic = one.string("topic"), let count = one.integer("count") {
            kinds.append(.partitions(topic: topic, count: count))
        }
        if let available = declared.integer("memory") {
            if let each = service.memory {
                kinds.append(.memory(available: available, each: each))
            } else {
                checker.report(
                    declared.line, declared.column,
                    "\(path).ceilings.memory: how much does a replica take? Declare resources.memory, such as 512Mi")
            }
        }
        if let licences = declared.integer("licences") { kinds.append(.licences(licences)) }
        if let cost = declared.object("cost"), let each = cost.integer("replica"), let hour = cost.integer("hour") {
            kinds.append(.cost(perHour: hour, each: each))
        }
        let ceilings = kinds.compactMap(Ceiling.init)
        if let lowest = ceilings.min(by: { $0.most < $1.most }), lowest.most < service.replicas.lowerBound {
            checker.report(
                declared.line, declared.column,
                "services.\(service.name).replicas: at least \(service.replicas.lowerBound) are declared, but \(lowest.reason)")
        }
        return ceilings
    }

    // MARK: what contradicts

    private mutating func checkScaling(_ spec: ScalingSpec, _ object: CheckedObject, _ path: String, _ service: ScaledService) {
        func complain(_ key: String, _ reason: String) {
            let place = object.places[key] ?? (object.line, object.column)
            checker.report(place.line, place.column, "\(path)\(object.places[key] == nil ? "" : ".\(key)"): \(reason)")
        }
        if service.replicas.lowerBound == service.replicas.upperBound {
            complain(
                "metrics",
                "a fixed count of \(service.replicas.lowerBound) leaves nothing to scale: declare a range, such as replicas: 1..10")
        }
        if !(Duration.seconds(1)...Duration.seconds(600)).contains(spec.period) { complain("every", "from 1s to 10m") }
        for floor in spec.floors where floor.replicas > service.replicas.upperBound {
            complain("floors", "\(floor.replicas) at \(floor.text) are more than the declared maximum of \(service.replicas.upperBound)")
        }
        if let ceiling = spec.policy.ceilings.min(by: { $0.most < $1.most }) {
            for floor in spec.floors where floor.replicas > ceiling.most {
                complain("floors", "\(floor.replicas) at \(floor.text) are too many: \(ceiling.reason)")
            }
        }
        if let ahead = spec.forecast, !(Duration.seconds(60)...Duration.seconds(3600)).contains(ahead) {
            complain("forecast", "from 1m to 1h")
        }
        if spec.idle != nil, service.replicas.lowerBound > 0 {
            complain("idle", "the last replica may end only with replicas: 0..\(service.replicas.upperBound)")
        }
        if let idle = spec.idle, idle < .seconds(1) { complain("idle", "at least 1s") }
        if service.replicas.lowerBound == 0, spec.idle == nil, !spec.policy.metrics.contains(where: \.isReadableAtZero) {
            complain(
                "metrics",
                "at 0 replicas nothing can be measured: add idle, so that a request wakes it, or a metric that exists without replicas "
                    + "(redis, kafka, or metric with from)")
        }
    }

    /// What the gateway counts needs a route.
    mutating func checkRoutes(of services: [ServiceSpec], _ gateway: GatewaySpec?, _ top: CheckedObject) {
        for service in services {
            guard let spec = service.scaling else { continue }
            let needs = spec.idle != nil || spec.origins.contains { if case .gateway = $0 { true } else { false } }
            let hasRoute = gateway?.routes.contains { $0.target == .service(service.name) } ?? false
            if needs, !hasRoute {
                let place = top.places["services"] ?? (top.line, top.column)
                checker.report(
                    place.line, place.column,
                    "services.\(service.name).scale: requests, concurrency, latency and idle are what the gateway sees, and no route of "
                        + "it leads to \(service.name)"
                )
            }
        }
    }
}
