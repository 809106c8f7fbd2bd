import Basics
import JSONCoding
import StackModel
import Supervision

let runVerb = Verb(
    name: "run", summary: "one command in a service's environment",
    help: """
        usage: muster run SERVICE [--stack FILE] -- COMMAND [ARGUMENT]...

        Runs the command once, with the environment, the folder and the user of the service, and with the addresses of the stores that it uses:
        a migration, a console, a look. The terminal is the command's, and so is the exit status. It is no replica: it gets no requests, and the
        stack does not end it. A service that uses stores needs the stack to run.

        example:
          muster run web -- python3 manage.py migrate
        """,
    takesCommand: true
) { arguments in
    try arguments.atMost(1, "one service; a command follows --")
    guard let name = arguments.positional.first else { throw Exit.usage("which service?") }
    guard !arguments.command.isEmpty else { throw Exit.usage("which command? It follows --, as in: muster run \(name) -- env") }
    let handle = try StackHandle(arguments.value("--stack"))
    let stack = try handle.stack
    guard let service = stack.service(name) else {
        let hint = nearestWord(to: name, in: stack.services.map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
        throw Exit.usage("the stack has no service '\(name)'\(hint)")
    }
    let given = try given(service, handle)
    do { try OneOff.become(arguments.command, of: service, file: handle.file, given: given) } catch let failure as StackFolder.Failure {
        throw Exit.usage(failure.description)
    }
}

/// What the supervisor tells the service's replicas. A stack that does not run has no stores, and what they need for no store is known.
private func given(_ service: ServiceSpec, _ handle: StackHandle) throws -> [String: String] {
    if try handle.isRunning {
        return try JSONDocument().parse(try handle.ask("GET", "/api/environment?service=\(service.name)")) { root in
            var given: [String: String] = [:]
            for (name, value) in root["variables"]?.members ?? [] { given[name] = value.string }
            return given
        }
    }
    guard service.uses.isEmpty else {
        throw Exit.failed(
            "\(service.name) uses stores, which do not run now: start the stack first, with: \(selfName) up -d \(handle.file)")
    }
    return OneOff.given(service: service.name, stack: handle.name, number: "run")
}
