import Basics
import StackModel

extension StackDraft {
    /// Makes a stack of a compose file. `read` opens files beside it (a service's Dockerfile), by their path relative to it, bounded; nil: not
    /// there. Throws what makes it no compose file; everything else that is not taken over is a remark.
    public static func compose(_ text: [UInt8], file: String, read: (String) -> [UInt8]?) throws(Problems) -> StackDraft {
        let root: YAMLNode
        do throws(Problem) { root = try YAMLNode.parse(text, file: file) } catch { throw Problems(list: [error]) }
        var reader = ComposeFile(draft: StackDraft(origin: file), file: file)
        do throws(Problem) { try reader.take(root, read) } catch { throw Problems(list: [error]) }
        reader.draft.remarks.sort { $0.line < $1.line }
        return reader.draft
    }
}

/// Reads a compose file into a draft. Compose runs containers from images, Muster runs programs of this machine: images that are a Redis become
/// a store, services that say what they run become services, and of the others is said what to do.
struct ComposeFile {
    var draft: StackDraft
    let file: String
    /// The name in the compose file to what it became.
    private(set) var parts: [String: Part] = [:]

    /// What a service of the compose file becomes.
    enum Part {
        case service(String)
        case store(StackDraft.Store)
        /// Nothing; with the port that it publishes on this machine.
        case none(published: UInt16?)
    }

    /// A file with more is not written by hand.
    static let serviceLimit = 500

    init(draft: StackDraft, file: String) {
        self.draft = draft
        self.file = file
    }

    mutating func take(_ root: YAMLNode, _ read: (String) -> [UInt8]?) throws(Problem) {
        guard let top = root.pairs else {
            throw Problem(
                file: file, line: root.line, column: root.column, message: "expected a compose file (services: …), found \(root.kind)")
        }
        guard let services = top["services"], let list = services.value.pairs?.list else {
            throw Problem(
                file: file, line: root.line, column: root.column, message: "there are no services: in it, so it is no compose file")
        }
        guard list.count <= ComposeFile.serviceLimit else {
            throw Problem(
                file: file, line: services.key.line, column: services.key.column, message: "more than \(ComposeFile.serviceLimit) services")
        }
        if let name = top["name"]?.value.scalar, SchemaChecker.isName(name) { draft.stack = name }
        for entry in top.list where !["services", "name", "version"].contains(entry.name) && !entry.name.hasPrefix("x-") {
            guard let reason = ComposeFile.topReasons[entry.name] else { continue }
            draft.remark(nil, entry.key.line, "'\(entry.name)' is not taken over: \(reason)")
        }
        let found = list.map { ComposeService(name: $0.name, key: $0.key, keys: $0.value.pairs ?? YAMLPairs([])) }
        for service in found { place(service) }
        for service in found { takeOver(service, read) }
        choosePorts(found)
        breakCircles()
    }

    /// Who waits for each other never starts; Compose refuses such a file, and here the last link is left out.
    private mutating func breakCircles() {
        var waits: [String: [String]] = [:]
        func leads(from start: String, to end: String) -> Bool {
            var open = [start], seen: Set<String> = [start]
            while let name = open.popLast() {
                if name == end { return true }
                for next in waits[name] ?? [] where seen.insert(next).inserted { open.append(next) }
            }
            return false
        }
        for (i, service) in draft.services.enumerated() {
            for other in service.dependsOn {
                if leads(from: other, to: service.name) {
                    draft.services[i].dependsOn.removeAll { $0 == other }
                    draft.remark(service.name, 0, "It waits for '\(other)', which waits for it: that is left out.")
                } else {
                    waits[service.name, default: []].append(other)
                }
            }
        }
    }

    private static let topReasons = [
        "include": "name each file with --from, and put the results together",
        "secrets": "write secrets: { NAME: file } in the service; it is told where the file is by NAME_FILE",
        "configs": "a service reads a file where it is; give its path in 'environment'",
        "volumes": "programs see this machine's files as they are",
    ]

    // MARK: what becomes of a service

