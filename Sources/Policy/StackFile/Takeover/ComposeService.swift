import Basics
import StackModel

/// One service of a compose file.
struct ComposeService {
    struct Port: Equatable {
        let text: String
        let line: Int
        var host: String?
        var published: UInt16?
        var target: UInt16
        var isUDP = false
    }

    typealias Remark = (line: Int, text: String)

    let name: String
    let key: YAMLNode
    let keys: YAMLPairs

    /// The image's name without its registry and its tag: `docker.io/library/redis:7-alpine` is `redis`.
    var image: String? {
        guard let text = keys["image"]?.value.scalar, let whole = ComposeText(text).defaultText else { return nil }
        let last = whole.split(separator: "/").last ?? ""
        return last.prefix { $0 != ":" && $0 != "@" }.lowercased()
    }

    /// The services that it waits for.
    var dependencies: [String] {
        guard let node = keys["depends_on"]?.value else { return [] }
        return node.pairs.map { $0.list.map(\.name) } ?? node.texts
    }

    // MARK: ports

    var ports: [Port] { (keys["ports"]?.value.items ?? []).prefix(100).compactMap(ComposeService.port) }

    /// `8000`, `8000:5000`, `127.0.0.1:8000:5000`, `8000:5000/tcp`, or target and published. Of a range its first port.
    private static func port(_ node: YAMLNode) -> Port? {
        if let keys = node.pairs {
            guard let target = keys["target"]?.value.scalar.flatMap(first) else { return nil }
            return Port(
                text: String(target), line: node.line, host: keys["host_ip"]?.value.scalar,
                published: keys["published"]?.value.scalar.flatMap { ComposeText($0).defaultText }.flatMap(first), target: target,
                isUDP: keys["protocol"]?.value.scalar == "udp")
        }
        guard let raw = node.scalar, var text = ComposeText(raw).defaultText?[...] else { return nil }
        let isUDP = text.hasSuffix("/udp")
        if let slash = text.firstIndex(of: "/") { text = text[..<slash] }
        guard let last = text.lastIndex(of: ":") else {
            return first(text).map { Port(text: raw, line: node.line, target: $0, isUDP: isUDP) }
        }
        guard let target = first(text[text.index(after: last)...]) else { return nil }
        let front = text[..<last]
        guard let middle = front.lastIndex(of: ":") else {
            return Port(text: raw, line: node.line, published: first(front), target: target, isUDP: isUDP)
        }
        return Port(
            text: raw, line: node.line, host: String(front[..<middle]), published: first(front[front.index(after: middle)...]),
            target: target,
            isUDP: isUDP)
    }

    private static func first(_ text: some StringProtocol) -> UInt16? {
        UInt16(text.prefix { $0 != "-" }).flatMap { $0 > 0 ? $0 : nil }
    }

    // MARK: taking over

    /// Fills in what becomes a service, and returns what is to be said about it.
    func fill(_ made: inout StackDraft.Service, _ parts: [String: ComposeFile.Part], _ read: (String) -> [UInt8]?) -> [Remark] {
        var remarks: [Remark] = []
        let build = dockerfile(read, &remarks)
        made.port = ports.first { !$0.isUDP }?.target ?? keys["expose"]?.value.texts.first.flatMap(ComposeService.first) ?? build?.file.port
        takeEnvironment(&made, build?.file, parts, &remarks)
        takeCommand(&made, build, &remarks)
        takeHealth(&made, &remarks)
        takeSize(&made, &remarks)
        takeDependencies(&made, parts)
        takeFiles(&made, read, &remarks)
        for entry in keys.list where !ComposeService.understood.contains(entry.name) && !entry.name.hasPrefix("x-") {
            let reason = ComposeService.reasons[entry.name] ?? "a stack file has nothing like it"
            remarks.append((entry.key.line, "'\(entry.name)' is not taken over: \(reason)"))
        }
        return remarks
    }

