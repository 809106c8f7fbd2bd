import Basics
import Glibc

/// Starts this very program again.
public enum Detached {
    /// In a session of its own, so that it outlives the terminal. Returns its pid; its output goes to `log`.
    public static func start(arguments: [String], log: String) throws -> Int32 {
        try again(arguments, .inherited).start(log: log, newSession: true)
    }

    /// This program with other arguments. Its file may have been replaced since (an upgrade): then what runs here is started again.
    static func again(_ arguments: [String], _ environment: Environment) -> Program {
        let path = Files.absolute("/proc/self/exe")
        return Program(
            path: access(path, X_OK) == 0 ? path : "/proc/self/exe", arguments: arguments, environment: environment,
            folder: Files.currentFolder(), input: [])
    }
}
