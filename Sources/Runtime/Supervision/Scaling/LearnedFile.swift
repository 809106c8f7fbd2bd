import Basics
import Glibc

/// A file of what was learned, which is read once and then written over now and then. Nothing is written over what was not read.
struct LearnedFile {
    /// What reading has found.
    enum Found<Content> {
        /// There is no such file.
        case nothing
        case content(Content)
        /// It holds something else, or a version that is not known. It was renamed to `aside`, and what was learned begins anew.
        case setAside(String)
    }

    let path: String

    /// Throws when the file is there (or may be) and cannot be read at present, or not set aside: it must not be written then, and may be
    /// read later.
    func read<Content>(_ decode: ([UInt8]) -> Content?) throws(SystemError) -> Found<Content> {
        let bytes: [UInt8]
        do throws(SystemError) { bytes = try Files.read(path) } catch {
            if error.code == ENOENT { return .nothing }
            throw error
        }
        if let content = decode(bytes) { return .content(content) }
        let aside = path + ".unread"
        guard rename(path, aside) == 0 else { throw SystemError("rename \(path) to \(aside)") }
        return .setAside(aside)
    }

    func write(_ bytes: [UInt8]) throws(SystemError) {
        try Files.makeInnerFolder(Files.folder(of: path))
        try Files.replace(path, with: bytes)
    }
}
