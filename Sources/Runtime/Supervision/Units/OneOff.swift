import Basics
import EventLoops
import Glibc
import StackModel

/// One command in the environment of a service, once: what `muster run` does.
public enum OneOff {
    /// Gives this process to the command: it gets the service's environment, folder and user, and keeps this process's terminal, input and
    /// output, and its signals. What it ends with is what this process ends with. Only comes back by throwing why it could not be started.
    ///
    /// `given` are the variables that the service's replicas get from Muster, as its supervisor knows them; `file` is the stack file.
    public static func become(_ command: [String], of service: ServiceSpec, file: String, given: [String: String]) throws -> Never {
        let spec = service.process.with(CommandLine(words: command)), fileFolder = Files.folder(of: Files.absolute(file))
        guard ProcessLaunch.program(spec, fileFolder: fileFolder) != nil else {
            throw StackFolder.Failure(
                "there is no program '\(command[0])' (looked in the service's folder, beside muster, and on its PATH)")
        }
        let outside = Environment.inherited
        var environment = outside.clean
        // A service has no terminal, and this command may have one.
        for name in ["TERM", "COLORTERM", "NO_COLOR"] { if let value = outside[name] { environment[name] = value } }
        let launch = ProcessLaunch(spec, fileFolder: fileFolder, inherited: environment, given: given)
        var program = try launch.program(port: try freePort(), mark: "")
        // It is no replica: what looks for those of a stack must not take it for one.
        program.environment.remove(ProcessMark.variable)
        throw program.becomes()
    }

    /// What a replica is told beside what its stack file declares.
    public static func given(service: String, stack: String, number: String) -> [String: String] {
        ["HOST": "127.0.0.1", "INSTANCE_ID": number, "MUSTER_STACK": stack, "MUSTER_SERVICE": service]
    }
}

extension Program {
    /// This process becomes the program. Comes back only with why it did not.
    fileprivate func becomes() -> SystemError {
        if let user {
            // The groups first: whoever is no longer root may not change them.
            guard setgroups(user.groups.count, user.groups) == 0 else { return SystemError("setgroups") }
            guard setgid(user.gid) == 0 else { return SystemError("setgid") }
            guard setuid(user.uid) == 0 else { return SystemError("setuid") }
        }
        guard chdir(folder) == 0 else { return SystemError("enter \(folder)") }
        // A process that is started has all signals as they are by default.
        for number in 1..<Int32(64) where number != SIGKILL && number != SIGSTOP { signal(number, SIG_DFL) }
        var none = sigset_t()
        sigemptyset(&none)
        sigprocmask(SIG_SETMASK, &none, nil)
        let words = ([path] + arguments).map { strdup($0) } + [nil]
        let variables = environment.entries.map { entry in
            (entry + [0]).withUnsafeBytes { strdup($0.bindMemory(to: CChar.self).baseAddress!) }
        }
        execve(path, words, variables + [nil])
        let failure = SystemError("start \(path)")
        for pointer in words + variables { free(pointer) }
        return failure
    }
}
