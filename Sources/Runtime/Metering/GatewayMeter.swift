import Basics
import Gateway
import Measurement
import Observability
import Synchronization

/// Figures that the gateway of this process has of its services and their replicas: no request is made.
///
/// - requests: tries sent to replicas, a second. A service's is counted over all its replicas, those that have gone too.
/// - concurrency: requests under way, the mean over the window of looks by `sample` (and by each reading).
/// - latency-mean: from a request's last byte to the head of its answer, seconds, over the answers of the window.
/// - latency-p95: from a request's head to the end of its answer, seconds, of the service's routes; services only. It is interpolated in
///   the buckets of the gateway's histogram, and never above ten seconds.
///
/// Latency has no figure while there was no answer in the window (`absent`): no answers are not fast answers.
public final class GatewayMeter: Sendable {
    /// The metrics that it gives, by their names in `MeterKey.metric`.
    public static let requests = "requests", concurrency = "concurrency", latencyMean = "latency-mean", latencyP95 = "latency-p95"

    /// One replica, or all of a service.
    private struct Subject {
        var requests: CounterRate
        var answers: CounterRate
        var latency: CounterRate
        var underWay: WindowMean

        init(_ name: String, _ window: Duration) {
            requests = CounterRate("the requests of \(name)", window: window)
            answers = CounterRate("the answers of \(name)", window: window)
            latency = CounterRate("the latency of \(name)", window: window)
            underWay = WindowMean(window: window)
        }
    }

    private struct Totals {
        var requests = 0
        var answers = 0
        var latency = 0
    }

    private struct Watched {
        let service: String
        var all: Subject
        var replicas: [ObjectIdentifier: (replica: Replica, subject: Subject, last: Totals)] = [:]
        var totals = Totals()
        var durations: HistogramWindow?
        /// What each route had counted at the last reading, by its label, and what all have counted since the first one.
        var routes: [String: [Int]] = [:]
        var answered: [Int] = []
        var hasBegun = false
    }

    private let gateway: Gateway
    private let window: Duration
    private let watched = Mutex<[String: Watched]>([:])

    /// Everything is over `window`.
    public init(gateway: Gateway, window: Duration) {
        self.gateway = gateway
        self.window = window
    }

    /// Sets the services that are asked for. What is known of those that stay is kept.
    public func follow(_ services: Set<String>) {
        watched.withLock { watched in
            watched = watched.filter { services.contains($0.key) }
            for service in services where watched[service] == nil {
                watched[service] = Watched(service: service, all: Subject(service, window))
            }
        }
    }

    /// Looks at how many requests are under way. Meant for once a second; costs about a microsecond a replica.
    public func sample(at now: MonotonicTime = .now) {
        let routes = gateway.routes
        watched.withLock { watched in
            for service in Array(watched.keys) { note(&watched[service]!, GatewayMeter.replicas(service, routes), now) }
        }
    }

    /// All figures of all services, of their replicas and of each as a whole.
    public func read(at now: MonotonicTime = .now) -> [MeterKey: Result<MeterFigure, MeterFault>] {
        let routes = gateway.routes
        return watched.withLock { watched in
            var all: [MeterKey: Result<MeterFigure, MeterFault>] = [:]
            for service in Array(watched.keys) { read(&watched[service]!, routes, now, into: &all) }
            return all
        }
    }

    /// A service's replicas, found by their names, `service/number`: a canary's replicas stand in routes of another service.
    private static func replicas(_ service: String, _ routes: [Route]) -> [Replica] {
        var seen = Set<ObjectIdentifier>(), found: [Replica] = []
        for route in routes {
            for replica in route.allReplicas where replica.name.hasPrefix(service + "/") && seen.insert(ObjectIdentifier(replica)).inserted
            { found.append(replica) }
        }
        return found
    }

    private func note(_ watched: inout Watched, _ replicas: [Replica], _ now: MonotonicTime) {
        watched.replicas = watched.replicas.filter { known in replicas.contains { ObjectIdentifier($0) == known.key } }
        var underWay = 0
        for replica in replicas {
            let id = ObjectIdentifier(replica)
            if watched.replicas[id] == nil {
                // One that was there before this began has counted already; a new one begins at zero.
                let counted = watched.hasBegun ? Totals() : GatewayMeter.totals(replica)
                watched.replicas[id] = (replica, Subject(replica.name, window), counted)
            }
            let inFlight = replica.inFlight
            underWay += inFlight
            watched.replicas[id]!.subject.underWay.add(Double(inFlight), at: now)
        }
        watched.hasBegun = true
        watched.all.underWay.add(Double(underWay), at: now)
    }