    /// Keys that are looked at, or mean nothing without containers.
    private static let understood: Set<String> = [
        "image", "build", "command", "entrypoint", "environment", "ports", "expose", "healthcheck", "deploy", "scale", "depends_on",
        "stop_grace_period", "env_file", "container_name", "hostname", "networks", "links", "tty", "stdin_open", "init", "pull_policy",
        "platform",
        "labels",
        "annotations", "restart", "cpus", "mem_limit",
    ]
    private static let reasons = [
        "volumes": "a program sees this machine's files as they are; a path in a container must become one here",
        "tmpfs": "a program has this machine's /tmp",
        "working_dir": "it is a folder in the container; 'working-directory' names one of this machine",
        "user": "it is a user in the container; 'user' names one of this machine, where root starts Muster",
        "secrets": "write secrets: { NAME: file }; the program is told where each file is by NAME_FILE",
        "configs": "give the file's path in 'environment'",
        "logging": "each replica's lines go to a file that is rotated: 'muster logs'",
        "stop_signal": "Muster stops with SIGTERM",
        "profiles": "it always runs; with profiles: [NAME] it runs where MUSTER_PROFILES names one of them",
        "extends": "the other file is not read; copy what it says",
        "develop": "after a change, 'muster roll' replaces the replicas",
        "privileged": "there are no containers", "cap_add": "there are no containers", "cap_drop": "there are no containers",
        "security_opt": "there are no containers", "devices": "there are no containers",
        "ulimits": "limits are those of whoever starts Muster",
        "extra_hosts": "names are this machine's", "dns": "names are this machine's",
        "network_mode": "a program has this machine's network",
    ]

    // MARK: the command

    /// The service's Dockerfile, and the folder that it is built from, relative to the compose file.
    private func dockerfile(_ read: (String) -> [UInt8]?, _ remarks: inout [Remark]) -> (file: Dockerfile, folder: String)? {
        guard let build = keys["build"] else { return nil }
        let folder = build.value.scalar ?? build.value.pairs?["context"]?.value.scalar ?? "."
        let name = build.value.pairs?["dockerfile"]?.value.scalar ?? "Dockerfile"
        guard let text = read(name.hasPrefix("/") ? name : "\(folder)/\(name)") else { return (Dockerfile([]), folder) }
        remarks.append((build.key.line, "no image is built: what the program needs must be installed on this machine"))
        return (Dockerfile(text, target: build.value.pairs?["target"]?.value.scalar), folder)
    }

    private func takeCommand(_ made: inout StackDraft.Service, _ build: (file: Dockerfile, folder: String)?, _ remarks: inout [Remark]) {
        var words: [ComposeText] = []
        for (key, fallback) in [("entrypoint", build?.file.entrypoint ?? []), ("command", build?.file.command ?? [])] {
            guard let node = keys[key] else {
                // An entrypoint of the compose file's own takes the image's command away.
                if key == "entrypoint" || keys["entrypoint"] == nil { words += fallback.map { ComposeText($0.replacing("$", with: "$$")) } }
                continue
            }
            if let line = node.value.scalar {
                guard let parsed = CommandLineText(line).words else {
                    remarks.append((node.key.line, "'\(key)' has a quote that is not closed"))
                    continue
                }
                words += parsed.map(ComposeText.init)
            } else {
                words += node.value.texts.map(ComposeText.init)
            }
        }
        for trouble in words.compactMap(\.trouble) { remarks.append((key.line, "the command: \(trouble)")) }
        if let image, keys["build"] == nil {
            remarks.append((key.line, "the image \(image) is not used: the command runs on this machine, where it must be installed"))
        }
        if words.first?.isEmpty ?? true {
            made.command = ["./start-\(made.name)"]
            let place = build.map { " (\($0.folder == "." ? "" : $0.folder + "/")Dockerfile)" } ?? ""
            remarks.append(
                (
                    key.line,
                    "its command stands neither here nor in its Dockerfile\(place): write what starts it in place of ./start-\(made.name)"
                ))
        } else {
            takeWords(words, &made, &remarks)
        }
        if let folder = build?.folder, ![".", "./", ""].contains(folder) { made.folder = folder }
    }

