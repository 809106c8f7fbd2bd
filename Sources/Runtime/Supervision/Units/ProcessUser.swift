import Basics
import Glibc

/// The user that a process is to run as, with its groups.
struct ProcessUser: Sendable {
    let name: String
    let uid: uid_t
    let gid: gid_t
    let groups: [gid_t]
    /// nil: the system knows no folder of this user.
    let home: String?

    /// Reads `NAME`, `UID`, `NAME:GROUP` or `UID:GID`. The result is nil when this process is of that user already. Throws why nothing can be
    /// started so. Asks the system's user database, which may be a server elsewhere.
    static func find(_ text: String) throws(StackFolder.Failure) -> ProcessUser? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard (1...2).contains(parts.count), parts.allSatisfy({ !$0.isEmpty }) else {
            throw StackFolder.Failure("'\(text)' is neither NAME nor NAME:GROUP")
        }
        let known = entry(parts[0])
        guard let uid = known?.uid ?? uid_t(parts[0]) else {
            throw StackFolder.Failure("there is no user '\(parts[0])' on this machine: create it (useradd), or write another one")
        }
        var gid = known?.gid
        if parts.count == 2 {
            gid = gid_t(parts[1]) ?? getgrnam(parts[1])?.pointee.gr_gid
            if gid == nil { throw StackFolder.Failure("there is no group '\(parts[1])' on this machine") }
        }
        guard let gid else {
            throw StackFolder.Failure("the system knows no user \(uid), and so no group of it: write \(uid):GROUP")
        }
        // -1 means "leave as it is" to the system.
        guard uid != .max, gid != .max else { throw StackFolder.Failure("'\(text)' is no user that a process can have") }
        if geteuid() == uid, getegid() == gid { return nil }
        guard geteuid() == 0 else {
            throw StackFolder.Failure(
                "only root can start a process as another user ('\(text)'): start the stack as root or as that user, or leave 'user' out")
        }
        return ProcessUser(
            name: known?.name ?? parts[0], uid: uid, gid: gid, groups: known.map { groups(of: $0.name, gid) } ?? [gid], home: known?.home)
    }

    private static func entry(_ text: String) -> (name: String, uid: uid_t, gid: gid_t, home: String)? {
        guard let found = uid_t(text).map({ getpwuid($0) }) ?? getpwnam(text) else { return nil }
        return (String(cString: found.pointee.pw_name), found.pointee.pw_uid, found.pointee.pw_gid, String(cString: found.pointee.pw_dir))
    }

    private static func groups(of name: String, _ gid: gid_t) -> [gid_t] {
        var count: Int32 = 256
        var found = [gid_t](repeating: 0, count: Int(count))
        let result = getgrouplist(name, gid, &found, &count)
        return result < 0 ? [gid] : Array(found.prefix(Int(clamping: count)))
    }
}

extension Supervisor {
    /// Why no process can be started here as this user (`NAME` or `NAME:GROUP`); nil: it can.
    public static func refusal(ofUser text: String) -> String? {
        do throws(StackFolder.Failure) { _ = try ProcessUser.find(text) } catch { return error.description }
        return nil
    }
}
