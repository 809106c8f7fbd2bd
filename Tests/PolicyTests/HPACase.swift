import Autoscaling
import Basics
import TestSupport

/// The kinds of cases that ask for one piece of the arithmetic.
enum HPACase {
    static let now = MonotonicTime(nanoseconds: 2_000_000_000_000_000_000)

    /// nil: no such kind.
    static func answer(_ kind: String, _ input: JSONValue) -> [String: JSONValue]? {
        switch kind {
        case "replicas": replicas(input)
        case "read-samples": readSamples(input)
        case "group-pods": groupPods(input)
        case "pod-requests": podRequests(input)
        case "utilization-ratio": ratio(input, ofRequest: true)
        case "usage-ratio": ratio(input, ofRequest: false)
        case "limit-default": limitDefault(input)
        case "rate-limit": rateLimit(input)
        case "policy-limit": policyLimit(input)
        case "stabilize-default", "stabilize-behavior": stabilize(input)
        case "store-event": storeEvent(input)
        case "behavior-defaults": behaviorDefaults(input)
        case "reconcile": HPAPass.reconcile(input)
        case "sequence": HPAPass.sequence(input)
        default: nil
        }
    }

    // MARK: reading

    static func ago(_ age: JSONValue, _ now: MonotonicTime = now) -> MonotonicTime? {
        age.double.map { MonotonicTime(nanoseconds: now.nanoseconds - Int64($0 * 1e9)) }
    }

    static func seconds(_ value: JSONValue) -> Duration? { value.double.map { .nanoseconds(Int64($0 * 1e9)) } }

    static func pods(_ list: JSONValue, _ now: MonotonicTime = now) -> [ReplicaState] {
        list.list.enumerated().map { index, pod in
            let phase: ReplicaState.Phase =
                switch pod["phase"].string {
                case "Pending": .pending
                case "Succeeded": .succeeded
                case "Failed": .failed
                case "Unknown": .unknown
                default: .running
                }
            let ready: ReplicaState.Readiness? = pod["ready"].string.map { $0 == "True" ? .yes : $0 == "False" ? .no : .unknown }
            return ReplicaState(
                id: index, phase: phase, isLeaving: pod["deleting"].bool ?? false, ready: ready, startedAt: ago(pod["start_age_s"], now),
                readyChangedAt: ago(pod["ready_transition_age_s"], now))
        }
    }

    /// Samples of pods by their place in `pods`; strangers get numbers of their own.
    static func samples(_ list: JSONValue, pods: JSONValue, container: String?, _ now: MonotonicTime = now) -> [MetricSample] {
        let names = pods.list.map { $0["name"].string ?? "" }
        return list.list.enumerated().compactMap { index, one in
            let value: Int?
            if one["containers"].isNull {
                value = one["value_milli"].int
            } else {
                value = ContainerFigures.usage(one["containers"].members.map { ($0.key, $0.value.int) }, container: container)
            }
            guard let value else { return nil }
            return MetricSample(
                replica: names.firstIndex(of: one["pod"].string ?? "") ?? names.count + index, value: value,
                at: ago(one["age_s"], now) ?? now,
                window: seconds(one["window_s"]) ?? .zero)
        }
    }

    /// An init container that goes on running beside the others.
    private static func goesOn(_ container: JSONValue) -> Bool {
        ["restart_policy", "restartPolicy"].contains { container[$0].string == "Always" }
            || ["restartable", "is_restartable", "sidecar"].contains { container[$0].bool == true }
    }

    /// The samples with the requests. Figures that came, of which none is of a whole replica, are another thing than no figures.
    static func reading(_ list: JSONValue, pods: JSONValue, container: String?, _ now: MonotonicTime = now) -> MetricReading {
        let usable = samples(list, pods: pods, container: container, now)
        if usable.isEmpty, !list.list.isEmpty, !pods.list.isEmpty { return .failed(.noUsableMetrics) }
        return .samples(usable, requests: requests(pods, container: container))
    }

