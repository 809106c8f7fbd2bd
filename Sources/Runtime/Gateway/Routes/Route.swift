import Balancing
import Basics
import EventLoops
import HTTP
import Observability
import Patterns
import Resilience
import StackModel
import Synchronization

/// A route as the gateway serves it: the prepared declaration, and the replicas behind it. Immutable but for its counts; a change of the
/// configuration makes a new one, and requests under way keep theirs.
public final class Route: Sendable {
    public let spec: RouteSpec
    public let label: String
    public let replicas: [Replica]
    public let canaryReplicas: [Replica]
    let path: PathMatcher
    let hosts: [HostPattern]
    let methods: [[UInt8]]
    let headers: [(name: [UInt8], value: [UInt8])]
    let deny: [DeniedPath]
    let method: BalanceMethod
    let canary: Canary?
    let retry: RetryPolicy
    let metrics: RouteMetrics
    let guards: RouteGuards
    /// How requests are held; nil: a request that finds no replica is answered at once.
    let hold: RouteHold?
    let access: AccessRules
    let requestEdits: HeaderEdits
    let responseEdits: HeaderEdits
    let rewrite: Rewrite?
    let host: [UInt8]?
    let upgrades: [[UInt8]]
    let answer: FixedAnswer?
    /// Names, in lower case, of the fields whose value decides here and is passed on: one of them that came twice could be read otherwise by
    /// the backend.
    let singleFields: [[UInt8]]
    /// What has to be looked at before a replica is chosen; empty for most routes.
    let filters: [RouteFilter]
    /// The route's part of the response cache; nil: it has none.
    let cache: RouteCache?

    /// TLS to its backends; nil: in plain.
    let tls: UpstreamTLS?

    init(
        spec: RouteSpec, replicas: [Replica], canaryReplicas: [Replica], metrics: RouteMetrics, guards: RouteGuards, hold: RouteHold?,
        cache store: ResponseCache, registry: MetricsRegistry
    ) throws(Gateway.Failure) {
        self.spec = spec
        label = spec.label
        self.replicas = replicas
        self.canaryReplicas = canaryReplicas
        self.metrics = metrics
        self.guards = guards
        self.hold = hold
        path = try PathMatcher(spec.match.path)
        hosts = spec.match.hosts.map(HostPattern.init)
        methods = spec.match.methods.map { Array($0.utf8) }
        headers = spec.match.headers.map { (Array($0.name.utf8), Array($0.value.utf8)) }
        deny = spec.access.deny.map { DeniedPath(Array($0.utf8)) }
        method = BalanceMethod(rawValue: spec.balancing.method) ?? .leastConnections
        canary = spec.canary.map { Canary(share: $0.share, header: $0.header, cookie: $0.cookie) }
        retry = RetryPolicy(attempts: spec.retry.attempts)
        access = try AccessRules(spec.access, route: label)
        requestEdits = HeaderEdits(spec.edits.request)
        // Where the gateway answers for other origins, a backend's own answer would stand beside it, and browsers refuse both.
        let besides = spec.access.cors == nil ? [] : CrossOrigin.fields
        // Tags are for the cache, and not for its clients.
        responseEdits = HeaderEdits(spec.edits.response, besides: spec.cache == nil ? besides : besides + ["cache-tag"])
        cache = spec.cache.map {
            RouteCache(spec, $0, store: store, edits: HeaderEdits(spec.edits.response, besides: besides), metrics: registry)
        }
        rewrite = try spec.edits.rewrite.map { (rewrite) throws(Gateway.Failure) in try Rewrite(rewrite, spec.match.path) }
        host = spec.edits.host.map { Array($0.utf8) }
        upgrades = spec.upgrades.map { Array($0.utf8) }
        answer = try FixedAnswer(spec.target, route: label)
        tls = try spec.backendTLS.map { (tls) throws(Gateway.Failure) in try UpstreamTLS(tls, route: spec.label) }
        singleFields = Route.singleFields(access, spec)
        filters = RouteFilter.needed(access, denies: !deny.isEmpty, answers: answer != nil, hasSingleFields: !singleFields.isEmpty)
    }

