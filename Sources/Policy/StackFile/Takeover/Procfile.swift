extension StackDraft {
    /// Makes a stack of a Procfile: a line is a name, a colon and a command for a shell. `web` gets the requests, the others are workers.
    public static func procfile(_ text: [UInt8], file: String) throws(Problems) -> StackDraft {
        var draft = StackDraft(origin: file)
        var number = 0
        if let place = text.firstIndex(of: 0) {
            let line = text[..<place].count { $0 == 10 } + 1
            throw Problems(list: [Problem(file: file, line: line, column: 1, message: "a NUL character, which no command can have")])
        }
        for raw in text.split(separator: 10, omittingEmptySubsequences: false) {
            number += 1
            var line = String(decoding: raw.last == 13 ? raw.dropLast() : raw, as: UTF8.self)[...]
            line = line.drop { $0.isWhitespace }
            if line.isEmpty || line.hasPrefix("#") { continue }
            guard let colon = line.firstIndex(of: ":") else {
                throw Problems(list: [
                    Problem(file: file, line: number, column: 1, message: "expected NAME: COMMAND, found '\(line.prefix(60))'")
                ])
            }
            let name = String(line[..<colon]), command = line[line.index(after: colon)...].drop { $0.isWhitespace }
            try draft.add(name, String(command), line: number)
            guard draft.services.count <= ComposeFile.serviceLimit else {
                throw Problems(list: [
                    Problem(file: file, line: number, column: 1, message: "more than \(ComposeFile.serviceLimit) processes")
                ])
            }
        }
        if !draft.tasks.isEmpty { for i in draft.services.indices { draft.services[i].dependsOn = ["release"] } }
        return draft
    }

    /// A command without anything for a shell but variables, as a stack file's one line has them: there one that is not set is an error, and
    /// for a shell it is empty.
    private static func line(_ command: String) -> String? {
        let bare = command.hasPrefix("exec ") ? String(command.dropFirst(5).drop { $0.isWhitespace }) : command
        // Quotes and backslashes would have to be followed, to know which dollars are variables.
        guard !bare.contains("'"), !bare.contains("\\"), !bare.contains("#"), !bare.hasPrefix("$"), !bare.hasPrefix("\"") else {
            return nil
        }
        let text = ComposeText(bare)
        guard text.trouble == nil else { return nil }
        return text.stackText.replacing("${PORT:-}", with: "$PORT")
    }

    private mutating func add(_ name: String, _ command: String, line: Int) throws(Problems) {
        let simple = name.replacing("_", with: "-")
        guard SchemaChecker.isName(simple), !(services + tasks).contains(where: { $0.name == simple }) else {
            throw Problems(list: [
                Problem(
                    file: origin, line: line, column: 1,
                    message: "'\(name.prefix(60))' is no name for a service, or there are two of it: use letters, digits and dashes")
            ])
        }
        guard CommandLineText(command).words?.first?.isEmpty != true, !command.isEmpty else {
            throw Problems(list: [Problem(file: origin, line: line, column: 1, message: "'\(name)' has no command")])
        }
        var service = Service(name: simple)
        if simple != name { remark(simple, line, "'\(name)' is called '\(simple)' here: letters, digits and dashes") }
        let parsed = CommandLineText(command)
        guard let words = parsed.words else {
            throw Problems(list: [Problem(file: origin, line: line, column: 1, message: "'\(name)': a quote is not closed")])
        }
        if parsed.needsShell {
            service.command = CommandLineText.shell(command)
            if parsed.hasVariables {
                remark(simple, line, "a shell fills in its variables: what it needs beside PORT must be declared in 'environment'")
            }
        } else if parsed.hasVariables, let text = StackDraft.line(command) {
            service.line = text
        } else {
            service.command = parsed.hasVariables ? CommandLineText.shell(command) : words
        }
        if name == "release" {
            remark(simple, line, "it is a task: it runs once, and the services wait for it")
            tasks.append(service)
            return
        }
        if name == "web" {
            service.port = 8080
            routed = [simple]
            if !command.contains("PORT") {
                remark(simple, line, "it must listen on the port in the variable PORT: each replica has its own")
            }
            remark(simple, line, "its probe asks GET / until it is answered with 2xx: name a path of its own for that if it has one")
        }
        services.append(service)
    }

    /// A stack of one command that takes requests on the port in `PORT`.
    public static func command(_ words: [String]) -> StackDraft {
        var draft = StackDraft(origin: "a command")
        var service = Service(name: "app")
        service.command = words
        service.port = 8080
        draft.remark("app", 0, "It must listen on the port in the variable PORT: each replica has its own.")
        draft.remark("app", 0, "The probe asks GET / until it is answered with 2xx. Name a path of its own for that if it has one.")
        draft.remark("app", 0, "Without http: it is a worker, which takes no requests; then the gateway below goes, too.")
        draft.services = [service]
        draft.routed = ["app"]
        return draft
    }
}
