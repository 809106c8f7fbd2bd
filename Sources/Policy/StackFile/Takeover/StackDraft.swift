import StackModel

/// A stack file in the making: what was understood of another file, and what was not. `text` is the stack file.
public struct StackDraft: Sendable, Equatable {
    /// What could not be taken over as it stood, or what is to be looked at: about which service, and where it stands.
    public struct Remark: Sendable, Equatable {
        /// A service's or store's name; nil: the stack as a whole.
        public let about: String?
        /// The line of the other file; 0: none.
        public let line: Int
        public let text: String
    }

    struct Service: Sendable, Equatable {
        let name: String
        var command: [String] = []
        /// The command as one line, which the stack file's reader splits, for one with variables; nil: it is `command`.
        var line: String?
        /// Where it is started, relative to the file; nil: where the file is.
        var folder: String?
        var files: [String] = []
        var dependsOn: [String] = []
        var restart: String?
        /// The port that the program had where it came from; nil: it takes no requests.
        var port: UInt16?
        /// What its probe asks for.
        var health = "/"
        var replicas: Int?
        var cpu: String?
        var memory: Int?
        var grace: Duration?
        var uses: [Use] = []
        /// In the stack file's own writing: `${NAME:-default}`, and `$$` for a dollar.
        var environment: [(name: String, value: String)] = []

        static func == (a: Service, b: Service) -> Bool {
            a.name == b.name && a.command == b.command && a.line == b.line && a.port == b.port
                && a.environment.elementsEqual(b.environment, by: ==)
        }
    }

    struct Store: Equatable {
        let name: String
        let kind: StoreKindName
    }

    /// A service's use of a store.
    struct Use: Equatable {
        let store: Store
        /// The variable in which the store's address arrives; nil: its kind's own.
        var variable: String?
    }

    /// What it was made from, for the first line.
    var origin: String
    var stack: String?
    var services: [Service] = []
    /// What runs once before the services.
    var tasks: [Service] = []
    var stores: [Store] = []
    /// What the gateway listens on.
    var listen = "8080"
    /// The services that the gateway has a route for: the first has all requests, the others those for the host `NAME.localhost`.
    var routed: [String] = []
    public internal(set) var remarks: [Remark] = []

    mutating func remark(_ about: String?, _ line: Int, _ text: String) {
        remarks.append(Remark(about: about, line: line, text: text))
    }

    /// Gives the stack a name, if it has none and the word is one.
    public mutating func name(as word: String) {
        if stack == nil, SchemaChecker.isName(word) { stack = word }
    }

    /// Neither a service nor a store was found.
    public var isEmpty: Bool { services.isEmpty && stores.isEmpty }

    // MARK: the file

    /// The stack file, with a comment for each remark where it belongs.
    public var text: String {
        var out =
            "# Made by 'muster init' from \(StackDraft.comment(origin)). 'muster up' runs it; every key: 'muster schema --markdown'.\n"
        for remark in remarks where remark.about == nil { out += "# \(line(of: remark))\n" }
        if let stack { out += "stack: \(yaml(stack))\n" }
        if !services.isEmpty {
            out += "services:\n"
            for service in services { out += text(of: service) }
        }
        if !tasks.isEmpty {
            out += "tasks:\n"
            for task in tasks { out += text(of: task) }
        }
        if !stores.isEmpty {
            out += "stores:\n"
            for store in stores {
                for remark in remarks where remark.about == store.name { out += "  # \(line(of: remark))\n" }
                out += "  \(yaml(store.name)): { \(store.kind == .redis ? "redis: { role: state }" : "memcached: {}") }\n"
            }
        }
        guard !routed.isEmpty else { return out }
        out += "gateway:\n  listen: \(yaml(listen))\n  admin: 8404        # live state, on this machine only\n  routes:\n"
        for (i, name) in routed.enumerated() {
            let host = i == 0 ? "" : ", hosts: [\(yaml(name + ".localhost"))]"
            out += "    - { path: /\(host), service: \(yaml(name)) }\n"
        }
        return out
    }