    /// The words as a list; as one line where they have variables, the replica's port among them.
    private func takeWords(_ words: [ComposeText], _ made: inout StackDraft.Service, _ remarks: inout [Remark]) {
        let plain = words.map { $0.hasVariables ? nil : $0.defaultText }
        var line = words.map(\.word)
        var hasPort = false
        if let port = made.port {
            for (i, word) in plain.enumerated().dropFirst() {
                guard let word, let changed = ComposeService.withPort(word, port) else { continue }
                line[i] = changed
                hasPort = true
            }
            if hasPort {
                remarks.append((key.line, "the command named the port \(port): each replica has a port of its own, in PORT"))
            } else if !line.contains(where: { $0.contains("PORT") }) {
                remarks.append((key.line, "it must listen on the port in the variable PORT: each replica has its own"))
            }
        }
        if !hasPort, plain.allSatisfy({ $0 != nil }) {
            made.command = plain.map { $0 ?? "" }
        } else if let program = plain.first ?? nil, !program.contains("=") {
            made.line = line.joined(separator: " ")
        } else {
            made.command = ["sh", "-c", "exec " + line.joined(separator: " ")]
            remarks.append((key.line, "the program itself is a variable: the shell fills it in, from the service's environment"))
        }
    }

    /// The word with `$PORT` in place of the port, where it is a number by itself: `8000`, `--port=8000`, `0.0.0.0:8000`.
    private static func withPort(_ word: String, _ port: UInt16) -> String? {
        let digits = String(port)
        guard let place = word.ranges(of: digits).last, place.upperBound == word.endIndex else { return nil }
        let front = word[..<place.lowerBound]
        guard front.isEmpty || front.hasSuffix(":") || front.hasSuffix("=") else { return nil }
        return (front.isEmpty ? "" : CommandLineText.quoted(String(front))) + "$PORT"
    }

    // MARK: environment

    private func takeEnvironment(
        _ made: inout StackDraft.Service, _ build: Dockerfile?, _ parts: [String: ComposeFile.Part], _ remarks: inout [Remark]
    ) {
        var found: [(name: String, text: ComposeText, line: Int)] = []
        for (name, value) in build?.environment ?? [] where name != "PATH" && !value.contains("$") {
            found.append((name, ComposeText(value), key.line))
        }
        if let node = keys["environment"] {
            if let pairs = node.value.pairs {
                for entry in pairs.list {
                    // Without a value it is what it is outside.
                    found.append((entry.name, ComposeText(entry.value.scalar ?? "${\(entry.name):-}"), entry.key.line))
                }
            } else {
                for item in node.value.items {
                    guard let text = item.scalar else { continue }
                    let name = String(text.prefix { $0 != "=" }), value = text.dropFirst(name.count + 1)
                    found.append((name, ComposeText(text.contains("=") ? String(value) : "${\(name):-}"), item.line))
                }
            }
        }
        var taken: [String: Int] = [:]
        for (name, text, line) in found {
            let isPlain = !name.isEmpty && name.utf8.allSatisfy(Interpolation.isNameByte)
            guard isPlain, name != "MUSTER_REPLICA" else {
                remarks.append((line, "'\(name)' is no name of an environment variable here"))
                continue
            }
            if name == "PORT", made.port != nil {
                remarks.append((line, "PORT is not taken over: each replica has a port of its own in it"))
                continue
            }
            if let trouble = text.trouble { remarks.append((line, "\(name): \(trouble)")) }
            guard let value = address(name, text, line, parts, &made, &remarks) else { continue }
            guard value.utf8.count <= Interpolation.valueLimit else {
                remarks.append((line, "\(name) is not taken over: \(Interpolation.tooLong.reason)"))
                continue
            }
            if let before = taken[name] {
                made.environment[before].value = value
            } else {
                taken[name] = made.environment.count
                made.environment.append((name, value))
            }
        }
    }

