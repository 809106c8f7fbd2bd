import Basics
import Glibc
import StoreKinds

/// Whose processes the nodes of a store are. PostgreSQL refuses to run as root, so for a stack that root starts it is another user; else it is
/// who started it.
struct NodeOwner: Sendable {
    /// The name for the launcher; nil: this process's own user.
    let user: String?
    let uid: uid_t
    let gid: gid_t
    /// The name by which the kernel tells PostgreSQL who connects to its socket.
    let name: String

    /// Throws when there is no such user, with what to do.
    static func find(_ wanted: String, store: String) throws(StoreFailure) -> NodeOwner {
        let own = geteuid()
        if own != 0 { return NodeOwner(user: nil, uid: own, gid: getegid(), name: name(of: own) ?? String(own)) }
        guard let entry = getpwnam(wanted) else {
            throw StoreFailure(
                "store \(store): PostgreSQL refuses to run as root, and there is no user '\(wanted)' for it: name one ('user'), or start the "
                    + "stack as an ordinary user")
        }
        guard entry.pointee.pw_uid != 0 else {
            throw StoreFailure("store \(store): PostgreSQL refuses to run as root, and '\(wanted)' is root: name another user ('user')")
        }
        return NodeOwner(user: wanted, uid: entry.pointee.pw_uid, gid: entry.pointee.pw_gid, name: wanted)
    }

    /// The name of the user that this process runs as.
    static var supervisor: String { name(of: geteuid()) ?? String(geteuid()) }

    private static func name(of uid: uid_t) -> String? { getpwuid(uid).map { String(cString: $0.pointee.pw_name) } }

    /// Gives a file or folder to the user. Does nothing where this process is that user.
    func own(_ path: String) throws(SystemError) {
        guard user != nil else { return }
        if lchown(path, uid, gid) != 0 { throw SystemError("give \(path) to \(name)") }
    }

    /// Makes a folder of the user's alone.
    func makeFolder(_ path: String) throws(SystemError) {
        try Files.makeInnerFolder(path, mode: 0o700)
        try own(path)
    }

    /// Opens the folders from `top` down to `folder` for passing through, which are Muster's own and closed otherwise. Then throws the first
    /// folder above that the user cannot pass.
    func reach(_ folder: String, below top: String, store: String) throws(StoreFailure) {
        guard user != nil else { return }
        var path = ""
        for part in Files.absolute(folder).split(separator: "/") {
            path += "/" + part
            if canPass(path) { continue }
            if path.hasPrefix(Files.absolute(top)), chmod(path, 0o711) == 0 { continue }
            throw StoreFailure(
                "store \(store): its servers run as \(name), who cannot pass the folder \(path): move the stack file to a folder that others "
                    + "can pass, open that one (chmod o+x), name another user ('user'), or start the stack as an ordinary user")
        }
    }

    private func canPass(_ path: String) -> Bool {
        var info = stat()
        guard stat(path, &info) == 0 else { return false }
        let mode = info.st_mode
        if info.st_uid == uid { return mode & S_IXUSR != 0 }
        return mode & S_IXOTH != 0 || info.st_gid == gid && mode & S_IXGRP != 0
    }
}