    /// The same route with other replicas. What was read from files (credentials, pages) is taken over, so this cannot fail.
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
        tls = old.tls
        singleFields = old.singleFields
        filters = old.filters
        cache = old.cache
    }

    private static func singleFields(_ access: AccessRules, _ spec: RouteSpec) -> [[UInt8]] {
        let counted = spec.guards.limits.compactMap { limit in if case .header(let name) = limit.key { name } else { nil } }
        return ((access.credentials == nil ? [] : ["authorization"]) + counted).map { Array($0.utf8) }
    }

    /// How long the route's requests took, from the head to the end of the answer, since the gateway began: the buckets' upper bounds, and
    /// how many requests fell into each (the last bucket is above all bounds).
    public var durations: (bounds: [Duration], counts: [Int]) { (metrics.duration.upperBounds, metrics.duration.snapshot().counts) }

    /// All replicas, the canary's included.
    public var allReplicas: [Replica] { canaryReplicas.isEmpty ? replicas : replicas + canaryReplicas }

    /// Whether a path is not served: as the client wrote it, or as the backend will be asked for it.
    func denies(_ target: UnsafeRawBufferPointer) -> Bool {
        if deny.isEmpty { return false }
        if PathRules.isDenied(target, deny) { return true }
        // What cannot be rewritten is not sent at all.
        guard case .to(let new)? = rewrite?.apply(target) else { return false }
        return new.withUnsafeBytes { PathRules.isDenied($0, deny) }
    }

    /// Whether the request has one of the route's methods and all of its header fields. Undecided where a field came several times and one
    /// of its lines is what the route asks for: the backend may read the first, the last, or all of them as one.
    func takesFields(_ table: HeadTable) -> MatchVerdict {
        if !methods.isEmpty {
            let method = table.methodText
            if !methods.contains(where: { $0.count == method.count && $0.elementsEqual(method) }) { return .no }
        }
        var verdict = MatchVerdict.yes
        for (name, value) in headers {
            let lines = table.count(name) { $0.elementsEqual(value) }
            if lines.all <= 1 {
                if lines.fitting == 0 { return .no }
            } else if lines.fitting > 0 || value.contains(44) {
                verdict = .undecided
            } else {
                return .no
            }
        }
        return verdict
    }

    /// The first of `singleFields` that came more than once.
    func repeatedField(_ table: HeadTable) -> [UInt8]? { singleFields.first { table.count($0) { _ in true }.all > 1 } }
}

/// Matches a target's path: as it is written, and in its simplest writing (see `PathForm`).
struct PathMatcher: Sendable {
    private enum Pattern: Sendable {
        case prefix([UInt8])
        case exact([UInt8])
        case regex(Patterns.Pattern)
    }
    private let pattern: Pattern
    /// The pattern in its simplest writing, and what of a path that writing keeps.
    private let simplest: [UInt8]
    private let kept: PathForm.Kept

    init(_ spec: RouteMatch.Path) throws(Gateway.Failure) {
        switch spec {
        case .prefix(let text), .exact(let text):
            let bytes = Array(text.utf8)
            if case .prefix = spec { pattern = .prefix(bytes) } else { pattern = .exact(bytes) }
            kept = PathReadings.kept(by: bytes)
            simplest = PathForm.simplified(bytes, keeping: kept)
        case .regex(let text):
            let text = String(decoding: PathForm.capitalEscapes(Array(text.utf8)), as: UTF8.self)
            do throws(Patterns.Pattern.Failure) { pattern = .regex(try Patterns.Pattern(text)) } catch {
                throw Gateway.Failure(description: "'\(text)': \(error)")
            }
            // An expression that names a semicolon or two slashes sees them.
            kept = [text.contains(";") || text.contains("%3B") ? .parameters : [], text.contains("//") ? .slashes : []]
            simplest = []
        }
    }

    /// Order in which paths are compared: exact paths first, then expressions, then prefixes.
    var rank: Int {
        switch pattern {
        case .exact: 0
        case .regex: 1
        case .prefix: 2
        }
    }

    var length: Int {
        switch pattern {
        case .prefix(let bytes), .exact(let bytes): bytes.count
        case .regex: 0
        }
    }

    /// `capitals`: the target with the digits of its escapes in capitals; nil when they are in capitals already.
    func matches(_ target: UnsafeRawBufferPointer, capitals: UnsafeRawBufferPointer?) -> MatchVerdict {
        switch pattern {
        case .prefix(let prefix): return PathRules.begins(capitals ?? target, with: prefix) ? .yes : .no
        case .exact(let path):
            let target = capitals ?? target
            guard target.count >= path.count else { return .no }
            for i in 0..<path.count where target[i] != path[i] { return .no }
            return target.count == path.count || target[path.count] == 63 ? .yes : .no
        case .regex(let pattern):
            return pattern.matches(PathRules.path(target)).or(capitals.map { pattern.matches(PathRules.path($0)) } ?? .no)
        }
    }

