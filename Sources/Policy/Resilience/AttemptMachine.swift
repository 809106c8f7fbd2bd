import Basics

/// What a route and a request allow, as far as it matters for the request's tries. Settled when the request's head has been read.
public struct AttemptRules: Sendable, Equatable {
    public var retry: RetryPolicy
    /// How long after the first question a second replica is asked the same, if there is no answer yet; nil: never.
    public var hedge: Duration?
    /// Whether the request may be carried out twice: by its method, an Idempotency-Key, or because the route says so.
    public var isIdempotent: Bool
    /// Whether the request can be hedged at all: it has no body, and does not ask for an upgrade.
    public var isBare: Bool
    /// The time by which there must be an answer; nil: none is set.
    public var deadline: MonotonicTime?

    public init(
        retry: RetryPolicy, hedge: Duration? = nil, isIdempotent: Bool = false, isBare: Bool = false, deadline: MonotonicTime? = nil
    ) {
        self.retry = retry
        self.hedge = hedge
        self.isIdempotent = isIdempotent
        self.isBare = isBare
        self.deadline = deadline
    }
}

/// One of the at most two questions that a request has under way.
public enum AttemptSide: Sendable, CaseIterable { case first, second }

/// Why no replica could be chosen.
public enum Vacancy: Sendable, CaseIterable {
    /// There is no replica, or there are only replicas that leave, and the request may wait for one.
    case mayWait
    /// All replicas have as many requests as they take.
    case full
    /// None of them can be asked, and the request is not for waiting.
    case none
}

/// What happened to a request, as far as it matters for its tries.
public enum AttemptEvent: Sendable, Equatable {
    /// A part of the request is there to be sent.
    case wanted
    /// A replica has been chosen, and its connection is there or begins.
    case chosen
    /// No replica could be chosen.
    case foundNone(Vacancy)
    /// The time after which a second replica is asked is over. `others`: whether there is a replica besides the one that was asked.
    case hedgeTime(others: Bool)
    /// The second replica that was chosen turned out to be the first: it is not asked twice.
    case hedgeFell
    /// A question got no whole answer.
    case failed(AttemptSide, TryFailure)
    /// The head of a replica's answer has come. `upgrades`: the answer is 101, and bytes pass both ways from now on.
    case head(AttemptSide, upgrades: Bool)
    /// The request's own time is over.
    case deadline
}

/// What is to be done now.
public enum AttemptAction: Sendable, Equatable {
    case nothing
    /// Choose a replica and tell `chosen` or `foundNone`.
    case ask
    /// Send what there is of the request to the replica that was chosen. `hedges`: and tell `hedgeTime` after `AttemptRules.hedge`.
    case send(hedges: Bool)
    /// Wait in line for a replica, and tell `chosen` when one takes the request.
    case hold
    /// Choose a second replica, if there is one, and ask it the same.
    case hedge
    /// Send the request once more, from its beginning, to another replica.
    case retry
    /// Pass this side's answer on, and give the other question up if there is one.
    case answer(AttemptSide, abandons: AttemptSide?)
    /// Answer the client with a failure. Questions that are still under way are given up.
    case giveUp(GaveUp)
    /// The client has a part of an answer: break its connection, which is the only way to tell it that the rest is missing.
    case breakOff
    /// End the tunnel.
    case endTunnel
}

/// Why a request got no replica's answer.
public enum GaveUp: Sendable, Equatable {
    case noReplica
    case full
    case deadline
    case failed(TryFailure)
}

/// Why it was decided so.
public enum AttemptReason: Sendable, Equatable {
    /// The request's ordinary course.
    case course
    /// It was not this request's turn for the event: what it is about is over, or has not begun.
    case notNow
    /// A failed try was judged.
    case verdict(RetryPolicy.Verdict)
    /// Another replica is still asked the same and may answer.
    case otherStillAsked
    case vacancy(Vacancy)
    /// No hedge: the request may not be carried out twice, its body is gone, there is no other replica, or the retry budget is spent.
    case notIdempotent, bodyGone, noOther, budgetSpent
    case deadline
}

