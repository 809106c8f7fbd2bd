import Glibc

/// Small whole files, without Foundation. Every path is the caller's; every error names it.
public enum Files {
    /// Reads a file of at most `limit` bytes.
    public static func read(_ path: String, limit: Int = 16 << 20) throws(SystemError) -> [UInt8] {
        let fd = open(path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { throw SystemError("open \(path)") }
        defer { close(fd) }
        var out: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let got = Glibc.read(fd, &chunk, chunk.count)
            if got < 0 { throw SystemError("read \(path)") }
            if got == 0 { return out }
            out.append(contentsOf: chunk[..<got])
            if out.count > limit { throw SystemError("read \(path) (more than \(limit) bytes)", EFBIG) }
        }
    }

    public static func text(_ path: String) -> String? {
        (try? read(path)).map { String(decoding: $0, as: UTF8.self) }
    }

    /// The first line of a file; nil: there is no file, or nothing in it. One that cannot be read is not absent, and throws.
    public static func firstLine(_ path: String) throws(SystemError) -> String? {
        do { return String(decoding: try read(path), as: UTF8.self).split(separator: "\n").first.map(String.init) } catch {
            if error.code == ENOENT { return nil }
            throw error
        }
    }

    /// Reads at most `limit` bytes of a file of any size, from `offset` on; fewer where the file ends.
    public static func read(_ path: String, from offset: Int, limit: Int) throws(SystemError) -> [UInt8] {
        let fd = open(path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { throw SystemError("open \(path)") }
        defer { close(fd) }
        var info = stat()
        guard fstat(fd, &info) == 0 else { throw SystemError("stat \(path)") }
        let left = max(0, min(limit, Int(info.st_size) - offset))
        var bytes = [UInt8](repeating: 0, count: left)
        var got = 0
        while got < left {
            let count = bytes.withUnsafeMutableBytes { pread(fd, $0.baseAddress! + got, left - got, off_t(offset + got)) }
            if count < 0, errno == EINTR { continue }
            if count < 0 { throw SystemError("read \(path)") }
            if count == 0 { break }
            got += count
        }
        return Array(bytes[..<got])
    }

    /// The last `limit` bytes of a file of any size.
    public static func tail(_ path: String, limit: Int) throws(SystemError) -> [UInt8] {
        try read(path, from: max(0, try size(path) - limit), limit: limit)
    }

    /// The last lines of a log of any size, at most `count` and from its last 16 KiB; of a longer line its end. None when the file cannot be
    /// read or is empty.
    public static func lastLines(_ path: String, _ count: Int) -> [Substring] {
        let end = (try? tail(path, limit: 16_384)) ?? []
        return Array(String(decoding: end, as: UTF8.self).split(whereSeparator: \.isNewline).suffix(count))
    }

    /// A file's size in bytes.
    public static func size(_ path: String) throws(SystemError) -> Int {
        var info = stat()
        guard stat(path, &info) == 0 else { throw SystemError("stat \(path)") }
        return Int(info.st_size)
    }

    /// Writes beside the file and renames over it, so that a reader (or a crash) sees the old or the new one.
    public static func replace(_ path: String, with bytes: [UInt8], mode: mode_t = 0o644) throws(SystemError) {
        let temporary = path + ".new"
        unlink(temporary)
        let fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard fd >= 0 else { throw SystemError("create \(temporary)") }
        var offset = 0
        while offset < bytes.count {
            let wrote = bytes.withUnsafeBytes { Glibc.write(fd, $0.baseAddress! + offset, $0.count - offset) }
            if wrote < 0, errno == EINTR { continue }
            if wrote < 0 {
                let failure = SystemError("write \(temporary)")
                close(fd)
                unlink(temporary)
                throw failure
            }
            offset += wrote
        }
        // Some file systems tell only here that there was no room.
        guard close(fd) == 0, rename(temporary, path) == 0 else {
            let failure = SystemError("write \(path)")
            unlink(temporary)
            throw failure
        }
    }

    /// As `replace`, and the file and its name are on the disk when it returns: a power cut leaves the old one or the new one. Blocks for as
    /// long as the disk takes.
    public static func replaceDurably(_ path: String, with bytes: [UInt8], mode: mode_t = 0o644) throws(SystemError) {
        let fresh = path + ".fresh"
        try replace(fresh, with: bytes, mode: mode)
        try sync(fresh)
        guard rename(fresh, path) == 0 else { throw SystemError("write \(path)") }
        try sync(folder(of: path))
    }

    /// Returns when a file, or the names in a folder, are on the disk.
    public static func sync(_ path: String) throws(SystemError) {
        let fd = open(path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { throw SystemError("open \(path)") }
        defer { close(fd) }
        guard fsync(fd) == 0 else { throw SystemError("sync \(path)") }
    }

    /// Makes a folder and its missing parents, as `mkdir -p` does. Folders that are created get `mode`.
    public static func makeFolder(_ path: String, mode: mode_t = 0o755) throws(SystemError) {
        var partial = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            partial += "/" + part
            if mkdir(partial, mode) != 0, errno != EEXIST { throw SystemError("create folder \(partial)") }
        }
    }

    /// Makes one folder, if it is not there, in a folder that must be there: one that somebody has removed does not come back by it.
    public static func makeInnerFolder(_ path: String, mode: mode_t = 0o700) throws(SystemError) {
        if mkdir(path, mode) != 0, errno != EEXIST { throw SystemError("create folder \(path)") }
    }

    /// Whether nothing has this name, also no link that leads nowhere. What cannot be looked at is not absent.
    public static func isAbsent(_ path: String) -> Bool {
        var info = stat()
        return lstat(path, &info) != 0 && errno == ENOENT
    }

    public static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

    /// The names in a folder, sorted, without `.` and `..`.
    public static func entries(_ path: String) throws(SystemError) -> [String] {
        guard let folder = opendir(path) else { throw SystemError("open \(path)") }
        defer { closedir(folder) }
        var names: [String] = []
        errno = 0
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
            errno = 0
        }
        // A list that broke off is not the list.
        if errno != 0 { throw SystemError("read \(path)") }
        return names.sorted()
    }

    /// Removes a file, or a folder with all that is in it; symbolic links are removed, not followed.
    public static func remove(_ path: String) {
        var info = stat()
        guard lstat(path, &info) == 0 else { return }
        if info.st_mode & S_IFMT == S_IFDIR {
            // What cannot be listed stays, and so does its folder.
            for name in (try? entries(path)) ?? [] { remove(path + "/" + name) }
            rmdir(path)
        } else {
            unlink(path)
        }
    }

    /// The absolute form of a path, links resolved where it exists.
    public static func absolute(_ path: String) -> String {
        if let resolved = realpath(path, nil) {
            defer { free(resolved) }
            return String(cString: resolved)
        }
        if path.hasPrefix("/") { return path }
        return currentFolder() + "/" + path
    }

    public static func currentFolder() -> String {
        guard let pointer = getcwd(nil, 0) else { return "." }
        defer { free(pointer) }
        return String(cString: pointer)
    }

    /// The last part of a path: `a/b.yaml` is `b.yaml`.
    public static func name(of path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

    public static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}

/// One variable of the environment; nil when unset.
public func environmentValue(_ name: String) -> String? {
    getenv(name).map { String(cString: $0) }
}
