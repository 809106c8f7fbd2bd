import Autoscaling
import Basics

/// Replicas that start, serve and leave as a model says, under a policy that is asked at every step: one replay's state.
///
/// What the autoscaler is shown is what the live loop would show it: replicas that are starting are pending and have no figures, those that
/// leave are gone from the list, and each ready one shows its share of the demand.
struct ReplayWorld {
    let trace: LoadTrace
    let policy: ReplayPolicy
    let model: ReplicaModel
    private let step: Int64
    /// For each metric of the policy, its series; and for each series, what one replica carries, 0 where nothing bounds it.
    private let seriesOf: [Int]
    private let capacities: [Double]
    private let requests: [Int?]
    private var memory = ScalingMemory()
    private var random = SeededRandom(seed: 1)
    private var history = DemandHistory()
    private var nextID = 0
    private var seen: ScalingObservation
    /// When each replica is ready, in the order of `seen.replicas`: the oldest first.
    private var readyAt: [Int64] = []
    private(set) var verdict: ScalingVerdict?

    init(_ trace: LoadTrace, _ policy: ReplayPolicy, _ model: ReplicaModel, initial: Int?) {
        self.trace = trace
        self.policy = policy
        self.model = model
        step = trace.step.nanoseconds
        seriesOf = policy.scaling.metrics.map { trace.series(of: $0.name) ?? -1 }
        capacities = trace.series.map { one in model.capacity[one.metric] ?? model.capacity[LoadTrace.withoutTotal(one.metric)] ?? 0 }
        requests = policy.scaling.metrics.map { metric in model.requests[metric.name].map { ReplayWorld.milli($0) } }
        let first = initial ?? policy.firstSize(trace, model)
        let readings = [MetricReading](repeating: .failed(.noMetrics), count: policy.scaling.metrics.count)
        seen = ScalingObservation(now: MonotonicTime(nanoseconds: 0), current: first, status: first, replicas: [], readings: readings)
        for _ in 0..<first {
            seen.replicas.append(ReplicaState(id: nextID, startedAt: ReplayWorld.longAgo, readyChangedAt: ReplayWorld.longAgo))
            readyAt.append(ReplayWorld.longAgo.nanoseconds)
            nextID += 1
        }
    }

    /// Before anything that a window looks back at.
    private static let longAgo = MonotonicTime(nanoseconds: -365 * 86_400_000_000_000)

    /// How many there are to be; and how many serve at a moment.
    var size: Int { seen.current }
    func readyCount(at time: Int64) -> Int { readyAt.count { $0 <= time } }

    /// The next moment after `time` at which a replica becomes ready; nil when none is starting.
    func nextReady(after time: Int64) -> Int64? {
        var best: Int64?
        for one in readyAt where one > time && one < best ?? .max { best = one }
        return best
    }

    /// How many whole replicas serve at a moment: one that warms up counts in part.
    func serving(at time: Int64) -> Double {
        if model.warmUp == .zero { return Double(readyCount(at: time)) }
        var sum = 0.0
        for one in readyAt where one <= time { sum += model.warmth(.nanoseconds(time - one)) }
        return sum
    }

    /// What is asked of `serving` replicas, as a share of what they carry, by the metric where that is most; infinite when something is
    /// asked and nobody serves; nil when nothing is known, or nothing bounds it.
    func load(_ index: Int, serving: Double) -> (share: Double, series: Int)? {
        var best: (share: Double, series: Int)?
        for (series, capacity) in capacities.enumerated() where capacity > 0 {
            guard index < trace.series[series].demand.count else { continue }
            let demand = trace.series[series].demand[index]
            if demand.isNaN { continue }
            let share = demand == 0 ? 0 : serving > 0 ? demand / (capacity * serving) : .infinity
            if best.map({ share > $0.share }) ?? true { best = (share, series) }
        }
        return best
    }

    func capacity(_ series: Int) -> Double { capacities[series] }

    // MARK: a pass

