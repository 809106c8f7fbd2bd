import Basics

/// One replica as the autoscaler sees it at a moment; in Kubernetes' words, a pod.
public struct ReplicaState: Sendable, Equatable {
    public enum Phase: Sendable, Equatable {
        case pending, running, succeeded, failed, unknown
    }

    public enum Readiness: Sendable, Equatable {
        case yes, no, unknown
    }

    /// Names the replica in samples; unique among the replicas of one observation.
    public var id: Int
    public var phase: Phase
    /// Whether the replica is on its way out: it is then neither capacity nor load.
    public var isLeaving: Bool
    /// Whether the replica is ready; nil: nobody has said yet.
    public var ready: Readiness?
    /// The time of the start; nil: not started.
    public var startedAt: MonotonicTime?
    /// The time at which `ready` last changed; nil: before anyone can remember.
    public var readyChangedAt: MonotonicTime?

    public init(
        id: Int, phase: Phase = .running, isLeaving: Bool = false, ready: Readiness? = .yes, startedAt: MonotonicTime?,
        readyChangedAt: MonotonicTime?
    ) {
        self.id = id
        self.phase = phase
        self.isLeaving = isLeaving
        self.ready = ready
        self.startedAt = startedAt
        self.readyChangedAt = readyChangedAt
    }
}
