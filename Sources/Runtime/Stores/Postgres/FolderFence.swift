import Basics
import Glibc

/// Ends every process that works in a data folder. A server's backends have it as their working directory and outlive the server's own process:
/// they can still acknowledge a write, so a folder is quiet only when none of them is left.
enum FolderFence {
    /// Sends SIGKILL to each process with this working directory until there is none. Returns nil then, or what is left after `limit`.
    /// Reads /proc of the whole machine, some milliseconds each time: not on the control loop.
    static func end(_ folder: String, within limit: Duration = .seconds(4)) -> String? {
        let deadline = MonotonicTime.now + limit, place = Files.absolute(folder)
        while true {
            do throws(SystemError) {
                let here = try processes(in: place)
                if here.isEmpty { return nil }
                if MonotonicTime.now >= deadline {
                    return "processes \(here.map(String.init).joined(separator: ", ")) work in \(place) and do not end"
                }
                for pid in here { kill(pid, SIGKILL) }
            } catch {
                if MonotonicTime.now >= deadline { return "whether a process works in \(place) cannot be seen: \(error)" }
            }
            usleep(1000)
        }
    }

    /// The processes whose working directory this is. Zombies have none.
    static func processes(in place: String) throws(SystemError) -> [Int32] {
        let own = getpid()
        var found: [Int32] = []
        for pid in try ProcessList.all() where pid != own {
            if directory(of: pid) == place { found.append(pid) }
        }
        return found
    }

    /// The process of the server of a data directory, when it is the one that works there.
    static func server(of data: String) -> Int32? {
        guard let line = (try? Files.firstLine(data + "/postmaster.pid")) ?? nil, let pid = Int32(line), pid > 1,
            directory(of: pid) == Files.absolute(data)
        else { return nil }
        return pid
    }

    /// The working directory of a process; nil: it is gone, or another user's.
    static func directory(of pid: Int32) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
            let count = readlink("/proc/\(pid)/cwd", buffer.baseAddress!, buffer.count)
            guard count > 0, count < buffer.count else { return nil }
            return String(decoding: UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<count]), as: UTF8.self)
        }
    }
}