    /// First only what each becomes: others name it.
    private mutating func place(_ service: ComposeService) {
        let name = name(for: service)
        let image = service.image
        if service.keys["build"] == nil, let image, let kind = ComposeFile.kind(image) {
            let store = StackDraft.Store(name: name, kind: kind)
            draft.stores.append(store)
            parts[service.name] = .store(store)
            let program = kind == .redis ? "redis-server of this machine, with a password of its own" : "memcached of this machine"
            draft.remark(
                name, service.key.line,
                "the image \(image) became a store: Muster runs \(program); services with uses: [\(name)] get its address as \(kind.variable)"
            )
            return
        }
        let hasWords = service.keys["command"] != nil || service.keys["entrypoint"] != nil
        if service.keys["build"] == nil, image.map(ComposeFile.servers.contains) ?? false || !hasWords {
            parts[service.name] = .none(published: service.ports.first { !$0.isUDP }?.published)
            return
        }
        draft.services.append(.init(name: name))
        parts[service.name] = .service(name)
    }

    /// The kind of store that an image is; nil: none that Muster runs.
    private static func kind(_ image: String) -> StoreKindName? {
        let others = ["exporter", "insight", "commander", "sentinel", "cluster"]
        if others.contains(where: { image.contains($0) }) { return nil }
        if image.hasPrefix("memcached") { return .memcached }
        return image.hasPrefix("redis") || image.hasPrefix("valkey") ? .redis : nil
    }

    /// Images that are run as they are, whatever their command says.
    private static let servers: Set<String> = [
        "postgres", "postgresql", "postgis", "timescaledb", "mysql", "mariadb", "mongo", "mongodb", "rabbitmq", "kafka",
        "zookeeper",
        "elasticsearch", "opensearch", "minio", "influxdb", "prometheus", "grafana", "loki", "tempo", "nginx", "traefik", "caddy",
        "haproxy",
        "envoy", "mailhog", "mailpit", "adminer", "localstack", "cassandra", "clickhouse-server", "nats", "vault", "consul", "keycloak",
    ]
    private static let proxies: Set<String> = ["nginx", "traefik", "caddy", "haproxy", "envoy"]

    /// Names of services and stores are names of the network: letters, digits and dashes.
    private mutating func name(for service: ComposeService) -> String {
        var base = SchemaChecker.isName(service.name) ? service.name : Stack.defaultName(of: service.name)
        let simple = service.name.replacing("_", with: "-").replacing(".", with: "-")
        let taken = Set(draft.services.map(\.name) + draft.stores.map(\.name))
        if SchemaChecker.isName(simple), !taken.contains(simple) { base = simple }
        var number = 2
        while taken.contains(base) {
            base = "\(base.prefix(50))-\(number)"
            number += 1
        }
        if base != service.name {
            draft.remark(base, service.key.line, "'\(service.name)' is called '\(base)' here: letters, digits and dashes")
        }
        return base
    }

    private mutating func takeOver(_ service: ComposeService, _ read: (String) -> [UInt8]?) {
        switch parts[service.name] {
        case .service(let name)?:
            guard let index = draft.services.firstIndex(where: { $0.name == name }) else { return }
            var made = draft.services[index]
            let remarks = service.fill(&made, parts, read)
            draft.services[index] = made
            for remark in remarks { draft.remark(name, remark.line, remark.text) }
        case .store(let store)?:
            let name = store.name
            for key in ["command", "volumes", "ports"] {
                guard let found = service.keys[key] else { continue }
                let reason =
                    key == "ports"
                    ? "its port is chosen by Muster, or give \(store.kind.rawValue): a 'port'"
                    : "Muster writes its configuration itself, and keeps its data"
                draft.remark(name, found.key.line, "'\(key)' is not taken over: \(reason)")
            }
        case .none(let published)?:
            draft.remark(nil, service.key.line, leftOut(service, published))
        case nil: break
        }
    }

    private func leftOut(_ service: ComposeService, _ published: UInt16?) -> String {
        guard let image = service.image else {
            return "'\(service.name)' is left out: it has neither an image nor a build nor a command"
        }
        if ComposeFile.proxies.contains(image) {
            return
                "'\(service.name)' (image \(image)) is left out: Muster's own gateway takes its place; see docs/guides/gateway-migration.md"
        }
        let place = published.map { "; it was published as 127.0.0.1:\($0), and the services here look for it there" } ?? ""
        return
            "'\(service.name)' is left out: Muster runs programs of this machine, and the image \(image) is none. Leave it where it runs, or "
            + "install it\(place)"
    }

    // MARK: the gateway

