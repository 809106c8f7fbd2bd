import Basics

/// Decides which replicas' figures count: the sorting of Kubernetes' replica calculator (v1.36), in its order.
///
/// The first rule that matches wins. A replica on its way out or failed is ignored; a pending one is unready; one without a figure is
/// missing; for CPU, one too young to be believed is unready; any other is ready. Readiness is not looked at for other metrics, unless
/// `warmUp` asks for it.
public struct ReplicaGroups: Sendable {
    public struct Settings: Sendable, Equatable {
        /// CPU of a replica younger than this is not believed before a full window after it became ready.
        public var cpuInitialization: Duration
        /// A replica that became unready within this after its start was never ready.
        public var readinessDelay: Duration
        /// Ours: for every metric, a replica that became ready less than this ago (`>`) counts as coming, not as one that already shares
        /// the load. 0, as with Kubernetes: only CPU knows of starting.
        public var warmUp: Duration

        /// Defaults: kube-controller-manager's.
        public init(cpuInitialization: Duration = .seconds(300), readinessDelay: Duration = .seconds(30), warmUp: Duration = .zero) {
            self.cpuInitialization = cpuInitialization
            self.readinessDelay = readinessDelay
            self.warmUp = warmUp
        }
    }

    public enum Group: Sendable, Equatable { case ready, unready, missing, ignored }

    /// The group of each replica, in the order of the replicas.
    public private(set) var groups: [Group] = []
    public private(set) var readyCount = 0
    public private(set) var unreadyCount = 0
    public private(set) var missingCount = 0
    /// Samples that count: of ready replicas, and of replicas that nobody knows. With the index of the replica, nil for a stranger.
    var kept: [(replica: Int?, value: Int)] = []

    public init(_ replicas: [ReplicaState], samples: [MetricSample], isCPU: Bool, settings: Settings, now: MonotonicTime) {
        let own = ReplicaGroups.positions(of: samples, in: replicas) { kept.append((nil, $0)) }
        groups.reserveCapacity(replicas.count)
        kept.reserveCapacity(samples.count)
        for (index, replica) in replicas.enumerated() {
            let sample = own[index] < 0 ? nil : samples[own[index]]
            let group = ReplicaGroups.group(of: replica, sample, isCPU: isCPU, settings, now)
            groups.append(group)
            switch group {
            case .ready:
                readyCount += 1
                kept.append((index, sample!.value))
            case .unready: unreadyCount += 1
            case .missing: missingCount += 1
            case .ignored: break
            }
        }
    }

    /// For each replica the position of its sample, -1 where it has none; of two the later one in the list, as in a map. Values of replicas
    /// that nobody knows go to `stranger`. Where both lists rise by number, as they usually do, they are walked side by side: a dictionary
    /// of 10,000 replicas costs ten times as much.
    private static func positions(of samples: [MetricSample], in replicas: [ReplicaState], stranger: (Int) -> Void) -> [Int] {
        var own = [Int](repeating: -1, count: replicas.count)
        if rises(replicas, by: \.id), rises(samples, by: \.replica) {
            var index = 0
            for (position, sample) in samples.enumerated() {
                while index < replicas.count, replicas[index].id < sample.replica { index += 1 }
                if index < replicas.count, replicas[index].id == sample.replica { own[index] = position } else { stranger(sample.value) }
            }
            return own
        }
        var indices: [Int: Int] = Dictionary(minimumCapacity: replicas.count)
        for (index, replica) in replicas.enumerated() { indices[replica.id] = index }
        for (position, sample) in samples.enumerated() {
            if let index = indices[sample.replica] { own[index] = position } else { stranger(sample.value) }
        }
        return own
    }

    private static func rises<Element>(_ list: [Element], by number: (Element) -> Int) -> Bool {
        for index in list.indices.dropFirst() where number(list[index - 1]) >= number(list[index]) { return false }
        return true
    }

    private static func group(of replica: ReplicaState, _ sample: MetricSample?, isCPU: Bool, _ settings: Settings, _ now: MonotonicTime)
        -> Group
    {
        if replica.isLeaving || replica.phase == .failed { return .ignored }
        if replica.phase == .pending { return .unready }
        guard let sample else { return .missing }
        if isCPU, !isBelievable(replica, sample, settings, now) { return .unready }
        return isWarmingUp(replica, settings, now) ? .unready : .ready
    }

    /// Long ago, where nobody remembers.
    private static let dawn = MonotonicTime(nanoseconds: .min / 4)

    private static func isBelievable(_ replica: ReplicaState, _ sample: MetricSample, _ settings: Settings, _ now: MonotonicTime) -> Bool {
        guard let ready = replica.ready, let start = replica.startedAt else { return false }
        let changed = replica.readyChangedAt ?? dawn
        if start + settings.cpuInitialization > now { return ready != .no && sample.at >= changed + sample.window }
        return !(ready == .no && start + settings.readinessDelay > changed)
    }

    static func isWarmingUp(_ replica: ReplicaState, _ settings: Settings, _ now: MonotonicTime) -> Bool {
        guard settings.warmUp > .zero else { return false }
        return (replica.readyChangedAt ?? dawn) + settings.warmUp > now
    }
}
