import Basics

/// How far a replica may be behind and still be read from, and how much of the primary reads may take.
public struct ReplicaLimits: Sendable, Equatable {
    /// `max-lag`: 5 s and 16 MiB.
    public let lag: Duration
    public let lagBytes: UInt64
    /// A replica that was not probed for so long is not known: 1 s.
    public let probed: Duration
    /// `primary-reads`: the share of the primary's pool that reads may take when no replica will do, in percent; 50.
    public let primaryReads: Int
    /// How long a read waits for a replica to reach its floor, and how often it looks: 50 ms and 5 ms.
    public let patience: Duration
    public let poll: Duration

    public init(
        lag: Duration = .seconds(5), lagBytes: UInt64 = 16 << 20, probed: Duration = .seconds(1), primaryReads: Int = 50,
        patience: Duration = .milliseconds(50), poll: Duration = .milliseconds(5)
    ) {
        self.lag = lag
        self.lagBytes = lagBytes
        self.probed = probed
        self.primaryReads = min(max(primaryReads, 0), 100)
        self.patience = patience
        self.poll = poll
    }
}

/// What a probe said of a replica.
public struct ReplicaState: Sendable, Equatable {
    public let name: String
    public let isStreaming: Bool
    public let timeline: UInt32
    public let received: LogPosition
    public let replayed: LogPosition
    /// The age of the last replayed commit at the time of the probe; nil: none was replayed since its start.
    public let lastCommit: Duration?
    public let probedAt: MonotonicTime
    public var outstanding: Int
    /// By failures of requests, like a replica of the gateway.
    public var isEjected: Bool

    public init(
        name: String, isStreaming: Bool, timeline: UInt32, received: LogPosition, replayed: LogPosition, lastCommit: Duration?,
        probedAt: MonotonicTime, outstanding: Int = 0, isEjected: Bool = false
    ) {
        self.name = name
        self.isStreaming = isStreaming
        self.timeline = timeline
        self.received = received
        self.replayed = replayed
        self.lastCommit = lastCommit
        self.probedAt = probedAt
        self.outstanding = outstanding
        self.isEjected = isEjected
    }

    /// How far behind in time: 0 when everything that it received is replayed and its receiver streams; else the age of the last replayed
    /// commit, which has grown since the probe. Nil: it cannot be told.
    public func lag(now: MonotonicTime) -> Duration? {
        if isStreaming, received <= replayed { return .zero }
        return lastCommit.map { max(.zero, $0.addingClamped(max(.zero, now - probedAt))) }
    }

    /// How far behind in bytes, against the primary's position.
    public func lagBytes(primary: LogPosition) -> UInt64 { primary.distance(from: replayed) }
}

/// Chooses where a read goes: the less loaded of two eligible replicas, by chance; else the primary as far as reads may take it.
///
/// - Complexity: O(replicas), no allocation but for the reason.
public struct ReplicaChoice: Sendable {
    public enum Place: Sendable, Equatable {
        /// The replica at this place of the list; how old its data may be goes into the histogram of staleness.
        case replica(Int, staleness: Duration)
        /// No replica has reached the floor: look again after `poll`.
        case wait(poll: Duration)
        case primary
        /// In line for either: reads have as much of the primary as they may.
        case line
    }

    /// Why a replica is not read from.
    public enum Unfit: String, Sendable, CaseIterable {
        case notStreaming = "it does not stream"
        case otherTimeline = "it is on another timeline than the primary"
        case notProbed = "it was not probed in time"
        case lagUnknown = "how far it is behind is not known"
        case lagging = "it is too far behind"
        case laggingBytes = "it is too many bytes behind"
        case ejected = "it is ejected"
        case belowFloor = "it has not replayed what the client wrote"
    }

    public let limits: ReplicaLimits

    public init(_ limits: ReplicaLimits = ReplicaLimits()) { self.limits = limits }

