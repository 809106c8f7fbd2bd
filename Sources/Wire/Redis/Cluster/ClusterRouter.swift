import Basics
import EventLoops
import Sharding

/// Brings each command to the master of its slot, or to a replica where the command allows it.
final class ClusterRouter: FailoverRouter {
    private let seeds: [Endpoint]
    private var map = SlotMap()
    /// The pools of `map.shards`' masters, so that a command's way needs no look-up by address.
    private var masters: [RedisNode] = []
    private var random = SeededRandom(seed: UInt64(MonotonicTime.now.nanoseconds))
    private lazy var replicas = ReplicaReads(loop: loop, onMissing: { [unowned self] in doubt() }) { [unowned self] endpoint in
        var settings = settings
        settings.readsReplica = true
        return makeNode(endpoint, settings)
    }

    /// An answer to CLUSTER SLOTS that is later than this is not waited for.
    private static let questionTime = Duration.milliseconds(250)

    init(seeds: [Endpoint], loop: EventLoop, settings: RedisConnection.Settings, options: RedisClient.Options) {
        self.seeds = seeds
        super.init(loop: loop, settings: settings, options: options)
    }

    override func locate(_ attempt: Attempt) -> Place {
        let command = attempt.command
        switch CommandTable.target(of: command) {
        case .slot(let slot):
            guard let owner = map.owner(of: slot) else {
                return .nowhere(map.isEmpty ? "no node of the cluster answers" : "nobody serves slot \(slot)")
            }
            if let staleness = command.staleness, !attempt.wantsMaster,
                let node = replicas.node(of: map.shards[owner], master: masters[owner], atMost: staleness)
            {
                statistics.replicaReads += 1
                attempt.wantsMaster = true
                return .node(node)
            }
            return .node(masters[owner])
        case .any:
            guard let node = masters.randomElement(using: &random) else { return .nowhere("no node of the cluster answers") }
            return .node(node.isAway ? masters.first { !$0.isAway } ?? node : node)
        case .split(let a, let b):
            let message =
                "\(command.name): '\(a)' is in slot \(HashSlot.of(a)) and '\(b)' in \(HashSlot.of(b)); keys of one command need one hash "
                + "tag, such as {user:1}:a and {user:1}:b"
            return .refused(RedisError(.crossSlot, .notExecuted, place: place, message: message))
        }
    }

    override func moved(_ error: RedisError, _ from: RedisNode) -> RedisNode? {
        guard let (slot, to) = SlotMap.redirection(error.message, asked: from.endpoint) else { return nil }
        if error.serverCode == "MOVED" {
            map.move(slot, to: to)
            masters = map.shards.map { node($0.master) }
        }
        return node(to)
    }

    override func endpoint(slot: Int?) -> Endpoint? {
        if let slot { return map.shard(of: slot)?.master }
        return masters.filter { !$0.isAway }.randomElement(using: &random)?.endpoint
    }

    // MARK: asking

    /// The nodes to ask, the likeliest first: replicas of a master that does not answer know first who follows it.
    private func candidates() -> [RedisNode] {
        let lost = map.shards.filter { nodes[$0.master].map(isSilent) ?? false }
        let heirs = lost.flatMap(\.replicas).shuffled(using: &random)
        let others = (map.shards.flatMap { [$0.master] + $0.replicas }).shuffled(using: &random)
        var seen: Set<Endpoint> = [], list: [RedisNode] = []
        for endpoint in heirs + others + seeds where seen.insert(endpoint).inserted { list.append(node(endpoint)) }
        // Those that do not answer come last; they are tried all the same.
        return list.filter { !isSilent($0) } + list.filter(isSilent)
    }

    private func isSilent(_ node: RedisNode) -> Bool { node.isAway || node.age > FailoverRouter.suspectAfter }

    override func ask(_ done: @escaping (RedisError?) -> Void) {
        ask(candidates()[...], RedisError(.unavailable, .notExecuted, place: place, message: "no node is known"), done)
    }

    private func ask(_ candidates: ArraySlice<RedisNode>, _ failure: RedisError, _ done: @escaping (RedisError?) -> Void) {
        guard let node = candidates.first else { return done(failure) }
        var isOver = false
        func end(_ reply: Result<RESPValue, RedisError>) {
            if isOver { return }
            isOver = true
            do {
                try take(try SlotMap(try reply.get(), asked: node.endpoint))
                done(nil)
            } catch {
                let reason = (error as? SlotMap.Failure)?.reason
                let failed =
                    error as? RedisError
                    ?? RedisError(.malformed, .notExecuted, place: node.endpoint.description, message: reason ?? "\(error)")
                // One that names the password says more than one that is away.
                ask(candidates.dropFirst(), failure.code == .authentication ? failure : failed, done)
            }
        }
        if node.isAway { node.connectNext() }
        let limit = LoopTimer(loop: loop) {
            end(.failure(RedisError(.timeout, .answered, place: node.endpoint.description, message: "no answer to CLUSTER SLOTS")))
        }
        limit.schedule(after: ClusterRouter.questionTime)
        node.submit(RedisCommand("CLUSTER SLOTS")) { reply in
            limit.cancel()
            end(reply)
        }
    }

    private func take(_ new: SlotMap) throws(SlotMap.Failure) {
        // A node that was just started, or was made to forget, knows nobody.
        guard !new.isEmpty else { throw SlotMap.Failure(reason: "it serves no slots: it belongs to no cluster yet") }
        if new != map {
            statistics.changes += 1
            map = new
            masters = map.shards.map { node($0.master) }
        }
        var members = Set(seeds)
        for shard in map.shards { members.formUnion([shard.master] + shard.replicas) }
        keep(masters: Set(map.shards.map(\.master)), members: members)
        replicas.keep(members)
        set(.connected)
    }

    override func close() {
        super.close()
        replicas.close()
    }
}
