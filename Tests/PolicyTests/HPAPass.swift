import Autoscaling
import Basics
import TestSupport

/// The kinds of cases that ask for whole passes.
enum HPAPass {
    static func policy(_ hpa: JSONValue, _ controller: JSONValue) -> ScalingPolicy {
        let metrics =
            hpa["metrics"].list.isEmpty ? [ScalingMetric("cpu", .resource(.cpu), .utilization(80))] : hpa["metrics"].list.map(metric)
        var policy = ScalingPolicy(minimum: hpa["min_replicas"].int ?? 1, maximum: hpa["max_replicas"].int ?? 1, metrics: metrics)
        if !hpa["behavior"].isNull {
            var up = HPACase.rules(hpa["behavior"]["scale_up"], .up), down = HPACase.rules(hpa["behavior"]["scale_down"], .down)
            if controller["configurable_tolerance_gate"].bool == false {
                up.tolerance = nil
                down.tolerance = nil
            }
            policy.behavior = ScalingBehavior(up: up, down: down)
        }
        let tolerance = controller["tolerance"].double ?? 0.1
        policy.tolerance = Tolerance(down: tolerance, up: tolerance)
        policy.downStabilization = HPACase.seconds(controller["downscale_stabilization_s"]) ?? .seconds(300)
        policy.groups = .init(
            cpuInitialization: HPACase.seconds(controller["cpu_initialization_period_s"]) ?? .seconds(300),
            readinessDelay: HPACase.seconds(controller["initial_readiness_delay_s"]) ?? .seconds(30))
        policy.growthFactor = controller["scale_up_limit_factor"].double ?? 2
        policy.growthFloor = controller["scale_up_limit_minimum"].double ?? 4
        policy.leavesZero = controller["scale_to_zero_gate"].bool ?? false
        return policy
    }

    private static func metric(_ value: JSONValue) -> ScalingMetric {
        let type = value["type"].string ?? "", average = value["target_average_value_milli"].int
        let resource: ScalingMetric.Resource =
            value["resource"].string == "memory"
            ? .memory : value["resource"].string == "cpu" ? .cpu : .other(value["resource"].string ?? "")
        let source: ScalingMetric.Source =
            switch type {
            case "Resource", "ContainerResource": .resource(resource, container: value["container"].string)
            case "Pods": .replicas
            case "Object": .object
            case "External": .external
            default: .unknown(value["declared"].string ?? type)
            }
        let isValue = type == "Object" ? value["target_type"].string == "Value" : average == nil
        let target: ScalingMetric.Target =
            value["target_utilization_percent"].int.map { .utilization($0) }
            ?? (isValue ? .value(value["target_value_milli"].int ?? 0) : .average(average ?? 0))
        return ScalingMetric(value["resource"].string ?? type, source, target)
    }

    static func observation(_ policy: ScalingPolicy, _ step: JSONValue, current: Int, status: Int, now: MonotonicTime) -> ScalingObservation
    {
        let readings = step["readings"], failing = Set(readings["failing_apis"].list.compactMap(\.string)), pods = step["pods"]
        let list = policy.metrics.map { metric -> MetricReading in
            switch metric.source {
            case .resource(_, let container):
                if failing.contains("resource") { return .failed(.unreadable("the API does not answer")) }
                return HPACase.reading(readings["resource"], pods: pods, container: container, now)
            case .replicas:
                if failing.contains("custom") { return .failed(.unreadable("the API does not answer")) }
                return .samples(HPACase.samples(readings["pods_metric"], pods: pods, container: nil, now))
            case .object:
                if failing.contains("custom") { return .failed(.unreadable("the API does not answer")) }
                return readings["object_value_milli"].int.map { .value($0) } ?? .failed(.noMetrics)
            case .external:
                if failing.contains("external") { return .failed(.unreadable("the API does not answer")) }
                return .values(readings["external_values_milli"].list.compactMap(\.int))
            case .unknown(let name): return .failed(.unknownSource(name))
            }
        }
        return ScalingObservation(now: now, current: current, status: status, replicas: HPACase.pods(pods, now), readings: list)
    }