    /// The value with the names of other services in it made addresses of this machine; nil: the variable is not needed.
    private func address(
        _ name: String, _ text: ComposeText, _ line: Int, _ parts: [String: ComposeFile.Part], _ made: inout StackDraft.Service,
        _ remarks: inout [Remark]
    ) -> String? {
        let value = text.stackText
        func isPart(_ character: Character) -> Bool { character.isLetter || character.isNumber || "_-.".contains(character) }
        for range in ComposeService.hosts(in: value) {
            guard let part = parts[String(value[range])] else { continue }
            switch part {
            case .store(let store):
                // The variable holds the address and nothing else: it arrives under this name.
                if ComposeService.isAddress(value, of: store.kind, at: range) {
                    let use = StackDraft.Use(store: store, variable: name == store.kind.variable ? nil : name)
                    if !made.uses.contains(use) { made.uses.append(use) }
                    return nil
                }
                if !made.uses.contains(where: { $0.store == store }) { made.uses.append(.init(store: store)) }
                remarks.append(
                    (
                        line,
                        "\(name) named the store '\(store.name)': its address arrives as \(store.kind.variable) here; let the program read that"
                    ))
                return value
            case .service(let other):
                remarks.append(
                    (
                        line,
                        "\(name) names the service '\(other)': here it is asked by way of the gateway, at 127.0.0.1 and with "
                            + "the header Host: \(other).localhost"
                    ))
                return value
            case .none(let published):
                remarks.append((line, "\(name) named '\(value[range])', which Muster does not run: it is looked for on this machine"))
                let rest = value[range.upperBound...]
                let port = rest.first == ":" ? rest.dropFirst().prefix { $0.isNumber } : ""
                let after = rest.dropFirst(port.isEmpty ? 0 : port.count + 1)
                let place = port.isEmpty ? "127.0.0.1" : "127.0.0.1:" + (published.map(String.init) ?? String(port))
                return value[..<range.lowerBound] + place + after
            }
        }
        return value
    }

    /// Whether a value is the address of a store's host at `range`, and says no more: no database but the first, no name of a user.
    private static func isAddress(_ value: String, of kind: StoreKindName, at range: Range<String.Index>) -> Bool {
        let before = value[..<range.lowerBound]
        var rest = value[range.upperBound...]
        if rest.first == ":" { rest = rest.dropFirst().drop { $0.isASCII && $0.isNumber } }
        return kind == .redis ? before == "redis://" && ["", "/", "/0"].contains(rest) : before.isEmpty && rest.isEmpty
    }

    /// Where a host may stand: the whole value, after `//` or `@`, or before a port.
    private static func hosts(in value: String) -> [Range<String.Index>] {
        func isPart(_ character: Character) -> Bool {
            character.isASCII && (character.isLetter || character.isNumber || "_-.".contains(character))
        }
        var found: [Range<String.Index>] = []
        var place = value.startIndex
        while place < value.endIndex {
            guard isPart(value[place]) else {
                place = value.index(after: place)
                continue
            }
            let end = value[place...].firstIndex { !isPart($0) } ?? value.endIndex
            let before = value[..<place], after = value[end...]
            let isHost = before.isEmpty && after.isEmpty || before.hasSuffix("//") || before.hasSuffix("@") || before.hasSuffix(",")
            if isHost || after.first == ":" && after.dropFirst().first?.isNumber ?? false { found.append(place..<end) }
            place = end
        }
        return found
    }

    // MARK: the rest

    private func takeHealth(_ made: inout StackDraft.Service, _ remarks: inout [Remark]) {
        guard made.port != nil else {
            if let node = keys["healthcheck"] {
                remarks.append(
                    (node.key.line, "'healthcheck' is not taken over: a service without a port is ready when it has lived for a moment"))
            }
            return
        }
        let test = keys["healthcheck"]?.value.pairs?["test"]
        let words = (test?.value.texts ?? []).joined(separator: " ")
        for mark in ["http://", "https://"] {
            guard let start = words.firstRange(of: mark) else { continue }
            let rest = words[start.upperBound...].prefix { !" \"')|;&".contains($0) }
            let path = rest.firstIndex(of: "/").map { rest[$0...].prefix { $0 != "?" && $0 != "#" } } ?? "/"
            if case .string(let path)? = SchemaChecker.scalar(String(path), .path) {
                made.health = path
                return
            }
        }
        let line = test?.key.line ?? key.line
        remarks.append((line, "its probe asks GET / until it is answered with 2xx: name a path of its own for that if it has one"))
    }

