import StackModel

/// Reads how a process is started: `command`, `environment`, `env-file`, `working-directory`, `user`.
extension StackReader {
    /// All services together.
    private static let variableLimit = 200_000
    /// What Linux gives a program by default for arguments and variables together is 2 MiB.
    private static let environmentLimit = 1 << 20
    /// `env-file`s of one service.
    private static let fileLimit = 32

    /// Why a variable may not be declared: its value is Muster's, and another one would be dropped without a word.
    private static func taken(_ variable: String, hasHTTP: Bool, hasSocket: Bool) -> String? {
        switch variable {
        case "SOCKET" where hasSocket: "each replica of a service with http.socket gets a socket of its own as SOCKET; leave it out"
        case "PORT" where hasHTTP: "each replica of a service with http gets a port of its own as PORT; leave it out"
        case "MUSTER_REPLICA": "Muster knows the processes of a replica by it; leave it out"
        default: nil
        }
    }

    /// Whether an object is a service whose replicas get a SOCKET.
    private static func hasSocket(_ object: CheckedObject) -> Bool { object.object("http")?.boolean("socket") == true }

    /// `path` is where it stands, such as `services.web`; `storeVariables` are those in which it is told where its stores are.
    mutating func process(_ path: String, _ object: CheckedObject, hasHTTP: Bool, storeVariables: StoreVariables) -> ProcessSpec {
        let environment = environment(path, object, hasHTTP: hasHTTP), secrets = secrets(path, object, environment)
        let user = object.string("user"), folder = object.string("working-directory")
        if let folder { check(.folder(variables.place(folder)), object, "working-directory", path) }
        if let user { check(.user(user), object, "user", path) }
        let process = ProcessSpec(
            command: CommandLine(words: []), environment: environment, workingDirectory: folder, user: user, secrets: secrets)
        return process.with(command(path, object, process, storeVariables))
    }

    private mutating func secrets(_ path: String, _ object: CheckedObject, _ environment: [EnvironmentVariable]) -> [SecretFile] {
        object.map("secrets").compactMap { entry in
            guard case .object(let secret) = entry.value, let file = secret.string("file") else { return nil }
            let found = SecretFile(name: entry.name, file: file)
            if !Interpolation.isName(entry.name) {
                checker.report(entry.line, entry.column, "'\(entry.name)' is no name of an environment variable")
            }
            if environment.contains(where: { $0.name == found.variable }) {
                checker.report(entry.line, entry.column, "\(path).secrets.\(entry.name): \(found.variable) is declared as a variable, too")
            }
            if let flaw = variables.files.flaw(.secret(variables.place(file))) {
                let place = secret.places["file"] ?? (entry.line, entry.column)
                checker.report(place.line, place.column, "\(path).secrets.\(entry.name): \(flaw)")
            }
            return found
        }
    }

    private mutating func check(_ need: StackFiles.Need, _ object: CheckedObject, _ key: String, _ path: String) {
        guard let flaw = variables.files.flaw(need), let place = object.places[key] else { return }
        checker.report(place.line, place.column, "\(path).\(key): \(flaw)")
    }

    /// The `command` of an object; its variables are those of `process`.
    mutating func command(
        _ path: String, _ object: CheckedObject, _ process: ProcessSpec, _ storeVariables: StoreVariables
    ) -> CommandLine {
        let none = CommandLine(words: [])
        guard let place = object.places["command"] else { return none }
        guard case .string(let line)? = object.values["command"] else {
            let words = object.strings("command")
            if object.values["command"] != nil, words.first?.isEmpty ?? true {
                checker.report(place.line, place.column, "\(path).command: a program is needed")
            }
            return CommandLine(words: words)
        }
        var given: Set<String> = ["PORT", "HOST", "INSTANCE_ID", "MUSTER_STACK", "MUSTER_SERVICE"]
        if process.user != nil { given.formUnion(["HOME", "USER", "LOGNAME"]) }
        if StackReader.hasSocket(object) { given.insert("SOCKET") }
        given.formUnion(process.secrets.map(\.variable))
        given.formUnion(storeVariables.plain)
        let secret = storeVariables.secret
        let declared = Dictionary(process.environment.map { ($0.name, $0.value) }, uniquingKeysWith: { $1 })
        let variables = variables
        do throws(Interpolation.Failure) {
            return try CommandLine(line: line) { name in
                if let value = declared[name] { return .value(value) }
                if secret.contains(name) {
                    return .refused(
                        "\(name) has a password in it, and every user of the machine can read a command: let the program read the variable")
                }
                if given.contains(name) { return .given }
                return variables.value(name).map(CommandLine.Variable.value) ?? .unset
            }
        } catch {
            checker.report(place.line, place.column, "\(path).command: \(error.reason)")
            return none
        }
    }

