import Basics
import Glibc

/// Keeps log files bounded: above `limit` a file is copied to `.1` (and `.1` to `.2`), then emptied in place, because the processes
/// that append to it keep it open. A line written between copy and emptying is lost; the last write of a dying process never is.
///
/// Copying takes its time, so not on the control loop.
enum LogRotation {
    static let limit = 16 << 20
    static let kept = 2

    /// Returns what went wrong, one sentence a file. A log that could not be copied (the disk is full, say) is not emptied.
    static func rotate(_ folder: String, limit: Int = limit) -> [String] {
        var troubles: [String] = []
        let names: [String]
        do { names = try Files.entries(folder) } catch { return ["no log is rotated, because they cannot be listed: \(error)"] }
        for name in names where name.hasSuffix(".log") {
            let path = "\(folder)/\(name)"
            guard let size = try? Files.size(path), size > limit else { continue }
            do throws(SystemError) {
                // The copy first, under another name: until it stands, nothing that is kept is given up.
                let copy = "\(path).new"
                try LogRotation.copy(path, to: copy)
                for i in stride(from: kept, to: 1, by: -1) { rename("\(path).\(i - 1)", "\(path).\(i)") }
                guard rename(copy, "\(path).1") == 0 else { throw SystemError("rename \(copy)") }
                guard truncate(path, 0) == 0 else { throw SystemError("empty \(path)") }
            } catch { troubles.append("the log \(name) grows beyond \(limit >> 20) MiB, because it cannot be rotated: \(error)") }
        }
        return troubles
    }

    private static func copy(_ from: String, to: String) throws(SystemError) {
        let source = open(from, O_RDONLY | O_CLOEXEC)
        guard source >= 0 else { throw SystemError("open \(from)") }
        defer { close(source) }
        let target = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard target >= 0 else { throw SystemError("create \(to)") }
        while true {
            let sent = sendfile(target, source, nil, 1 << 20)
            if sent > 0 || (sent < 0 && errno == EINTR) { continue }
            let failure = sent < 0 ? SystemError("write \(to)") : nil
            guard close(target) == 0, failure == nil else {
                let failure = failure ?? SystemError("write \(to)")
                unlink(to)
                throw failure
            }
            return
        }
    }
}
