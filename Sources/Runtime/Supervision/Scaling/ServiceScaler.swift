import Autoscaling
import Basics
import Measurement
import Observability
import StackModel

/// One service's autoscaler between its passes: what it remembers, and what it has decided. No I/O and no clock.
struct ServiceScaler {
    /// A replica, as the supervisor knows it.
    struct ReplicaNow {
        let state: ReplicaState
        let isServing: Bool
    }

    /// What a pass is made from.
    struct Situation {
        var now: MonotonicTime
        var wall: WallTime
        /// There are to be so many.
        var current: Int
        /// Without the one that a roll has added: it takes another's place.
        var replicas: [ReplicaNow]
        var readings: [MeterReading]
        var demand: Idling.Demand
    }

    /// What is to be done and told.
    struct Outcome {
        /// nil: the size stays. Whoever sets it says with `settle` whether that was done.
        var count: Int?
        /// Why, where the size changes or there is something that was not told before.
        var record: DecisionRecord?
        /// Somebody else has changed the size.
        var finding: DecisionRecord?
    }

    private(set) var service: ServiceSpec
    private(set) var scaling: ScalingSpec
    private(set) var ownership = Ownership()
    private(set) var timeline = ScalingTimeline()
    /// The latest decision, told or not.
    private(set) var standing: DecisionRecord?
    private var memory = ScalingMemory()
    private var history: DemandHistory
    private var last: ScalingVerdict?
    private var sleepTold = false
    private var expected: Int?
    private var changedAt: MonotonicTime
    /// A verdict with another size, until `settle` says what became of it; and since when the size before it had stood.
    private var pending: (verdict: ScalingVerdict, policy: ScalingPolicy)?
    private var changedBefore: MonotonicTime

    init(_ service: ServiceSpec, _ scaling: ScalingSpec, history: DemandHistory = .init(), now: MonotonicTime) {
        self.service = service
        self.scaling = scaling
        self.history = history
        changedAt = now
        changedBefore = now
        // A size of 0 that is declared is the autoscaler's own.
        memory.conditions.set(.scaledToZero, true, "ScaledToZero")
    }

    /// Another definition, from a changed stack file: what is remembered stays.
    mutating func follow(_ service: ServiceSpec, _ scaling: ScalingSpec) {
        // Its points hold the metrics' figures by their places.
        if ScalingReadings.names(scaling) != ScalingReadings.names(self.scaling) { timeline = ScalingTimeline() }
        self.service = service
        self.scaling = scaling
        last = nil
    }

    /// Goes on from where a supervisor before this one was: what its windows and its pace remember, by a clock that nobody sets.
    mutating func recall(_ past: RecordedScaling.Past?, _ points: [ScalingTimeline.Point], now: MonotonicTime) {
        for point in points.suffix(ScalingTimeline.capacity) { timeline.append(point) }
        guard let past else { return }
        let behavior = scaling.policy.behavior
        let window = max(scaling.policy.downStabilization, behavior?.down.stabilization ?? .zero, behavior?.up.stabilization ?? .zero)
        let wanted = past.learned.filter { now - $0.at <= window }.flatMap { one in
            one.1.wanted.map { Stabilization.Recommendation(replicas: $0, at: one.at) }
        }
        // Without any, a whole window begins with the first pass.
        if !wanted.isEmpty { memory.stabilization = Stabilization(recommendations: wanted) }
        func events(_ change: KeyPath<ScalingLearned, Int>, _ longest: Duration?) -> [RateLimit.Event] {
            past.learned.filter { now - $0.at <= longest ?? .zero && $0.1[keyPath: change] > 0 }.map {
                RateLimit.Event(change: $0.1[keyPath: change], at: $0.at)
            }
        }
        memory.rates = RateLimit(
            added: events(\.added, behavior?.up.longestPeriod), removed: events(\.removed, behavior?.down.longestPeriod))
    }

    /// The pass that was made at `now`, and what it has added to what is remembered. nil: none was.
    func line(at now: MonotonicTime) -> ScalingLine? {
        guard let point = timeline.latest(1).first else { return nil }
        var learned = ScalingLearned()
        learned.wanted = (memory.stabilization.recommendations ?? []).filter { $0.at == now }.map(\.replicas)
        learned.added = memory.rates.added.filter { $0.at == now }.reduce(0) { $0.addingClamped($1.change) }
        learned.removed = memory.rates.removed.filter { $0.at == now }.reduce(0) { $0.addingClamped($1.change) }
        return ScalingLine(
            stamp: LineStamp(at: now), service: service.name, held: ownership.held,
            .pass(point, metrics: ScalingReadings.names(scaling), learned: learned))
    }

