import Sharding

/// Tells where a command's keys stand, and whether it only reads. A command that is not in the table is taken to write, with its key as
/// first argument.
enum CommandTable {
    /// Positions count the words of the name too: the key of `GET k` is at 1.
    enum Keys {
        case none
        /// `last` counts from the end when it is negative: -1 is the last argument.
        case at(Int, Int, Int)
        /// The number of keys stands there, and they follow it.
        case counted(Int)
        /// Half of what follows STREAMS.
        case streams
    }

    /// Where a command goes.
    enum Target: Equatable {
        case any
        case slot(Int)
        /// Its keys do not lie together: the first one, and the first that lies elsewhere.
        case split(String, String)
    }

    private static let first = Keys.at(1, 1, 1)

    private static let reads: [String: Keys] = {
        var table: [String: Keys] = [:]
        for name in """
        BITCOUNT BITFIELD_RO BITPOS DUMP EXPIRETIME GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GET GETBIT GETRANGE HEXISTS
        HGET HGETALL HKEYS HLEN HMGET HRANDFIELD HSCAN HSTRLEN HVALS LINDEX LLEN LPOS LRANGE PEXPIRETIME PTTL SCARD SISMEMBER SMEMBERS SMISMEMBER
        SORT_RO SRANDMEMBER SSCAN STRLEN SUBSTR TTL TYPE XLEN XPENDING XRANGE XREVRANGE ZCARD ZCOUNT ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE ZRANGEBYLEX
        ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE
        """.split(whereSeparator: \.isWhitespace) { table[String(name)] = first }
        for name in ["MGET", "EXISTS", "SINTER", "SUNION", "SDIFF", "PFCOUNT", "TOUCH"] { table[name] = .at(1, -1, 1) }
        for name in ["ZINTER", "ZUNION", "ZDIFF", "ZINTERCARD", "SINTERCARD"] { table[name] = .counted(1) }
        for name in ["EVAL_RO", "EVALSHA_RO", "FCALL_RO"] { table[name] = .counted(2) }
        for name in ["OBJECT", "MEMORY"] { table[name] = .at(2, 2, 1) }
        for name in ["PING", "ECHO", "INFO", "TIME", "DBSIZE", "ROLE", "COMMAND", "LASTSAVE", "RANDOMKEY", "KEYS", "SCAN", "LOLWUT"] {
            table[name] = Keys.none
        }
        table["XREAD"] = .streams
        table["LCS"] = .at(1, 2, 1)
        return table
    }()

    private static let writes: [String: Keys] = {
        var table: [String: Keys] = [:]
        for name in ["DEL", "UNLINK", "SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE", "PFMERGE"] { table[name] = .at(1, -1, 1) }
        for name in ["BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX"] { table[name] = .at(1, -2, 1) }
        for name in ["MSET", "MSETNX"] { table[name] = .at(1, -1, 2) }
        for name in ["RENAME", "RENAMENX", "COPY", "SMOVE", "LMOVE", "BLMOVE", "RPOPLPUSH", "BRPOPLPUSH", "GEOSEARCHSTORE", "ZRANGESTORE"] {
            table[name] = .at(1, 2, 1)
        }
        for name in ["EVAL", "EVALSHA", "FCALL"] { table[name] = .counted(2) }
        for name in ["LMPOP", "ZMPOP"] { table[name] = .counted(1) }
        for name in ["BLMPOP", "BZMPOP"] { table[name] = .counted(2) }
        for name in ["XGROUP", "XINFO"] { table[name] = .at(2, 2, 1) }
        table["BITOP"] = .at(2, -1, 1)
        table["XREADGROUP"] = .streams
        for name in """
        ACL AUTH BGREWRITEAOF BGSAVE CLIENT CLUSTER CONFIG DEBUG DISCARD EXEC FAILOVER FLUSHALL FLUSHDB FUNCTION HELLO LATENCY MODULE MONITOR MULTI PSUBSCRIBE
        PUBLISH PUBSUB PUNSUBSCRIBE QUIT READONLY READWRITE REPLICAOF RESET SAVE SCRIPT SELECT SHUTDOWN SLOWLOG SUBSCRIBE SWAPDB UNSUBSCRIBE UNWATCH WAIT
        """.split(whereSeparator: \.isWhitespace) { table[String(name)] = Keys.none }
        return table
    }()

    /// Whether the command only reads: carrying it out a second time changes nothing.
    static func isRead(_ command: RedisCommand) -> Bool { reads[word(command.name)] != nil }

    private static func word(_ name: String) -> String {
        let first = name.utf8.contains(32) ? String(name.prefix { $0 != " " }) : name
        return first.utf8.contains { $0 > 96 } ? first.uppercased() : first
    }

    /// - Complexity: linear in the arguments up to the last key.
    static func target(of command: RedisCommand) -> Target {
        if let key = command.routingKey { return .slot(HashSlot.of(key)) }
        let name = word(command.name)
        let keys = reads[name] ?? writes[name] ?? first
        var from = 1, to = 0, step = 1
        switch keys {
        case .none: return .any
        case .at(let first, let last, let each): (from, to, step) = (first, last < 0 ? command.count + last : last, each)
        case .counted(let place): (from, to) = (place + 1, place + number(command, place))
        case .streams:
            guard let start = position(command, of: "STREAMS") else { return .any }
            (from, to) = (start + 1, start + (command.count - 1 - start) / 2)
        }
        return target(of: command, from: from, to: min(to, command.count - 1), step: step)
    }

    private static func target(of command: RedisCommand, from: Int, to: Int, step: Int) -> Target {
        guard from <= to else { return .any }
        var slot = -1
        var first = "", other: String?
        command.forEachArgument { i, argument in
            guard i >= from, (i - from) % step == 0 else { return true }
            let its = HashSlot.of(argument)
            if slot < 0 {
                slot = its
                if from + step <= to { first = text(argument) }
            } else if its != slot {
                other = text(argument)
            }
            return i < to && other == nil
        }
        return other.map { .split(first, $0) } ?? .slot(slot)
    }

    private static func number(_ command: RedisCommand, _ place: Int) -> Int {
        var value = 0
        command.forEachArgument { i, argument in
            if i == place { value = Int(text(argument)) ?? 0 }
            return i < place
        }
        return max(0, min(value, command.count))
    }

    private static func position(_ command: RedisCommand, of word: String) -> Int? {
        var found: Int?
        command.forEachArgument { i, argument in
            if i > 0, argument.count == word.utf8.count, text(argument).uppercased() == word { found = i }
            return found == nil
        }
        return found
    }

    private static func text(_ bytes: Span<UInt8>) -> String {
        bytes.withUnsafeBufferPointer { String(decoding: $0.prefix(64), as: UTF8.self) }
    }
}
