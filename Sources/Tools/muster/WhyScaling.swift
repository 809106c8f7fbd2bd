import JSONCoding
import Replaying

/// How the services that scale by themselves stand now, each in one sentence, and with its grounds where only one was asked for. Empty when
/// none does.
func standings(_ subject: String?, _ handle: StackHandle) throws -> String {
    let body = try handle.ask("GET", "/api/scaling?points=0" + (subject.map { "&service=\($0)" } ?? ""))
    return try JSONDocument().parse(body) { root in
        var out: [String] = []
        for service in root.array ?? [] {
            guard let standing = service["standing"], let sentence = standing["sentence"]?.string else { continue }
            out.append("now           \(sentence)")
            if subject != nil { out += grounds(standing) }
        }
        return out.isEmpty ? "" : out.joined(separator: "\n") + "\n\n"
    }
}

/// What the autoscaler of a service has seen, as a recording for `muster replay`: the demand of all replicas together, in cores, bytes or
/// the metric's own unit, and how many replicas there were.
func printRecording(_ subject: String?, _ handle: StackHandle) throws {
    guard let subject else { throw Exit.usage("--csv is of one service") }
    try printRecording(try handle.ask("GET", "/api/scaling?points=5760&service=\(subject)"), of: subject)
}

/// `body`: in the form of `/api/scaling`.
func printRecording(_ body: [UInt8], of subject: String) throws {
    let lines: [String] = try JSONDocument().parse(body) { root in
        guard let service = root.array?.first else { throw Exit.failed("\(subject) does not scale by itself: there is nothing to record") }
        // What a counter grew in a second: under the counter's own name it would be read as the counter.
        let names = (service["metrics"]?.array ?? []).map { csvField(LoadTrace.withoutTotal($0["name"]?.string ?? "")) }
        var lines = ["time,service,metric,value"]
        for point in service["timeline"]?.array ?? [] {
            let at = point["at"]?.string ?? ""
            lines.append("\(at),\(subject),replicas,\(point["replicas"]?.int ?? 0)")
            for (name, demand) in zip(names, point["demand_milli"]?.array ?? []) {
                if let milli = demand.int { lines.append("\(at),\(subject),\(name),\(Double(milli) / 1000)") }
            }
        }
        return lines
    }
    printOut(lines.joined(separator: "\n"))
}

/// RFC 4180: quoted where it must be.
private func csvField(_ text: String) -> String {
    guard text.utf8.contains(where: { $0 == 44 || $0 == 34 || $0 == 10 || $0 == 13 }) else { return text }
    return "\"" + text.replacing("\"", with: "\"\"") + "\""
}