    var demandHistory: DemandHistory { history }

    /// What was stored of earlier days and could not be read before: it takes the place of the minutes that were seen since.
    mutating func adopt(_ history: DemandHistory) { self.history = history }
    var isHeld: Bool { ownership.held != nil }

    /// Somebody has set the size, or freed it.
    mutating func set(_ count: Int?, from current: Int, now: MonotonicTime) -> DecisionRecord {
        expected = count ?? current
        changedAt = now
        last = nil
        let record = ownership.set(service.name, count, from: current, now: now)
        standing = record
        return record
    }

    mutating func pass(_ situation: Situation) -> Outcome {
        if isHeld {
            note(situation, nil)
            return Outcome()
        }
        let finding = expected.flatMap { ownership.found(service.name, situation.current, expected: $0, now: situation.now) }
        expected = situation.current
        // A size of 0 that no hand holds is the autoscaler's own.
        if situation.current == 0 { memory.conditions.set(.scaledToZero, true, "ScaledToZero") }
        let floor = ScheduleFloor.standing(scaling.floors, at: situation.wall, offset: scaling.offset)
        let lowest = scaling.policy.lowest(floor)
        var outcome: Outcome
        if situation.current == 0, lowest > 0 {
            outcome = leaveZero(situation, lowest, floor)
        } else {
            outcome = (lowest > 0 ? nil : idling(situation)) ?? measured(situation, floor)
        }
        outcome.finding = finding
        if let count = outcome.count {
            expected = count
            changedBefore = changedAt
            changedAt = situation.now
        }
        return outcome
    }

    /// What became of the size that `pass` has just decided: set, or not (the stack is ending). A size that was not set counts as no change:
    /// neither against the pace, nor as somebody else's doing.
    mutating func settle(_ isSet: Bool, from current: Int, now: MonotonicTime) {
        defer { pending = nil }
        if isSet {
            if let pending { memory.carriedOut(pending.verdict, pending.policy, now: now) }
            return
        }
        expected = current
        changedAt = changedBefore
        if let pending { memory.notCarriedOut(pending.verdict) }
    }

    /// From 0 to the least that there may be, whatever can be measured there.
    private mutating func leaveZero(_ situation: Situation, _ lowest: Int, _ floor: ScheduleFloor.Standing?) -> Outcome {
        let during = lowest > scaling.policy.minimum ? floor.map { " for \($0.text)" } ?? "" : ""
        let record = DecisionRecord(
            .scale, subject: service.name,
            inputs: [.init("replicas", 0), .init("range", "\(scaling.policy.minimum)..\(scaling.policy.maximum)")], raw: String(lowest),
            outcome: String(lowest), sentence: "\(service.name) goes from 0 to \(lowest): at least \(lowest) are declared\(during).",
            flip: during.isEmpty ? "a minimum of 0 in the stack file" : "the end of that time, or another floor in the stack file")
        standing = record
        note(situation, nil, outcome: lowest)
        return Outcome(count: lowest, record: record)
    }

    /// Whether a metric that exists without replicas asks for one, or may: then nothing sleeps.
    private func hasWork(_ situation: Situation) -> Bool {
        guard scaling.policy.metrics.contains(where: \.isReadableAtZero) else { return false }
        var probe = memory, policy = scaling.policy
        policy.leavesZero = true
        // Outside of the range nobody asks the metrics, and a range may have been changed while the replicas worked.
        policy.minimum = 0
        policy.maximum = max(policy.maximum, situation.current)
        let verdict = Autoscaler.decide(policy, observation(situation, nil), &probe)
        // No proposals: nothing is known of the work, which is no reason to sleep.
        if verdict.proposals.isEmpty { return true }
        return zip(policy.metrics, verdict.proposals).contains { metric, proposal in
            guard metric.isReadableAtZero else { return false }
            guard case .success(let one) = proposal else { return true }
            return one.replicas > 0
        }
    }