    private func takeSize(_ made: inout StackDraft.Service, _ remarks: inout [Remark]) {
        let deploy = keys["deploy"]?.value.pairs
        if let node = deploy?["replicas"] ?? keys["scale"] {
            let count = node.value.scalar.flatMap { ComposeText($0).defaultText }.flatMap { Int($0) }
            if let count, (0...ServiceSpec.replicaLimit).contains(count) {
                made.replicas = count
            } else {
                remarks.append(
                    (node.key.line, "'\(node.name)' is not taken over: no number of replicas from 0 to \(ServiceSpec.replicaLimit)"))
            }
        }
        let limits = deploy?["resources"]?.value.pairs?["limits"]?.value.pairs
        if let node = limits?["cpus"] ?? keys["cpus"] {
            if let cpus = node.value.scalar.flatMap({ ComposeText($0).defaultText }), SchemaChecker.millicores(cpus) != nil {
                made.cpu = cpus
            } else {
                remarks.append((node.key.line, "'\(node.name)' is not taken over: no number of processors such as 0.5"))
            }
        }
        if let node = limits?["memory"] ?? keys["mem_limit"] {
            if let bytes = node.value.scalar.flatMap({ ComposeText($0).defaultText }).flatMap(ComposeService.bytes) {
                made.memory = bytes
            } else {
                remarks.append((node.key.line, "'\(node.name)' is not taken over: no size such as 512m"))
            }
        }
        if let node = keys["stop_grace_period"] {
            if let text = node.value.scalar, let time = ComposeService.time(text) {
                made.grace = time
            } else {
                remarks.append((node.key.line, "'stop_grace_period' is not taken over: no time such as 30s"))
            }
        }
        let restart = keys["restart"]?.value.scalar ?? ""
        if restart == "no" || restart == "false" { made.restart = "never" }
        if restart.hasPrefix("on-failure") { made.restart = "on-failure" }
    }

    /// `512M`, `1g`, `1.5g`, `64kb`: with Compose they are powers of 1024, and what is left of a byte is dropped.
    private static func bytes(_ text: String) -> Int? {
        let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }, unit = text.dropFirst(digits.count).lowercased()
        guard digits.utf8.count <= 15, digits.first != ".", digits.last != ".", let number = Double(digits),
            let factor = ["": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30][unit]
        else { return nil }
        // Below 2^53 a product is exact: whole numbers stay what they are.
        let size = (number * Double(factor)).rounded(.down)
        guard size >= 1, size <= Double(min(ValueType.largestSize, 1 << 53)) else { return nil }
        return Int(exactly: size)
    }

    /// `1m30s`, `10s`, `500ms`
    private static func time(_ text: String) -> Duration? {
        var total = Duration.zero, rest = text[...]
        guard !rest.isEmpty, text.utf8.count <= 32 else { return nil }
        while !rest.isEmpty {
            let number = rest.prefix { $0.isNumber || $0 == "." }
            let unit = rest.dropFirst(number.count).prefix { $0.isLetter }
            guard !number.isEmpty, !unit.isEmpty, let part = Duration(text: String(number + unit)), part <= ValueType.longestTime else {
                return nil
            }
            total += part
            rest = rest.dropFirst(number.count + unit.count)
        }
        return total >= .milliseconds(1) && total <= ValueType.longestTime ? total : nil
    }

    private func takeDependencies(_ made: inout StackDraft.Service, _ parts: [String: ComposeFile.Part]) {
        for name in dependencies.prefix(ComposeService.dependencyLimit) {
            switch parts[name] {
            case .store(let store)?: if !made.uses.contains(where: { $0.store == store }) { made.uses.append(.init(store: store)) }
            case .service(let other)?: if !made.dependsOn.contains(other) { made.dependsOn.append(other) }
            case Optional<ComposeFile.Part>.none, .some(.none): break
            }
        }
    }

    private static let dependencyLimit = 20

    /// Files with variables, those that are there; a stack file names none that is not.
    private func takeFiles(_ made: inout StackDraft.Service, _ read: (String) -> [UInt8]?, _ remarks: inout [Remark]) {
        guard let node = keys["env_file"] else { return }
        let paths = node.value.items.prefix(ComposeService.dependencyLimit).compactMap { $0.pairs?["path"]?.value.scalar ?? $0.scalar }
        for path in paths {
            if read(path) == nil {
                remarks.append((node.key.line, "'env_file: \(path)' is not taken over: it is not there"))
            } else if !path.contains("$") {
                made.files.append(path)
            }
        }
    }
}
