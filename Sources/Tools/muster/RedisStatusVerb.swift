import Basics
import JSONCoding
import Provisioning
import Sharding

let redisStatusVerb = Verb(
    name: "status", summary: "the cluster's nodes, and whether anything is short",
    help: """
        usage: muster redis status --address HOST:PORT [--password-file FILE] [--user NAME] [--json]

        Asks every node, compares what they say, and draws masters with their replicas. Status 1 when anything is short:
        a node, a slot, a role or a replica's link, agreement, memory over 80 %, a failing snapshot or append-only file.
        A replica's lag in seconds is the age of its offset, from samples of its master's offset.

        example:
          muster redis status --address 127.0.0.1:7001 --password-file redis.password
        """,
    flags: redisFlags, options: redisOptions
) { arguments in
    try arguments.atMost(0, "everything is an option")
    let status = try RedisTarget(arguments).run { session in try await ClusterStatus.take(session) }
    printOut(arguments.has("--json") ? statusJSON(status) : statusText(status))
    if !status.reasons.isEmpty { throw Exit(status: 1, message: "") }
}

private func statusText(_ status: ClusterStatus) -> String {
    let view = status.reading.view
    let masters = view.masters.filter { !$0.slots.isEmpty }.count
    let assigned = HashSlot.count - view.unassigned.count
    var out =
        "\(status.reasons.isEmpty ? "whole" : "NOT WHOLE"): \(masters) masters, \(view.members.filter { !$0.isMaster }.count) replicas, "
        + "\(assigned) of \(HashSlot.count) slots\n\n"
    var rows = [["NODE", "ROLE", "SLOTS", "KEYS", "MEMORY", "FRAG", "CLIENTS", "OPS/S", "BEHIND", "WRITTEN DOWN", "ID"]]
    for master in view.members where master.isMaster {
        rows.append(row(master, status, indent: ""))
        for replica in view.members where replica.master == master.id { rows.append(row(replica, status, indent: "└ ")) }
    }
    for lost in view.members where !lost.isMaster && view.member(lost.master ?? "")?.isMaster != true {
        rows.append(row(lost, status, indent: "? "))
    }
    out += table(rows)
    if let capacity = status.capacity { out += "\n\n" + capacity.lines.map { "  \($0)" }.joined(separator: "\n") }
    if !status.notes.isEmpty { out += "\n\n" + Set(status.notes).sorted().map { "  note: \($0)" }.joined(separator: "\n") }
    if !status.reasons.isEmpty { out += "\n\n" + status.reasons.map { "  short: \($0)" }.joined(separator: "\n") }
    return out
}

private func row(_ member: ClusterView.Member, _ status: ClusterStatus, indent: String) -> [String] {
    let slots = member.slots.ranges.count > 3 ? "\(SlotSet(Array(member.slots.ranges.prefix(2)))) …" : member.slots.description
    let role = member.isFailed ? "failed" : !member.answers ? "silent" : member.isMaster ? "master" : "replica"
    let place = member.isMaster ? (member.slots.isEmpty ? "none" : "\(slots) (\(member.slots.count))") : ""
    guard let report = status.reading.report(member.id) else {
        return [indent + member.address.description, role, place, "", "", "", "", "", "", "", String(member.id.prefix(8))]
    }
    let limit = report.number("maxmemory"), used = report.number("used_memory")
    return [
        indent + member.address.description, role, place, String(report.keys),
        "\(ByteSize.text(used)) of \(limit > 0 ? ByteSize.text(limit) : "no limit")",
        // The ratio says nothing of a server that holds next to nothing.
        used < 64 << 20 ? "-" : report.info["mem_fragmentation_ratio"] ?? "-", report.info["connected_clients"] ?? "-",
        report.info["instantaneous_ops_per_sec"] ?? "-", lagText(report, status.lags[report.id]), persistenceText(report),
        String(member.id.prefix(8)),
    ]
}

