import Balancing
import Basics
import HTTP
import Observability
import Resilience
import Topology

/// What one loop remembers of a pool of replicas: whose turn it is.
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

    /// The replica for the next try. With none fit, any that is not leaving: an answer from a doubtful replica beats none.
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

    /// There is none, or all of them are leaving: nobody is there, as opposed to nobody being well.
    var isVacant: Bool { replicas.allSatisfy { $0.obstacles.contains(.draining) } }

    /// Why there was none: those that there are have as many requests as they take.
    func isFull(_ tried: TriedSet) -> Bool { pool.emptiness(candidates, tried: tried) == .allFull }
}

/// What one loop remembers of a route: the turns in its pools, and what of the retry budget is left.
final class RouteOnLoop {
    let route: Route
    let main: PoolOnLoop
    let canary: PoolOnLoop?
    var budget: RetryBudget

    init(_ route: Route, seed: UInt64) {
        self.route = route
        main = PoolOnLoop(route.replicas, route, seed: seed)
        canary = route.canary == nil ? nil : PoolOnLoop(route.canaryReplicas, route, seed: ~seed)
        budget = RetryBudget(share: route.spec.retry.budget)
    }

    /// Why this replica, for the journal.
    func record(_ pool: PoolOnLoop, _ selection: Selection, tries: Int) -> DecisionRecord {
        let replica = pool.replicas[selection.index]
        let inputs = pool.replicas.map { DecisionRecord.Input($0.name, "\($0.inFlight) under way, weight \($0.weight), \($0.state)") }
        return DecisionRecord(
            .route, subject: replica.name, inputs: inputs + [.init("try", tries)], raw: route.method.rawValue,
            outcome: selection.reason.rawValue,
            sentence: "A request for \(route.label) went to \(replica.name): \(selection.reason.sentence).",
            flip: selection.reason == .panic ? "one fit replica" : "another load or another turn")
    }
}

extension Selection.Reason {
    /// The rest of a sentence that begins with the replica's name and a colon.
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

/// All routes of a loop, in the order in which they are looked at.
final class RouteTableOnLoop {
    let routes: [RouteOnLoop]
    /// Nothing but prefixes is looked at.
    private let isSimple: Bool

    init(_ routes: [Route], seed: UInt64) {
        // A stable sort: expressions keep the file's order.
        let ordered = routes.enumerated().sorted { a, b in
            a.element.precedes(b.element) || (!b.element.precedes(a.element) && a.offset < b.offset)
        }
        self.routes = ordered.map { RouteOnLoop($0.element, seed: seed &+ UInt64($0.offset) &* 0x9E37_79B9_7F4A_7C15) }
        isSimple = routes.allSatisfy { $0.hosts.isEmpty && $0.methods.isEmpty && $0.headers.isEmpty && $0.path.rank == 2 }
    }

    /// The route of a head, with `target` in the place of its own.
    func find(_ table: HeadTable, target: UnsafeRawBufferPointer) -> RouteOnLoop? {
        for route in routes where isSimple ? route.route.path.matches(target) : route.route.takes(table, target) { return route }
        return nil
    }
}
