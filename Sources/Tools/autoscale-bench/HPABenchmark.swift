import Autoscaling
import Basics

/// One decision about many replicas, some of them starting, some without a figure: what the pure core costs.
func hpaBenchmark(_ words: [String]) {
    let replicas = words.first.flatMap { Int($0) } ?? 10_000, rounds = words.dropFirst().first.flatMap { Int($0) } ?? 200
    guard (1...1_000_000).contains(replicas), (1...100_000).contains(rounds) else {
        stop("hpa [REPLICAS] [DECISIONS]: from 1 to 1000000 and 1 to 100000")
    }
    var random = SeededRandom(seed: 6), now = MonotonicTime(nanoseconds: 100_000_000_000_000)
    var policy = ScalingPolicy(
        minimum: 1, maximum: 1_000_000,
        metrics: [
            ScalingMetric("cpu", .resource(.cpu), .utilization(70)), ScalingMetric("requests", .replicas, .average(100_000)),
            ScalingMetric("queue", .external, .average(50_000)),
        ], behavior: ScalingBehavior())
    policy.groups.warmUp = .seconds(20)
    let states = (0..<replicas).map { id in
        ReplicaState(
            id: id, phase: id % 50 == 0 ? .pending : .running, startedAt: MonotonicTime(nanoseconds: Int64(id) * 1_000_000_000),
            readyChangedAt: MonotonicTime(nanoseconds: Int64(id) * 1_000_000_000))
    }
    var memory = ScalingMemory(), times: [Duration] = [], size = replicas, checksum = 0
    for _ in 0..<rounds {
        now = now + .seconds(15)
        func samples(_ range: ClosedRange<Int>) -> [MetricSample] {
            (0..<replicas).filter { $0 % 37 != 0 }.map {
                MetricSample(replica: $0, value: Int.random(in: range, using: &random), at: now, window: .seconds(15))
            }
        }
        let seen = ScalingObservation(
            now: now, current: size, status: size, replicas: states,
            readings: [
                .samples(samples(100...600), requests: .success(.init(repeating: 500, count: replicas))),
                .samples(samples(10_000...200_000)), .value(replicas * 40_000),
            ])
        let began = MonotonicTime.now
        let verdict = Autoscaler.decide(policy, seen, &memory)
        memory.carriedOut(verdict, policy, now: now)
        times.append(.now - began)
        checksum &+= verdict.outcome
        size = max(1, min(replicas * 2, verdict.outcome))
    }
    times.sort()
    say(
        "mode=hpa replicas=\(replicas) decisions=\(rounds) metrics=3 median_us=\(times[rounds / 2].nanoseconds / 1000) "
            + "p99_us=\(times[min(rounds - 1, rounds * 99 / 100)].nanoseconds / 1000) most_us=\(times[rounds - 1].nanoseconds / 1000) "
            + "checksum=\(checksum)"
    )
}