    /// The variables of `env-file`, then those of `environment`; of two with one name the later one stays.
    private mutating func environment(_ path: String, _ object: CheckedObject, hasHTTP: Bool) -> [EnvironmentVariable] {
        var found: [EnvironmentVariable] = []
        var places: [String: Int] = [:]
        let hasSocket = StackReader.hasSocket(object)
        func add(_ name: String, _ value: String) {
            if let place = places[name] {
                found[place] = EnvironmentVariable(name: name, value: value)
            } else {
                places[name] = found.count
                found.append(EnvironmentVariable(name: name, value: value))
            }
        }
        for entry in fileEntries(path, object) {
            if let reason = StackReader.taken(entry.entry.name, hasHTTP: hasHTTP, hasSocket: hasSocket) {
                variables.report(entry.file, entry.entry.line, entry.entry.column, "\(entry.entry.name), for \(path): \(reason)")
            }
            add(entry.entry.name, entry.entry.value)
        }
        for entry in object.map("environment") {
            guard case .string(let value) = entry.value else { continue }
            if !Interpolation.isName(entry.name) {
                checker.report(entry.line, entry.column, "'\(entry.name)' is no name of an environment variable")
            }
            if let reason = StackReader.taken(entry.name, hasHTTP: hasHTTP, hasSocket: hasSocket) {
                checker.report(entry.line, entry.column, "\(path).environment.\(entry.name): \(reason)")
            }
            let variables = variables
            do throws(Interpolation.Failure) { add(entry.name, try Interpolation.expand(value) { variables.value($0) }) } catch {
                checker.report(entry.line, entry.column, "\(path).environment.\(entry.name): \(error.reason)")
            }
        }
        variableCount += found.count
        var size = 0
        for variable in found where size <= StackReader.environmentLimit {
            size += variable.name.utf8.count + variable.value.utf8.count + 2
        }
        guard size <= StackReader.environmentLimit, variableCount <= StackReader.variableLimit else {
            checker.report(
                object.line, object.column,
                size > StackReader.environmentLimit
                    ? "\(path): its variables are larger than 1 MiB, which no program can be given"
                    : "\(path): more than \(StackReader.variableLimit) variables in one stack")
            return []
        }
        return found
    }

    private mutating func fileEntries(_ path: String, _ object: CheckedObject) -> [(file: String, entry: Dotenv.Entry)] {
        guard let place = object.places["env-file"] else { return [] }
        let paths = object.strings("env-file")
        guard paths.count <= StackReader.fileLimit else {
            checker.report(place.line, place.column, "\(path).env-file: more than \(StackReader.fileLimit) files")
            return []
        }
        var found: [(file: String, entry: Dotenv.Entry)] = []
        for written in paths {
            let variables = variables
            do throws(Interpolation.Failure) {
                let file = try Interpolation.expand(written) { variables.value($0) }
                guard !file.isEmpty else { throw Interpolation.Failure(reason: "the path of a file is needed") }
                found += try variables.entries(of: file).map { (variables.place(file), $0) }
            } catch { checker.report(place.line, place.column, "\(path).env-file: \(error.reason)") }
        }
        return found
    }
}
