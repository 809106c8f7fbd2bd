import Basics

/// The declared scaling of a service: its range, its metrics, and its limits.
public struct ScalingPolicy: Sendable, Equatable {
    /// The least number of replicas. 0 only with a metric that can be read at 0, or with a gateway that holds the first requests.
    public var minimum: Int
    public var maximum: Int
    public var metrics: [ScalingMetric]
    /// How fast the size may change. nil: at most double in a pass, and down to what `downStabilization` agrees on.
    public var behavior: ScalingBehavior?
    public var tolerance = Tolerance()
    /// How far back recommendations hold a size that would shrink, unless the behavior says otherwise. Default: kube-controller-manager's.
    public var downStabilization = Duration.seconds(300)
    public var groups = ReplicaGroups.Settings()
    /// Without a behavior: in one pass the size may grow to this many times the present size, or to `growthFloor`, whichever is more.
    public var growthFactor = 2.0
    public var growthFloor = 4.0
    /// Whether the autoscaler may leave a size of 0 again that it has set itself (Kubernetes' gate HPAScaleToZero).
    public var leavesZero = false
    /// Limits that more replicas would run into, such as database connections.
    public var ceilings: [Ceiling] = []

    public init(minimum: Int, maximum: Int, metrics: [ScalingMetric], behavior: ScalingBehavior? = nil) {
        self.minimum = minimum
        self.maximum = maximum
        self.metrics = metrics
        self.behavior = behavior
    }

    /// The tolerance with what the behavior says for a direction.
    var effectiveTolerance: Tolerance {
        Tolerance(down: behavior?.down.tolerance ?? tolerance.down, up: behavior?.up.tolerance ?? tolerance.up)
    }

    /// The least size that is allowed: the declared minimum, raised by a schedule floor, which goes neither above the maximum nor above a
    /// ceiling.
    public func lowest(_ floor: ScheduleFloor.Standing?) -> Int {
        let ceiling = ceilings.map(\.most).min() ?? .max
        return min(maximum, max(minimum, min(floor?.replicas ?? 0, ceiling)))
    }

    var downWindow: Duration { behavior?.down.stabilization ?? downStabilization }
}

/// The readings and counts that the autoscaler sees in one pass.
public struct ScalingObservation: Sendable, Equatable {
    /// Whether the service can be read, and its replicas told from others'.
    public enum Access: Sendable, Equatable {
        case open
        /// The present size of the service cannot be read.
        case unreadable
        /// Nothing says which replicas belong to the service.
        case noSelector
        /// Another autoscaler claims the same replicas.
        case contested
    }

    public var now: MonotonicTime
    /// The number of replicas that there are to be.
    public var current: Int
    /// The number of replicas that there are.
    public var status: Int
    public var replicas: [ReplicaState]
    /// The readings of the metrics, in the order of the policy's metrics.
    public var readings: [MetricReading]
    public var access = Access.open
    /// The least number of replicas at present by the calendar; nil: none.
    public var floor: ScheduleFloor.Standing?
    /// The number of replicas that history expects soon; nil: history expects nothing, or knows too little.
    public var forecast: Forecast?
    /// Remarks about the readings, in the order of the policy's metrics. The list may be shorter: there are no remarks about the other
    /// metrics.
    public var remarks: [MetricRemarks] = []

    public init(now: MonotonicTime, current: Int, status: Int, replicas: [ReplicaState], readings: [MetricReading]) {
        self.now = now
        self.current = current
        self.status = status
        self.replicas = replicas
        self.readings = readings
    }
}

/// The state that the autoscaler keeps between passes. A restart loses it: rate limits are then forgiven, and the windows start anew.
public struct ScalingMemory: Sendable, Equatable {
    public var stabilization: Stabilization
    public var rates: RateLimit
    public var conditions: ScalingConditions

    public init(stabilization: Stabilization = .init(), rates: RateLimit = .init(), conditions: ScalingConditions = .init()) {
        self.stabilization = stabilization
        self.rates = rates
        self.conditions = conditions
    }
}

