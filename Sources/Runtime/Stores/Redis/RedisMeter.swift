import Basics
import Measurement
import Redis

/// Reads how much waits in a key of Redis.
///
/// One command per reading, bounded by the client's own time limit (two seconds), or its patience while a master is replaced. A key that
/// does not exist is an empty list, stream or set: 0.
public struct RedisMeter: Sendable {
    /// The type of the key, and what of it is counted.
    public enum Kind: Sendable, Equatable {
        /// LLEN
        case list
        /// XLEN: all entries, also those that every group has read.
        case stream
        /// ZCARD
        case sortedSet
        /// Entries that a group has not read yet, plus those that it has read and not acknowledged. Where Redis does not know the former
        /// (entries were deleted in between), all entries of the stream are counted instead, with a note: an upper bound.
        case group(String)
    }

    private let client: RedisClient
    private let key: String
    private let kind: Kind

    /// The client is the caller's, who starts and closes it.
    public init(_ client: RedisClient, key: String, kind: Kind) {
        self.client = client
        self.key = key
        self.kind = kind
    }

    /// Asks Redis once.
    public func read() async -> Result<MeterFigure, MeterFault> {
        switch kind {
        case .list: return await length("LLEN")
        case .stream: return await length("XLEN")
        case .sortedSet: return await length("ZCARD")
        case .group(let name): return await backlog(name)
        }
    }

    private func length(_ verb: String) async -> Result<MeterFigure, MeterFault> {
        let reply: RESPValue
        do throws(RedisError) { reply = try await client.send(RedisCommand(verb, key)) } catch { return .failure(fault(error)) }
        return figure(reply.int, "")
    }

    private func figure(_ count: Int?, _ note: String) -> Result<MeterFigure, MeterFault> {
        guard let count else { return .failure(MeterFault(.malformed, "Redis answered no number for key '\(key)'")) }
        if let fault = Plausibility.fault(Double(count), called: "the length of key '\(key)'") { return .failure(fault) }
        return .success(MeterFigure(Double(count), .count, takenAt: .now, note: note))
    }

    private func backlog(_ group: String) async -> Result<MeterFigure, MeterFault> {
        // Both go to one node, as they have one key.
        let replies = await client.pipeline([RedisCommand("XINFO", "GROUPS", key).routed(by: key), RedisCommand("XLEN", key)])
        let groups: RESPValue, entries: RESPValue
        do throws(RedisError) {
            groups = try replies[0].get()
            entries = try replies[1].get()
        } catch { return .failure(fault(error)) }
        for entry in groups.array ?? [] {
            let fields = RedisMeter.fields(entry)
            guard fields["name"]?.string == group else { continue }
            guard let pending = fields["pending"]?.int else { break }
            if let lag = fields["lag"]?.int { return figure(lag.addingClamped(pending), "") }
            guard let all = entries.int else { break }
            return figure(max(all, pending), "Redis does not know the lag of group '\(group)': all entries of the stream are counted")
        }
        return .failure(MeterFault(.absent, "stream '\(key)' has no group '\(group)'; XGROUP CREATE makes one"))
    }

    private static func fields(_ entry: RESPValue) -> [String: RESPValue] {
        let items = entry.array ?? []
        var fields: [String: RESPValue] = [:]
        for i in stride(from: 0, to: items.count - 1, by: 2) { if let name = items[i].string { fields[name] = items[i + 1] } }
        return fields
    }

    private func fault(_ error: RedisError) -> MeterFault {
        let what = "key '\(key)': \(error)"
        switch error.code {
        case .timeout: return MeterFault(.timedOut, what)
        case .unavailable, .lost, .overloaded: return MeterFault(.unreachable, what)
        case .malformed: return MeterFault(.malformed, what)
        case .server where error.serverCode == "WRONGTYPE": return MeterFault(.wrongType, what)
        case .server where error.message.contains("no such key"): return MeterFault(.absent, "stream '\(key)' does not exist yet")
        default: return MeterFault(.refused, what)
        }
    }
}
