import Basics

/// What happened to one try, as far as it matters for trying again.
public enum TryFailure: String, Sendable, CaseIterable {
    /// The connection was refused, or reset before anything of the request left.
    case notSent = "not_sent"
    /// This process had no descriptor, port or memory for the connection: nothing was sent, and the replica has no part in it.
    case shortage
    case connectTimeout = "connect_timeout"
    /// The replica did not show that it is who it should be, or refused us, in the TLS handshake: nothing of the request left.
    case tlsFailed = "tls_failed"
    /// Something was sent; no byte of a response came.
    case noResponse = "no_response"
    /// The response took too long to begin.
    case responseTimeout = "response_timeout"
    /// A response began and was not finished, or broke the rules of HTTP.
    case brokenResponse = "broken_response"

    /// Whether the replica may have read some of the request, and so may have acted on it.
    public var mayHaveActed: Bool {
        switch self {
        case .notSent, .shortage, .connectTimeout, .tlsFailed: false
        case .noResponse, .responseTimeout, .brokenResponse: true
        }
    }
}

/// Decides whether a failed try may be followed by another one.
///
/// Rules: after the request's own deadline, never; when nothing was sent, always; when something was sent and no response came, only for an
/// idempotent request (its method, an Idempotency-Key, or a route that declares itself idempotent) whose body is still here; once a
/// response has begun, never. A response of the backend, whatever its status, is an answer and not a failure.
public struct RetryPolicy: Sendable, Equatable {
    /// The most tries of one request, the first one included: 1 to 8.
    public let attempts: Int

    public init(attempts: Int) { self.attempts = min(max(attempts, 1), 8) }

    public enum Verdict: String, Sendable {
        case retry
        case attemptsUsed = "attempts_used"
        case notIdempotent = "not_idempotent"
        case bodyGone = "body_gone"
        case responseBegun = "response_begun"
        case budgetSpent = "budget_spent"
        /// The request's own time was over: an answer to another try would come too late.
        case deadlinePassed = "deadline_passed"
    }

    /// `isLate`: whether the request's own time is over. `budget` is asked last, and only if everything else allows the retry.
    public func verdict(
        _ failure: TryFailure, tries: Int, isIdempotent: Bool, bodyIsHere: Bool, isLate: Bool = false, budget: () -> Bool
    ) -> Verdict {
        if failure == .brokenResponse { return .responseBegun }
        if isLate { return .deadlinePassed }
        if tries >= attempts { return .attemptsUsed }
        if failure.mayHaveActed, !isIdempotent { return .notIdempotent }
        if !bodyIsHere { return .bodyGone }
        return budget() ? .retry : .budgetSpent
    }

    /// The verdict in full, for the journal.
    public func record(
        _ verdict: Verdict, _ failure: TryFailure, tries: Int, isIdempotent: Bool, subject: String, budget: [DecisionRecord.Input]
    ) -> DecisionRecord {
        let flips: [Verdict: String] = [
            .retry: "a response, or a request that may not be repeated", .attemptsUsed: "more than \(attempts) attempts on the route",
            .notIdempotent: "an idempotent method, an Idempotency-Key, or `idempotent: true` on the route",
            .bodyGone: "a body small enough to be kept", .responseBegun: "a failure before the response began",
            .budgetSpent: "fewer retries in the last ten seconds, or a larger budget",
            .deadlinePassed: "a failure before the request's deadline",
        ]
        return DecisionRecord(
            .retry, subject: subject,
            inputs: [
                .init("failure", failure.rawValue), .init("tries", tries), .init("attempts", attempts), .init("idempotent", isIdempotent),
            ] + budget,
            raw: failure == .brokenResponse ? "give up" : "retry", outcome: verdict.rawValue,
            sentence: verdict == .retry
                ? "A request that failed on \(subject) (\(failure.rawValue)) is tried on another replica."
                : "A request that failed on \(subject) (\(failure.rawValue)) is not tried again: \(verdict.rawValue).",
            flip: flips[verdict]!)
    }
}
