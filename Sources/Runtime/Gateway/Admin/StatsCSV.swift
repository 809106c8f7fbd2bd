import Basics

/// The gateway's counts under HAProxy's names, for tools that read `/stats;csv` (HAProxy's management guide, 9.1). Columns that have no
/// counterpart here stay empty, as HAProxy itself leaves those that do not apply.
enum StatsCSV {
    /// HAProxy 2.6's first 62 columns, in its order; tools find them by name.
    static let columns = [
        "pxname", "svname", "qcur", "qmax", "scur", "smax", "slim", "stot", "bin", "bout", "dreq", "dresp", "ereq", "econ", "eresp",
        "wretr", "wredis", "status",
        "weight", "act", "bck", "chkfail", "chkdown", "lastchg", "downtime", "qlimit", "pid", "iid", "sid", "throttle", "lbtot", "tracked",
        "type", "rate", "rate_lim",
        "rate_max", "check_status", "check_code", "check_duration", "hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx",
        "hrsp_other", "hanafail", "req_rate",
        "req_rate_max", "req_tot", "cli_abrt", "srv_abrt", "comp_in", "comp_out", "comp_byp", "comp_rsp", "lastsess", "last_chk",
        "last_agt", "qtime", "ctime", "rtime",
        "ttime",
    ]

    static func render(_ gateway: Gateway, connections: [Int]) -> String {
        var text = "# " + columns.joined(separator: ",") + ",\n"
        let routes = gateway.routes
        for (number, route) in routes.enumerated() {
            let metrics = route.metrics, total = metrics.classes.reduce(0) { $0 + $1.current }
            let bytesIn = route.allReplicas.reduce(0) { $0 + $1.bytesIn.current },
                bytesOut = route.allReplicas.reduce(0) { $0 + $1.bytesOut.current }
            var classes: [String: String] = [:]
            for (i, counter) in metrics.classes.enumerated() { classes["hrsp_\(i + 1)xx"] = "\(counter.current)" }
            let shared: [String: String] = [
                "pxname": name(route), "pid": "1", "iid": "\(number + 2)", "bin": "\(bytesIn)", "bout": "\(bytesOut)", "stot": "\(total)",
            ]
            let inFlight = route.allReplicas.reduce(0) { $0 + $1.inFlight }
            let front = [
                "svname": "FRONTEND", "status": "OPEN", "type": "0", "sid": "0", "scur": "\(connections.reduce(0, +))",
                "req_tot": "\(total)",
                "dreq": "\(metrics.limited.current + metrics.shed.current)",
            ]
            text += line(shared.merging(front) { $1 }.merging(classes) { $1 })
            for (i, replica) in route.allReplicas.enumerated() { text += server(replica, shared, i + 1) }
            let fit = route.allReplicas.count { $0.isEligible }
            let back = [
                "svname": "BACKEND", "status": fit > 0 || route.allReplicas.isEmpty ? "UP" : "DOWN", "type": "1", "sid": "0",
                "scur": "\(inFlight)", "act": "\(fit)",
                "bck": "\(route.allReplicas.count { $0.priority > 0 })", "wretr": "\(metrics.retries.current)",
                "eresp": "\(metrics.failures.current)",
                "lbtot": "\(total)", "weight": "\(route.allReplicas.reduce(0) { $0 + $1.weight })",
            ]
            text += line(shared.merging(back) { $1 }.merging(classes) { $1 })
        }
        return text
    }

    private static func server(_ replica: Replica, _ shared: [String: String], _ number: Int) -> String {
        let words = ["ready": "UP", "down": "DOWN", "ejected": "DOWN", "draining": "DRAIN", "disabled": "MAINT"]
        let answered = replica.answers.current
        let seconds = (WallTime.now.milliseconds - replica.reason.at.milliseconds) / 1000
        return line(
            shared.merging([
                "svname": clean(replica.name), "status": words[replica.state] ?? "UP", "type": "2", "sid": "\(number)",
                "scur": "\(replica.inFlight)",
                "smax": "\(replica.mostInFlight)", "stot": "\(replica.requests.current)", "lbtot": "\(replica.requests.current)",
                "bin": "\(replica.bytesIn.current)",
                "bout": "\(replica.bytesOut.current)", "weight": "\(replica.weight)", "act": replica.priority == 0 ? "1" : "0",
                "bck": replica.priority == 0 ? "0" : "1",
                "eresp": "\(replica.failures.current)", "hrsp_5xx": "\(replica.errors.current)", "lastchg": "\(max(0, seconds))",
                "rtime": answered > 0 ? "\(replica.latency.current / answered / 1_000_000)" : "0", "last_chk": clean(replica.reason.text),
            ]) { $1 })
    }

    private static func name(_ route: Route) -> String { clean(route.label) }

    /// A text without the characters that would end a field or a line.
    private static func clean(_ text: String) -> String { String(text.map { $0 == "," || $0 == "\"" || $0.isNewline ? " " : $0 }) }

    private static func line(_ values: [String: String]) -> String { columns.map { values[$0] ?? "" }.joined(separator: ",") + ",\n" }
}
