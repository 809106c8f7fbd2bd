import JSONCoding
import Rightsizing

/// What each service should be given, or one: its sentences, then the figures. With `json` what the supervisor answers.
func printResources(_ subject: String?, _ handle: StackHandle, json: Bool) throws {
    let body = try handle.ask("GET", "/api/resources" + (subject.map { "?service=\($0)" } ?? ""))
    if json { return printOut(String(decoding: body, as: UTF8.self)) }
    let text = try JSONDocument().parse(body) { root in (root.array ?? []).map(resourcesText).joined(separator: "\n\n") }
    if text.isEmpty { throw Exit.failed("\(subject ?? "the stack") has no replicas of its own to watch: recommendations are for services") }
    printOut(text)
}

/// The sentences come from the recommender; the table has the same figures side by side.
private func resourcesText(_ service: JSONElement) -> String {
    let days = service["confidence_days"]?.double ?? 0, list = service["resources"]?.array ?? []
    var rows = [["RESOURCE", "RANGE", "CONFIDENCE", "DECLARED", "ADVICE"]]
    for one in list {
        guard let resource = one["resource"]?.string.flatMap(Resource.init(rawValue:)) else { continue }
        func amount(_ key: StaticString) -> String? { one[key]?.int.map(resource.text) }
        let range = amount("lower").map { lower in amount("upper").map { "\(lower) to \($0)" } ?? "\(lower) or more" } ?? "-"
        let advice = one["advice"]?.string ?? "wait"
        let target = amount("target").map { advice == "keep" ? "keep" : "\(advice == "declare" ? "declare" : "\(advice) to") \($0)" }
        rows.append([resource.rawValue, range, "\((days * 10).rounded() / 10) days", amount("declared") ?? "-", target ?? "wait"])
    }
    return (list.map { $0["decision"]?["sentence"]?.string ?? "" } + ["", table(rows)]).joined(separator: "\n")
}