    /// nil: demand has nothing to say, the metrics decide. Without a declared `idle` nothing sleeps for want of requests, but a request that
    /// waits wakes the service all the same.
    private mutating func idling(_ situation: Situation) -> Outcome? {
        guard let idle = scaling.idle ?? (situation.current == 0 ? .zero : nil) else { return nil }
        let decision = Idling.decide(
            service.name, current: situation.current, demand: situation.demand, up: situation.now - changedAt, idle: idle)
        switch decision.result {
        case .sleep where hasWork(situation): return nil
        case .wake, .sleep:
            standing = decision.record
            note(situation, nil, outcome: decision.result == .wake ? 1 : 0)
            return Outcome(count: decision.result == .wake ? 1 : 0, record: decision.record)
        case .stay:
            // At 0 only a metric that exists without replicas could ask for one.
            guard situation.current == 0, !scaling.policy.metrics.contains(where: \.isReadableAtZero) else { return nil }
            standing = decision.record
            note(situation, nil)
            return Outcome()
        }
    }

    private func observation(_ situation: Situation, _ floor: ScheduleFloor.Standing?) -> ScalingObservation {
        let states = situation.replicas.map(\.state)
        let readings = ScalingReadings(
            service: service, scaling: scaling, replicas: states.count, limit: staleAfter,
            isQuiet: situation.demand.underWay == 0 && situation.demand.waiting == 0)
        var seen = ScalingObservation(
            now: situation.now, current: situation.current, status: states.count { !$0.isLeaving }, replicas: states,
            readings: readings.readings(situation.readings))
        seen.floor = floor
        seen.remarks = readings.remarks(situation.readings)
        seen.forecast = scaling.forecast.flatMap { history.forecast(at: situation.wall, ahead: $0) }
        return seen
    }

    private mutating func measured(_ situation: Situation, _ floor: ScheduleFloor.Standing?) -> Outcome {
        var policy = scaling.policy
        policy.leavesZero = true
        // Whether the last one may go is for idleness to say.
        if scaling.idle != nil, situation.current > 0 { policy.minimum = max(1, policy.minimum) }
        policy.ceilings += partitionCeilings(situation.readings)
        let verdict = Autoscaler.decide(policy, observation(situation, floor), &memory)
        pending = verdict.rescales ? (verdict, policy) : nil
        if let raw = verdict.raw { history.observe(raw, at: situation.wall) }
        let record = verdict.record(of: service.name, policy)
        standing = record
        note(situation, verdict)
        let isNews = verdict.rescales || !(last.map(verdict.isLike) ?? false)
        last = verdict
        return Outcome(count: verdict.rescales ? verdict.outcome : nil, record: isNews ? record : nil)
    }

    /// A topic's partitions as they are now: consumers beyond them sit idle. A count that is too old to be scaled by holds nothing back either:
    /// the topic may have been given more since.
    private func partitionCeilings(_ readings: [MeterReading]) -> [Ceiling] {
        zip(scaling.origins, ScalingReadings.names(scaling)).compactMap { origin, name in
            guard case .lag(let topic, _, _, _) = origin, let reading = readings.first(where: { $0.key.metric == name }),
                case .success(let figure) = reading.usable(within: staleAfter), !figure.partitions.isEmpty
            else {
                return nil
            }
            return Ceiling(.partitions(topic: topic, count: figure.partitions.count))
        }
    }

    /// Three turns of the meters may fail before a figure is none.
    private var staleAfter: Duration { max(.seconds(10), scaling.period * 2) }

    private mutating func note(_ situation: Situation, _ verdict: ScalingVerdict?, outcome: Int? = nil) {
        var measured: [Int?] = [], demand: [Int?] = []
        for (metric, proposal) in zip(scaling.policy.metrics, verdict?.proposals ?? []) {
            guard case .success(let one) = proposal else {
                measured.append(nil)
                demand.append(nil)
                continue
            }
            measured.append(one.utilization ?? one.usage)
            // A share of the request and an average are of each of those that counted; anything else is the whole.
            let isOfEach = if case .value = metric.target { false } else { true }
            demand.append(isOfEach ? one.usage.multipliedClamped(by: one.counted) : one.usage)
        }
        timeline.append(
            .init(
                at: situation.wall, replicas: situation.current, serving: situation.replicas.count(where: \.isServing), raw: verdict?.raw,
                outcome: outcome ?? verdict?.outcome ?? situation.current, measured: measured, demand: demand))
    }
}
