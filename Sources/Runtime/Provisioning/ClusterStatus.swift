import Basics
import Redis
import Sharding

/// The state of a cluster at one moment, judged: what is short, and what a person should know besides.
public struct ClusterStatus: Sendable {
    public struct Lag: Sendable, Equatable {
        public let bytes: Int
        public let age: OffsetHistory.Age
    }

    public let reading: ClusterReading
    /// Of replicas whose link is up, by id.
    public let lags: [String: Lag]
    public let diagnosis: Diagnosis
    /// Empty: all is as it should be.
    public let reasons: [String]
    public let notes: [String]

    public static let memoryLimit = Capacity.fillLimit

    /// Samples the masters' offsets for 600 ms, four times, before it reads everything: a replica's lag in seconds is the age of its
    /// offset.
    public static func take(_ session: ClusterSession) async throws(ProvisioningFailure) -> ClusterStatus {
        var reading = try await session.read()
        var histories: [String: OffsetHistory] = [:]
        for sample in 0..<4 {
            if sample > 0 { await session.loop.sleep(.milliseconds(200)) }
            for report in reading.reports where report.nodes.myself.isMaster {
                guard let text = try? await session.client(report.asked).text(RedisCommand("INFO", "replication")) else { continue }
                guard let offset = ClusterSession.fields(.simple(text))["master_repl_offset"].flatMap({ Int($0) }) else { continue }
                histories[report.id, default: OffsetHistory()].add(at: MonotonicTime.now.seconds, offset: offset)
            }
        }
        reading = try await session.read()
        let keys = try await session.keys(ofOpenSlots: reading.view)
        let common = await session.common(reading)
        return ClusterStatus(reading, histories: histories, keys: keys, common: common, now: MonotonicTime.now.seconds)
    }

    init(
        _ reading: ClusterReading, histories: [String: OffsetHistory], keys: [Int: [String: Int]], common: [String: NodeCommon], now: Double
    ) {
        self.reading = reading
        var lags: [String: Lag] = [:]
        for report in reading.reports where report.nodes.myself.isReplica && report.info["master_link_status"] == "up" {
            guard let master = report.nodes.myself.master, let history = histories[master], let last = history.last else { continue }
            let offset = report.number("slave_repl_offset")
            guard let age = history.age(of: offset, at: now) else { continue }
            lags[report.id] = Lag(bytes: max(0, last.subtractingClamped(offset)), age: age)
        }
        self.lags = lags
        diagnosis = Diagnosis(reading.view, keys: keys, silent: reading.silent.map(\.address), copies: reading.copies, common: common)
        let judged = ClusterStatus.judge(reading, diagnosis)
        reasons = judged.reasons
        notes = judged.notes + Diagnosis.settings(reading.view, common) + diagnosis.unread
    }

    private static func judge(_ reading: ClusterReading, _ diagnosis: Diagnosis) -> (reasons: [String], notes: [String]) {
        var reasons = diagnosis.findings.map { "\($0.sentence); \($0.mend)" }
        var notes: [String] = []
        for report in reading.reports {
            let name = reading.view.name(report.id)
            let state = report.cluster["cluster_state"] ?? "unknown"
            if state != "ok" { reasons.append("\(name) says that the cluster's state is \(state)") }
            let served = report.cluster["cluster_slots_ok"].flatMap { Int($0) } ?? 0
            if served < HashSlot.count, state == "ok" { reasons.append("\(name) sees \(served) of \(HashSlot.count) slots served") }
            if report.nodes.myself.isReplica, report.info["master_link_status"] != "up" {
                let seconds = report.number("master_link_down_since_seconds")
                let busy = report.info["master_sync_in_progress"] == "1" ? "copies its master's data" : "has lost its master"
                reasons.append("\(name) \(busy)" + (seconds > 0 ? " (for \(seconds) s)" : ""))
            }
            reasons += memory(report, name) + persistence(report, name)
            if report.number("maxmemory") == 0 { notes.append("\(name) has no maxmemory: it grows until the kernel kills it") }
        }
        let view = reading.view
        for master in view.masters {
            for replica in view.replicas(of: master.id) where replica.address.host == master.address.host {
                let text = "\(replica.address) is on the host of its master \(master.address): both end together"
                if replica.address.isLoopback { continue }
                reasons.append(text)
            }
        }
        if !view.members.isEmpty, view.members.allSatisfy(\.address.isLoopback) {
            notes.append("all nodes are on this machine: the cluster survives the end of a process, not of the machine")
        }
        if let timeout = reading.reports.lazy.compactMap(\.nodeTimeout).max() {
            notes.append(
                "a dead master is replaced within \(FailoverTime.arithmetic(nodeTimeout: timeout)) (node timeout \(timeout.brief))")
        }
        return (reasons, notes)
    }

