import Balancing
import Basics
import HTTP
import Observability
import Patterns
import Resilience
import StackModel

/// One loop's memory of a pool of replicas: whose turn it is.
final class PoolOnLoop {
    let replicas: [Replica]
    private var pool: Pool
    private(set) var candidates: [Candidate]
    private let slowStart: SlowStart?
    private let perReplica: Int

    init(_ replicas: [Replica], _ route: Route, seed: UInt64) {
        self.replicas = replicas
        pool = Pool(route.method, panic: route.spec.balancing.panic, seed: seed)
        candidates = replicas.map { Candidate(weight: $0.weight, identity: $0.identity, priority: $0.priority) }
        slowStart = route.spec.balancing.slowStart > .zero ? SlowStart(window: route.spec.balancing.slowStart) : nil
        perReplica = route.spec.guards.perReplica ?? .max
    }

    /// Picks the replica for the next try. If none is fit, picks any that is not leaving: an answer from a doubtful replica beats none.
    func pick(_ tried: TriedSet, key: UInt64?, sticky: UInt64?, now: MonotonicTime) -> Selection? {
        for place in candidates.indices {
            let replica = replicas[place]
            let obstacles = replica.obstacles, inFlight = replica.inFlight
            candidates[place].isEligible = obstacles.isEmpty
            candidates[place].isLeaving = !obstacles.isDisjoint(with: [.draining, .disabled])
            candidates[place].inFlight = inFlight
            candidates[place].isFull = inFlight >= perReplica
            if let slowStart { candidates[place].admission = replica.age(now).map(slowStart.admission) ?? 1000 }
        }
        return pool.pick(candidates, tried: tried, key: key, sticky: sticky)
    }

    /// Whether the pool has no replica, or only replicas that are leaving. A pool whose replicas are merely unwell is not vacant.
    var isVacant: Bool { replicas.allSatisfy { $0.obstacles.contains(.draining) } }

    /// Whether `pick` found none because all replicas that are there have as many requests as they take.
    func isFull(_ tried: TriedSet) -> Bool { pool.emptiness(candidates, tried: tried) == .allFull }
}

/// What one loop remembers of a route from one publication of routes to the next.
final class RouteMemory {
    var budget: RetryBudget
    /// The requests that were sent to unfit replicas, because too few were fit: in the route's pool, and in its canary's.
    var panic = EdgeCount(), canaryPanic = EdgeCount()

    init(share: Double) { budget = RetryBudget(share: share) }
}

/// One loop's view of a route: the turns in its pools, and what the loop remembers of it.
final class RouteOnLoop {
    let route: Route
    let main: PoolOnLoop
    let canary: PoolOnLoop?
    let memory: RouteMemory

    /// `old`: the same route in the routes before.
    init(_ route: Route, seed: UInt64, after old: RouteOnLoop?) {
        self.route = route
        main = PoolOnLoop(route.replicas, route, seed: seed)
        canary = route.canary == nil ? nil : PoolOnLoop(route.canaryReplicas, route, seed: ~seed)
        let share = route.spec.retry.budget
        memory = old.flatMap { $0.route.spec.retry.budget == share ? $0.memory : nil } ?? RouteMemory(share: share)
    }

    /// How much of the retry budget is left. A publication of other replicas gives back nothing of it.
    var budget: RetryBudget {
        get { memory.budget }
        _modify { yield &memory.budget }
    }

    /// Notes a request that was sent in panic. True when it is the first for a while, and should be journaled.
    func notePanic(_ pool: PoolOnLoop, _ now: MonotonicTime) -> Bool {
        pool === canary ? memory.canaryPanic.happened(now) : memory.panic.happened(now)
    }

