import Balancing
import Basics
import Testing

@Suite struct OutlierDetectionTests {
    private typealias Sample = OutlierDetection.Sample

    /// Mean latencies in milliseconds, and failures of 1000 requests.
    private func pool(_ replicas: (failures: Int, milliseconds: Int)..., requests: Int = 1000) -> [Sample] {
        replicas.enumerated().map { place, replica in
            Sample(
                "r\(place)", requests: requests, failures: replica.failures,
                latency: Int64(replica.milliseconds) * 1_000_000 * Int64(requests))
        }
    }

    private func places(_ samples: [Sample], _ settings: OutlierDetection.Settings = .init()) -> [Int] {
        OutlierDetection(settings).judge(samples).map(\.result)
    }

    @Test func whoFailsMoreThanTheOthersIsEjected() {
        let decisions = OutlierDetection().judge(pool((0, 10), (2, 10), (300, 10), (1, 10), (0, 10)))
        #expect(decisions.map(\.result) == [2])
        let record = decisions[0].record
        #expect(record.kind == .eject && record.subject == "r2")
        #expect(
            record.sentence
                == "r2 gets no requests: 70.0% of its 1000 requests succeeded, while the 5 replicas of its pool have 93.9% on average.")
        #expect(record.flip == "a success rate of 71.2% or more", "\(record.flip)")
        #expect(record.inputs.contains(.init("failures", 300)) && record.inputs.contains(.init("ejected", "1 of 5, at most 2")))
    }

    @Test func whoIsMuchSlowerIsEjected() {
        let decisions = OutlierDetection().judge(pool((0, 20), (0, 200), (0, 22)))
        #expect(decisions.map(\.result) == [1])
        #expect(
            decisions[0].record.sentence == "r1 gets no requests: its requests took 200ms on average, while the median of its pool is 22ms."
        )
        #expect(decisions[0].record.flip == "a mean latency of 72ms or less")
        // Three times the median but not 50 ms more; 50 ms more but not three times.
        #expect(places(pool((0, 10), (0, 59), (0, 10))) == [] && places(pool((0, 100), (0, 290), (0, 100))) == [])
        // Exactly at the limit is not over it.
        #expect(places(pool((0, 10), (0, 60), (0, 10))) == [] && places(pool((0, 10), (0, 61), (0, 10))) == [1])
    }

    /// The mean is that of the answers, however many more were asked; who has too few is not judged by them.
    @Test func aMeanIsThatOfTheAnswers() {
        func pool(_ answers: Int) -> [Sample] {
            [answers, 1000, 1000].enumerated().map { place, answers in
                let time: Int64 = place == 0 ? 300_000_000 : 5_000_000
                return Sample("r\(place)", requests: 1000, failures: 0, answers: answers, latency: time * Int64(answers))
            }
        }
        #expect(places(pool(150)) == [0] && places(pool(99)) == [] && places(pool(0)) == [])
    }

    @Test func aPoolThatSuffersAsAWholeHasNoOutlier() {
        #expect(places(pool((1000, 10), (1000, 10), (1000, 10), (1000, 10), (1000, 10))) == [])
        #expect(places(pool((400, 9000), (420, 9100), (390, 8900), (410, 9000), (400, 9000))) == [])
    }

    /// One odd one of five is two deviations away however small the difference.
    @Test func aSmallDifferenceIsNone() {
        #expect(places(pool((0, 10), (0, 10), (1, 10), (0, 10), (0, 10))) == [])
        #expect(places(pool((0, 10), (0, 10), (1, 10), (0, 10), (0, 10)), .init(successGap: 0)) == [2])
    }

    @Test func tooLittleIsNotJudged() {
        #expect(places([]) == [] && places(pool((1000, 10))) == [] && places(pool((0, 10), (1000, 9999))) == [])
        // Four are too few for success; the fifth has too few requests, or none, or is out already.
        let four = pool((0, 10), (0, 10), (0, 10), (900, 10))
        #expect(places(four) == [])
        for fifth in [Sample("e", requests: 99, failures: 0, latency: 0), Sample("e", requests: 0, failures: 0, latency: 0)] {
            #expect(places(four + [fifth]) == [])
        }
        #expect(places(four + [Sample("e", requests: 1000, failures: 0, latency: 0, isEjected: true)]) == [])
        #expect(places(four + pool((0, 10), requests: 100)) == [3])
    }

    @Test func theWorstComeFirstAndTheCapHolds() {
        // Slow, slower, failing: failures first, then by latency. Half of nine is four.
        let samples = pool((0, 10), (0, 200), (0, 10), (0, 300), (1000, 10), (0, 10), (0, 250), (0, 10), (0, 10))
        #expect(places(samples) == [4, 3, 6, 1])
        #expect(places(samples, .init(cap: EjectionCap(share: 0.25))) == [4, 3])
        #expect(places(samples, .init(cap: EjectionCap(share: 0.01))) == [4])
        #expect(places(samples, .init(cap: EjectionCap(share: 0))) == [])
        // Those that are out already count.
        let out = (0..<3).map { Sample("out\($0)", requests: 0, failures: 0, latency: 0, isEjected: true) }
        #expect(places(samples + out, .init(cap: EjectionCap(share: 0.34))) == [4])
        // One that fails and is slow is ejected once.
        #expect(places(pool((0, 10), (0, 10), (0, 10), (0, 10), (0, 10), (900, 900))) == [5])
    }

    @Test func badNumbersAreTakenAsTheNearestGoodOnes() {
        let bad = Sample("bad", requests: -5, failures: 7, latency: .min)
        #expect(bad.requests == 0 && bad.failures == 0 && bad.latency == 0)
        #expect(places([bad] + pool((0, 10), (0, 10), (0, 10), (2000, 10), (0, 10))) == [4])
        let extremes = (0..<6).map { Sample("x", requests: .max, failures: $0 == 0 ? .max : .min, latency: .max) }
        #expect(places(extremes) == [0])
        let slow = [Sample("x", requests: 100, failures: 0, latency: .max)] + pool((0, 0), (0, 0))
        #expect(places(slow, .init(latencyFactor: 1e300)) == [0])
        #expect(
            places(pool((0, 1), (0, 1), (0, 1)), .init(requests: -1, successReplicas: -1, latencyReplicas: -1, latencyFactor: .nan)) == [])
    }

    @Test func theCapAllowsOneOfTwoAndNoneOfOne() {
        let half = EjectionCap(share: 0.5)
        #expect([0, 1, 2, 3, 4, 5].map { half.most(of: $0) } == [0, 0, 1, 1, 2, 2])
        #expect(half.allows(ejected: 1, of: 4) && !half.allows(ejected: 2, of: 4) && !half.allows(ejected: 0, of: 1))
        #expect(
            EjectionCap(share: 0.1).most(of: 3) == 1 && EjectionCap(share: 0.29).most(of: 100) == 29
                && EjectionCap(share: 1).most(of: 1) == 1)
        #expect(EjectionCap(share: .nan).most(of: 9) == 0 && EjectionCap(share: 9).most(of: 9) == 9 && half.most(of: -4) == 0)
    }
}
