import Balancing
import Basics
import EventLoops
import HTTP
import Observability
import Patterns
import Resilience
import Synchronization
import Topology

/// A route as the gateway serves it: the declaration made ready, and the replicas behind it. Immutable but for its counts; a change of the
/// configuration makes a new one, and requests under way keep theirs.
public final class Route: Sendable {
    public let spec: RouteSpec
    public let label: String
    public let replicas: [Replica]
    public let canaryReplicas: [Replica]
    let path: PathMatcher
    let hosts: [[UInt8]]
    let methods: [[UInt8]]
    let headers: [(name: [UInt8], value: [UInt8])]
    let deny: [[UInt8]]
    let method: BalanceMethod
    let canary: Canary?
    let retry: RetryPolicy
    let metrics: RouteMetrics
    let guards: RouteGuards
    /// nil: a request that finds no replica is answered at once.
    let hold: RouteHold?
    let access: AccessRules
    let requestEdits: HeaderEdits
    let responseEdits: HeaderEdits
    let rewrite: Rewrite?
    let host: [UInt8]?
    let upgrades: [[UInt8]]
    let answer: FixedAnswer?
    /// Nothing has to be looked at before a replica is chosen.
    let isPlain: Bool

    init(
        spec: RouteSpec, replicas: [Replica], canaryReplicas: [Replica], metrics: RouteMetrics, guards: RouteGuards, hold: RouteHold?
    ) throws(Gateway.Failure) {
        self.spec = spec
        label = spec.label
        self.replicas = replicas
        self.canaryReplicas = canaryReplicas
        self.metrics = metrics
        self.guards = guards
        self.hold = hold
        path = try PathMatcher(spec.match.path)
        hosts = spec.match.hosts.map { Array($0.utf8) }
        methods = spec.match.methods.map { Array($0.utf8) }
        headers = spec.match.headers.map { (Array($0.name.utf8), Array($0.value.utf8)) }
        deny = spec.access.deny.map { Array($0.utf8) }
        method = BalanceMethod(rawValue: spec.balancing.method) ?? .leastConnections
        canary = spec.canary.map { Canary(share: $0.share, header: $0.header, cookie: $0.cookie) }
        retry = RetryPolicy(attempts: spec.retry.attempts)
        access = try AccessRules(spec.access, route: label)
        requestEdits = HeaderEdits(spec.edits.request)
        // Where the gateway answers for other origins, a backend's own answer would stand beside it, and browsers refuse both.
        responseEdits = HeaderEdits(spec.edits.response, besides: spec.access.cors == nil ? [] : CrossOrigin.fields)
        rewrite = try spec.edits.rewrite.map { (rewrite) throws(Gateway.Failure) in try Rewrite(rewrite, spec.match.path) }
        host = spec.edits.host.map { Array($0.utf8) }
        upgrades = spec.upgrades.map { Array($0.utf8) }
        answer = try FixedAnswer(spec.target, route: label)
        isPlain = deny.isEmpty && access.isOpen && answer == nil && guards.isOpen
    }

    /// The same route with other replicas. Whatever was read of files (credentials, pages) is taken over, so this cannot fail.
    init(_ old: Route, replicas: [Replica], canaryReplicas: [Replica]) {
        self.replicas = replicas
        self.canaryReplicas = canaryReplicas
        spec = old.spec
        label = old.label
        metrics = old.metrics
        guards = old.guards
        hold = old.hold
        path = old.path
        hosts = old.hosts
        methods = old.methods
        headers = old.headers
        deny = old.deny
        method = old.method
        canary = old.canary
        retry = old.retry
        access = old.access
        requestEdits = old.requestEdits
        responseEdits = old.responseEdits
        rewrite = old.rewrite
        host = old.host
        upgrades = old.upgrades
        answer = old.answer
        isPlain = old.isPlain
    }

    /// How long its requests took, from the head to the end of the answer, since the gateway began: the buckets' upper bounds, and how many
    /// fell into each (the last is above them all).
    public var durations: (bounds: [Duration], counts: [Int]) { (metrics.duration.upperBounds, metrics.duration.snapshot().counts) }

    /// All of them, the canary's too.
    public var allReplicas: [Replica] { canaryReplicas.isEmpty ? replicas : replicas + canaryReplicas }

    func takes(_ table: HeadTable, _ target: UnsafeRawBufferPointer) -> Bool {
        if !hosts.isEmpty, !takesHost(table) { return false }
        if !methods.isEmpty {
            let method = table.methodText
            if !methods.contains(where: { $0.count == method.count && $0.elementsEqual(method) }) { return false }
        }
        for (name, value) in headers {
            guard let found = table.value(name), found.elementsEqual(value) else { return false }
        }
        return path.matches(target)
    }

    private func takesHost(_ table: HeadTable) -> Bool {
        guard var host = table.first(.host) else { return false }
        // Without the port; in brackets is an address, which no pattern names.
        if let colon = host.lastIndex(of: 58), host.last != 93 { host = host.part(0, colon) }
        if host.last == 46 { host = host.part(0, host.count - 1) }
        for pattern in hosts {
            if pattern.first == 42 {
                let tail = pattern[1...]
                guard host.count > tail.count else { continue }
                let end = host.part(host.count - tail.count, tail.count)
                if tail.withUnsafeBytes({ equalIgnoringCase($0, end) }) { return true }
            } else if pattern.withUnsafeBytes({ equalIgnoringCase($0, host) }) {
                return true
            }
        }
        return false
    }

