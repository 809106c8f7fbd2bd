import Basics
import Glibc
import StackFile
import Supervision

extension StackFiles {
    /// The files of this machine. `isStarting`: processes are going to be started here, so that what they lack is a fault of the stack file.
    static func onDisk(isStarting: Bool) -> StackFiles {
        StackFiles(
            read: { path, limit in
                var info = stat()
                if stat(path, &info) == 0, info.st_mode & S_IFMT != S_IFREG {
                    // A folder '.env' is a Python environment. A pipe would wait for whoever writes.
                    return info.st_mode & S_IFMT == S_IFDIR ? .absent : .unreadable("'\(path)' is no file")
                }
                do throws(SystemError) { return .bytes(try Files.read(path, limit: limit)) } catch {
                    return error.code == ENOENT ? .absent : .unreadable("\(error)")
                }
            }, flaw: { isStarting ? flaw($0) : nil })
    }

    private static func flaw(_ need: Need) -> String? {
        var info = stat()
        switch need {
        case .folder(let path):
            if stat(path, &info) != 0 { return "'\(path)' cannot be entered: \(errorText(errno))" }
            return info.st_mode & S_IFMT == S_IFDIR ? nil : "'\(path)' is no folder"
        case .secret(let path):
            if stat(path, &info) != 0 { return "there is no secret in '\(path)': \(errorText(errno))" }
            return info.st_mode & S_IFMT == S_IFREG ? nil : "'\(path)' is no file"
        case .user(let text): return Supervisor.refusal(ofUser: text)
        }
    }
}