private func lagText(_ report: NodeReport, _ lag: ClusterStatus.Lag?) -> String {
    guard report.nodes.myself.isReplica else { return "" }
    guard let lag else { return "link is down" }
    switch lag.age {
    case .current: return lag.bytes == 0 ? "nothing" : ByteSize.text(lag.bytes)
    case .seconds(let seconds): return "\(ByteSize.text(lag.bytes)), \(tenths(seconds)) s"
    case .moreThan(let seconds): return "\(ByteSize.text(lag.bytes)), over \(tenths(seconds)) s"
    }
}

private func tenths(_ seconds: Double) -> String { String((seconds * 10).rounded() / 10) }

private func persistenceText(_ report: NodeReport) -> String {
    var parts: [String] = []
    if report.info["aof_enabled"] == "1" { parts.append(report.info["aof_last_write_status"] == "ok" ? "aof" : "AOF FAILS") }
    if report.info["rdb_last_bgsave_status"] == "err" {
        parts.append("SNAPSHOT FAILS")
    } else if report.info["rdb_bgsave_in_progress"] == "1" {
        parts.append("snapshot now")
    } else {
        parts.append("\(report.info["rdb_changes_since_last_save"] ?? "?") since snapshot")
    }
    return parts.joined(separator: ", ")
}

private func statusJSON(_ status: ClusterStatus) -> String {
    let view = status.reading.view
    var json = JSONWriter()
    json.beginObject()
    json.member("ok", status.reasons.isEmpty)
    json.member("reasons", status.reasons)
    json.member("notes", Set(status.notes).sorted())
    json.member("slots_assigned", HashSlot.count - view.unassigned.count)
    json.key("nodes")
    json.beginArray()
    for member in view.members { write(member, status, &json) }
    json.endArray()
    json.key("findings")
    json.beginArray()
    for finding in status.diagnosis.findings {
        json.beginObject()
        json.member("name", finding.name)
        json.member("risk", finding.risk.rawValue)
        json.member("sentence", finding.sentence)
        json.member("mend", finding.mend)
        json.endObject()
    }
    json.endArray()
    if let capacity = status.capacity {
        json.key("capacity")
        json.beginObject()
        json.member("raw_bytes", capacity.raw)
        json.member("usable_bytes", capacity.usable)
        json.member("process_limit_bytes", capacity.processLimit)
        json.endObject()
    }
    if let timeout = status.reading.reports.lazy.compactMap(\.nodeTimeout).max() {
        json.member("node_timeout_ms", Int(timeout.nanoseconds / 1_000_000))
        json.member("failover_worst_ms", Int(FailoverTime.worst(nodeTimeout: timeout).nanoseconds / 1_000_000))
    }
    json.endObject()
    return json.text
}

private func write(_ member: ClusterView.Member, _ status: ClusterStatus, _ json: inout JSONWriter) {
    json.beginObject()
    json.member("id", member.id)
    json.member("address", member.address.description)
    json.member("role", member.isMaster ? "master" : "replica")
    if let master = member.master { json.member("master", master) }
    json.member("answers", member.answers)
    json.member("failed", member.isFailed)
    json.member("slots", member.slots.description)
    json.member("slot_count", member.slots.count)
    json.member("config_epoch", Int(clamping: member.configEpoch))
    if let report = status.reading.report(member.id) {
        json.member("keys", report.keys)
        for field in ["used_memory", "maxmemory", "connected_clients", "instantaneous_ops_per_sec", "rdb_changes_since_last_save"] {
            json.member(field, report.number(field))
        }
        json.member("mem_fragmentation_ratio", Double(report.info["mem_fragmentation_ratio"] ?? "") ?? .nan)
        for field in ["maxmemory_policy", "rdb_last_bgsave_status", "aof_last_write_status", "master_link_status", "redis_version"] {
            if let value = report.info[field] { json.member(field, value) }
        }
    }
    if let lag = status.lags[member.id] {
        json.member("lag_bytes", lag.bytes)
        switch lag.age {
        case .current: json.member("lag_seconds", 0)
        case .seconds(let seconds), .moreThan(let seconds): json.member("lag_seconds", seconds)
        }
    }
    json.endObject()
}
