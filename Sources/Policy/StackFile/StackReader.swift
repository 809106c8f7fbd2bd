import Basics
import Sharding
import StackModel

extension Stack {
    /// Stack files and scenarios have at most this many bytes.
    public static let sizeLimit = YAMLNode.sizeLimit

    /// Reads and validates a stack file. Everything that is wrong is in the error, each with line and column.
    ///
    /// `path` is only for messages and the default name; nothing is opened here. `environment` answers for `${NAME}` in the values of
    /// services' environment variables, as in Compose.
    public static func read(
        _ text: [UInt8], path: String, environment: @escaping (String) -> String? = { _ in nil }
    ) throws(Problems) -> Stack {
        let root: YAMLNode
        do throws(Problem) { root = try YAMLNode.parse(text, file: path) } catch { throw Problems(list: [error]) }
        var reader = StackReader(checker: SchemaChecker(file: path), lookUp: environment)
        let stack = reader.stack(root, defaultName: Stack.defaultName(of: path))
        if let stack, reader.checker.problems.isEmpty { return stack }
        throw Problems(list: reader.checker.problems.sorted { ($0.line, $0.column) < ($1.line, $1.column) })
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
    let lookUp: (String) -> String?

    mutating func stack(_ root: YAMLNode, defaultName: String) -> Stack? {
        guard let top = checker.object(root, StackSchema.stack, "") else { return nil }
        var stores: [StoreSpec] = []
        for entry in top.map("stores") {
            checkName(entry.name, "store", entry.line, entry.column)
            if case .object(let object) = entry.value, let redis = object.object("redis") { stores.append(store(entry.name, redis)) }
        }
        var services: [ServiceSpec] = []
        for entry in top.map("services") {
            checkName(entry.name, "service", entry.line, entry.column)
            if stores.contains(where: { $0.name == entry.name }) {
                checker.report(entry.line, entry.column, "'\(entry.name)' is a store's name already")
            }
            if case .object(let object) = entry.value { services.append(service(entry.name, object, stores)) }
        }
        let gateway = top.object("gateway").map { self.gateway($0, services) }
        checkRoutes(of: services, gateway, top)
        if services.isEmpty, gateway == nil, stores.isEmpty {
            checker.report(root.line, root.column, "the stack has neither services nor stores nor a gateway: there is nothing to run")
        }
        return Stack(name: top.string("stack") ?? defaultName, services: services, stores: stores, gateway: gateway)
    }

    private mutating func checkName(_ name: String, _ what: String, _ line: Int, _ column: Int) {
        if !SchemaChecker.isName(name) {
            checker.report(line, column, "'\(name)' is no name for a \(what): use letters, digits and dashes")
        }
    }

    private mutating func store(_ name: String, _ redis: CheckedObject) -> StoreSpec {
        let masters = redis.integer("masters") ?? 1
        let spec = StoreSpec(
            name: name, role: StoreSpec.Role(rawValue: redis.string("role") ?? "") ?? .state, memory: redis.integer("memory") ?? 512 << 20,
            port: redis.integer("port").map(UInt16.init), masters: masters, replicas: redis.integer("replicas") ?? (masters > 1 ? 1 : 0),
            failover: redis.duration("failover") ?? .seconds(3))
        func complain(_ key: String, _ reason: String) {
            let place = redis.places[key] ?? (redis.line, redis.column)
            checker.report(place.line, place.column, "stores.\(name).redis.\(key): \(reason)")
        }
        if masters == 2 { complain("masters", "two masters cannot outvote a dead one: 1, or 3 and more") }
        if masters == 1, spec.replicas > 0 {
            complain("replicas", "a single server has nobody who would let a replica take over: with masters: 3 a cluster does")
        }
        if masters == 1, redis.places["failover"] != nil {
            complain("failover", "a single server is restarted, not replaced: this is for a cluster, masters: 3 or more")
        }
        if masters > 1, spec.replicas == 0, redis.places["failover"] != nil {
            complain("failover", "nobody can take over from a master without replicas: replicas: 1 or more")
        }
        if masters > 1 {
            do throws(FailoverTime.Refusal) { _ = try FailoverTime.nodeTimeout(promise: spec.failover) } catch {
                complain("failover", error.description)
            }
        }
        // The cluster bus takes the port 10,000 above.
        if masters > 1, let port = spec.port, Int(port) + spec.nodes + 10_000 > 65_536 {
            complain("port", "\(port) leaves no room: \(spec.nodes) nodes take the ports from it on, and the same plus 10000 for their bus")
        }
        return spec
    }

    /// Why a variable may not be declared: its value is Muster's, and another one would be dropped without a word.
    private static func taken(_ variable: String, hasHTTP: Bool) -> String? {
        switch variable {
        case "PORT" where hasHTTP: "each replica of a service with http gets a port of its own as PORT; leave it out"
        case "MUSTER_REPLICA": "Muster knows the processes of a replica by it; leave it out"
        default: nil
        }
    }

    private mutating func service(_ name: String, _ object: CheckedObject, _ stores: [StoreSpec]) -> ServiceSpec {
        let uses = object.strings("uses")
        for store in uses where !stores.contains(where: { $0.name == store }) {
            let place = object.places["uses"] ?? (object.line, object.column)
            let hint = checker.nearest(to: store, in: stores.map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
            checker.report(place.line, place.column, "services.\(name).uses: there is no store '\(store)'\(hint)")
        }
        if uses.count > 1 {
            let place = object.places["uses"]!
            checker.report(place.line, place.column, "services.\(name).uses: one store at most, because it arrives as REDIS_URL")
        }
        if object.places["command"] != nil, object.strings("command").first?.isEmpty ?? true {
            checker.report(
                object.places["command"]!.line, object.places["command"]!.column, "services.\(name).command: a program is needed")
        }
        var environment: [EnvironmentVariable] = []
        for entry in object.map("environment") {
            guard case .string(let value) = entry.value else { continue }
            let plain = !entry.name.isEmpty && entry.name.utf8.allSatisfy { ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 95 }
            if !plain { checker.report(entry.line, entry.column, "'\(entry.name)' is no name of an environment variable") }
            if let reason = StackReader.taken(entry.name, hasHTTP: object.places["http"] != nil) {
                checker.report(entry.line, entry.column, "services.\(name).environment.\(entry.name): \(reason)")
            }
            do throws(Interpolation.Failure) {
                environment.append(EnvironmentVariable(name: entry.name, value: try Interpolation.expand(value, lookUp)))
            } catch { checker.report(entry.line, entry.column, "services.\(name).environment.\(entry.name): \(error.reason)") }
        }
        let cpu = object.object("resources")?.integer("cpu"), memory = object.object("resources")?.integer("memory")
        let replicas = object.range("replicas") ?? 1...1, http = object.object("http").map(http)
        return ServiceSpec(
            name: name, command: object.strings("command"), image: object.string("image"), replicas: replicas, http: http, cpu: cpu,
            memory: memory, uses: uses,
            environment: environment, grace: object.duration("grace") ?? .seconds(10), startTime: object.duration("start") ?? .seconds(30),
            scaling: object.object("scale").map {
                scaling($0, ScaledService(name: name, replicas: replicas, cpu: cpu, memory: memory, http: http), stores: stores.map(\.name))
            })
    }

    private func http(_ object: CheckedObject) -> HTTPInterface {
        HTTPInterface(
            port: UInt16(object.integer("port") ?? 8080), live: object.string("live") ?? "/health/live",
            ready: object.string("ready") ?? "/health/ready", metrics: object.string("metrics"))
    }
}
