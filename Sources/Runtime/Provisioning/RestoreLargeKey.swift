import Basics
import Redis
import Sharding

/// Moves one large key in pieces, so that neither this process nor the target ever holds all of it in one command.
///
/// It grows under another name in the same slot, which expires by itself should nobody come back to it, and takes its own name and time at
/// the end: nobody sees half a key. What is begun again after a failure is begun from nothing, under the same name. Pieces: 4 MiB of a
/// string, and as many elements of a collection as have 1 MiB on average, at most 1,000. A stream has no pieces that keep its groups: it
/// goes as a whole.
struct RestoreLargeKey {
    enum Outcome { case restored, already, expired, conflict }

    /// Of a string, per command.
    static let piece = 4 << 20
    /// Of a collection's elements, per command, on average.
    static let elementBytes = 1 << 20
    static let elements = 1000
    /// What is left of one that nobody finished.
    private static let leftoverTime = 86_400_000
    private static let tries = 3

    private let key: RestoreKey
    private let source: ScratchServer
    private let target: RestoreTarget
    private let comparison: RestoreComparison
    private let replaces: Bool
    private let growing: String

    init(_ key: RestoreKey, _ source: ScratchServer, _ target: RestoreTarget, _ comparison: RestoreComparison, replaces: Bool) {
        self.key = key
        self.source = source
        self.target = target
        self.comparison = comparison
        self.replaces = replaces
        var digest = RDBChecksum()
        key.name.withUnsafeBytes { digest.add($0) }
        growing = "{\(RestoreLargeKey.tag(slot: HashSlot.of(key.name.span)))}:\(RestoreTarget.marker):\(String(digest.value, radix: 16))"
    }

    /// The first number whose slot it is; some ten thousand tries.
    static func tag(slot: Int) -> String {
        var n = 0
        while HashSlot.of(String(n)) != slot { n += 1 }
        return String(n)
    }

    private func command(_ name: String, _ key: [UInt8], _ more: String...) -> RedisCommand {
        var command = RedisCommand(name)
        command.add(key)
        for word in more { command.add(word) }
        return command
    }

    func move() async throws(ProvisioningFailure) -> Outcome {
        guard let type = try await source.ask(command("TYPE", key.name)).string, type != "none" else { return .expired }
        if !replaces, try await target.ask(command("EXISTS", key.name)).int == 1 { return try await compared() }
        var last: ProvisioningFailure?
        for _ in 0..<RestoreLargeKey.tries {
            do throws(ProvisioningFailure) {
                _ = try await target.ask(RedisCommand("UNLINK", growing).repeatable())
                guard try await grow(type) else { return try await whole() }
                return try await finish()
            } catch {
                // A master was replaced: what came of the last piece is not known.
                guard error.code == .unreachable else { throw error }
                last = error
            }
        }
        throw last!
    }

    private func compared() async throws(ProvisioningFailure) -> Outcome {
        switch try await comparison.compareLarge(key) {
        case .same: .already
        case .expired: .expired
        case .differs: .conflict
        }
    }

    /// False: no collection and no string.
    private func grow(_ type: String) async throws(ProvisioningFailure) -> Bool {
        switch type {
        case "string":
            let length = try await source.ask(command("STRLEN", key.name)).int ?? 0
            for at in stride(from: 0, to: length, by: RestoreLargeKey.piece) {
                let piece = try await source.ask(command("GETRANGE", key.name, String(at), String(at + RestoreLargeKey.piece - 1)))
                try await put(RedisCommand("SETRANGE", growing, String(at)), [piece], isFirst: at == 0)
            }
        case "list":
            let length = try await source.ask(command("LLEN", key.name)).int ?? 0
            let count = RestoreLargeKey.count(size: key.size, length: length)
            for at in stride(from: 0, to: length, by: count) {
                let piece = try await source.ask(command("LRANGE", key.name, String(at), String(at + count - 1)))
                try await put(RedisCommand("RPUSH", growing), piece.array ?? [], isFirst: at == 0)
            }
        case "hash": try await scan("HLEN", "HSCAN") { (RedisCommand("HSET", growing), $0) }
        case "set": try await scan("SCARD", "SSCAN") { (RedisCommand("SADD", growing), $0) }
        case "zset":
            try await scan("ZCARD", "ZSCAN") { pairs in
                (RedisCommand("ZADD", growing), stride(from: 0, to: pairs.count - 1, by: 2).flatMap { [pairs[$0 + 1], pairs[$0]] })
            }
        default: return false
        }
        return true
    }

