import Autoscaling
import Basics

/// Runs a policy over a recorded load: what it would have cost, when it would have been too little, and how often it would have changed its
/// mind.
/// At each step the autoscaler decides first, from the demand of that step; the step's cost and load are those of the size that the
/// decision leaves. Demand is taken as constant within a step; a replica that becomes ready within a step counts from then. Load that is
/// not served is not made up for later. The same trace, policy and model give the same outcome, always.
/// up for later. The same trace, policy and model give the same outcome, always.
///
/// - Complexity: O(steps × replicas); about 3 us a step with ten replicas.
public enum Replay {
    /// Replays the whole trace, however long that takes; `bounded` has a limit.
    public static func run(_ trace: LoadTrace, _ policy: ReplayPolicy, _ model: ReplicaModel, initial: Int? = nil) -> ReplayOutcome {
        var account = ReplayAccount(trace, policy, model)
        _ = walk(trace.count, trace, policy, model, initial: initial, limit: .max) { account.add($0, $1, $2) }
        return account.outcome()
    }

    /// The same, for a trace that comes from outside: more than `limit` replicas looked at over all steps are refused.
    public static func bounded(
        _ trace: LoadTrace, _ policy: ReplayPolicy, _ model: ReplicaModel, initial: Int? = nil, limit: Int = LoadTrace.workLimit
    ) throws(ReplayFailure) -> ReplayOutcome {
        var account = ReplayAccount(trace, policy, model)
        guard walk(trace.count, trace, policy, model, initial: initial, limit: limit, { account.add($0, $1, $2) }) != nil else {
            throw tooLong(trace, policy)
        }
        return account.outcome()
    }

    /// The decision of one moment in full: the record that the live loop's journal would hold. The replay runs again up to there, so that
    /// no record is made that nobody reads. nil for a moment outside the trace.
    public static func decision(
        at time: WallTime, of trace: LoadTrace, _ policy: ReplayPolicy, _ model: ReplicaModel, initial: Int? = nil
    ) -> (at: WallTime, record: DecisionRecord)? {
        guard let last = index(of: time, in: trace) else { return nil }
        let world = walk(last + 1, trace, policy, model, initial: initial, limit: .max) { _, _, _ in }
        return world?.verdict.map { (trace.time(of: last), $0.record(of: trace.service, policy.scaling)) }
    }

    /// The same as `decision`, for a trace that comes from outside; see `bounded`.
    public static func boundedDecision(
        at time: WallTime, of trace: LoadTrace, _ policy: ReplayPolicy, _ model: ReplicaModel, initial: Int? = nil,
        limit: Int = LoadTrace.workLimit
    ) throws(ReplayFailure) -> (at: WallTime, record: DecisionRecord)? {
        guard let last = index(of: time, in: trace) else { return nil }
        guard let world = walk(last + 1, trace, policy, model, initial: initial, limit: limit, { _, _, _ in }) else {
            throw tooLong(trace, policy)
        }
        return world.verdict.map { (trace.time(of: last), $0.record(of: trace.service, policy.scaling)) }
    }

    private static func index(of time: WallTime, in trace: LoadTrace) -> Int? {
        let elapsed = time - trace.start
        guard elapsed >= .zero, trace.step > .zero, elapsed < trace.length else { return nil }
        return Int(elapsed.nanoseconds / trace.step.nanoseconds)
    }

    /// So many steps, each told to `step`; nil when more than `limit` replicas were looked at before the last.
    private static func walk(
        _ count: Int, _ trace: LoadTrace, _ policy: ReplayPolicy, _ model: ReplicaModel, initial: Int?, limit: Int,
        _ step: (Int, (before: Int, after: Int), ReplayWorld) -> Void
    ) -> ReplayWorld? {
        var world = ReplayWorld(trace, policy, model, initial: initial), work = 0
        for index in 0..<count {
            step(index, world.pass(index), world)
            work.addClamped(max(1, world.size))
            if work > limit { return nil }
        }
        return world
    }

    private static func tooLong(_ trace: LoadTrace, _ policy: ReplayPolicy) -> ReplayFailure {
        ReplayFailure(
            .tooLarge,
            "\(trace.count) steps of \(trace.step.brief) with up to \(policy.scaling.maximum) replicas are more than a replay does: take a "
                + "longer --step, a shorter recording, or a lower maximum")
    }
}

/// The sums of one replay. Times are whole nanoseconds until the end, so that an hour of one replica is one replica-hour and not nearly.
private struct ReplayAccount {
    private static let hour = 3_600e9
    private static let minute = 60e9

    private let trace: LoadTrace
    private let model: ReplicaModel
    private let step: Int64
    private let end: Int64
    private var result: ReplayOutcome
    private var causes: [OverloadCause: Double] = [:]
    private var holdings: [Holding]
    /// Of each series: all that was asked, and the part beyond what was carried; in its unit times nanoseconds.
    private var asked: [Double]
    private var beyond: [Double]
    /// The minute under way: its number, the sum of load times time, and the time.
    private var minuteNumber = Int64.min
    private var minuteLoad = 0.0
    private var minuteTime = 0.0
    private var minuteSize = (size: 0, ready: 0)