    /// Whether a replica is fit; nil: it is.
    public func unfit(_ replica: ReplicaState, primary: TimelinePlace, floor: LogPosition?, now: MonotonicTime) -> Unfit? {
        if !replica.isStreaming { return .notStreaming }
        if replica.timeline != primary.timeline { return .otherTimeline }
        if now - replica.probedAt > limits.probed { return .notProbed }
        guard let lag = replica.lag(now: now) else { return .lagUnknown }
        if lag > limits.lag { return .lagging }
        if replica.lagBytes(primary: primary.flushed) > limits.lagBytes { return .laggingBytes }
        if replica.isEjected { return .ejected }
        if let floor, replica.replayed < floor { return .belowFloor }
        return nil
    }

    /// - Parameters:
    ///   - floor: what the client's token asks for; nil: nothing.
    ///   - waited: how long this read has waited for its floor.
    ///   - primaryReads: reads that the primary has of this kind now, of a pool of `primaryPool` connections.
    public func choose(
        _ replicas: [ReplicaState], primary: TimelinePlace, floor: LogPosition?, waited: Duration, primaryReads: Int, primaryPool: Int,
        store: String, now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> Decision<Place> {
        var first: Int?, second: Int?, seen = 0
        var mayCatchUp = false
        // Two of the eligible, each pair as likely as any other: reservoir sampling.
        for (place, replica) in replicas.enumerated() {
            switch unfit(replica, primary: primary, floor: floor, now: now) {
            case nil: break
            case .belowFloor:
                mayCatchUp = true
                continue
            default: continue
            }
            seen += 1
            if first == nil {
                first = place
            } else if second == nil {
                second = place
            } else {
                let draw = Int.random(in: 0..<seen, using: &random)
                if draw == 0 { first = place } else if draw == 1 { second = place }
            }
        }
        if let one = first {
            var best = one
            if let two = second {
                let (a, b) = (replicas[one].outstanding, replicas[two].outstanding)
                best = a == b ? (Bool.random(using: &random) ? one : two) : a < b ? one : two
            }
            let staleness = replicas[best].lag(now: now) ?? .zero
            return decision(
                .replica(best, staleness: staleness), store, replicas, primary, floor, now,
                "\(replicas[best].name) is read: it is \(staleness.brief) behind and has \(replicas[best].outstanding) under way",
                flip: "fewer under way on another replica")
        }
        if mayCatchUp, waited < limits.patience {
            return decision(
                .wait(poll: limits.poll), store, replicas, primary, floor, now,
                "no replica has replayed what the client wrote: waiting, at most \(limits.patience.brief)", flip: "a replica that has it")
        }
        let most = primaryPool.multipliedClamped(by: limits.primaryReads) / 100
        if primaryReads < most {
            return decision(
                .primary, store, replicas, primary, floor, now,
                "no replica will do, and the primary is read: \(primaryReads) of at most \(most) reads are there",
                flip: "an eligible replica")
        }
        return decision(
            .line, store, replicas, primary, floor, now,
            "no replica will do, and the primary has \(primaryReads) reads of at most \(most): the read waits in line",
            flip: "an eligible replica, or a larger primary-reads")
    }

    private func decision(
        _ place: Place, _ store: String, _ replicas: [ReplicaState], _ primary: TimelinePlace, _ floor: LogPosition?, _ now: MonotonicTime,
        _ sentence: String, flip: String
    ) -> Decision<Place> {
        let states = replicas.map { replica in
            DecisionRecord.Input(replica.name, unfit(replica, primary: primary, floor: floor, now: now)?.rawValue ?? "it is eligible")
        }
        let outcome: String
        switch place {
        case .replica(let index, _): outcome = replicas[index].name
        case .wait: outcome = "wait"
        case .primary: outcome = "primary"
        case .line: outcome = "line"
        }
        return Decision(
            place,
            because: DecisionRecord(.route, subject: store, inputs: states, raw: outcome, outcome: outcome, sentence: sentence, flip: flip))
    }
}
