import Basics
import Glibc
import Redis

/// Compares keys of the target with those of a snapshot: content and time of expiry, to the millisecond.
///
/// What DUMP writes is compared first. It differs for equal content where a collection is a hash table (each server has an order of its
/// own) or was put together in pieces: then elements are compared one by one, in pieces of the same bounds as `RestoreLargeKey` has.
struct RestoreComparison: Sendable {
    enum Verdict: Sendable, Equatable {
        case same
        /// The snapshot's key had a time, and it has come.
        case expired
        case differs(String)
    }

    let source: ScratchServer
    let target: RestoreTarget
    /// Two bytes of version and eight of checksum behind what DUMP writes; another version is no other content.
    private static let footer = 10

    func compare(_ keys: [RestoreKey]) async throws(ProvisioningFailure) -> [Verdict] {
        var questions: [RedisCommand] = []
        for key in keys {
            questions.append(command("PEXPIRETIME", key.name))
            if key.payload != nil { questions.append(command("DUMP", key.name)) }
        }
        let answers = try await target.ask(all: questions)
        var verdicts: [Verdict] = [], at = 0
        for key in keys {
            let expiry = answers[at].int ?? -2
            let theirs = key.payload == nil ? nil : answers[at + 1].bytes
            at += key.payload == nil ? 1 : 2
            if let verdict = try await verdict(key, expiry) {
                verdicts.append(verdict)
            } else if let ours = key.payload, let theirs, RestoreComparison.areSame(ours, theirs) {
                verdicts.append(.same)
            } else {
                verdicts.append(try await compareElements(key))
            }
        }
        return verdicts
    }

    private static func areSame(_ ours: [UInt8], _ theirs: [UInt8]) -> Bool {
        guard ours.count == theirs.count, ours.count >= footer else { return false }
        return memcmp(ours, theirs, ours.count - footer) == 0
    }

    func compareLarge(_ key: RestoreKey) async throws(ProvisioningFailure) -> Verdict {
        try await compare([RestoreKey(name: key.name, expiry: key.expiry, size: key.size, payload: nil)])[0]
    }

    /// nil: it is there, with the right time.
    private func verdict(_ key: RestoreKey, _ expiry: Int) async throws(ProvisioningFailure) -> Verdict? {
        if expiry == (key.expiry ?? -1) { return nil }
        if let ours = key.expiry, ours <= Int(WallTime.now.milliseconds) { return .expired }
        if expiry == -2 { return .differs("is missing") }
        return .differs("expires at \(expiry) instead of \(key.expiry ?? -1)")
    }

    private func command(_ name: String, _ key: [UInt8], _ more: String...) -> RedisCommand {
        var command = RedisCommand(name)
        command.add(key)
        for word in more { command.add(word) }
        return command
    }

    // MARK: one by one

    private func compareElements(_ key: RestoreKey) async throws(ProvisioningFailure) -> Verdict {
        let type = try await source.ask(command("TYPE", key.name)).string ?? "none"
        let theirs = try await target.ask(command("TYPE", key.name)).string ?? "none"
        if type == "none" { return .expired }
        guard type == theirs else {
            if let expiry = key.expiry, expiry <= Int(WallTime.now.milliseconds) { return .expired }
            return .differs(theirs == "none" ? "is missing" : "is a \(theirs) instead of a \(type)")
        }
        switch type {
        case "string": return try await compareRanges(key, "STRLEN", "GETRANGE", step: RestoreLargeKey.piece)
        case "list": return try await compareRanges(key, "LLEN", "LRANGE", step: nil)
        case "hash": return try await compareMembers(key, "HLEN", "HSCAN", "HMGET", width: 2) { .bulk($0.last ?? []) == $1 }
        case "set": return try await compareMembers(key, "SCARD", "SSCAN", "SMISMEMBER", width: 1) { $1 == .int(1) }
        case "zset":
            return try await compareMembers(key, "ZCARD", "ZSCAN", "ZMSCORE", width: 2) { element, score in
                guard let ours = Double(String(decoding: element.last ?? [], as: UTF8.self)) else { return false }
                if case .double(let value) = score { return value == ours }
                return score.string.flatMap { Double($0) } == ours
            }
        case "stream": return try await compareStreams(key)
        default:
            return .differs("is of a module's type '\(type)', and its bytes differ")
        }
    }