/// One pass of the autoscaler: it turns an observation into a size, with every step between. The rules are those of the Kubernetes HPA
/// (v1.36); rules beyond the HPA (ceilings, floors, forecasts, warming up) are off unless declared, and each is a step of its own.
///
/// - Complexity: O(replicas + remembered recommendations); one dictionary, no text.
public enum Autoscaler {
    public static func decide(_ policy: ScalingPolicy, _ seen: ScalingObservation, _ memory: inout ScalingMemory) -> ScalingVerdict {
        guard seen.access != .unreadable else {
            memory.conditions.set(.ableToScale, false, "FailedGetScale")
            return ScalingVerdict(policy, seen, failure: .unreadable("the present size cannot be read"))
        }
        memory.conditions.set(.ableToScale, true, "SucceededGetScale")
        if !policy.leavesZero { memory.conditions.remove(.scaledToZero) }
        memory.stabilization.begin(current: seen.current, now: seen.now)
        let minimum = policy.lowest(seen.floor)
        if seen.current == 0 {
            if mayLeaveZero(policy, minimum, memory.conditions) { return measured(policy, seen, minimum, &memory) }
            memory.conditions.set(.scalingActive, false, "ScalingDisabled")
            return ScalingVerdict(policy, seen, outcome: 0, [ScalingStep(.switchedOff, 0, 0)])
        }
        if seen.current > policy.maximum {
            return ScalingVerdict(policy, seen, outcome: policy.maximum, [ScalingStep(.aboveMaximum, seen.current, policy.maximum)])
        }
        if seen.current < minimum {
            return ScalingVerdict(policy, seen, outcome: minimum, [ScalingStep(belowMinimum(policy, seen, minimum), seen.current, minimum)])
        }
        return measured(policy, seen, minimum, &memory)
    }

    private static func belowMinimum(_ policy: ScalingPolicy, _ seen: ScalingObservation, _ minimum: Int) -> ScalingStep.Kind {
        if let floor = seen.floor, minimum > policy.minimum { .scheduleFloor(floor) } else { .belowMinimum }
    }

    private static func mayLeaveZero(_ policy: ScalingPolicy, _ minimum: Int, _ conditions: ScalingConditions) -> Bool {
        guard policy.leavesZero, conditions.status(.scaledToZero) == true else { return false }
        return minimum != 0 || policy.metrics.contains(where: \.isReadableAtZero)
    }

    private static func measured(_ policy: ScalingPolicy, _ seen: ScalingObservation, _ minimum: Int, _ memory: inout ScalingMemory)
        -> ScalingVerdict
    {
        switch seen.access {
        case .noSelector: return refuse("InvalidSelector", .unreadable("nothing says which replicas are its own"), policy, seen, &memory)
        case .contested:
            return refuse("AmbiguousSelector", .unreadable("another autoscaler claims the same replicas"), policy, seen, &memory)
        case .open, .unreadable: break
        }
        let proposals = policy.metrics.indices.map { propose(policy, seen, $0) }
        // Nothing to decide by is no reason for the minimum.
        if proposals.isEmpty { return refuse("FailedGetResourceMetric", .noMetrics, policy, seen, &memory) }
        var wanted = 0, failed = 0, firstFault: (Int, MetricFault)?
        for (index, proposal) in proposals.enumerated() {
            switch proposal {
            case .success(let one): if wanted == 0 || one.replicas > wanted { wanted = one.replicas }
            case .failure(let fault):
                failed += 1
                if firstFault == nil { firstFault = (index, fault) }
            }
        }
        if let (index, fault) = firstFault, failed == proposals.count || wanted < seen.current {
            memory.conditions.set(.scalingActive, false, reason(policy.metrics[index].source))
            return ScalingVerdict(policy, seen, proposals: proposals, failure: fault)
        }
        memory.conditions.set(.scalingActive, true, "ValidMetricFound")
        return held(max(0, wanted), policy, seen, minimum, proposals, &memory)
    }

    private static func refuse(
        _ reason: String, _ fault: MetricFault, _ policy: ScalingPolicy, _ seen: ScalingObservation, _ memory: inout ScalingMemory
    ) -> ScalingVerdict {
        memory.conditions.set(.scalingActive, false, reason)
        return ScalingVerdict(policy, seen, failure: fault)
    }

    private static func propose(_ policy: ScalingPolicy, _ seen: ScalingObservation, _ index: Int) -> Result<MetricProposal, MetricFault> {
        guard index < seen.readings.count else { return .failure(.noMetrics) }
        let rules = ProposalRules(
            replicas: seen.replicas, current: seen.current, status: seen.status, tolerance: policy.effectiveTolerance,
            groups: policy.groups, now: seen.now)
        do throws(MetricFault) {
            let proposal = try rules.proposal(policy.metrics[index], seen.readings[index])
            let isDoubtful = index < seen.remarks.count && seen.remarks[index].isDoubtful
            return .success(isDoubtful && proposal.replicas < seen.current ? proposal.held(at: seen.current) : proposal)
        } catch { return .failure(error) }
    }

