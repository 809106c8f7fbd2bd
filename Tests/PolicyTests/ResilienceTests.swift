import Basics
import Resilience
import Testing

@Suite struct RetryTests {
    private func at(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(seconds * 1e9)) }

    @Test func theBudgetIsAShareOfTheRequests() {
        var budget = RetryBudget(share: 0.2, minimum: 0)
        for _ in 0..<100 { budget.requestArrived(at(1)) }
        let granted = (0..<100).filter { _ in budget.tryRetry(at(1)) }.count
        #expect(granted == 20)
    }

    @Test func aQuietServiceMayRetry() {
        var budget = RetryBudget(share: 0, minimum: 10)
        let granted = (0..<500).filter { _ in budget.tryRetry(at(5)) }.count
        #expect(granted == 100)
        let early = budget.tryRetry(at(14.9)), later = budget.tryRetry(at(15))
        #expect(!early && later)
    }

    @Test func theBudgetNeverGrantsMoreThanItsShareWhateverTheTimes() {
        var random = SeededRandom(seed: 5)
        var budget = RetryBudget(share: 0.2, minimum: 1)
        var now = 0.0
        var requests: [Double] = [], retries: [Double] = []
        for _ in 0..<20_000 {
            now += Double.random(in: 0...0.02, using: &random)
            if Bool.random(using: &random) {
                budget.requestArrived(at(now))
                requests.append(now)
            } else if budget.tryRetry(at(now)) {
                retries.append(now)
                // Whole-second buckets: the window is between nine and ten seconds long.
                let inWindow = retries.filter { $0 > now - 9 }.count
                let atMost = 0.2 * Double(requests.filter { $0 > now - 10 }.count) + 11
                #expect(Double(inWindow) <= atMost)
            }
        }
        #expect(retries.count > 500)
    }

    @Test func everyCombinationHasItsVerdict() {
        let policy = RetryPolicy(attempts: 3)
        for failure in TryFailure.allCases {
            for tries in 1...3 {
                for isIdempotent in [true, false] {
                    for bodyIsHere in [true, false] {
                        for budget in [true, false] {
                            let verdict = policy.verdict(failure, tries: tries, isIdempotent: isIdempotent, bodyIsHere: bodyIsHere) {
                                budget
                            }
                            let sent = failure == .noResponse || failure == .responseTimeout
                            let allowed = failure != .brokenResponse && tries < 3 && (!sent || isIdempotent) && bodyIsHere && budget
                            #expect((verdict == .retry) == allowed)
                            #expect(
                                !policy.record(verdict, failure, tries: tries, isIdempotent: isIdempotent, subject: "r", budget: []).flip
                                    .isEmpty)
                        }
                    }
                }
            }
        }
    }

    @Test func theBudgetIsNotSpentOnWhatMayNotBeRetried() {
        _ = RetryPolicy(attempts: 2).verdict(.noResponse, tries: 1, isIdempotent: false, bodyIsHere: true) {
            Issue.record("the budget was asked")
            return true
        }
    }
}

@Suite struct CrashLoopTests {
    @Test func theFirstRestartIsImmediateAndThenItWaits() {
        var crashes = CrashLoop()
        let waits = (0..<9).map { _ in crashes.died(after: .milliseconds(900), served: true, how: "exit status 1", subject: "s/1").result }
        #expect(
            waits == [
                .zero, .milliseconds(200), .milliseconds(400), .milliseconds(800), .milliseconds(1600), .milliseconds(3200),
                .milliseconds(6400), .seconds(10),
                .seconds(10),
            ])
        #expect(crashes.isLooping)
        let slow = crashes.died(after: .seconds(60), served: false, how: "exit status 1", subject: "s/1").result
        #expect(slow == .seconds(10))
        let settled = crashes.died(after: .seconds(10), served: true, how: "exit status 1", subject: "s/1").result
        #expect(settled == .zero)
        #expect(!crashes.isLooping)
    }

    @Test func whatWorkedIsStartedAtOnceHoweverOftenItIsKilled() {
        var crashes = CrashLoop()
        for _ in 0..<20 {
            let wait = crashes.died(after: .seconds(2), served: true, how: "killed by SIGKILL", subject: "s/1").result
            #expect(wait == .zero)
        }
        #expect(crashes.isLooping, "told all the same")
    }
}

@Suite struct BreakerTests {
    private func time(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(seconds * 1e9)) }

    @Test func opensAfterFailuresInARowAndTriesOnceAfterRecovery() {
        var breaker = Breaker(subject: "loki", failures: 3, recovery: .seconds(10), successes: 2)
        for _ in 0..<2 { #expect(breaker.failure(time(0), reason: "r") == nil) }
        #expect(breaker.success() == nil)
        for _ in 0..<2 { #expect(breaker.failure(time(1), reason: "r") == nil) }
        let opened = breaker.failure(time(1), reason: "status 500")
        #expect(opened?.result == .open && opened?.record.sentence.contains("status 500") == true && opened?.record.kind == .breaker)
        #expect(!breaker.allows(time(10.9)) && breaker.wait(time(6)) == .seconds(5))
        // Half-open: one trial at a time.
        let trial = breaker.allows(time(11)), second = breaker.allows(time(11))
        #expect(trial && !second && breaker.state == .halfOpen)
        #expect(breaker.failure(time(12), reason: "r")?.result == .open)
        let again = breaker.allows(time(21)), late = breaker.allows(time(22))
        #expect(!again && late)
        #expect(breaker.success() == nil)
        breaker.untried()
        let next = breaker.allows(time(22))
        #expect(next && breaker.success()?.result == .closed && breaker.allows(time(22)))
    }
}