    private static func totals(_ replica: Replica) -> Totals {
        Totals(requests: replica.requests.current, answers: replica.answers.current, latency: replica.latency.current)
    }

    private func read(
        _ watched: inout Watched, _ routes: [Route], _ now: MonotonicTime, into all: inout [MeterKey: Result<MeterFigure, MeterFault>]
    ) {
        let replicas = GatewayMeter.replicas(watched.service, routes)
        note(&watched, replicas, now)
        for replica in replicas {
            let id = ObjectIdentifier(replica), totals = GatewayMeter.totals(replica)
            let last = watched.replicas[id]!.last
            watched.totals.requests += totals.requests - last.requests
            watched.totals.answers += totals.answers - last.answers
            watched.totals.latency += totals.latency - last.latency
            watched.replicas[id]!.last = totals
            guard let number = Int(replica.name.dropFirst(watched.service.count + 1)) else { continue }
            figures(&watched.replicas[id]!.subject, totals, now, watched.service, number, into: &all)
        }
        figures(&watched.all, watched.totals, now, watched.service, nil, into: &all)
        all[MeterKey(service: watched.service, metric: GatewayMeter.latencyP95)] = p95(&watched, routes, now)
    }

    private func figures(
        _ subject: inout Subject, _ totals: Totals, _ now: MonotonicTime, _ service: String, _ replica: Int?,
        into all: inout [MeterKey: Result<MeterFigure, MeterFault>]
    ) {
        func key(_ metric: String) -> MeterKey { MeterKey(service: service, replica: replica, metric: metric) }
        all[key(GatewayMeter.requests)] = subject.requests.add(Double(totals.requests), at: now).map {
            MeterFigure($0.perSecond, .perSecond, takenAt: now, window: $0.window, note: $0.note)
        }
        if let mean = subject.underWay.mean {
            all[key(GatewayMeter.concurrency)] = .success(MeterFigure(mean.value, .count, takenAt: now, window: mean.window))
        }
        let answers = subject.answers.add(Double(totals.answers), at: now), latency = subject.latency.add(Double(totals.latency), at: now)
        all[key(GatewayMeter.latencyMean)] = mean(answers, latency, now, key(GatewayMeter.latencyMean))
    }

    private func mean(
        _ answers: Result<CounterRate.Rate, MeterFault>, _ latency: Result<CounterRate.Rate, MeterFault>, _ now: MonotonicTime,
        _ key: MeterKey
    ) -> Result<MeterFigure, MeterFault> {
        switch (answers, latency) {
        case (.failure(let fault), _), (_, .failure(let fault)): return .failure(fault)
        case (.success(let answers), .success(let latency)):
            guard answers.increase >= 1 else { return .failure(MeterFault(.absent, "\(key): no answer within \(answers.window.brief)")) }
            return .success(MeterFigure(latency.increase / answers.increase / 1e9, .seconds, takenAt: now, window: answers.window))
        }
    }

    private func p95(_ watched: inout Watched, _ routes: [Route], _ now: MonotonicTime) -> Result<MeterFigure, MeterFault> {
        let own = routes.filter { if case .service(let name) = $0.spec.target { name == watched.service } else { false } }
        let key = MeterKey(service: watched.service, metric: GatewayMeter.latencyP95)
        guard let first = own.first else {
            watched.routes = [:]
            return .failure(MeterFault(.absent, "no route leads to \(watched.service)"))
        }
        let bounds = first.durations.bounds
        // A route that comes (back) brings counts of an earlier time, and one that goes takes its own away: each counts by itself.
        var routes: [String: [Int]] = [:]
        if watched.answered.isEmpty { watched.answered = Array(repeating: 0, count: bounds.count + 1) }
        for route in own where routes[route.label] == nil {
            let counts = route.durations.counts
            routes[route.label] = counts
            guard let last = watched.routes[route.label] else { continue }
            for (i, (now, before)) in zip(counts, last).enumerated() where i < watched.answered.count {
                watched.answered[i].addClamped(max(0, now.subtractingClamped(before)))
            }
        }
        watched.routes = routes
        var durations = watched.durations ?? HistogramWindow(window: window, bounds: bounds)
        durations.add(watched.answered, at: now)
        watched.durations = durations
        guard let (value, _, window) = durations.quantile(0.95) else {
            return .failure(MeterFault(.absent, "\(key): no answer within \(self.window.brief)"))
        }
        let isCapped = value == bounds.last
        return .success(
            MeterFigure(
                value.secondsAsDouble, .seconds, takenAt: now, window: window,
                note: isCapped ? "at least this: the histogram ends here" : ""))
    }
}