    private static func memory(_ report: NodeReport, _ name: String) -> [String] {
        let limit = report.number("maxmemory"), used = report.number("used_memory")
        guard limit > 0, Double(used) > memoryLimit * Double(limit) else { return [] }
        // A cache is meant to be full.
        if report.info["maxmemory_policy"]?.hasPrefix("allkeys") == true { return [] }
        return [
            "\(name) uses \(ByteSize.text(used)) of \(ByteSize.text(limit)), more than \(Int(memoryLimit * 100)) %: writes will be "
                + "refused when it is full"
        ]
    }

    private static func persistence(_ report: NodeReport, _ name: String) -> [String] {
        var reasons: [String] = []
        if report.info["rdb_last_bgsave_status"] == "err" { reasons.append("\(name): the last snapshot failed; see its log") }
        if report.info["aof_enabled"] == "1" {
            if report.info["aof_last_write_status"] == "err" {
                reasons.append("\(name): the last write to the append-only file failed; see its log")
            }
            if report.info["aof_last_bgrewrite_status"] == "err" {
                reasons.append("\(name): the last rewrite of the append-only file failed; see its log")
            }
        }
        if report.info["loading"] == "1" { reasons.append("\(name) is loading its data") }
        return reasons
    }

    /// What it can hold; nil when its nodes have different limits.
    public var capacity: Capacity? {
        let limits = Set(reading.reports.map { $0.number("maxmemory") })
        guard limits.count == 1, let memory = limits.first else { return nil }
        let masters = reading.view.masters.filter { !$0.slots.isEmpty }.count
        return Capacity(masters: masters, nodes: reading.view.members.count, memory: memory)
    }
}

extension MonotonicTime {
    var seconds: Double { Double(nanoseconds) / 1e9 }
}

extension ClusterSession {
    /// For each slot that is open somewhere, or that nobody has: how many keys of it each master has.
    func keys(ofOpenSlots view: ClusterView) async throws(ProvisioningFailure) -> [Int: [String: Int]] {
        var slots = Set(view.members.flatMap { $0.open.map(\.slot) })
        let unassigned = view.unassigned
        // Of a cluster that was never formed every slot is free; those are no open slots.
        if unassigned.count < HashSlot.count { slots.formUnion(unassigned.slots) }
        return try await keys(in: slots.sorted(), view)
    }

    /// Only slots with keys, or that are open, are in the answer.
    func keys(in slots: [Int], _ view: ClusterView) async throws(ProvisioningFailure) -> [Int: [String: Int]] {
        let open = Set(view.members.flatMap { $0.open.map(\.slot) })
        var found: [Int: [String: Int]] = [:]
        for slot in slots where open.contains(slot) { found[slot] = [:] }
        // Replicas whose master answers have what that has. One whose master does not answer may have the only copy.
        for member in view.members
        where member.answers && (member.isMaster || view.member(member.master ?? "")?.answers != true) {
            let client = try client(member.address)
            let counts = try await client.ask(all: slots.map { RedisCommand("CLUSTER COUNTKEYSINSLOT", String($0)) })
            for (slot, count) in zip(slots, counts) where count.int ?? 0 > 0 {
                // What a replica has matters where nobody owns the slot.
                if member.isMaster || view.owner(of: slot) == nil { found[slot, default: [:]][member.id] = count.int }
            }
        }
        return found
    }
}
