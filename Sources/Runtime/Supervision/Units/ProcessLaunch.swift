import Basics
import StackModel

/// How the processes of one service are started: the program found, the environment put together. Made anew when the definition changes.
struct ProcessLaunch {
    private let spec: ProcessSpec
    private let folder: String
    private let environment: Environment
    private let given: [String: String]
    private let user: Result<ProcessUser?, StackFolder.Failure>

    /// `given` are variables that Muster tells the process; what the stack file declares wins over them. `fileFolder` is the stack file's.
    init(_ spec: ProcessSpec, fileFolder: String, inherited: Environment, given: [String: String]) {
        self.spec = spec
        folder = ProcessLaunch.folder(spec, fileFolder)
        var environment = inherited
        var given = given
        user = Result { () throws(StackFolder.Failure) in try spec.user.map(ProcessUser.find) ?? nil }
        if spec.user != nil {
            let known = try? user.get()
            given["USER"] = known?.name ?? environment["USER"]
            given["LOGNAME"] = known?.name ?? environment["LOGNAME"]
            given["HOME"] = known.map { $0.home ?? "/" } ?? environment["HOME"]
        }
        for secret in spec.secrets {
            given[secret.variable] = secret.file.hasPrefix("/") ? secret.file : "\(fileFolder)/\(secret.file)"
        }
        for (name, value) in given { environment[name] = value }
        for variable in spec.environment { environment[variable.name] = variable.value }
        self.environment = environment
        self.given = given
    }

    private static func folder(_ spec: ProcessSpec, _ fileFolder: String) -> String {
        guard let own = spec.workingDirectory else { return fileFolder }
        return own.hasPrefix("/") ? own : "\(fileFolder)/\(own)"
    }

    /// Where the program is; nil: nowhere. A path is relative to the folder that the process is started in; a word is looked for beside
    /// this program, and then on the PATH that the process gets.
    static func program(_ spec: ProcessSpec, fileFolder: String) -> String? {
        Program.find(
            spec.command.program, folder: folder(spec, fileFolder), path: spec.environment.first { $0.name == "PATH" }?.value)
    }

    /// One process. `port` is what it gets as PORT, unless the stack file declares another one; `socket` what it gets as SOCKET.
    func program(port: UInt16, socket: String? = nil, mark: String) throws -> Program {
        try program(spec.command, port: port, socket: socket, mark: mark)
    }

    /// Another command as the same process would be started: a check.
    func program(_ command: CommandLine, port: UInt16, socket: String? = nil, mark: String) throws -> Program {
        var environment = environment, given = given
        if let socket {
            environment["SOCKET"] = socket
            given["SOCKET"] = socket
        }
        if !spec.environment.contains(where: { $0.name == "PORT" }) {
            environment["PORT"] = String(port)
            given["PORT"] = String(port)
        }
        environment[ProcessMark.variable] = mark
        let words = command.words { given[$0] }
        let path =
            Program.find(words[0], folder: folder, path: spec.environment.first { $0.name == "PATH" }?.value) ?? words[0]
        return Program(
            path: path, arguments: Array(words.dropFirst()), environment: environment, folder: folder, user: try user.get(), input: [])
    }
}