    init(_ trace: LoadTrace, _ policy: ReplayPolicy, _ model: ReplicaModel) {
        self.trace = trace
        self.model = model
        step = trace.step.nanoseconds
        end = step * Int64(trace.count)
        result = ReplayOutcome(policy: policy.name, hours: Double(end) / ReplayAccount.hour)
        holdings = HoldCause.allCases.map { Holding(cause: $0, kept: 0, withheld: 0) }
        asked = [Double](repeating: 0, count: trace.series.count)
        beyond = asked
        result.sizes.reserveCapacity(trace.count)
        result.ready.reserveCapacity(trace.count)
        result.loads.reserveCapacity(trace.count)
    }

    mutating func add(_ index: Int, _ change: (before: Int, after: Int), _ world: ReplayWorld) {
        let from = Int64(index) * step
        if change.after != change.before {
            result.scalings.append(.init(index: index, before: change.before, after: change.after))
            let leaving = Double(max(0, change.before - change.after))
            result.replicaHours += leaving * Double(min(model.drain.nanoseconds, end - from))
        }
        result.replicaHours += Double(world.size) * Double(step)
        result.peak = max(result.peak, world.size)
        addHoldings(world)
        let ready = world.readyCount(at: from)
        result.sizes.append(Int32(clamping: world.size))
        result.ready.append(Int32(clamping: ready))
        addLoad(index, from, ready, world)
    }

    private mutating func addHoldings(_ world: ReplayWorld) {
        guard let steps = world.verdict?.steps else { return }
        for one in steps {
            guard let cause = HoldCause(one.kind), let place = HoldCause.allCases.firstIndex(of: cause) else { continue }
            let hours = Double(abs(one.after - one.before)) * Double(step) / ReplayAccount.hour
            if one.after > one.before { holdings[place].kept += hours } else { holdings[place].withheld += hours }
        }
    }

    /// The step in pieces between which the number of ready replicas changes: mostly one.
    private mutating func addLoad(_ index: Int, _ from: Int64, _ ready: Int, _ world: ReplayWorld) {
        var at = from, shown: Float = .nan
        while at < from + step {
            let until = ready < world.size ? min(from + step, world.nextReady(after: at) ?? .max) : from + step
            let serving = world.serving(at: at)
            if let load = world.load(index, serving: serving) {
                if at == from { shown = Float(load.share) }
                addPiece(index, from, Double(until - at), serving, load, world)
            } else {
                result.unknownMinutes += Double(until - at)
            }
            at = until
        }
        result.loads.append(shown)
    }

    private mutating func addPiece(
        _ index: Int, _ from: Int64, _ length: Double, _ serving: Double, _ load: (share: Double, series: Int), _ world: ReplayWorld
    ) {
        for series in trace.series.indices where world.capacity(series) > 0 && index < trace.series[series].demand.count {
            let demand = trace.series[series].demand[index]
            if demand.isNaN { continue }
            asked[series] += demand * length
            beyond[series] += max(0, demand - world.capacity(series) * serving) * length
        }
        if load.share > 1 {
            result.overloadMinutes += length
            let whenAllReady = world.load(index, serving: Double(world.size))?.share ?? 0
            causes[OverloadCause.of(world.verdict, isOnTheWay: whenAllReady <= 1), default: 0] += length
        }
        let number = (trace.start.milliseconds + from / 1_000_000) / 60_000
        if number != minuteNumber {
            closeMinute()
            minuteNumber = number
            minuteSize = (world.size, world.readyCount(at: from))
        }
        minuteLoad += load.share * length
        minuteTime += length
    }

    private mutating func closeMinute() {
        defer { (minuteLoad, minuteTime) = (0, 0) }
        guard minuteTime > 0 else { return }
        let load = minuteLoad / minuteTime
        if result.worst.map({ load > $0.load }) ?? true {
            result.worst = .init(
                at: WallTime(milliseconds: minuteNumber * 60_000), load: load, size: minuteSize.size, ready: minuteSize.ready)
        }
    }

    mutating func outcome() -> ReplayOutcome {
        closeMinute()
        result.replicaHours /= ReplayAccount.hour
        result.overloadMinutes /= ReplayAccount.minute
        result.unknownMinutes /= ReplayAccount.minute
        result.flaps = ReplayOutcome.flaps(result.scalings, step: trace.step)
        for series in trace.series.indices where asked[series] > 0 {
            result.overloadShare = max(result.overloadShare, beyond[series] / asked[series])
        }
        result.overloadCauses = causes.map { (cause: $0.key, minutes: $0.value / ReplayAccount.minute) }.sorted {
            ($1.minutes, $0.cause.name) < ($0.minutes, $1.cause.name)
        }
        result.holdings = holdings.filter { $0.kept + $0.withheld > 0 }.sorted { $0.kept + $0.withheld > $1.kept + $1.withheld }
        return result
    }
}
