import Basics
import Glibc

/// Keeps log files bounded: above `limit` a file is copied to `.1` (and `.1` to `.2`), then emptied in place, because the processes
/// that append to it keep it open. A line written between copy and emptying is lost; the last write of a dying process never is.
enum LogRotation {
    static let limit = 16 << 20
    static let kept = 2

    static func rotate(_ folder: String) {
        for name in Files.list(folder) where name.hasSuffix(".log") {
            let path = "\(folder)/\(name)"
            var info = stat()
            guard stat(path, &info) == 0, info.st_size > limit else { continue }
            for i in stride(from: kept, to: 1, by: -1) { rename("\(path).\(i - 1)", "\(path).\(i)") }
            copy(path, to: "\(path).1")
            truncate(path, 0)
        }
    }

    private static func copy(_ from: String, to: String) {
        let source = open(from, O_RDONLY | O_CLOEXEC)
        let target = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        defer {
            close(source)
            close(target)
        }
        while sendfile(target, source, nil, 1 << 20) > 0 {}
    }
}