    /// The records of panics that are over.
    func endedPanics(_ now: MonotonicTime) -> [DecisionRecord] {
        [(memory.panic.ended(now), ""), (memory.canaryPanic.ended(now), "'s canary")].compactMap { end, part in
            guard let end, end.count > 1 else { return nil }
            return DecisionRecord(
                .route, subject: route.label, inputs: [.init("count", end.count), .init("lasted", end.lasted.brief)],
                raw: route.method.rawValue, outcome: "ended",
                sentence:
                    "\(end.count) tries for \(route.label)\(part) went to replicas that were not fit within \(end.lasted.brief), "
                    + "because too few were fit; for \(memory.panic.quiet.brief) there was none.",
                flip: "too few fit replicas")
        }
    }

    /// The journal's record of why this replica was chosen. Of many candidates the first are told, and how many there were.
    func record(_ pool: PoolOnLoop, _ selection: Selection, tries: Int) -> DecisionRecord {
        let replica = pool.replicas[selection.index]
        var inputs = pool.replicas.prefix(RecentRequests.candidateLimit).map {
            DecisionRecord.Input($0.name, "\($0.inFlight) under way, weight \($0.weight), \($0.state)")
        }
        if inputs.count < pool.replicas.count { inputs.append(.init("candidates", pool.replicas.count)) }
        inputs.append(.init("try", tries))
        return DecisionRecord(
            .route, subject: replica.name, inputs: inputs, raw: route.method.rawValue, outcome: selection.reason.rawValue,
            sentence: "A request for \(route.label) went to \(replica.name): \(selection.reason.sentence).",
            flip: selection.reason == .panic ? "one fit replica" : "another load or another turn")
    }
}

extension Selection.Reason {
    /// The reason as a sentence, to stand after the replica's name and a colon.
    var sentence: String {
        switch self {
        case .turn: "it was next in turn"
        case .share: "its share by weight was the furthest behind"
        case .home: "its key belongs there"
        case .spill: "the one that its key belongs to had more than its share under way"
        case .fewest: "it had the fewest requests under way for its weight"
        case .fewer: "of two drawn at random it had fewer requests under way for its weight"
        case .sticky: "the client's cookie names it"
        case .panic: "too few replicas were fit, so any serves"
        }
    }
}

/// All routes of a loop, in the order in which they are compared with a request. A route with several hosts has a place for each of them:
/// each host is ranked by itself, whatever other hosts the route has.
final class RouteTableOnLoop {
    /// Each route once, in the file's order.
    let routes: [RouteOnLoop]
    private let places: [Place]
    /// Names, in lower case, of the fields by which routes are chosen and limits count.
    let fieldsGoneBy: [[UInt8]]
    /// Whether only path prefixes have to be compared.
    private let isSimple: Bool

    /// A route under one of its hosts.
    private struct Place {
        let host: HostPattern
        let route: RouteOnLoop
        let number: Int

        /// Order of the places: exact hosts before wildcards, long wildcards before short ones, wildcards before any host. Then exact
        /// paths, expressions in the file's order, the longest prefix. Then more conditions before fewer.
        var rank: (Int, Int, Int, Int, Int) {
            let path = route.route.path
            let conditions = route.route.headers.count + (route.route.methods.isEmpty ? 0 : 1)
            return (host.rank, path.rank, -path.length, -conditions, number)
        }
    }

    /// `before`: the routes that these replace.
    init(_ routes: [Route], seed: UInt64, after before: [RouteOnLoop] = []) {
        let known = Dictionary(before.map { ($0.route.label, $0) }) { first, _ in first }
        self.routes = routes.enumerated().map {
            RouteOnLoop($1, seed: seed &+ UInt64($0) &* 0x9E37_79B9_7F4A_7C15, after: known[$1.label])
        }
        var places: [Place] = []
        for (number, route) in self.routes.enumerated() {
            let hosts = route.route.hosts.isEmpty ? [HostPattern.any] : route.route.hosts
            for host in hosts { places.append(Place(host: host, route: route, number: number)) }
        }
        fieldsGoneBy = Array(Set(routes.flatMap { $0.singleFields + $0.headers.map(\.name) }))
        self.places = places.sorted { $0.rank < $1.rank }
        isSimple = routes.allSatisfy { $0.hosts.isEmpty && $0.methods.isEmpty && $0.headers.isEmpty && $0.path.rank == 2 }
    }

