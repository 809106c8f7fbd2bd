import Basics

/// Decides when a client asks again who serves what: only when something made it doubt, one question at a time, and never in step with
/// other clients.
///
/// The first question comes within `eager` of the doubt. While the doubt lasts, questions are `eager` apart for the first three seconds, in
/// which a cluster with a short node timeout has chosen another master, `steady` then, and `idle` after ten seconds, each with as much
/// again at random.
struct RefreshPace {
    static let eager = Duration.milliseconds(20)
    static let steady = Duration.milliseconds(50)
    static let idle = Duration.milliseconds(500)

    private enum State: Equatable {
        /// Leaves by `doubt`.
        case quiet
        /// A timer runs. Leaves by `asked`.
        case waiting
        /// A question is out. Leaves by `answered`.
        case asking
    }

    private var state = State.quiet
    private var doubtedAt: MonotonicTime?
    private var isDoubtful = false
    private var random: SeededRandom

    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    /// Notes that something was not as the map says. Returns how long to wait before asking; nil when a question is out or comes anyway.
    mutating func doubt(_ now: MonotonicTime) -> Duration? {
        if doubtedAt == nil { doubtedAt = now }
        switch state {
        case .quiet:
            state = .waiting
            return .nanoseconds(Int64.random(in: 0...RefreshPace.eager.nanoseconds, using: &random))
        case .waiting: return nil
        case .asking:
            isDoubtful = true
            return nil
        }
    }

    mutating func asked() { state = .asking }

    /// The question is answered, or given up. `isSettled`: nothing waits for another answer. Returns when to ask again.
    mutating func answered(_ now: MonotonicTime, isSettled: Bool) -> Duration? {
        if isSettled, !isDoubtful {
            state = .quiet
            doubtedAt = nil
            return nil
        }
        isDoubtful = false
        state = .waiting
        let since = now - (doubtedAt ?? now)
        let gap = since < .seconds(3) ? RefreshPace.eager : since < .seconds(10) ? RefreshPace.steady : RefreshPace.idle
        return gap + .nanoseconds(Int64.random(in: 0...gap.nanoseconds, using: &random))
    }
}