    private static func conditions(_ memory: ScalingMemory) -> JSONValue {
        .array(
            memory.conditions.list.map { .array([.string($0.kind.rawValue), .string($0.holds ? "True" : "False"), .string($0.reason)]) })
    }

    static func reconcile(_ input: JSONValue) -> [String: JSONValue] {
        let policy = policy(input["hpa"], input["controller"]), target = input["target"], history = input["history"], now = HPACase.now
        var memory = ScalingMemory(
            stabilization: .init(
                recommendations: history["recommendations"].isNull ? nil : HPACase.recommendations(history["recommendations"])),
            rates: .init(added: HPACase.events(history["scale_up_events"]), removed: HPACase.events(history["scale_down_events"])))
        if input["hpa"]["has_scaled_to_zero_condition"].bool == true {
            let holds = input["hpa"]["scaled_to_zero_condition"].bool == true
            memory.conditions.set(.scaledToZero, holds, holds ? "ScaledToZero" : "NotScaledToZero")
        }
        var seen = observation(
            policy, input, current: target["spec_replicas"].int ?? 0, status: target["status_replicas"].int ?? 0, now: now)
        if target["scale_get"].string == "fails" {
            seen.access = .unreadable
        } else {
            switch target["selector"].string {
            case "missing", "unparsable": seen.access = .noSelector
            case "ambiguous": seen.access = .contested
            default: break
            }
        }
        let verdict = Autoscaler.decide(policy, seen, &memory)
        let fails = target["scale_update"].string == "fails"
        if fails { memory.notCarriedOut(verdict) } else { memory.carriedOut(verdict, policy, now: now) }
        let rescaled = verdict.rescales && !fails
        var utilization = JSONValue.null
        for (metric, proposal) in zip(policy.metrics, verdict.proposals) where metric.source == .resource(.cpu) {
            if case .success(let one) = proposal, let percent = one.utilization { utilization = .int(percent) }
        }
        let action = !rescaled ? "none" : verdict.outcome > verdict.current ? "scale_up" : "scale_down"
        return [
            "desired_replicas": .int(fails ? verdict.current : verdict.outcome), "rescaled": .bool(rescaled),
            "conditions": conditions(memory),
            "action": .string(action), "error": .string(verdict.hasFault || (fails && verdict.rescales) ? "internal" : "none"),
            "cpu_utilization_percent": utilization,
        ]
    }

    static func sequence(_ input: JSONValue) -> [String: JSONValue] {
        let policy = policy(input["hpa"], input["controller"])
        var memory = ScalingMemory(), now = HPACase.now, current = input["start_replicas"].int ?? 0
        var wrong: [JSONValue] = []
        for (index, step) in input["steps"].list.enumerated() {
            now = now + (HPACase.seconds(step["advance_s"]) ?? .zero)
            if let byHand = step["set_replicas"].int { current = byHand }
            let seen = observation(policy, step, current: current, status: step["status_replicas"].int ?? current, now: now)
            let verdict = Autoscaler.decide(policy, seen, &memory)
            memory.carriedOut(verdict, policy, now: now)
            current = verdict.outcome
            let answer = JSONValue.object([
                "replicas": .int(current), "rescaled": .bool(verdict.rescales), "conditions": conditions(memory),
                "error": .string(verdict.hasFault ? "internal" : "none"),
            ])
            if !step["expect"].isContained(in: answer) {
                wrong.append(.string("step \(index + 1): expected \(step["expect"]), got \(answer)"))
            }
        }
        // Every step is compared here, because its expectations lie in the input.
        return ["final_replicas": wrong.isEmpty ? .int(current) : .array(wrong)]
    }
}