    /// A route that takes a request, or might: what could not be decided may not fall to a route behind it.
    struct Found {
        let route: RouteOnLoop
        let isDecided: Bool
    }

    /// Finds the route of a request.
    func find(_ table: HeadTable) -> Found? {
        let target = table.targetText
        guard PathForm.hasSmallEscapes(target) else { return find(table, target, capitals: nil) }
        // `%c3` and `%C3` are one escape (RFC 3986, 6.2.2.1).
        return PathForm.capitalEscapes(Array(target)).withUnsafeBytes { find(table, target, capitals: $0) }
    }

    private func find(_ table: HeadTable, _ target: UnsafeRawBufferPointer, capitals: UnsafeRawBufferPointer?) -> Found? {
        first(table) { $0.matches(target, capitals: capitals) }
    }

    /// The answer to a request of which it could not be decided whether the route takes it; nil where it was decided.
    func refusal(_ found: Found, _ table: HeadTable) -> ReadyAnswer? {
        if found.isDecided { return nil }
        if found.route.route.takesFields(table) == .undecided { return .failure(.repeatedField) }
        return .failure(
            .badPath, "which route takes this path could not be decided within the steps that an expression has; send a shorter path")
    }

    /// The answer to a path that can be read in more than one way, or as another route's; nil for one that can not.
    func verdict(on table: HeadTable, _ found: RouteOnLoop) -> ReadyAnswer? {
        PathForm.isAmbiguous(table.targetText) || mayMeanAnother(table, than: found) ? .failure(.badPath) : nil
    }

    /// Whether a backend that decodes escapes, merges slashes or drops parameters could take the path for another route's. What that other
    /// route asks for (credentials, a limit) must not be bypassed.
    private func mayMeanAnother(_ table: HeadTable, than found: RouteOnLoop) -> Bool {
        guard PathForm.maySimplify(table.targetText) else { return false }
        var readings = PathReadings(table.targetText)
        guard let other = first(table, where: { $0.mayMean(&readings) }) else { return true }
        return other.route !== found || !other.isDecided
    }

    private func first(_ table: HeadTable, where matches: (PathMatcher) -> MatchVerdict) -> Found? {
        if isSimple {
            for place in places where matches(place.route.route.path) == .yes { return Found(route: place.route, isDecided: true) }
            return nil
        }
        let host = HostPattern.name(of: table)
        for place in places where place.host.takes(host) {
            let verdict = place.route.route.takesFields(table).and(matches(place.route.route.path))
            if verdict != .no { return Found(route: place.route, isDecided: verdict == .yes) }
        }
        return nil
    }
}

/// One of a route's hosts.
enum HostPattern: Sendable {
    case any
    case exact([UInt8])
    /// The part after the star, with its dot.
    case below([UInt8])

    /// `name` is in lower case.
    init(_ name: String) {
        let bytes = Array(name.utf8)
        self = bytes.first == 42 ? .below(Array(bytes[1...])) : .exact(bytes)
    }

    var rank: Int {
        switch self {
        case .exact: Int.min
        case .below(let tail): -tail.count
        case .any: 1
        }
    }

    /// The host that a request names, without the port and the dot of the root. nil when no pattern could match it: an address in brackets,
    /// or a name with escapes, which a backend may decode.
    static func name(of table: HeadTable) -> UnsafeRawBufferPointer? {
        guard var host = table.first(.host), host.first != 91 else { return nil }
        if let colon = host.lastIndex(of: 58) { host = host.part(0, colon) }
        if host.last == 46 { host = host.part(0, host.count - 1) }
        return host.contains(37) ? nil : host
    }

    func takes(_ host: UnsafeRawBufferPointer?) -> Bool {
        switch self {
        case .any: return true
        case .exact(let name): return host.map { host in name.withUnsafeBytes { equalIgnoringCase($0, host) } } ?? false
        case .below(let tail):
            guard let host, host.count > tail.count else { return false }
            return tail.withUnsafeBytes { equalIgnoringCase($0, host.part(host.count - tail.count, tail.count)) }
        }
    }
}