    /// The service with published ports that looks most like the front has all requests.
    private mutating func choosePorts(_ found: [ComposeService]) {
        let fronts = ["web", "frontend", "front", "app", "www", "site", "proxy", "server", "api"]
        var published: [(name: String, port: ComposeService.Port, line: Int)] = []
        for service in found {
            guard case .service(let name)? = parts[service.name], let index = draft.services.firstIndex(where: { $0.name == name }) else {
                continue
            }
            let ports = service.ports
            guard let port = ports.first(where: { !$0.isUDP && $0.published != nil }) else { continue }
            published.append((name, port, port.line))
            if draft.services[index].port == nil { draft.services[index].port = port.target }
            for other in ports where other != port {
                draft.remark(
                    name, other.line, "the port '\(other.text)' is not taken over: a service has one port, and the gateway speaks HTTP")
            }
        }
        guard !published.isEmpty else { return replaceProxy(found) }
        let front = fronts.lazy.compactMap { word in published.firstIndex { $0.name == word } }.first ?? 0
        let first = published.remove(at: front)
        let bare = String(first.port.published ?? 8080)
        draft.listen = first.port.host.map { "\($0):\(bare)" } ?? bare
        if ListenAddress(draft.listen) == nil {
            draft.remark(first.name, first.line, "'\(draft.listen)' is no address of this machine: the gateway takes every one")
            draft.listen = bare
        }
        draft.routed = [first.name] + published.map(\.name)
        for other in published {
            draft.remark(
                other.name, other.line,
                "it was published as port \(other.port.published ?? 0); the gateway has one port, and tells services apart by host: "
                    + "http://\(other.name).localhost:\(first.port.published ?? 8080)/")
        }
    }
}

extension ComposeFile {
    /// Nothing but a proxy was published: the gateway takes its port, and leads to what stood behind it.
    private mutating func replaceProxy(_ found: [ComposeService]) {
        let proxies = found.filter {
            if case .none? = parts[$0.name] { $0.image.map(ComposeFile.proxies.contains) ?? false } else { false }
        }
        guard let proxy = proxies.first(where: { $0.ports.contains { $0.published != nil } }),
            let port = proxy.ports.first(where: { !$0.isUDP && $0.published != nil })
        else { return }
        let behind = proxy.dependencies.compactMap { if case .service(let name)? = parts[$0] { name } else { nil } }
        let routed = draft.services.filter { $0.port != nil && (behind.isEmpty || behind.contains($0.name)) }.map(\.name)
        let names = routed.isEmpty ? behind : routed
        guard !names.isEmpty else { return }
        draft.listen = String(port.published ?? 8080)
        draft.routed = names
        for name in names {
            guard let index = draft.services.firstIndex(where: { $0.name == name }), draft.services[index].port == nil else { continue }
            draft.services[index].port = 8080
            draft.remark(name, 0, "It stood behind the proxy '\(proxy.name)', and must listen on the port in the variable PORT.")
        }
    }
}

/// A mapping by its keys, with what `<<` brings in; in the file's order.
struct YAMLPairs {
    struct Entry {
        let name: String
        let key: YAMLNode
        let value: YAMLNode
    }

    private(set) var list: [Entry] = []
    private var places: [String: Int] = [:]

    init(_ pairs: [(key: YAMLNode, value: YAMLNode)]) {
        var merged: [YAMLNode] = []
        for (key, value) in pairs {
            guard case .scalar(let name, _) = key.content else { continue }
            if name == "<<" {
                if case .sequence(let items) = value.content { merged += items } else { merged.append(value) }
                continue
            }
            add(Entry(name: name, key: key, value: value))
        }
        // What stands in the mapping itself goes before what it brings in.
        for node in merged { for entry in node.pairs?.list ?? [] where places[entry.name] == nil { add(entry) } }
    }

    private mutating func add(_ entry: Entry) {
        places[entry.name] = list.count
        list.append(entry)
    }

    subscript(name: String) -> Entry? { places[name].map { list[$0] } }
}

extension YAMLNode {
    var pairs: YAMLPairs? { if case .mapping(let pairs) = content { YAMLPairs(pairs) } else { nil } }
    /// A text that is not nothing.
    var scalar: String? {
        guard case .scalar(let text, let isQuoted) = content, isQuoted || !["", "~", "null"].contains(text) else { return nil }
        return text
    }
    /// The texts of a list; of one text, that one.
    var texts: [String] {
        switch content {
        case .scalar: scalar.map { [$0] } ?? []
        case .sequence(let items): items.compactMap(\.scalar)
        case .mapping: []
        }
    }
    var items: [YAMLNode] { if case .sequence(let items) = content { items } else { [self] } }
}