    /// Whether a backend that reads a target in its simplest writing could take it for this path.
    func mayMean(_ readings: inout PathReadings) -> MatchVerdict {
        switch pattern {
        case .prefix:
            return readings[kept].withUnsafeBytes { PathRules.begins($0, with: simplest, orParameters: !kept.isEmpty) } ? .yes : .no
        case .exact:
            let reading = readings[kept]
            guard reading.starts(with: simplest) else { return .no }
            return reading.count == simplest.count || (!kept.isEmpty && reading[simplest.count] == 59) ? .yes : .no
        case .regex(let pattern):
            let forms: [PathForm.Kept] = kept.isEmpty ? [[]] : [[], kept, .parameters, .slashes]
            var verdict = MatchVerdict.no
            for form in forms where kept.isSuperset(of: form) {
                verdict = verdict.or(readings[form].withUnsafeBytes { pattern.matches($0) })
                if verdict == .yes { break }
            }
            return verdict
        }
    }
}

/// Gives the backend another path; the query stays.
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

    /// What becomes of a target. A path that may not be sent rewritten is not sent as it was either: it would be up to the client then
    /// whether its path is rewritten.
    enum Outcome: Equatable {
        /// The expression does not match.
        case stays
        case to([UInt8])
        /// Why the request is refused.
        case refused(String)
    }

    func apply(_ target: UnsafeRawBufferPointer) -> Outcome {
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
            switch pattern.match(path) {
            case .none: return .stays
            case .undecided: return .refused(Rewrite.isUndecided)
            case .found(let match):
                guard let whole = match.first ?? nil else { return .refused(Rewrite.isUndecided) }
                new = Array(path[..<whole.lowerBound]) + replacement.fill(match, of: path) + Array(path[whole.upperBound...])
            }
        }
        if new.count > Rewrite.lengthLimit { return .refused(Rewrite.isTooLong) }
        guard new.first == 47, new.allSatisfy({ $0 > 32 && $0 < 127 && $0 != 35 }) else { return .refused(Rewrite.isNoPath) }
        // An expression can take away what kept two dots from being a segment.
        if new.withUnsafeBytes(PathForm.isAmbiguous) { return .refused(Rewrite.isAmbiguous) }
        return .to(new + target[path.count...])
    }

    /// As long as a request line may be.
    private static let lengthLimit = 8192
    private static let isUndecided =
        "whether this path is to be rewritten could not be decided within the steps that an expression has; send a shorter path"
    private static let isTooLong = "what this path is rewritten to is longer than \(lengthLimit) bytes; send a shorter path"
    private static let isNoPath =
        "what this path is rewritten to is no path that could be sent on; ask whoever wrote the rewrite of this route"
    private static let isAmbiguous =
        "what this path is rewritten to can be read in more than one way ('.' or '..' segments, a backslash, a bad escape); send it in its "
        + "simplest form"
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
        let labels = [("route", route)], limit = MetricsRegistry.configuredSeriesLimit
        classes = (1...5).map {
            registry.counter(
                "gateway_requests_total", "Requests answered, by route and class of status.",
                labels: [("route", route), ("status", "\($0)xx")], limit: limit)
        }
        duration = registry.histogram(
            "gateway_request_duration_seconds", "From a request's head to the end of its answer.", labels: labels, limit: limit)
        retries = registry.counter("gateway_retries_total", "Tries after the first.", labels: labels, limit: limit)
        failures = registry.counter("gateway_upstream_failures_total", "Tries that got no whole response.", labels: labels, limit: limit)
        limited = registry.counter(
            "gateway_limited_total", "Requests that came faster than the route's limit.", labels: labels, limit: limit)
        shed = registry.counter(
            "gateway_shed_total", "Requests that were refused because too many were under way or the breaker was open.", labels: labels,
            limit: limit)
        hedges = registry.counter(
            "gateway_hedges_total", "Second questions that were asked because the first had no answer yet.", labels: labels, limit: limit)
        tunnels = registry.gauge("gateway_tunnels", "Upgraded connections that are open.", labels: labels, limit: limit)
    }
}