    /// Of each pod: its containers, those init containers that go on running, and the request of the pod as such in their place.
    static func requests(_ pods: JSONValue, container: String?) -> Result<[Int], MetricFault> {
        func containers(_ list: JSONValue) -> [ContainerFigures.Container] {
            list.list.map {
                .init(
                    name: $0["name"].string ?? "", request: $0["request_milli"].int,
                    isRestartable: goesOn($0))
            }
        }
        var all: [Int] = []
        for pod in pods.list {
            do throws(MetricFault) {
                all.append(
                    try ContainerFigures.request(
                        containers: containers(pod["containers"]), initContainers: containers(pod["init_containers"]),
                        whole: pod["pod_level_request_milli"].int, container: container))
            } catch { return .failure(error) }
        }
        return .success(all)
    }

    static func rules(_ value: JSONValue, _ defaults: ScalingRules) -> ScalingRules {
        ScalingRules(
            stabilization: seconds(value["stabilization_window_s"]),
            selection: value["select_policy"].string.flatMap(ScalingRules.Selection.init),
            policies: value["policies"].isNull
                ? nil
                : value["policies"].list.map {
                    .init($0["type"].string == "Percent" ? .percent : .pods, $0["value"].int ?? 0, per: seconds($0["period_s"]) ?? .zero)
                },
            tolerance: value["tolerance"].double, defaults: defaults)
    }

    static func events(_ list: JSONValue) -> [RateLimit.Event] {
        list.list.map {
            RateLimit.Event(change: $0["change"].int ?? 0, at: ago($0["age_s"]) ?? now, isOutdated: $0["outdated"].bool ?? false)
        }
    }

    static func recommendations(_ list: JSONValue) -> [Stabilization.Recommendation] {
        list.list.map { .init(replicas: $0["replicas"].int ?? 0, at: ago($0["age_s"]) ?? now) }
    }

    static func name(_ fault: MetricFault) -> JSONValue {
        switch fault {
        case .noMetrics: .string("no-metrics")
        case .noUsableMetrics: .string("no-usable-metrics")
        case .noMatchingMetrics: .string("no-matching-metrics")
        case .missingRequest: .string("missing-request")
        case .containerNotFound: .string("container-not-found")
        case .noReplicas: .string("no-pods")
        case .unreadable(let why): .string(why)
        case .unknownSource(let what): .string(what)
        }
    }

    // MARK: one metric

    private static func replicas(_ input: JSONValue) -> [String: JSONValue] {
        let metric = input["metric"], current = input["current_replicas"].int ?? 0, container = metric["container"].string
        let type = metric["type"].string ?? ""
        let resource: ScalingMetric.Resource =
            metric["resource"].string == "memory" ? .memory : metric["resource"].string == "cpu" ? .cpu : .other("")
        let source: ScalingMetric.Source =
            switch type {
            case _ where type.hasPrefix("resource"): .resource(resource, container: container)
            case _ where type.hasPrefix("pods"): .replicas
            case _ where type.hasPrefix("object"): .object
            case _ where type.hasPrefix("external"): .external
            default: .unknown(type)
            }
        let milli = metric["target_milli"].int ?? 0
        let target: ScalingMetric.Target =
            metric["target_percent"].int.map { .utilization($0) } ?? (type.hasSuffix("value") ? .value(milli) : .average(milli))
        let reading: MetricReading
        if !metric["samples"].isNull {
            reading = self.reading(metric["samples"], pods: input["pods"], container: container)
        } else if !metric["values_milli"].isNull {
            reading = .values(metric["values_milli"].list.map { $0.int ?? 0 })
        } else {
            reading = metric["value_milli"].int.map { .value($0) } ?? .failed(.noMetrics)
        }
        let rules = ProposalRules(
            replicas: pods(input["pods"]), current: current, status: current,
            tolerance: Tolerance(down: input["tolerance"]["down"].double ?? 0.1, up: input["tolerance"]["up"].double ?? 0.1),
            groups: .init(
                cpuInitialization: seconds(input["cpu_initialization_period_s"]) ?? .seconds(300),
                readinessDelay: seconds(input["initial_readiness_delay_s"]) ?? .seconds(30)),
            now: now)
        do throws(MetricFault) {
            let one = try rules.proposal(ScalingMetric(type, source, target), reading)
            return [
                "replicas": .int(one.replicas), "utilization_percent": one.utilization.map { .int($0) } ?? .null,
                "average_value_milli": .int(one.usage),
                "usage_milli": .int(one.usage), "error": .null,
            ]
        } catch { return ["error": name(error)] }
    }

