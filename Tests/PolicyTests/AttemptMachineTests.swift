import Basics
import Resilience
import Testing

/// The tries of a request, decided without sockets: each event in each state, and each combination of what a failure depends on.
@Suite struct AttemptMachineTests {
    private let now = MonotonicTime(nanoseconds: 50_000_000_000)

    private static func rules(
        attempts: Int = 3, hedge: Duration? = .milliseconds(10), isIdempotent: Bool = true, isBare: Bool = true,
        deadline: MonotonicTime? = nil
    ) -> AttemptRules {
        AttemptRules(
            retry: RetryPolicy(attempts: attempts), hedge: hedge, isIdempotent: isIdempotent, isBare: isBare, deadline: deadline)
    }

    /// A machine brought into a state by events, as a gateway would.
    private func with<T>(
        _ state: AttemptMachine.State, _ rules: AttemptRules = rules(), tries: Int = 1,
        _ body: (inout AttemptMachine, inout RetryBudget) -> T
    ) -> T {
        var machine = AttemptMachine(), budget = RetryBudget(share: 0, minimum: 100)
        func tell(_ event: AttemptEvent) { _ = machine.take(event, now: now, budget: &budget) }
        if state != .idle {
            machine.begin()
            // To have failed before, it must be allowed another try.
            machine.settle(Self.rules(attempts: 8))
        }
        if [.asked, .hedged, .answering, .tunnel].contains(state) {
            for _ in 1..<max(tries, 1) {
                tell(.chosen)
                tell(.failed(.first, .notSent))
            }
            tell(.chosen)
        }
        if state == .held { tell(.foundNone(.mayWait)) }
        if state == .hedged { tell(.chosen) }
        if state == .answering { tell(.head(.first, upgrades: false)) }
        if state == .tunnel { tell(.head(.first, upgrades: true)) }
        #expect(machine.state == state)
        machine.settle(rules)
        return body(&machine, &budget)
    }

    private static let events: [AttemptEvent] =
        [
            .wanted, .chosen, .foundNone(.mayWait), .foundNone(.full), .foundNone(.none), .hedgeTime(others: true),
            .hedgeTime(others: false), .hedgeFell, .head(.first, upgrades: false), .head(.second, upgrades: false),
            .head(.first, upgrades: true), .deadline, .failed(.first, .notSent), .failed(.second, .notSent),
            .failed(.first, .brokenResponse),
        ]

    /// What each event does in each state; what is not listed does nothing and leaves the state as it is.
    private static let table: [AttemptMachine.State: [(AttemptEvent, AttemptAction, AttemptMachine.State)]] = [
        .idle: [],
        .unasked: [
            (.wanted, .ask, .unasked), (.chosen, .send(hedges: true), .asked), (.foundNone(.mayWait), .hold, .held),
            (.foundNone(.full), .giveUp(.full), .answering), (.foundNone(.none), .giveUp(.noReplica), .answering),
            (.deadline, .giveUp(.deadline), .answering),
        ],
        .held: [
            (.chosen, .send(hedges: true), .asked), (.foundNone(.none), .giveUp(.noReplica), .answering),
            (.deadline, .giveUp(.deadline), .answering),
        ],
        .asked: [
            (.chosen, .send(hedges: false), .hedged), (.hedgeTime(others: true), .hedge, .asked),
            (.head(.first, upgrades: false), .answer(.first, abandons: nil), .answering),
            (.head(.first, upgrades: true), .answer(.first, abandons: nil), .tunnel), (.deadline, .giveUp(.deadline), .answering),
            (.failed(.first, .notSent), .retry, .unasked),
            (.failed(.first, .brokenResponse), .giveUp(.failed(.brokenResponse)), .answering),
        ],
        .hedged: [
            (.hedgeFell, .nothing, .asked), (.head(.first, upgrades: false), .answer(.first, abandons: .second), .answering),
            (.head(.second, upgrades: false), .answer(.second, abandons: .first), .answering),
            (.head(.first, upgrades: true), .answer(.first, abandons: .second), .tunnel), (.deadline, .giveUp(.deadline), .answering),
            (.failed(.first, .notSent), .nothing, .asked), (.failed(.second, .notSent), .nothing, .asked),
            (.failed(.first, .brokenResponse), .nothing, .asked),
        ],
        .answering: [
            (.failed(.first, .notSent), .breakOff, .answering), (.failed(.second, .notSent), .breakOff, .answering),
            (.failed(.first, .brokenResponse), .breakOff, .answering),
        ],
        .tunnel: [
            (.failed(.first, .notSent), .endTunnel, .tunnel), (.failed(.second, .notSent), .endTunnel, .tunnel),
            (.failed(.first, .brokenResponse), .endTunnel, .tunnel),
        ],
    ]