    /// One pass of the autoscaler, and what it sets. Returns the size before and after.
    mutating func pass(_ index: Int) -> (before: Int, after: Int) {
        let now = Int64(index) * step
        observe(index, now)
        let made = Autoscaler.decide(policy.scaling, seen, &memory)
        if policy.forecastAhead != nil, let raw = made.raw { history.observe(raw, at: trace.time(of: index)) }
        if made.rescales {
            memory.carriedOut(made, policy.scaling, now: seen.now)
            resize(to: made.outcome, now)
        }
        verdict = made
        return (made.current, made.outcome)
    }

    private mutating func observe(_ index: Int, _ now: Int64) {
        seen.now = MonotonicTime(nanoseconds: now)
        for position in readyAt.indices where readyAt[position] <= now && seen.replicas[position].phase == .pending {
            seen.replicas[position].phase = .running
            seen.replicas[position].ready = .yes
            seen.replicas[position].readyChangedAt = MonotonicTime(nanoseconds: readyAt[position])
        }
        let serving = serving(at: now)
        for metric in policy.scaling.metrics.indices { seen.readings[metric] = reading(metric, index, now, serving) }
        if policy.floors.isEmpty && policy.forecastAhead == nil { return }
        let time = trace.time(of: index)
        if !policy.floors.isEmpty { seen.floor = ScheduleFloor.standing(policy.floors, at: time, offset: policy.offset) }
        if let ahead = policy.forecastAhead { seen.forecast = history.forecast(at: time, ahead: ahead) }
    }

    private func reading(_ metric: Int, _ index: Int, _ now: Int64, _ serving: Double) -> MetricReading {
        guard seriesOf[metric] >= 0, index < trace.series[seriesOf[metric]].demand.count else { return .failed(.noMetrics) }
        let demand = trace.series[seriesOf[metric]].demand[index]
        if demand.isNaN { return .failed(.noMetrics) }
        switch policy.scaling.metrics[metric].source {
        case .object, .unknown: return .value(ReplayWorld.milli(demand))
        case .external: return .values([ReplayWorld.milli(demand)])
        case .replicas, .resource: break
        }
        guard serving > 0 else { return .failed(.noUsableMetrics) }
        var samples: [MetricSample] = []
        samples.reserveCapacity(readyAt.count)
        let whole = demand / serving, most = model.saturates && capacities[seriesOf[metric]] > 0 ? capacities[seriesOf[metric]] : .infinity
        for position in readyAt.indices where readyAt[position] <= now {
            let warmth = model.warmth(.nanoseconds(now - readyAt[position]))
            let value = ReplayWorld.milli(min(whole * warmth, most * warmth))
            samples.append(MetricSample(replica: seen.replicas[position].id, value: value, at: seen.now, window: trace.step))
        }
        guard case .utilization = policy.scaling.metrics[metric].target else { return .samples(samples) }
        guard let request = requests[metric] else { return .samples(samples, requests: .failure(.missingRequest)) }
        return .samples(samples, requests: .success([Int](repeating: request, count: readyAt.count)))
    }

    private static func milli(_ value: Double) -> Int { Int(clamped: (value * 1000).rounded()) }

    /// New ones start now; of those that are too many the youngest leave.
    private mutating func resize(to size: Int, _ now: Int64) {
        while readyAt.count > size {
            seen.replicas.removeLast()
            readyAt.removeLast()
        }
        while readyAt.count < size {
            let startTime =
                model.startTimes.count == 1
                ? model.startTimes[0] : model.startTimes[Int.random(in: model.startTimes.indices, using: &random)]
            let isReady = startTime == .zero
            seen.replicas.append(
                ReplicaState(
                    id: nextID, phase: isReady ? .running : .pending, ready: isReady ? .yes : .no,
                    startedAt: MonotonicTime(nanoseconds: now),
                    readyChangedAt: MonotonicTime(nanoseconds: now)))
            readyAt.append(now + startTime.nanoseconds)
            nextID += 1
        }
        seen.current = size
        seen.status = size
    }
}
