import Autoscaling
import Basics
import Measurement
import Metering
import StackModel

/// From what meters have read to what the autoscaler takes. Pure.
struct ScalingReadings {
    let service: ServiceSpec
    let scaling: ScalingSpec
    /// How many replicas the observation has.
    let replicas: Int
    /// Older figures are no figures.
    let limit: Duration
    /// Nobody waits for an answer, and nobody has asked in vain.
    let isQuiet: Bool

    /// The names under which the metrics are read: their own, with a number where two have the same.
    static func names(_ scaling: ScalingSpec) -> [String] {
        var names: [String] = []
        for metric in scaling.policy.metrics {
            var name = metric.name, number = 2
            while names.contains(name) {
                name = "\(metric.name) \(number)"
                number += 1
            }
            names.append(name)
        }
        return names
    }

    /// In the order of the policy's metrics.
    func readings(_ all: [MeterReading]) -> [Autoscaling.MetricReading] {
        zip(scaling.origins, ScalingReadings.names(scaling)).enumerated().map { index, pair in
            reading(scaling.policy.metrics[index], pair.0, all.filter { $0.key.metric == pair.1 })
        }
    }

    /// What is to be known of the readings beside their figures, in the same order. What the last answer of a source had in it counts,
    /// also where an older figure still stands in for it.
    func remarks(_ all: [MeterReading]) -> [MetricRemarks] {
        ScalingReadings.names(scaling).map { name in
            var remarks = MetricRemarks()
            for one in all where one.key.metric == name {
                let who = one.key.replica.map { "\(service.name)/\($0): " } ?? ""
                if let fault = one.fault, fault.kind.isThrownAway {
                    remarks.thrownAway.append(who + fault.reason)
                } else if case .failure(let fault) = one.usable(within: limit) {
                    // One that was never asked is as new as its replica: that it has no figure yet is no news.
                    if fault.kind.isThrownAway {
                        remarks.thrownAway.append(who + fault.reason)
                    } else if fault.kind != .pending {
                        remarks.notes.append(who + fault.reason)
                    }
                } else if let figure = one.figure, figure.isPartial {
                    remarks.missing.append(who + figure.note)
                } else if let note = one.figure?.note, !note.isEmpty {
                    remarks.notes.append(who + note)
                }
            }
            return remarks
        }
    }

    private func reading(_ metric: ScalingMetric, _ origin: MetricOrigin, _ known: [MeterReading]) -> Autoscaling.MetricReading {
        switch origin {
        case .cpu:
            return samples(known, scale: 1, request: service.cpu)
        case .memory:
            // Bytes in thousandths, like every quantity.
            return samples(known, scale: 1000, request: service.memory.map { $0.multipliedClamped(by: 1000) })
        case .gateway(.latency): return latency(known)
        case .gateway: return samples(known, scale: 1000)
        case .replicaPage:
            let read = samples(known, scale: 1000)
            // A sum of some is not the sum.
            if case .value = metric.target {
                for one in known where one.key.replica != nil {
                    if case .failure(let fault) = one.usable(within: limit) { return .failed(.unreadable(fault.reason)) }
                }
            }
            guard case .value = metric.target, case .samples(let each, _) = read else { return read }
            return .values(each.map(\.value))
        case .page, .length, .lag: return whole(known, scale: 1000)
        }
    }

    /// Of each replica. One without a figure is left out; without any, the first reason is told.
    private func samples(_ known: [MeterReading], scale: Double, request: Int? = nil) -> Autoscaling.MetricReading {
        var samples: [MetricSample] = [], fault: MeterFault?
        for one in known where one.key.replica != nil {
            switch one.usable(within: limit) {
            case .success(let figure):
                samples.append(
                    MetricSample(
                        replica: one.key.replica!, value: ScalingReadings.milli(figure.value * scale), at: figure.takenAt,
                        window: figure.window))
            case .failure(let why): if fault == nil || fault?.kind == .pending { fault = why }
            }
        }
        if samples.isEmpty { return .failed(fault.map { .unreadable($0.reason) } ?? .noMetrics) }
        return .samples(samples, requests: request.map { .success(Array(repeating: $0, count: replicas)) } ?? .failure(.missingRequest))
    }

    private func whole(_ known: [MeterReading], scale: Double) -> Autoscaling.MetricReading {
        guard let one = known.first(where: { $0.key.replica == nil }) else { return .failed(.noMetrics) }
        switch one.usable(within: limit) {
        case .success(let figure): return .value(ScalingReadings.milli(figure.value * scale))
        case .failure(let fault): return .failed(.unreadable(fault.reason))
        }
    }

    /// Seconds as thousandths of a millisecond. Where nobody has asked for anything there is no latency, and no reason for more either; but
    /// where requests are under way, no answer is no fast answer.
    private func latency(_ known: [MeterReading]) -> Autoscaling.MetricReading {
        if isQuiet, let one = known.first(where: { $0.key.replica == nil }), case .failure(let fault) = one.usable(within: limit),
            fault.kind == .absent
        {
            return .value(0)
        }
        return whole(known, scale: 1_000_000)
    }

    /// Meters have refused what is not finite or negative.
    private static func milli(_ value: Double) -> Int { Int(clamped: value.rounded()) }
}
