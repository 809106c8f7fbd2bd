import Balancing
import Basics

/// A question to one replica.
struct Attempt {
    let upstream: Upstream
    let replica: Replica
    let selection: Selection
    /// Whether a second replica is asked when this one takes its time.
    let hedges: Bool
    /// When the whole request had been sent to this replica; zero: not yet.
    var sentWhole = MonotonicTime(nanoseconds: 0)
}

/// Who was asked for one request: the questions under way, and what explanations tell of the choice.
struct Questions {
    var first: Attempt?
    var second: Attempt?
    /// The replicas that were tried already.
    var tried = TriedSet()
    var selection: Selection?
    var lastReplica: Replica?
    /// The candidates when the choice was made: requests under way and state of each.
    private(set) var candidates: [UInt32] = []

    /// Forgets the request before. Its questions are over.
    mutating func reset() {
        tried = TriedSet()
        selection = nil
        lastReplica = nil
        candidates.removeAll(keepingCapacity: true)
    }

    mutating func noteCandidates(_ pool: PoolOnLoop) {
        candidates.removeAll(keepingCapacity: true)
        for candidate in pool.candidates.prefix(RecentRequests.candidateLimit) {
            let state: UInt32 = candidate.isLeaving ? 2 : candidate.isEligible ? (candidate.isFull ? 3 : 0) : 1
            candidates.append(UInt32(clamping: min(candidate.inFlight, 0xFFFF)) << 8 | state)
        }
    }

    /// Takes over whom another request chose, and from whom: what it brought is this one's answer.
    mutating func takeChoice(_ other: Questions) {
        selection = other.selection
        lastReplica = other.lastReplica
        candidates = other.candidates
    }

    /// Notes which of two replicas that were asked explanations name.
    mutating func noteAsked(_ attempt: Attempt?) {
        selection = attempt?.selection
        lastReplica = attempt?.replica
    }
}
