import StackModel

/// What the routes before one take, to find a route that no request could reach.
struct TakenRequests {
    private var labels: Set<String> = []
    /// The methods that routes take under the same host, path and fields, in the file's order. Such routes differ in nothing else, so the first
    /// one that takes a method is the only one that ever gets it. (A route without methods is looked at after those with some.)
    private var methods: [Key: [Taken]] = [:]

    private struct Key: Hashable {
        let host: String
        let path: String
        let fields: [String]
        let hasMethods: Bool
    }

    private struct Taken {
        let methods: Set<String>
        let number: Int
        let line: Int
    }

    /// Why this route is one too many; nil when it is not.
    mutating func add(_ match: RouteMatch, number: Int, line: Int) -> String? {
        guard labels.insert(match.label).inserted else { return "there is a route for \(match.label) already" }
        let path =
            switch match.path {
            case .prefix(let path): "p\(path)"
            case .exact(let path): "e\(path)"
            case .regex(let text): "r\(text)"
            }
        let wanted = Set(match.methods)
        var reason: String?
        for host in match.hosts.isEmpty ? [""] : match.hosts {
            let fields = match.headers.map { "\($0.name)=\($0.value)" }.sorted()
            let key = Key(host: host, path: path, fields: fields, hasMethods: !wanted.isEmpty)
            let others = (methods[key] ?? []).filter { $0.number != number }
            if let before = others.first, wanted.isSubset(of: others.reduce(into: Set()) { $0.formUnion($1.methods) }) {
                let place = host.isEmpty ? "" : " for the host '\(host)'"
                reason =
                    reason
                    ?? "no request reaches it\(place): gateway.routes[\(before.number)] (line \(before.line)) takes "
                    + "\(others.count > 1 ? "them before, with others" : "them before")"
            }
            methods[key, default: []].append(Taken(methods: wanted, number: number, line: line))
        }
        return reason
    }
}
