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
    /// It is on its way out: neither capacity nor load.
    public var isLeaving: Bool
    /// nil: nobody has said yet.
    public var ready: Readiness?
    /// nil: not started.
    public var startedAt: MonotonicTime?
    /// When `ready` last changed; nil: before anyone can remember.
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