    /// What the metrics ask for, held in turn by everything that may hold it.
    private static func held(
        _ raw: Int, _ policy: ScalingPolicy, _ seen: ScalingObservation, _ minimum: Int, _ proposals: [Result<MetricProposal, MetricFault>],
        _ memory: inout ScalingMemory
    ) -> ScalingVerdict {
        var steps: [ScalingStep] = [], wanted = raw
        if let forecast = seen.forecast, forecast.replicas > wanted {
            steps.append(ScalingStep(.forecast(forecast), wanted, forecast.replicas))
            wanted = forecast.replicas
        }
        let bounds =
            policy.behavior.map {
                memory.stabilization.between(
                    wanted, current: seen.current, up: $0.up.stabilization ?? .zero, down: policy.downWindow, now: seen.now)
            } ?? memory.stabilization.highest(wanted, window: policy.downStabilization, now: seen.now)
        if bounds.result != wanted {
            let up = policy.behavior != nil && wanted >= seen.current
            memory.conditions.set(.ableToScale, true, up ? "ScaleUpStabilized" : "ScaleDownStabilized")
            let window = up ? policy.behavior?.up.stabilization ?? .zero : policy.downWindow
            steps.append(ScalingStep(.stabilized(up: up, window: window, left: bounds.holdsFor), wanted, bounds.result))
        } else {
            memory.conditions.set(.ableToScale, true, "ReadyForNewScale")
        }
        let limited =
            policy.behavior.map {
                memory.rates.limited(
                    bounds.result, current: seen.current, minimum: minimum, maximum: policy.maximum, behavior: $0, now: seen.now)
            }
            ?? RateLimit.plain(
                bounds.result, current: seen.current, minimum: minimum, maximum: policy.maximum, factor: policy.growthFactor,
                floor: policy.growthFloor)
        memory.conditions.set(.scalingLimited, limited.replicas != bounds.result, limited.reason.rawValue)
        if limited.replicas != bounds.result {
            steps.append(
                ScalingStep(.limited(limited.reason, minimum > policy.minimum ? seen.floor : nil), bounds.result, limited.replicas))
        }
        var outcome = limited.replicas
        // Rules hold a size only in the direction in which it moves, which from 0 is upwards.
        if seen.current == 0, outcome < minimum {
            steps.append(ScalingStep(belowMinimum(policy, seen, minimum), outcome, minimum))
            outcome = minimum
        }
        // A ceiling stops growth. What runs already is not taken away because of it.
        if outcome > seen.current, let ceiling = policy.ceilings.min(by: { $0.most < $1.most }), ceiling.most < outcome {
            let capped = max(seen.current, ceiling.most)
            steps.append(ScalingStep(.ceiling(ceiling), outcome, capped))
            outcome = capped
        }
        return ScalingVerdict(policy, seen, raw: raw, outcome: outcome, steps, proposals: proposals)
    }

    private static func reason(_ source: ScalingMetric.Source) -> String {
        switch source {
        case .resource(_, container: nil): "FailedGetResourceMetric"
        case .resource: "FailedGetContainerResourceMetric"
        case .replicas: "FailedGetPodsMetric"
        case .object: "FailedGetObjectMetric"
        case .external: "FailedGetExternalMetric"
        case .unknown: "InvalidMetricSourceType"
        }
    }
}

extension ScalingMemory {
    /// Notes that the verdict's new size was set.
    public mutating func carriedOut(_ verdict: ScalingVerdict, _ policy: ScalingPolicy, now: MonotonicTime) {
        guard verdict.rescales else { return }
        conditions.set(.ableToScale, true, "SucceededRescale")
        if policy.leavesZero {
            let toZero =
                verdict.current > 0 && verdict.outcome == 0 && policy.minimum == 0 && policy.metrics.contains(where: \.isReadableAtZero)
            conditions.set(.scaledToZero, toZero, toZero ? "ScaledToZero" : "NotScaledToZero")
        }
        if let behavior = policy.behavior { rates.store(from: verdict.current, to: verdict.outcome, behavior: behavior, now: now) }
    }

    /// Notes that the verdict's new size could not be set: nothing counts as changed.
    public mutating func notCarriedOut(_ verdict: ScalingVerdict) {
        if verdict.rescales { conditions.set(.ableToScale, false, "FailedUpdateScale") }
    }
}
