import Basics
import EventLoops
import Sharding

/// Decides which replicas may answer a read: only those of which it is known how old their data is.
///
/// How old: master and replicas are asked for their replication offsets, every `interval` while such reads come. A replica that has the
/// offset which the master had at a time has all that the master had acknowledged by then.
final class ReplicaReads {
    /// Interval of the questions for offsets. Bounds on the age of data below twice this are hardly ever met.
    static let interval = Duration.milliseconds(200)
    /// When nobody has read from replicas for this long, their offsets are not asked for.
    private static let rest = Duration.seconds(5)

    private final class Follower {
        let node: RedisNode
        var lag = ReplicaLag()
        init(_ node: RedisNode) { self.node = node }
    }

    private final class Group {
        let shard: SlotMap.Shard
        let master: RedisNode
        var followers: [Follower]
        var history = MasterOffsets()
        var usedAt: MonotonicTime
        var turn = 0

        init(_ shard: SlotMap.Shard, _ master: RedisNode, _ followers: [Follower], now: MonotonicTime) {
            self.shard = shard
            self.master = master
            self.followers = followers
            usedAt = now
        }
    }

    private let loop: EventLoop
    private let make: (Endpoint) -> RedisNode
    private var nodes: [Endpoint: RedisNode] = [:]
    private var groups: [Endpoint: Group] = [:]
    private var timer: LoopTimer?
    private var missedAt = MonotonicTime(nanoseconds: 0)
    /// Called at most once a second: a node names its replicas only once it has heard how far they are, and no error tells of new ones.
    private let onMissing: () -> Void

    init(loop: EventLoop, onMissing: @escaping () -> Void, make: @escaping (Endpoint) -> RedisNode) {
        self.loop = loop
        self.onMissing = onMissing
        self.make = make
    }

    /// Picks a replica of the shard whose data is at most so old; each in turn. nil: no replica is known to be so.
    func node(of shard: SlotMap.Shard, master: RedisNode, atMost staleness: Duration) -> RedisNode? {
        if let found = find(shard, master, staleness) { return found }
        if loop.now - missedAt > .seconds(1) {
            missedAt = loop.now
            onMissing()
        }
        return nil
    }

    private func find(_ shard: SlotMap.Shard, _ master: RedisNode, _ staleness: Duration) -> RedisNode? {
        if shard.replicas.isEmpty { return nil }
        let group: Group
        if let known = groups[shard.master], known.shard == shard {
            group = known
        } else {
            group = Group(shard, master, shard.replicas.map { Follower(node($0)) }, now: loop.now)
            groups[shard.master] = group
        }
        group.usedAt = loop.now
        if timer == nil { timer = LoopTimer(loop: loop) { [weak self] in self?.measure() } }
        if timer?.isArmed == false { timer?.schedule(after: .zero) }
        for _ in group.followers {
            group.turn = (group.turn + 1) % group.followers.count
            let follower = group.followers[group.turn]
            if let age = follower.lag.age(now: loop.now, history: group.history), age <= staleness, follower.node.isReady {
                return follower.node
            }
        }
        return nil
    }

    private func node(_ endpoint: Endpoint) -> RedisNode {
        if let known = nodes[endpoint] { return known }
        let node = make(endpoint)
        nodes[endpoint] = node
        return node
    }

    private func measure() {
        groups = groups.filter { loop.now - $0.value.usedAt < ReplicaReads.rest }
        if groups.isEmpty { return }
        for group in groups.values {
            let asked = MonotonicTime.now
            group.master.submit(RedisCommand("INFO", "replication")) { reply in
                guard let info = try? reply.get().string.map(ReplicationInfo.init), info.isMaster, let offset = info.offset else { return }
                group.history.add(offset: offset, at: asked)
            }
            for follower in group.followers {
                follower.node.submit(RedisCommand("INFO", "replication")) { reply in
                    // A replica without its master goes on being as old as its data is; of one without a whole copy no age is known.
                    guard let info = try? reply.get().string.map(ReplicationInfo.init), !info.isMaster else { return }
                    follower.lag.offset = info.offset
                }
            }
        }
        timer?.schedule(after: ReplicaReads.interval)
    }

    func keep(_ members: Set<Endpoint>) {
        for (endpoint, node) in nodes where !members.contains(endpoint) && node.depth == 0 {
            nodes[endpoint] = nil
            node.close()
        }
    }

    func close() {
        timer?.cancel()
        for node in nodes.values { node.close() }
    }
}

/// The times at which a master had which offset.
struct MasterOffsets {
    private var samples: [(time: MonotonicTime, offset: Int)] = []
    /// Most samples: at one each 200 ms, twelve seconds.
    private static let limit = 64

    /// `at`: before the question was sent, so that the offset was at least reached later.
    mutating func add(offset: Int, at time: MonotonicTime) {
        // Another master, or a flushed one: what was known says nothing.
        if let last = samples.last, offset < last.offset { samples = [] }
        if samples.count == MasterOffsets.limit { samples.removeFirst() }
        samples.append((time, offset))
    }

    /// The latest time up to which a replica with this offset has everything.
    func reached(_ offset: Int) -> MonotonicTime? { samples.last { $0.offset <= offset }?.time }
}

struct ReplicaLag {
    var offset: Int?

    /// How old its data is at most; nil: not known.
    func age(now: MonotonicTime, history: MasterOffsets) -> Duration? { offset.flatMap { history.reached($0) }.map { now - $0 } }
}

/// What INFO replication says of a node.
struct ReplicationInfo {
    let isMaster: Bool
    /// The master's position in its own stream, or the position up to which a replica has a whole copy; nil: not told, or there is none.
    let offset: Int?

    init(_ text: String) {
        let lines = text.split(whereSeparator: \.isNewline)
        isMaster = lines.contains("role:master")
        offset =
            isMaster
            ? lines.first { $0.hasPrefix("master_repl_offset:") }.flatMap { Int($0.dropFirst(19)) } : ReplicaCopy(info: text).offset
    }
}
