import Basics
import StackModel

extension Stack {
    /// Stack files and scenarios have at most this many bytes.
    public static let sizeLimit = YAMLNode.sizeLimit

    /// Reads and validates a stack file. Everything that is wrong is in the error, each with line and column.
    ///
    /// `path` is for messages, the default name and the places of `files`; nothing is opened here but by `files`. `environment` answers for
    /// `$NAME` in commands, in the values of environment variables and in the URLs of external stores, and after it the file `.env` beside the stack file, as in Compose.
    public static func read(
        _ text: [UInt8], path: String, files: StackFiles = .none, environment: @escaping (String) -> String? = { _ in nil }
    ) throws(Problems) -> Stack {
        let root: YAMLNode
        do throws(Problem) { root = try YAMLNode.parse(text, file: path) } catch { throw Problems(list: [error]) }
        let variables = StackVariables(path: path, files: files, environment: environment)
        var reader = StackReader(checker: SchemaChecker(file: path), variables: variables)
        let stack = reader.stack(root, defaultName: Stack.defaultName(of: path))
        let problems = reader.checker.problems.sorted { ($0.line, $0.column) < ($1.line, $1.column) } + variables.problems
        if let stack, problems.isEmpty { return stack }
        throw Problems(list: problems)
    }

    /// The name of a stack whose file gives it none, made from the file's name: `stacks/correlation.yaml` is `correlation`. Two files have
    /// two names: a file's name that is no stack name by itself (`app.dev.yaml`, `my_app.yaml`) is made one, with a digest of what it was.
    public static func defaultName(of path: String) -> String {
        let file = path.split(separator: "/").last.map(String.init) ?? "stack"
        let base = [".yaml", ".yml"].first(where: file.hasSuffix).map { String(file.dropLast($0.utf8.count)) } ?? file
        if SchemaChecker.isName(base) { return base }
        let words = String(base.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "-" }).split(separator: "-").joined(separator: "-")
        var digest: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in base.utf8 { digest = (digest ^ UInt64(byte)) &* 0x100_0000_01b3 }
        let digits = String(digest & 0xFF_FFFF, radix: 16)
        return (words.isEmpty ? "stack" : String(words.prefix(48)))
            + "-\(String(repeating: "0", count: 6 - digits.utf8.count))\(digits)"
    }

    /// The name that a stack file gives its stack, looked for without reading the rest: `stack: NAME` at the beginning of a line. This is
    /// for a file that has faults, when only its stack is to be found. nil: the file gives no name.
    public static func declaredName(in text: [UInt8]) -> String? {
        for line in text.split(whereSeparator: { $0 == 10 || $0 == 13 }) where line.starts(with: Array("stack:".utf8)) {
            var value = String(decoding: line.dropFirst(6), as: UTF8.self)[...]
            if let comment = value.firstRange(of: " #") { value = value[..<comment.lowerBound] }
            let name = value.filter { $0 != " " && $0 != "\t" && $0 != "\"" && $0 != "'" }
            if SchemaChecker.isName(name) { return name }
        }
        return nil
    }
}

/// Makes the model from checked values, and checks what concerns more than one of them.
struct StackReader {
    var checker: SchemaChecker
    let variables: StackVariables
    /// Variables of all services together, so that a few lines with aliases and a large `env-file` do not become gigabytes.
    var variableCount = 0
    /// The names of all stores, also of those whose settings are wrong.
    var declaredStores: [String] = []

    func lookUp(_ name: String) -> String? { variables.value(name) }

    mutating func stack(_ root: YAMLNode, defaultName: String) -> Stack? {
        guard let top = checker.object(root, StackSchema.stack, "") else { return nil }
        declaredStores = top.map("stores").map(\.name)
        let stores = stores(top)
        let inactive = inactive(top)
        var services: [ServiceSpec] = []
        for entry in top.map("services") {
            checkName(entry.name, "service", entry.line, entry.column)
            if declaredStores.contains(entry.name) {
                checker.report(entry.line, entry.column, "'\(entry.name)' is a store's name already")
            }
            if case .object(let object) = entry.value, inactive[entry.name] == nil { services.append(service(entry.name, object, stores)) }
        }
        var tasks: [TaskSpec] = []
        for entry in top.map("tasks") {
            checkName(entry.name, "task", entry.line, entry.column)
            if (top.map("services") + top.map("stores")).contains(where: { $0.name == entry.name }) {
                checker.report(entry.line, entry.column, "'\(entry.name)' is a service's or a store's name already")
            }
            if case .object(let object) = entry.value, inactive[entry.name] == nil { tasks.append(task(entry.name, object, stores)) }
        }
        checkDependencies(top, inactive)
        let gateway = top.object("gateway").map { self.gateway(StackReader.withoutRoutes(to: inactive, $0), services) }
        checkPorts(top, services, gateway, stores)
        checkRoutes(of: services, gateway, top)
        if services.isEmpty, tasks.isEmpty, gateway == nil, declaredStores.isEmpty {
            checker.report(root.line, root.column, "the stack has neither services nor stores nor a gateway: there is nothing to run")
        }
        return Stack(name: top.string("stack") ?? defaultName, services: services, tasks: tasks, stores: stores, gateway: gateway)
    }

    mutating func checkName(_ name: String, _ what: String, _ line: Int, _ column: Int) {
        if !SchemaChecker.isName(name) {
            checker.report(line, column, "'\(name)' is no name for a \(what): use letters, digits and dashes")
        }
    }
}
