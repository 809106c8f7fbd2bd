/// The result of a deciding function, together with the reason for it.
///
/// The record is what `muster why`, the admin page, the log and `muster replay` read; nobody writes a second
/// explanation by hand.
public struct Decision<Result: Sendable>: Sendable {
    public let result: Result
    public let record: DecisionRecord

    public init(_ result: Result, because record: DecisionRecord) {
        self.result = result
        self.record = record
    }
}

/// The reason of one decision, independent of the type of its result. Field names are the JSON's
/// (see the contract of `muster why --json`).
public struct DecisionRecord: Sendable, Equatable {
    public enum Kind: String, Sendable, CaseIterable {
        case scale, route, eject, breaker, limit, failover, retry, restart, roll, resources, store, fence, relax, cache, certificate
    }

    /// A limit that was applied to the raw result, in its turn.
    public struct Constraint: Sendable, Equatable {
        public let name: String
        public let before: String
        public let after: String
        public let reason: String

        public init(_ name: String, before: String, after: String, reason: String) {
            self.name = name
            self.before = before
            self.after = after
            self.reason = reason
        }
    }

    public struct Input: Sendable, Equatable {
        public let name: String
        public let value: String

        public init(_ name: String, _ value: some CustomStringConvertible) {
            self.name = name
            self.value = value.description
        }
    }

    public let kind: Kind
    /// The subject of the decision: a service, or `service/replica`.
    public let subject: String
    public let inputs: [Input]
    /// The result before any constraint.
    public let raw: String
    public let constraints: [Constraint]
    public let outcome: String
    /// The reason in one sentence, for a person.
    public let sentence: String
    /// The change that would have led to another outcome.
    public let flip: String

    public init(
        _ kind: Kind, subject: String, inputs: [Input] = [], raw: String, constraints: [Constraint] = [],
        outcome: String, sentence: String, flip: String
    ) {
        self.kind = kind
        self.subject = subject
        self.inputs = inputs
        self.raw = raw
        self.constraints = constraints
        self.outcome = outcome
        self.sentence = sentence
        self.flip = flip
    }
}