    private static func readSamples(_ input: JSONValue) -> [String: JSONValue] {
        var values: [String: JSONValue] = [:], all: [Int] = []
        if case .array(let list) = input["reported"] { all = list.compactMap(\.int) }
        for (pod, reported) in input["reported"].members {
            if case .object(let containers) = reported {
                if let usage = ContainerFigures.usage(containers.map { ($0.key, $0.value.int) }, container: input["container"].string) {
                    values[pod] = .int(usage)
                }
            } else if let figure = reported.int {
                values[pod] = .int(figure)
            }
        }
        let isEmpty = input["reported"].members.isEmpty && all.isEmpty
        return [
            "values_milli": all.isEmpty ? .object(values) : .array(all.map { .int($0) }), "error": isEmpty ? .string("no-metrics") : .null,
        ]
    }

    private static func groupPods(_ input: JSONValue) -> [String: JSONValue] {
        let groups = ReplicaGroups(
            pods(input["pods"]), samples: samples(input["samples"], pods: input["pods"], container: nil),
            isCPU: input["resource"].string == "cpu",
            settings: .init(
                cpuInitialization: seconds(input["cpu_initialization_period_s"]) ?? .zero,
                readinessDelay: seconds(input["initial_readiness_delay_s"]) ?? .zero),
            now: now)
        func names(_ group: ReplicaGroups.Group, like wanted: JSONValue = .null) -> JSONValue {
            .array(
                zip(input["pods"].list, groups.groups).filter { $0.1 == group }.map { $0.0["name"].string ?? "" }.sorted().map {
                    .string($0)
                })
        }
        return ["ready_count": .int(groups.readyCount), "unready": names(.unready), "missing": names(.missing), "ignored": names(.ignored)]
    }

    private static func podRequests(_ input: JSONValue) -> [String: JSONValue] {
        let resource = input["resource"].string ?? ""
        func containers(_ list: JSONValue) -> [ContainerFigures.Container] {
            list.list.map {
                .init(
                    name: $0["name"].string ?? "", request: $0["requests_milli"][resource].int,
                    isRestartable: goesOn($0))
            }
        }
        var all: [String: JSONValue] = [:]
        for pod in input["pods"].list {
            let whole = input["pod_level_resources_enabled"].bool == true ? pod["pod_level_requests_milli"][resource].int : nil
            do throws(MetricFault) {
                all[pod["name"].string ?? ""] = .int(
                    try ContainerFigures.request(
                        containers: containers(pod["containers"]), initContainers: containers(pod["init_containers"]), whole: whole,
                        container: input["container"].string))
            } catch { return ["error": name(error)] }
        }
        return ["requests_milli": .object(all), "error": .null]
    }

    private static func ratio(_ input: JSONValue, ofRequest: Bool) -> [String: JSONValue] {
        var totals = UsageTotals()
        for (pod, value) in input["values_milli"].members { totals.add(value: value.int ?? 0, request: input["requests_milli"][pod].int) }
        do throws(MetricFault) {
            let one =
                ofRequest
                ? try totals.utilization(target: input["target_percent"].int ?? 0)
                : try totals.average(target: input["target_milli"].int ?? 0)
            return [
                "ratio": .double(one.ratio), "utilization_percent": one.utilization.map { .int($0) } ?? .null,
                "average_value_milli": .int(one.average),
                "usage_milli": .int(one.average), "error": .null,
            ]
        } catch { return ["error": name(error)] }
    }

    // MARK: limits and windows

    private static func limitDefault(_ input: JSONValue) -> [String: JSONValue] {
        let outcome = RateLimit.plain(
            input["desired_replicas"].int ?? 0, current: input["current_replicas"].int ?? 0, minimum: input["min_replicas"].int ?? 1,
            maximum: input["max_replicas"].int ?? 1, factor: input["scale_up_limit_factor"].double ?? 2,
            floor: input["scale_up_limit_minimum"].double ?? 4)
        return ["replicas": .int(outcome.replicas), "reason": .string(outcome.reason.rawValue)]
    }