public struct AttemptDecision: Sendable, Equatable {
    public let action: AttemptAction
    public let reason: AttemptReason

    public init(_ action: AttemptAction, _ reason: AttemptReason) {
        self.action = action
        self.reason = reason
    }
}

/// Decides about the tries of one request: when a replica is asked, when a second one, when another one after a failure, when the request
/// waits, and when it is given up. Knows no sockets and no replicas: whoever has them tells events and carries the actions out.
///
/// Used for one request after the other: `begin`, events, `end`. Allocates nothing.
public struct AttemptMachine: ~Copyable {
    public enum State: Sendable, CaseIterable {
        /// No request is under way. Left by `begin`.
        case idle
        /// No replica is asked: the request has not come far enough, or its last try has failed. Left when one is chosen, when none is
        /// there, or when the gateway answers.
        case unasked
        /// The request waits in line for a replica. Left as `unasked` is.
        case held
        /// One replica is asked. Left by its answer, its failure, the deadline, or to `hedged`.
        case asked
        /// Two replicas are asked. Left by the first answer; by the failure of one of them to `asked`; by the deadline.
        case hedged
        /// An answer has begun: no replica is asked any more. Left by `end`.
        case answering
        /// Bytes pass both ways. Left by `end`.
        case tunnel
    }

    public private(set) var state = State.idle
    /// Number of replicas that were asked so far.
    public private(set) var tries = 0
    /// How the last try that failed did so.
    public private(set) var lastFailure: TryFailure?
    /// Whether all that was received of the request is still there for another try.
    public private(set) var keepsBody = true
    private var rules = AttemptRules(retry: RetryPolicy(attempts: 1))

    public init() {}

    /// Whether a request is under way and nothing of an answer has gone to its client.
    public var isOpen: Bool { state != .idle && state != .answering && state != .tunnel }

    /// Begins a request. Until `settle` it has one try.
    public mutating func begin() {
        state = .unasked
        tries = 0
        lastFailure = nil
        keepsBody = true
        rules = AttemptRules(retry: RetryPolicy(attempts: 1))
    }

    /// Sets what is allowed. A reload may change it while a request waits.
    public mutating func settle(_ rules: AttemptRules) { self.rules = rules }

    /// Notes that the request has become too large to be kept: what was sent of it cannot be sent again.
    public mutating func forgotBody() { keepsBody = false }

    /// The gateway answers by itself: after `giveUp`, or for a reason of its own (a limit, a rule, a wait that has ended).
    public mutating func answeredHere() { if isOpen { state = .answering } }

    /// The request is over, however it ended.
    public mutating func end() { state = .idle }

    /// Decides what follows from an event. `budget` is asked last, and only when everything else allows another question.
    public mutating func take(_ event: AttemptEvent, now: MonotonicTime, budget: inout RetryBudget) -> AttemptDecision {
        switch event {
        case .wanted: return AttemptDecision(state == .unasked ? .ask : .nothing, state == .unasked ? .course : .notNow)
        case .chosen: return chosen()
        case .foundNone(let vacancy): return foundNone(vacancy)
        case .hedgeTime(let others): return hedgeTime(others: others, now, &budget)
        case .hedgeFell:
            guard state == .hedged else { break }
            state = .asked
            tries -= 1
            return AttemptDecision(.nothing, .noOther)
        case .failed(let side, let failure): return failed(side, failure, now, &budget)
        case .head(let side, let upgrades):
            guard state == .asked && side == .first || state == .hedged else { break }
            let abandoned: AttemptSide? = state == .hedged ? (side == .first ? .second : .first) : nil
            state = upgrades ? .tunnel : .answering
            return AttemptDecision(.answer(side, abandons: abandoned), .course)
        case .deadline:
            guard isOpen else { break }
            return giveUp(.deadline, .deadline)
        }
        return AttemptDecision(.nothing, .notNow)
    }

