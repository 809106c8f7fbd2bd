import Basics
import Resilience
import Testing

@Suite struct TokenBucketTests {
    private func at(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(seconds * 1e9)) }

    @Test func fiveAMinuteWithoutBurst() {
        let bucket = TokenBucket(rate: 5.0 / 60, burst: 0)
        var state: Int64 = 0
        #expect(bucket.take(&state, now: at(100)) == .init(allowed: true, remaining: 0, wait: .seconds(12), reset: .seconds(12)))
        #expect(bucket.take(&state, now: at(105)) == .init(allowed: false, remaining: 0, wait: .seconds(7), reset: .seconds(7)))
        #expect(bucket.take(&state, now: MonotonicTime(nanoseconds: 111_999_999_999)).allowed == false)
        #expect(bucket.take(&state, now: at(112)).allowed)
    }

    @Test func aBurstComesAtOnce() {
        let bucket = TokenBucket(rate: 1, burst: 2)
        var state: Int64 = 0
        let verdicts = (0..<4).map { _ in bucket.take(&state, now: at(50)) }
        #expect(verdicts.map(\.allowed) == [true, true, true, false])
        #expect(verdicts.map(\.remaining) == [2, 1, 0, 0])
        #expect(verdicts.map(\.wait) == [.zero, .zero, .seconds(1), .seconds(1)])
        #expect(verdicts.map(\.reset) == [.seconds(1), .seconds(2), .seconds(3), .seconds(3)])
        #expect(
            bucket.take(&state, now: at(51.5)) == .init(allowed: true, remaining: 0, wait: .milliseconds(500), reset: .milliseconds(2500)))
    }

    @Test func costsAndLooks() {
        let bucket = TokenBucket(rate: 1, burst: 4)
        var state: Int64 = 0
        #expect(bucket.take(&state, now: at(9), cost: 3).remaining == 2)
        #expect(bucket.take(&state, now: at(9), cost: 3) == .init(allowed: false, remaining: 2, wait: .seconds(1), reset: .seconds(3)))
        for cost in [0, -1, .min] {
            #expect(bucket.take(&state, now: at(9), cost: cost) == .init(allowed: true, remaining: 2, wait: .zero, reset: .seconds(3)))
        }
        #expect(!bucket.take(&state, now: at(99), cost: 6).allowed && !bucket.take(&state, now: at(99), cost: .max).allowed)
        #expect(bucket.take(&state, now: at(99), cost: 5).allowed)
    }

    /// A share of the lowest rate is lower than it: five that share one an hour let one through in five hours each.
    @Test func aShareMayBeBelowTheLowestRate() {
        let bucket = TokenBucket(rate: 1.0 / 3600, burst: 4, shares: 5)
        var state: Int64 = 0
        let allowed = (0...100).count { bucket.take(&state, now: at(Double($0) * 3600)).allowed }
        #expect(bucket.burst == 0 && allowed == 21)
        for (shares, counted) in [(0, 1), (-5, 1), (Int.min, 1), (.max, TokenBucket.mostShares)] {
            #expect(TokenBucket(rate: 1, burst: 7, shares: shares) == TokenBucket(rate: 1, burst: 7, shares: counted))
        }
        // The lowest share of all, with times and bursts that do not fit.
        for burst in [0, Int.max] {
            let least = TokenBucket(rate: 0, burst: burst, shares: .max)
            var state: Int64 = 0
            #expect(least.take(&state, now: at(1)).allowed && !least.take(&state, now: at(2), cost: .max).allowed)
            #expect(least.intervalMicroseconds > 0)
            state = .max
            #expect(!least.take(&state, now: at(3)).allowed)
        }
    }

    @Test func oneAnHourAndStrangeSettings() {
        var state: Int64 = 0
        #expect(TokenBucket(rate: 1.0 / 3600, burst: 0).take(&state, now: at(1)).wait == .seconds(3600))
        for rate in [0, -1, Double.nan, -Double.infinity] {
            #expect(TokenBucket(rate: rate, burst: -3) == TokenBucket(rate: 1.0 / 3600, burst: 0))
        }
        #expect(TokenBucket(rate: .infinity, burst: 0).rate == 1e9)
        state = 0
        #expect(TokenBucket(rate: 1.0 / 3600, burst: .max).take(&state, now: at(1)).allowed)
    }

    /// At random times, over every stretch from one request to a later one: at most rate × t + burst + 1, and all that the rate has room
    /// for.
    @Test(arguments: [(0.5, 0), (3.0, 0), (10.0, 7), (1000.0, 50), (77_777.0, 3)])
    func neverMoreThanThePromise(rate: Double, burst: Int) {
        let bucket = TokenBucket(rate: rate, burst: burst)
        var random = SeededRandom(seed: UInt64(rate))
        var state: Int64 = 0, now: Int64 = 1_000_000_000
        var allowed: [Int64] = []
        // 1.3 requests an interval on average, so that it refuses and is also full now and then.
        let gap = Int64(1e9 / rate * 2 / 1.3)
        for round in 0..<1500 {
            if !(round / 100).isMultiple(of: 5) { now += Int64.random(in: 0...gap, using: &random) }
            let verdict = bucket.take(&state, now: MonotonicTime(nanoseconds: now))
            if verdict.allowed { allowed.append(now) }
            #expect(verdict.allowed || verdict.wait > .zero)
            #expect(verdict.remaining >= 0 && verdict.remaining <= burst + 1)
        }
        #expect(allowed.count > 100 && allowed.count < 1500)
        for first in allowed.indices {
            // Stretches of every length would be quadratic; these are all short ones and some long ones.
            for length in [1, 2, 5, burst + 1, burst + 2, 100, 500] where first + length < allowed.count {
                let time = Double(allowed[first + length] - allowed[first]) / 1e9
                #expect(Double(length + 1) <= rate * time + Double(burst + 1) + 1e-6)
            }
        }
    }

    @Test func whoWaitsAsToldIsServed() {
        var random = SeededRandom(seed: 8)
        let bucket = TokenBucket(rate: 7, burst: 3)
        var state: Int64 = 0
        var now = at(10)
        for _ in 0..<1000 {
            let verdict = bucket.take(&state, now: now, cost: Int.random(in: 1...4, using: &random))
            if verdict.allowed {
                now = now + .milliseconds(Int.random(in: 0...100, using: &random))
            } else {
                var early = state, inTime = state
                let cost = 1
                let next = bucket.take(&early, now: now, cost: cost)
                if !next.allowed {
                    #expect(!bucket.take(&early, now: now + (next.wait - .nanoseconds(1))).allowed)
                    #expect(bucket.take(&inTime, now: now + next.wait).allowed)
                }
                now = now + verdict.wait
            }
        }
    }

    @Test func noStateAndNoTimeTraps() {
        var random = SeededRandom(seed: 3)
        let edges: [Int64] = [.min, .min + 1, -1, 0, 1, .max - 1, .max]
        let buckets = [
            TokenBucket(rate: 1, burst: 0), TokenBucket(rate: 1.0 / 3600, burst: .max), TokenBucket(rate: 1e9, burst: 1_000_000),
            TokenBucket(rate: 5.0 / 60, burst: 10),
        ]
        for round in 0..<3000 {
            let bucket = buckets[round % 4]
            var state = edges.randomElement(using: &random)!
            if Bool.random(using: &random) { state = Int64(bitPattern: random.next()) }
            var now = edges.randomElement(using: &random)!
            if Bool.random(using: &random) { now = Int64(bitPattern: random.next()) }
            let cost = [1, 1, 0, -9, .max, .min, 1000][round % 7]
            let verdict = bucket.take(&state, now: MonotonicTime(nanoseconds: now), cost: cost)
            #expect(verdict.remaining >= 0 && verdict.wait >= .zero && verdict.reset >= .zero)
        }
        // A number too far ahead is an empty bucket, not a ban: it heals at the usual rate.
        var state = Int64.max
        #expect(buckets[0].take(&state, now: at(5)) == .init(allowed: false, remaining: 0, wait: .seconds(1), reset: .seconds(1)))
        #expect(buckets[0].take(&state, now: at(6)).allowed)
    }
}