    private static func rateLimit(_ input: JSONValue) -> [String: JSONValue] {
        let outcome = RateLimit(added: events(input["scale_up_events"]), removed: events(input["scale_down_events"])).limited(
            input["desired_replicas"].int ?? 0, current: input["current_replicas"].int ?? 0, minimum: input["min_replicas"].int ?? 1,
            maximum: input["max_replicas"].int ?? 1,
            behavior: ScalingBehavior(up: rules(input["scale_up"], .up), down: rules(input["scale_down"], .down)),
            now: now)
        return ["replicas": .int(outcome.replicas), "reason": .string(outcome.reason.rawValue)]
    }

    private static func policyLimit(_ input: JSONValue) -> [String: JSONValue] {
        let rates = RateLimit(added: events(input["scale_up_events"]), removed: events(input["scale_down_events"])),
            current = input["current_replicas"].int ?? 0
        let isUp = input["direction"].string == "up"
        let limit =
            isUp
            ? rates.ceiling(current: current, rules: rules(input["rules"], .up), now: now)
            : rates.floor(current: current, rules: rules(input["rules"], .down), now: now)
        return ["limit": .int(limit)]
    }

    private static func stabilize(_ input: JSONValue) -> [String: JSONValue] {
        var history = Stabilization(recommendations: input["recommendations"].isNull ? nil : recommendations(input["recommendations"]))
        let wanted = input["desired_replicas"].int ?? 0
        let result: Int
        if let window = seconds(input["window_s"]) {
            result = history.highest(wanted, window: window, now: now).result
        } else {
            result =
                history.between(
                    wanted, current: input["current_replicas"].int ?? 0, up: seconds(input["up_window_s"]) ?? .zero,
                    down: seconds(input["down_window_s"]) ?? .zero, now: now
                ).result
        }
        let after = history.recommendations ?? []
        return ["replicas": .int(result), "history_length": .int(after.count), "history_replicas": .array(after.map { .int($0.replicas) })]
    }

    private static func storeEvent(_ input: JSONValue) -> [String: JSONValue] {
        let isUp = input["direction"].string == "up", before = events(input["events"])
        var rates = RateLimit(added: isUp ? before : [], removed: isUp ? [] : before)
        // Without a behavior nothing is kept.
        if !input["rules"].isNull {
            let rules = rules(input["rules"], isUp ? .up : .down)
            rates.store(
                from: input["previous_replicas"].int ?? 0, to: input["new_replicas"].int ?? 0,
                behavior: isUp ? ScalingBehavior(up: rules) : ScalingBehavior(down: rules), now: now)
        }
        let after = isUp ? rates.added : rates.removed
        return [
            "change_in_period_before": .int(RateLimit.change(before, within: seconds(input["count_period_s"]) ?? .zero, now)),
            "events_after": .array(after.map { .object(["change": .int($0.change), "outdated": .bool($0.isOutdated)]) }),
        ]
    }

    private static func behaviorDefaults(_ input: JSONValue) -> [String: JSONValue] {
        func shown(_ rules: ScalingRules) -> [String: JSONValue] {
            [
                "stabilization_window_s": rules.stabilization.map { .int(Int($0.nanoseconds / 1_000_000_000)) } ?? .null,
                "select_policy": .string(rules.selection.rawValue), "tolerance": rules.tolerance.map { .double($0) } ?? .null,
                "policies": .array(
                    rules.policies.map {
                        .object([
                            "type": .string($0.kind.rawValue), "value": .int($0.value),
                            "period_s": .int(Int($0.period.nanoseconds / 1_000_000_000)),
                        ])
                    }),
            ]
        }
        if let direction = input["direction"].string { return shown(rules(input["rules"], direction == "up" ? .up : .down)) }
        let behavior = input["behavior"]
        if behavior.isNull { return ["behavior": .null] }
        return [
            "behavior": .object([
                "scale_up": .object(shown(rules(behavior["scale_up"], .up))),
                "scale_down": .object(shown(rules(behavior["scale_down"], .down))),
            ])
        ]
    }
}