    private mutating func chosen() -> AttemptDecision {
        switch state {
        case .unasked, .held:
            state = .asked
            tries += 1
            return AttemptDecision(.send(hedges: tries == 1 && rules.isBare && rules.hedge != nil), .course)
        case .asked:
            state = .hedged
            tries += 1
            return AttemptDecision(.send(hedges: false), .course)
        case .idle, .hedged, .answering, .tunnel: return AttemptDecision(.nothing, .notNow)
        }
    }

    private mutating func foundNone(_ vacancy: Vacancy) -> AttemptDecision {
        switch state {
        case .unasked:
            // Whoever was asked and failed is the reason, whatever became of the others meanwhile.
            if tries > 0 { return giveUp(lastFailure.map(GaveUp.failed) ?? .noReplica, .vacancy(vacancy)) }
            switch vacancy {
            case .mayWait:
                state = .held
                return AttemptDecision(.hold, .vacancy(vacancy))
            case .full: return giveUp(.full, .vacancy(vacancy))
            case .none: return giveUp(.noReplica, .vacancy(vacancy))
            }
        case .held:
            // A reload may have taken the waiting away while there was nobody.
            return vacancy == .none ? giveUp(.noReplica, .vacancy(vacancy)) : AttemptDecision(.nothing, .vacancy(vacancy))
        // There is nobody for a hedge; the first one is still asked.
        case .asked: return AttemptDecision(.nothing, .noOther)
        case .idle, .hedged, .answering, .tunnel: return AttemptDecision(.nothing, .notNow)
        }
    }

    private mutating func hedgeTime(others: Bool, _ now: MonotonicTime, _ budget: inout RetryBudget) -> AttemptDecision {
        guard state == .asked, rules.isBare, rules.hedge != nil else { return AttemptDecision(.nothing, .notNow) }
        if isLate(now) { return AttemptDecision(.nothing, .deadline) }
        if !rules.isIdempotent { return AttemptDecision(.nothing, .notIdempotent) }
        if !keepsBody { return AttemptDecision(.nothing, .bodyGone) }
        if !others { return AttemptDecision(.nothing, .noOther) }
        return budget.tryRetry(now) ? AttemptDecision(.hedge, .course) : AttemptDecision(.nothing, .budgetSpent)
    }

    private mutating func failed(
        _ side: AttemptSide, _ failure: TryFailure, _ now: MonotonicTime, _ budget: inout RetryBudget
    ) -> AttemptDecision {
        switch state {
        case .tunnel: return AttemptDecision(.endTunnel, .course)
        case .answering:
            lastFailure = failure
            return AttemptDecision(.breakOff, .verdict(.responseBegun))
        case .hedged:
            lastFailure = failure
            state = .asked
            return AttemptDecision(.nothing, .otherStillAsked)
        case .asked where side == .first:
            lastFailure = failure
            let verdict = rules.retry.verdict(
                failure, tries: tries, isIdempotent: rules.isIdempotent, bodyIsHere: keepsBody, isLate: isLate(now)
            ) { budget.tryRetry(now) }
            switch verdict {
            case .retry:
                state = .unasked
                return AttemptDecision(.retry, .verdict(verdict))
            case .deadlinePassed: return giveUp(.deadline, .verdict(verdict))
            default: return giveUp(.failed(failure), .verdict(verdict))
            }
        case .idle, .unasked, .held, .asked: return AttemptDecision(.nothing, .notNow)
        }
    }

    private func isLate(_ now: MonotonicTime) -> Bool { rules.deadline.map { $0 <= now } ?? false }

    private mutating func giveUp(_ why: GaveUp, _ reason: AttemptReason) -> AttemptDecision {
        state = .answering
        return AttemptDecision(.giveUp(why), reason)
    }
}