    /// Before whom it is looked at: exact host before wildcard before none; exact path, then expressions in the file's order, then the
    /// longest prefix; more conditions before fewer.
    func precedes(_ other: Route) -> Bool {
        func rank(_ route: Route) -> [Int] {
            // Among wildcards the longest.
            let wildcard = route.hosts.filter { $0.first == 42 }.map(\.count).min()
            let host = route.hosts.isEmpty ? 1 : wildcard.map { -$0 } ?? Int.min
            return [host, route.path.rank, -route.path.length, -(route.headers.count + (route.methods.isEmpty ? 0 : 1))]
        }
        return rank(self).lexicographicallyPrecedes(rank(other))
    }
}

/// Matches a target's path.
enum PathMatcher: Sendable {
    case prefix([UInt8])
    case exact([UInt8])
    case regex(Pattern)

    init(_ spec: RouteMatch.Path) throws(Gateway.Failure) {
        switch spec {
        case .prefix(let text): self = .prefix(Array(text.utf8))
        case .exact(let text): self = .exact(Array(text.utf8))
        case .regex(let text):
            do throws(Pattern.Failure) { self = .regex(try Pattern(text)) } catch {
                throw Gateway.Failure(description: "'\(text)': \(error)")
            }
        }
    }

    var rank: Int {
        switch self {
        case .exact: 0
        case .regex: 1
        case .prefix: 2
        }
    }

    var length: Int {
        switch self {
        case .prefix(let bytes), .exact(let bytes): bytes.count
        case .regex: 0
        }
    }

    func matches(_ target: UnsafeRawBufferPointer) -> Bool {
        switch self {
        case .prefix(let prefix): return PathRules.begins(target, with: prefix)
        case .exact(let path):
            guard target.count >= path.count else { return false }
            for i in 0..<path.count where target[i] != path[i] { return false }
            return target.count == path.count || target[path.count] == 63
        case .regex(let pattern): return pattern.matches(PathRules.path(target))
        }
    }
}

/// Another path for the backend; the query stays.
enum Rewrite: Sendable {
    case prefix(from: Int, to: [UInt8])
    case regex(Pattern, Replacement)

    init(_ spec: RewriteSpec, _ path: RouteMatch.Path) throws(Gateway.Failure) {
        switch (spec, path) {
        case (.prefix(let to), .prefix(let from)), (.prefix(let to), .exact(let from)):
            self = .prefix(from: from.utf8.count, to: Array(to.utf8))
        case (.regex(let text, let to), _):
            guard let pattern = try? Pattern(text), let replacement = Replacement(to, groups: pattern.groups) else {
                throw Gateway.Failure(description: "rewrite '\(text)' to '\(to)' is not possible")
            }
            self = .regex(pattern, replacement)
        case (.prefix, .regex): throw Gateway.Failure(description: "a route by regex has no prefix to replace")
        }
    }

    /// The new target; nil when it stays as it is, or would be none that may be sent.
    func apply(_ target: UnsafeRawBufferPointer) -> [UInt8]? {
        let path = PathRules.path(target)
        var new: [UInt8]
        switch self {
        case .prefix(let from, let to):
            let rest = path[min(from, path.count)...]
            new = to
            if new.last == 47, rest.first == 47 { new.removeLast() }
            if new.last != 47, let first = rest.first, first != 47 { new.append(47) }
            new += rest
        case .regex(let pattern, let replacement):
            guard let match = pattern.match(path), let whole = match[0] else { return nil }
            new = Array(path[..<whole.lowerBound]) + replacement.fill(match, of: path) + Array(path[whole.upperBound...])
        }
        guard new.first == 47, new.count <= 8192, new.allSatisfy({ $0 > 32 && $0 < 127 && $0 != 35 }) else { return nil }
        // An expression can take away what kept two dots from being a segment.
        if new.withUnsafeBytes(PathRules.isAmbiguous) { return nil }
        return new + target[path.count...]
    }
}

/// Counters of one route, made once.
struct RouteMetrics: Sendable {
    let classes: [Counter]
    let duration: Histogram
    let retries: Counter
    let failures: Counter
    let limited: Counter
    let shed: Counter
    let hedges: Counter
    let tunnels: Gauge

    init(_ registry: MetricsRegistry, route: String) {
        let labels = [("route", route)]
        classes = (1...5).map {
            registry.counter(
                "gateway_requests_total", "Requests answered, by route and class of status.",
                labels: [("route", route), ("status", "\($0)xx")])
        }
        duration = registry.histogram("gateway_request_duration_seconds", "From a request's head to the end of its answer.", labels: labels)
        retries = registry.counter("gateway_retries_total", "Tries after the first.", labels: labels)
        failures = registry.counter("gateway_upstream_failures_total", "Tries that got no whole response.", labels: labels)
        limited = registry.counter("gateway_limited_total", "Requests that came faster than the route's limit.", labels: labels)
        shed = registry.counter(
            "gateway_shed_total", "Requests that were refused because too many were under way or the breaker was open.", labels: labels)
        hedges = registry.counter(
            "gateway_hedges_total", "Second questions that were asked because the first had no answer yet.", labels: labels)
        tunnels = registry.gauge("gateway_tunnels", "Upgraded connections that are open.", labels: labels)
    }
}
