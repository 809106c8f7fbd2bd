/// The functions, users and settings that all nodes of a cluster must have in common besides their slots, as one node has them. A part that
/// could not be asked for is nil: it is not known, and not empty.
public struct NodeCommon: Sendable, Equatable {
    /// The libraries of functions: code by name.
    public var libraries: [String: String]?
    /// The users but `default`, whose password each node is started with: rules with hashed passwords, by name.
    public var users: [String: String]?
    /// The values of the settings in `settingNames`, by name.
    public var settings: [String: String]?
    /// Why a part is not known, by what it is for people ("users"), where the node has it all the same, or may have it. A server that is too old
    /// for a part has none, and is not in here.
    public var unread: [String: String]

    /// Settings in which nodes that differ behave differently to a client.
    public static let settingNames = [
        "maxmemory", "maxmemory-policy", "appendonly", "cluster-require-full-coverage", "cluster-node-timeout",
    ]

    public init(
        libraries: [String: String]? = nil, users: [String: String]? = nil, settings: [String: String]? = nil,
        unread: [String: String] = [:]
    ) {
        self.libraries = libraries
        self.users = users
        self.settings = settings
        self.unread = unread
    }
}

extension Diagnosis {
    /// Masters that lack a library of functions, or have another one of the same name, and nodes that differ in users.
    static func common(_ view: ClusterView, _ known: [String: NodeCommon]) -> [Finding] {
        let masters = view.masters.filter(\.answers)
        let libraries = masters.compactMap { master in known[master.id]?.libraries.map { (master, $0) } }
        let members = view.members.filter(\.answers).compactMap { member in known[member.id]?.users.map { (member, $0) } }
        return differing(
            libraries, missing: "function-missing", differs: "function-differs", noun: "the library of functions",
            without: "calls of its functions fail there"
        ) { .copyLibraries(from: $0, to: $1) }
            + differing(
                members, missing: "user-missing", differs: "user-differs", noun: "the user",
                without: "that user cannot log in there"
            ) { .copyUsers(from: $0, to: $1) }
    }

    private static func differing(
        _ nodes: [(ClusterView.Member, [String: String])], missing: String, differs: String, noun: String, without: String,
        _ remedy: (String, String) -> Remedy
    ) -> [Finding] {
        var found: [Finding] = []
        for name in Set(nodes.flatMap(\.1.keys)).sorted() {
            let owners = nodes.filter { $0.1[name] != nil }
            guard Set(owners.compactMap { $0.1[name] }).count == 1, let model = owners.first else {
                let who = owners.map(\.0.address.description).joined(separator: ", ")
                found.append(
                    Finding(
                        differs, .manual, "\(noun) '\(name)' is not the same on \(who)",
                        mend: "decide which is right, and load that one on each of them", .none))
                continue
            }
            for (node, _) in nodes.filter({ $0.1[name] == nil }) {
                found.append(
                    Finding(
                        missing, .safe, "\(node.address) has not \(noun) '\(name)' that \(model.0.address) has: \(without)",
                        mend: "muster redis fix copies it", remedy(model.0.id, node.id)))
            }
        }
        return found
    }

    /// Sentences about what could not be read, and was therefore not compared: one for each part and reason.
    static func unread(_ view: ClusterView, _ known: [String: NodeCommon]) -> [String] {
        var groups: [String: [String]] = [:]
        for member in view.members where member.answers {
            for (part, reason) in known[member.id]?.unread ?? [:] {
                groups["the \(part) of these nodes could not be read, so they are not compared (\(reason))", default: []]
                    .append(member.address.description)
            }
        }
        return groups.sorted { $0.key < $1.key }.map { text, nodes in
            "\(text): \(nodes.prefix(4).joined(separator: ", "))\(nodes.count > 4 ? " …" : "")"
        }
    }

    /// Sentences about settings that are not the same everywhere, one for each.
    public static func settings(_ view: ClusterView, _ known: [String: NodeCommon]) -> [String] {
        let nodes = view.members.compactMap { member in known[member.id]?.settings.map { (member.address, $0) } }
        return NodeCommon.settingNames.compactMap { name in
            let groups = Dictionary(grouping: nodes.filter { $0.1[name] != nil }) { $0.1[name] ?? "" }
            guard groups.count > 1 else { return nil }
            let parts = groups.sorted { ($1.value.count, $0.key) < ($0.value.count, $1.key) }.map { value, group in
                "\(value) on \(group.prefix(4).map(\.0.description).joined(separator: ", "))\(group.count > 4 ? " …" : "")"
            }
            return "\(name) differs: \(parts.joined(separator: "; "))"
        }
    }
}