    /// Both sides answer the same command; the target's answer may be a read of the same range.
    private func both(_ question: RedisCommand) async throws(ProvisioningFailure) -> (RESPValue, RESPValue) {
        (try await source.ask(question), try await target.ask(question))
    }

    private func length(_ key: RestoreKey, _ verb: String) async throws(ProvisioningFailure) -> (length: Int, verdict: Verdict?) {
        let (ours, theirs) = try await both(command(verb, key.name))
        guard ours != theirs else { return (ours.int ?? 0, nil) }
        return (0, .differs("has \(theirs.int ?? 0) instead of \(ours.int ?? 0) (\(verb))"))
    }

    private func compareRanges(_ key: RestoreKey, _ measure: String, _ verb: String, step: Int?) async throws(ProvisioningFailure)
        -> Verdict
    {
        let (length, verdict) = try await length(key, measure)
        if let verdict { return verdict }
        let step = step ?? RestoreLargeKey.count(size: key.size, length: length)
        for at in stride(from: 0, to: length, by: step) {
            let (ours, theirs) = try await both(command(verb, key.name, String(at), String(at + step - 1)))
            if ours != theirs { return .differs("differs between \(at) and \(at + step)") }
        }
        return .same
    }

    /// Walks over the snapshot's elements and asks the target for each. As many on both sides, and all of ours there: equal.
    private func compareMembers(
        _ key: RestoreKey, _ measure: String, _ scan: String, _ verb: String, width: Int, _ isSame: ([[UInt8]], RESPValue) -> Bool
    ) async throws(ProvisioningFailure) -> Verdict {
        let (length, verdict) = try await length(key, measure)
        if let verdict { return verdict }
        let count = RestoreLargeKey.count(size: key.size, length: length)
        var cursor = "0"
        repeat {
            let answer = try await source.ask(command(scan, key.name, cursor, "COUNT", String(count))).array ?? []
            guard answer.count == 2, let next = answer[0].string, let flat = answer[1].array else { return .expired }
            let elements = stride(from: 0, to: flat.count, by: width).map { i in (0..<width).map { flat[i + $0].bytes ?? [] } }
            if !elements.isEmpty {
                var question = command(verb, key.name)
                for element in elements { question.add(element[0]) }
                let theirs = try await target.ask(question).array ?? []
                guard theirs.count == elements.count else {
                    return .differs("is answered with \(theirs.count) elements instead of \(elements.count)")
                }
                for (ours, other) in zip(elements, theirs) where !isSame(ours, other) {
                    return .differs("differs at '\(RestoreCounts.text(ours[0]))'")
                }
            }
            cursor = next
        } while cursor != "0"
        return .same
    }

    /// Entries, then the groups with what they wait for.
    private func compareStreams(_ key: RestoreKey) async throws(ProvisioningFailure) -> Verdict {
        let (length, verdict) = try await length(key, "XLEN")
        if let verdict { return verdict }
        let count = RestoreLargeKey.count(size: key.size, length: length)
        var from = "-"
        while true {
            let (ours, theirs) = try await both(command("XRANGE", key.name, from, "+", "COUNT", String(count)))
            if ours != theirs { return .differs("differs from entry \(from) on") }
            guard let last = ours.array?.last?.array?.first?.string else { break }
            from = "(" + last
        }
        let (ours, theirs) = try await both(RedisCommand("XINFO STREAM").named(key.name, "FULL", "COUNT", "1000"))
        return RestoreComparison.withoutNodes(ours) == RestoreComparison.withoutNodes(theirs) ? .same : .differs("has other groups")
    }

    /// How the server lays out its tree is not content, nor is how long a consumer has been idle.
    private static func withoutNodes(_ value: RESPValue) -> RESPValue {
        guard case .array(let parts) = value else { return value }
        var out: [RESPValue] = [], skips = false
        for part in parts {
            if skips {
                skips = false
                continue
            }
            if let word = part.string,
                ["radix-tree-keys", "radix-tree-nodes", "entries", "seen-time", "active-time", "idle", "inactive"].contains(word)
            {
                skips = true
                continue
            }
            out.append(withoutNodes(part))
        }
        return .array(out)
    }
}

extension RedisCommand {
    fileprivate func named(_ key: [UInt8], _ more: String...) -> RedisCommand {
        var command = self
        command.add(key)
        for word in more { command.add(word) }
        return command
    }
}
