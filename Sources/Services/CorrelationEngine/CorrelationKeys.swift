import Sharding

/// How correlations are laid out in Redis.
///
/// One shard, which is what a single Redis has: document 000's keys as they are written there. `corr:<id>` is the correlation's text,
/// `corr:trace:<trace id>` (or `corr:window:<digest>`) its state, `corr:time_index` every id, scored by the time of its last change in
/// milliseconds (`ZCARD` counts correlations).
///
/// Several shards, for a cluster: all keys of a shard have one hash tag (`corr:{7}:time_index`), so that they lie in one slot, and every
/// script works on one shard. A trace's shard follows from its id alone. The tags are chosen so that the shards' slots lie evenly over all
/// slots: each master of a cluster gets its part.
struct CorrelationKeys: Sendable {
    let prefix: String
    let shards: Int
    private let tags: [String]

    /// Shards in a cluster, when nothing else is said: as many for each of 2, 3, 4, 6, 8 or 12 masters. Another number is another layout:
    /// what was stored under the old one is not found.
    static let clusterShards = 24

    init(prefix: String, shards: Int = 1) {
        self.prefix = prefix
        self.shards = shards
        tags = shards == 1 ? [] : CorrelationKeys.tags(shards)
    }

    /// For each equal part of the slots, the smallest number whose slot lies in it.
    private static func tags(_ count: Int) -> [String] {
        var tags = [String?](repeating: nil, count: count)
        var missing = count, number = 0
        while missing > 0 {
            let part = HashSlot.of(String(number)) * count / HashSlot.count
            if tags[part] == nil {
                tags[part] = String(number)
                missing -= 1
            }
            number += 1
        }
        return tags.map { $0! }
    }

    func shard(of key: CorrelationKey) -> Int { shards == 1 ? 0 : Int(hash64(key.id) % UInt64(shards)) }

    /// What every key of a shard begins with; ids follow it directly.
    func base(_ shard: Int) -> String { shards == 1 ? prefix : "\(prefix){\(tags[shard])}:" }

    func text(_ key: CorrelationKey) -> String { base(shard(of: key)) + key.id }
    func state(_ key: CorrelationKey) -> String {
        let name = key.id.dropFirst(2)
        return if case .window = key { "\(base(shard(of: key)))window:\(name)" } else { "\(base(shard(of: key)))trace:\(name)" }
    }

    func index(_ shard: Int) -> String { base(shard) + "time_index" }
    func ledger(_ shard: Int) -> String { base(shard) + "ledger" }
    /// Up to this time of change, everything is complete.
    func cursor(_ shard: Int) -> String { base(shard) + "cursor" }
    /// Ids whose root has come, by when it came.
    func rooted(_ shard: Int) -> String { base(shard) + "rooted" }
    func turn(_ shard: Int) -> String { base(shard) + "settler" }
    func emissions(_ shard: Int) -> String { base(shard) + "emitted" }
    func queue(_ target: ExportTarget, _ shard: Int) -> String { "\(base(shard))export:\(target.rawValue)" }
    func taken(_ target: ExportTarget, _ shard: Int) -> String { queue(target, shard) + ":taken" }
    func dropped(_ target: ExportTarget, _ shard: Int) -> String { queue(target, shard) + ":dropped" }
}