    @Test func eachEventInEachState() {
        var count = 0
        for state in AttemptMachine.State.allCases {
            for event in Self.events {
                let row = Self.table[state]!.first { $0.0 == event }
                let (decision, after) = with(state) { machine, budget in
                    (machine.take(event, now: now, budget: &budget), machine.state)
                }
                #expect(decision.action == row?.1 ?? .nothing, "\(event) while \(state)")
                #expect(after == row?.2 ?? state, "\(event) while \(state)")
                if row == nil { #expect(decision.reason != .course, "\(event) while \(state)") }
                count += 1
            }
        }
        #expect(count == 7 * Self.events.count)
    }

    private enum Deadline: CaseIterable { case none, ahead, now, passed }

    private func time(_ deadline: Deadline) -> MonotonicTime? {
        switch deadline {
        case .none: nil
        case .ahead: now + .milliseconds(1)
        case .now: now
        case .passed: now + .milliseconds(-1)
        }
    }

    /// Failure × what was sent × budget × hedge under way × body kept × deadline × idempotent × tries.
    @Test func eachFailureInAllCircumstances() {
        var count = 0
        for failure in TryFailure.allCases {
            for deadline in Deadline.allCases {
                for (idempotent, kept, hasBudget) in Self.flags {
                    for tries in 1...3 {
                        let rules = Self.rules(isIdempotent: idempotent, deadline: time(deadline))
                        let late = deadline == .now || deadline == .passed
                        let mayRepeat = idempotent || [.notSent, .shortage, .connectTimeout, .tlsFailed].contains(failure)
                        let retries = failure != .brokenResponse && !late && tries < 3 && mayRepeat && kept && hasBudget
                        let (decision, after, spent) = fail(.asked, rules, failure, tries: tries, kept: kept, hasBudget: hasBudget)
                        let note = Comment(rawValue: "\(failure) \(deadline) idempotent \(idempotent) kept \(kept) \(hasBudget) \(tries)")
                        #expect((decision.action == .retry) == retries, note)
                        #expect(spent == retries, note)
                        #expect(after == (retries ? .unasked : .answering), note)
                        if !retries {
                            let gaveUp: GaveUp = late && failure != .brokenResponse ? .deadline : .failed(failure)
                            #expect(decision.action == .giveUp(gaveUp), note)
                        }
                        guard case .verdict(let verdict) = decision.reason else {
                            Issue.record("a failure is judged: \(decision)")
                            continue
                        }
                        #expect((verdict == .retry) == retries, note)
                        // With a hedge under way nothing is judged, and no budget is spent: the other one may still answer.
                        for side in AttemptSide.allCases {
                            let (other, state, spentToo) = fail(
                                .hedged, rules, failure, side, tries: tries, kept: kept, hasBudget: hasBudget)
                            #expect(other == AttemptDecision(.nothing, .otherStillAsked) && state == .asked && !spentToo, note)
                        }
                        count += 1
                    }
                }
            }
        }
        #expect(count == TryFailure.allCases.count * 4 * 8 * 3)
    }

    private static let flags: [(Bool, Bool, Bool)] = (0..<8).map { ($0 & 1 != 0, $0 & 2 != 0, $0 & 4 != 0) }

    private func fail(
        _ state: AttemptMachine.State, _ rules: AttemptRules, _ failure: TryFailure, _ side: AttemptSide = .first, tries: Int, kept: Bool,
        hasBudget: Bool
    ) -> (AttemptDecision, AttemptMachine.State, spent: Bool) {
        with(state, rules, tries: tries) { machine, _ in
            if !kept { machine.forgotBody() }
            // One retry is left in it, or none.
            var budget = RetryBudget(share: 1, minimum: 0)
            if hasBudget { budget.requestArrived(now) }
            let decision = machine.take(.failed(side, failure), now: now, budget: &budget)
            #expect(machine.lastFailure == failure)
            return (decision, machine.state, hasBudget && !budget.tryRetry(now))
        }
    }

    @Test func aHedgeIsAskedOnlyWhereItMayBe() {
        var asked = 0
        for (idempotent, kept, hasBudget) in Self.flags {
            for others in [true, false] {
                for deadline in Deadline.allCases {
                    for isBare in [true, false] {
                        let rules = Self.rules(isIdempotent: idempotent, isBare: isBare, deadline: time(deadline))
                        let (decision, spent) = with(.asked, rules) { machine, _ in
                            if !kept { machine.forgotBody() }
                            var budget = RetryBudget(share: 1, minimum: 0)
                            if hasBudget { budget.requestArrived(now) }
                            let decision = machine.take(.hedgeTime(others: others), now: now, budget: &budget)
                            return (decision, hasBudget && !budget.tryRetry(now))
                        }
                        let late = deadline == .now || deadline == .passed
                        let allowed = isBare && !late && idempotent && kept && others && hasBudget
                        #expect((decision.action == .hedge) == allowed)
                        #expect(spent == allowed, "the budget is spent only on what is asked")
                        #expect((decision.reason == .course) == allowed)
                        if allowed { asked += 1 }
                    }
                }
            }
        }
        #expect(asked == 2)
    }

    @Test func whatHasABodyOrHasNoHedgeIsNotHedged() {
        for rules in [Self.rules(hedge: nil), Self.rules(isBare: false)] {
            let action = with(.unasked, rules) { machine, budget in machine.take(.chosen, now: now, budget: &budget).action }
            #expect(action == .send(hedges: false))
        }
    }

    @Test func afterAFailureNoReplicaMeansThatFailure() {
        for vacancy in Vacancy.allCases {
            let decision = with(.asked) { machine, budget in
                _ = machine.take(.failed(.first, .connectTimeout), now: now, budget: &budget)
                return machine.take(.foundNone(vacancy), now: now, budget: &budget)
            }
            #expect(decision == AttemptDecision(.giveUp(.failed(.connectTimeout)), .vacancy(vacancy)))
        }
    }

    @Test func aHedgeThatFellIsNoTry() {
        let tries = with(.hedged) { machine, budget in
            _ = machine.take(.hedgeFell, now: now, budget: &budget)
            return machine.tries
        }
        #expect(tries == 1)
    }

    /// Whatever comes in whatever order: at most two are asked at once, at most so many as are allowed one after the other, and after the
    /// request's end nothing more is done.
    @Test func whateverHappensItEnds() {
        var random = SeededRandom(seed: 13)
        for round in 0..<2000 {
            var machine = AttemptMachine(), budget = RetryBudget(share: 0, minimum: 100), retries = 0
            machine.begin()
            machine.settle(Self.rules(isIdempotent: round % 2 == 0))
            var gaveUp = false
            for _ in 0..<30 {
                let event = Self.events.randomElement(using: &random)!, before = machine.state
                let action = machine.take(event, now: now, budget: &budget).action
                #expect(!gaveUp || action == .nothing || action == .breakOff)
                if action == .retry { retries += 1 }
                if case .giveUp = action { gaveUp = true }
                if before == .answering || before == .tunnel { #expect(machine.state == before) }
            }
            #expect(retries <= 2)
            machine.end()
            for event in Self.events {
                #expect(machine.take(event, now: now, budget: &budget) == AttemptDecision(.nothing, .notNow))
            }
        }
    }
}
