import Basics
import COpenSSL
import Glibc

/// SHA-256 of what comes piece by piece.
final class RunningDigest {
    private let context: OpaquePointer

    init() {
        guard let context = EVP_MD_CTX_new(), EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else { fatalError("out of memory") }
        self.context = context
    }

    deinit { EVP_MD_CTX_free(context) }

    func add(_ bytes: UnsafeRawBufferPointer) { EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) }

    /// Lower-case hexadecimal; nothing may be added afterwards.
    func finish() -> String {
        var value = [UInt8](repeating: 0, count: 32)
        EVP_DigestFinal_ex(context, &value, nil)
        return value.withUnsafeBytes { hexText($0) }
    }
}

/// A new file of a backup: only its owner may read it, its digest is made while it is written. Writes block; whoever writes has a thread
/// for it.
final class BackupFile {
    let path: String
    private let fd: Int32
    private let digest = RunningDigest()
    private(set) var bytes = 0

    init(_ path: String) throws(SystemError) {
        self.path = path
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard fd >= 0 else { throw SystemError("create \(path)") }
    }

    deinit { close(fd) }

    func write(_ piece: UnsafeRawBufferPointer) throws(SystemError) {
        var offset = 0
        while offset < piece.count {
            let wrote = Glibc.write(fd, piece.baseAddress! + offset, piece.count - offset)
            if wrote < 0 {
                if errno == EINTR { continue }
                throw SystemError("write \(path)")
            }
            offset += wrote
        }
        digest.add(piece)
        bytes += piece.count
    }

    /// When this has returned, the disk has it. Returns the SHA-256.
    func finish() throws(SystemError) -> String {
        // A full disk may be told only here.
        guard fsync(fd) == 0 else { throw SystemError("write \(path)") }
        return digest.finish()
    }

    /// A folder's own entries: what was created or renamed in it.
    static func sync(folder path: String) throws(SystemError) {
        let fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard fd >= 0 else { throw SystemError("open \(path)") }
        defer { close(fd) }
        guard fsync(fd) == 0 else { throw SystemError("sync \(path)") }
    }

    /// Bytes that may still be written below `folder`, by whoever is not root.
    static func freeSpace(at folder: String) throws(SystemError) -> Int {
        var info = statvfs()
        guard statvfs(folder, &info) == 0 else { throw SystemError("look at \(folder)") }
        return Int(clamping: info.f_bavail).multipliedClamped(by: Int(clamping: info.f_frsize))
    }
}