    /// How many elements have about `elementBytes`.
    static func count(size: Int, length: Int) -> Int { max(1, min(elements, length.multipliedClamped(by: elementBytes) / max(1, size))) }

    private func scan(_ length: String, _ verb: String, _ write: ([RESPValue]) -> (RedisCommand, [RESPValue]))
        async throws(ProvisioningFailure)
    {
        let count = RestoreLargeKey.count(size: key.size, length: try await source.ask(command(length, key.name)).int ?? 0)
        var cursor = "0", isFirst = true
        repeat {
            let answer = try await source.ask(command(verb, key.name, cursor, "COUNT", String(count))).array ?? []
            guard answer.count == 2, let next = answer[0].string, let elements = answer[1].array else {
                throw ProvisioningFailure(.local, "the private redis-server: an answer to \(verb) that is not understood")
            }
            if !elements.isEmpty {
                let (command, arguments) = write(elements)
                try await put(command, arguments, isFirst: isFirst)
                isFirst = false
            }
            cursor = next
        } while cursor != "0"
    }

    private func put(_ command: RedisCommand, _ arguments: [RESPValue], isFirst: Bool) async throws(ProvisioningFailure) {
        if arguments.isEmpty { return }
        var command = command
        for argument in arguments { command.add(argument.bytes ?? Array((argument.string ?? "").utf8)) }
        _ = try await target.ask(command)
        if isFirst { _ = try await target.ask(RedisCommand("PEXPIRE", growing, String(RestoreLargeKey.leftoverTime)).repeatable()) }
    }

    private func finish() async throws(ProvisioningFailure) -> Outcome {
        if let expiry = key.expiry {
            if expiry <= Int(WallTime.now.milliseconds) {
                _ = try await target.ask(RedisCommand("UNLINK", growing).repeatable())
                return .expired
            }
            _ = try await target.ask(RedisCommand("PEXPIREAT", growing, String(expiry)).repeatable())
        } else {
            _ = try await target.ask(RedisCommand("PERSIST", growing).repeatable())
        }
        var rename = RedisCommand(replaces ? "RENAME" : "RENAMENX", growing)
        rename.add(key.name)
        // RENAME would free what stands there in one go.
        if replaces { _ = try await target.ask(command("UNLINK", key.name).repeatable()) }
        do throws(ProvisioningFailure) {
            let answer = try await target.ask(rename)
            if answer == .int(0) {
                _ = try await target.ask(RedisCommand("UNLINK", growing).repeatable())
                return try await compared()
            }
        } catch {
            guard error.message.contains("no such key"), let expiry = key.expiry, expiry <= Int(WallTime.now.milliseconds) else {
                throw error
            }
            return .expired
        }
        return .restored
    }

    /// A stream, or a module's type.
    private func whole() async throws(ProvisioningFailure) -> Outcome {
        guard key.size <= RESPParser.bulkLimit * 3 / 4 else {
            throw ProvisioningFailure(
                .refused,
                "'\(RestoreCounts.text(key.name))' takes \(ByteSize.text(key.size)) and has no pieces; at most "
                    + "\(ByteSize.text(RESPParser.bulkLimit * 3 / 4)) can be moved"
            )
        }
        guard let payload = try await source.ask(command("DUMP", key.name)).bytes else { return .expired }
        var restore = command("RESTORE", key.name, String(key.expiry ?? 0))
        restore.add(payload)
        if replaces { restore.add("REPLACE") }
        restore.add("ABSTTL")
        do throws(ProvisioningFailure) { _ = try await target.ask(restore.repeatable()) } catch {
            guard error.message.hasPrefix("BUSYKEY") else { throw error }
            return try await compared()
        }
        return .restored
    }
}
