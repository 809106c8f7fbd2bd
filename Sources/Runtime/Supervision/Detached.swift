import Basics
import Glibc

/// Starts this very program again, in a session of its own, so that it outlives the terminal.
public enum Detached {
    /// Returns its pid; its output goes to `log`.
    public static func start(arguments: [String], log: String) throws -> Int32 {
        let path = Files.absolute("/proc/self/exe")
        let program = Program(
            path: path, arguments: arguments, environment: inheritedEnvironment(), folder: Files.currentFolder(), input: [])
        return try program.start(log: log, newSession: true)
    }
}
