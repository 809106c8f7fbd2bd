import Basics

/// A circuit breaker: closed, open after `failures` in a row, half-open after `recovery` (one trial at a time), closed again after
/// `successes` trials. The default of `failures` is document 002's `CIRCUIT_FAILURE_THRESHOLD=5`. The recovery is ten seconds in place of
/// its sixty, because the breaker guards a queue here that can wait but should not.
///
/// Pure: time comes in as a value. Each change returns the reason for it.
public struct Breaker: Sendable {
    public enum State: String, Sendable { case closed, halfOpen = "half_open", open }

    public let subject: String
    public let failures: Int
    public let recovery: Duration
    public let successes: Int
    public private(set) var state = State.closed
    private var failed = 0
    private var succeeded = 0
    private var opened = MonotonicTime(nanoseconds: 0)
    private var isTrying = false
    /// The number of the latest trial; 0 before the first one.
    public private(set) var trial = 0

    public init(subject: String, failures: Int = 5, recovery: Duration = .seconds(10), successes: Int = 1) {
        self.subject = subject
        self.failures = max(failures, 1)
        self.recovery = recovery
        self.successes = max(successes, 1)
    }

    /// Whether a try may be made now. In half-open state this takes the one trial; `success` or `failure` gives it back.
    public mutating func allows(_ now: MonotonicTime) -> Bool {
        switch state {
        case .closed: return true
        case .open:
            guard now - opened >= recovery else { return false }
            state = .halfOpen
            succeeded = 0
            return beginTrial()
        case .halfOpen:
            return isTrying ? false : beginTrial()
        }
    }

    /// How long until a try may be made; zero when it may.
    public func wait(_ now: MonotonicTime) -> Duration { state == .open ? max(recovery - (now - opened), .zero) : .zero }

    private mutating func beginTrial() -> Bool {
        isTrying = true
        trial += 1
        return true
    }

    /// Gives the trial back when there was nothing to try with.
    public mutating func untried() { isTrying = false }

    /// Gives the trial of this number back: its request was never judged, or waits for something other than what is tried. Nothing happens
    /// when another trial is under way now.
    public mutating func untried(_ number: Int) { if number == trial { isTrying = false } }

    @discardableResult
    public mutating func success() -> Decision<State>? {
        isTrying = false
        failed = 0
        guard state == .halfOpen else { return nil }
        succeeded += 1
        guard succeeded >= successes else { return nil }
        return change(
            to: .closed, inputs: [.init("successes_in_a_row", succeeded)], because: "\(subject) answers again",
            flip: "\(failures) failures in a row")
    }

    @discardableResult
    public mutating func failure(_ now: MonotonicTime, reason: String) -> Decision<State>? {
        isTrying = false
        failed += 1
        guard state == .halfOpen || state == .closed && failed >= failures else { return nil }
        opened = now
        return change(
            to: .open, inputs: [.init("failures_in_a_row", failed), .init("last", reason)],
            because:
                "\(subject) failed \(failed) times in a row (\(reason)); it is tried again in \(recovery.brief)",
            flip: "one success before the \(failures)th failure")
    }

    private mutating func change(to new: State, inputs: [DecisionRecord.Input], because sentence: String, flip: String) -> Decision<State> {
        let before = state
        state = new
        return Decision(
            new,
            because: DecisionRecord(
                .breaker, subject: subject, inputs: inputs, raw: before.rawValue, outcome: new.rawValue, sentence: sentence + ".",
                flip: flip))
    }
}