    private func text(of service: Service) -> String {
        var out = "  \(yaml(service.name)):\n"
        for remark in remarks where remark.about == service.name { out += "    # \(line(of: remark))\n" }
        out += "    command: \(service.line.map(yaml) ?? "[" + service.command.map(yaml).joined(separator: ", ") + "]")\n"
        if let folder = service.folder { out += "    working-directory: \(yaml(folder))\n" }
        if let count = service.replicas { out += "    replicas: \(count)\n" }
        if let port = service.port {
            out += "    http: { port: \(port), live: \(yaml(service.health)), ready: \(yaml(service.health)) }\n"
        }
        let given = [service.cpu.map { "cpu: \($0)" }, service.memory.map { "memory: \($0)" }].compactMap(\.self)
        if !given.isEmpty { out += "    resources: { \(given.joined(separator: ", ")) }\n" }
        if let grace = service.grace { out += "    grace: \(grace.nanoseconds / 1_000_000)ms\n" }
        if let restart = service.restart { out += "    restart: \(restart)\n" }
        if !service.dependsOn.isEmpty { out += "    depends-on: [\(service.dependsOn.map(yaml).joined(separator: ", "))]\n" }
        if !service.files.isEmpty { out += "    env-file: [\(service.files.map(yaml).joined(separator: ", "))]\n" }
        if !service.uses.isEmpty { out += "    uses: [\(text(of: service.uses).joined(separator: ", "))]\n" }
        if !service.environment.isEmpty {
            out += "    environment:\n"
            for variable in service.environment { out += "      \(yaml(variable.name)): \(yaml(variable.value))\n" }
        }
        return out
    }

    /// The second store of a kind whose own variable would have to hold two addresses arrives under its name.
    private func text(of uses: [Use]) -> [String] {
        var taken: Set<StoreKindName> = []
        return uses.map { use in
            var variable = use.variable
            if variable == nil, !taken.insert(use.store.kind).inserted {
                variable = use.store.name.uppercased().replacing("-", with: "_") + "_URL"
            }
            return variable.map { "{ store: \(yaml(use.store.name)), as: \(yaml($0)) }" } ?? yaml(use.store.name)
        }
    }

    private func line(of remark: Remark) -> String {
        StackDraft.comment(remark.line == 0 ? remark.text : "\(origin):\(remark.line): \(remark.text)")
    }

    /// One line, whatever it says: a line break would end the comment.
    public static func comment(_ text: String) -> String {
        let plain = String(String.UnicodeScalarView(text.unicodeScalars.map { isPlain($0) ? $0 : " " }))
        return plain.count <= 300 ? plain : plain.prefix(300) + "…"
    }

    private static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
        (32...126).contains(scalar.value)
            || scalar.value > 159 && (scalar.properties.isAlphabetic || "…–’°".unicodeScalars.contains(scalar))
    }

    /// A text as YAML, in quotes where it could be read as something else.
    private func yaml(_ text: String) -> String {
        func isWord(_ byte: UInt8) -> Bool { (byte | 32) &- 97 < 26 || byte &- 48 < 10 }
        let bytes = Array(text.utf8)
        let isBare =
            bytes.first.map { isWord($0) || $0 == 47 || $0 == 95 || $0 == 46 } ?? false
            && bytes.allSatisfy { isWord($0) || "/_.=+@%-".utf8.contains($0) }
        if isBare, !["~", "null", "Null", "NULL", ".", ".."].contains(text) { return text }
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\t": out += "\\t"
            case _ where StackDraft.isPlain(scalar): out.unicodeScalars.append(scalar)
            default:
                let digits = String(scalar.value, radix: 16)
                out += "\\U" + String(repeating: "0", count: 8 - digits.count) + digits
            }
        }
        return out + "\""
    }
}
