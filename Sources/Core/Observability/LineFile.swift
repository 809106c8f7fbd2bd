import Basics
import Glibc

/// A folder that is reached by its descriptor: when somebody removes the folder, nothing is written to another one that takes its place.
public final class OpenFolder: Sendable {
    let descriptor: Int32

    /// Opens a folder that only its owner may enter, and makes it if it is not there. The folder around it must be there.
    public init(_ path: String) throws(SystemError) {
        try Files.makeInnerFolder(path)
        descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
        guard descriptor >= 0 else { throw SystemError("open \(path)") }
        _ = fchmod(descriptor, 0o700)
    }

    deinit { close(descriptor) }

    /// Writes a small file beside `name`, and renames it over `name`: whoever reads sees the old or the new one. Only the owner may read it.
    public func replace(_ name: String, with bytes: [UInt8]) throws(SystemError) {
        let temporary = name + ".new"
        unlinkat(descriptor, temporary, 0)
        let fd = openat(descriptor, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard fd >= 0 else { throw SystemError("create \(temporary)") }
        var offset = 0, failure: SystemError?
        while offset < bytes.count, failure == nil {
            let wrote = bytes.withUnsafeBytes { Glibc.write(fd, $0.baseAddress! + offset, $0.count - offset) }
            if wrote < 0, errno == EINTR { continue }
            if wrote <= 0 { failure = SystemError("write \(temporary)") } else { offset += wrote }
        }
        // Some file systems tell only here that there was no room.
        if close(fd) != 0, failure == nil { failure = SystemError("write \(temporary)") }
        if failure == nil, renameat(descriptor, temporary, descriptor, name) != 0 { failure = SystemError("rename \(temporary)") }
        guard let failure else { return }
        unlinkat(descriptor, temporary, 0)
        throw failure
    }
}

/// A file of lines that never outgrows a bound: before a line that has no room in the file, the file becomes `NAME.1` (which replaces the
/// `NAME.1` before it), and a new one begins. So both together never have more than twice `limit` bytes.
///
/// Only the owner may read the file. A line that was cut off (by a crash while it was written) is removed before the next one is written.
public struct LineFile: Sendable {
    public let name: String
    /// In bytes.
    public let limit: Int
    private let folder: OpenFolder

    public init(_ folder: OpenFolder, name: String, limit: Int) {
        self.folder = folder
        self.name = name
        self.limit = limit
    }

    /// Appends lines, each with its line feed. Returns how many of them are in the file now, from the first on, and why not all: a line that
    /// could not be written whole is not in the file. A line longer than `limit` is passed over, as if it were written.
    public func append(_ lines: ArraySlice<[UInt8]>) -> (written: Int, failure: SystemError?) {
        var written = 0
        do throws(SystemError) {
            while written < lines.count {
                let (fd, size) = try openEnd()
                defer { close(fd) }
                if size > 0, size.addingClamped(lines[lines.startIndex + written].count) > limit {
                    guard renameat(folder.descriptor, name, folder.descriptor, name + ".1") == 0 else {
                        throw SystemError("rename \(name)")
                    }
                    continue
                }
                var bytes: [UInt8] = [], count = 0
                for line in lines.dropFirst(written) {
                    if line.count <= limit {
                        if size.addingClamped(bytes.count + line.count) > limit { break }
                        bytes += line
                    }
                    count += 1
                }
                try write(bytes, to: fd, at: size)
                written += count
            }
        } catch { return (written, error) }
        return (written, nil)
    }

    /// The file, and where its last whole line ends.
    private func openEnd() throws(SystemError) -> (fd: Int32, size: Int) {
        // Neither through a link nor into a pipe, which could wait for its reader.
        let fd = openat(folder.descriptor, name, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0o600)
        guard fd >= 0 else { throw SystemError("open \(name)") }
        do throws(SystemError) {
            var info = stat()
            guard fstat(fd, &info) == 0 else { throw SystemError("stat \(name)") }
            guard info.st_mode & S_IFMT == S_IFREG else { throw SystemError("\(name) is no file", EINVAL) }
            if info.st_mode & 0o077 != 0, fchmod(fd, 0o600) != 0 { throw SystemError("chmod \(name)") }
            return (fd, try cutOff(fd, Int(info.st_size)))
        } catch {
            close(fd)
            throw error
        }
    }

    /// Removes what follows the last line feed. Where there is none in the last 64 KiB, the file is no file of such lines: nothing is removed.
    private func cutOff(_ fd: Int32, _ size: Int) throws(SystemError) -> Int {
        var last: UInt8 = 10
        guard size > 0, pread(fd, &last, 1, off_t(size - 1)) == 1, last != 10 else { return size }
        var tail = [UInt8](repeating: 0, count: min(size, 64 << 10))
        let start = size - tail.count
        guard pread(fd, &tail, tail.count, off_t(start)) == tail.count else { throw SystemError("read \(name)") }
        guard let end = tail.lastIndex(of: 10).map({ start + $0 + 1 }) ?? (start == 0 ? 0 : nil) else {
            guard Glibc.write(fd, [UInt8(10)], 1) == 1 else { throw SystemError("write \(name)") }
            return size + 1
        }
        guard ftruncate(fd, off_t(end)) == 0 else { throw SystemError("shorten \(name)") }
        return end
    }

    /// All of `bytes`, or nothing.
    private func write(_ bytes: [UInt8], to fd: Int32, at size: Int) throws(SystemError) {
        var offset = 0
        while offset < bytes.count {
            let wrote = bytes.withUnsafeBytes { Glibc.write(fd, $0.baseAddress! + offset, $0.count - offset) }
            if wrote < 0, errno == EINTR { continue }
            if wrote <= 0 {
                let failure = SystemError("write \(name)")
                // What cannot be taken back now is removed before the next line is written.
                _ = ftruncate(fd, off_t(size))
                throw failure
            }
            offset += wrote
        }
    }

    // MARK: reading

    /// What a file and the earlier one have, within a bound.
    public struct Contents {
        fileprivate var parts: [[UInt8]] = []
        /// Bytes of larger files that were not read.
        public fileprivate(set) var leftOut = 0

        /// Whether there is a file, empty or not.
        public var isThere: Bool { !parts.isEmpty }

        /// Calls `body` with each line without its line feed, oldest first, and whether the line has ended: the last one may have been cut off.
        public func each(_ body: (ArraySlice<UInt8>, Bool) -> Void) {
            for part in parts {
                var rest = part[...]
                while let end = rest.firstIndex(of: 10) {
                    if end > rest.startIndex { body(rest[..<end], true) }
                    rest = rest[(end + 1)...]
                }
                if !rest.isEmpty { body(rest, false) }
            }
        }
    }

    /// Reads at most the last `limit` bytes of the file and of the earlier one. A file that is not there has no lines.
    ///
    /// With `unbroken`, nothing is read of the earlier file where the beginning of the later one is left out: no lines are missing between the
    /// first and the last one then.
    public static func read(_ path: String, limit: Int, unbroken: Bool = false) throws(SystemError) -> Contents {
        var contents = Contents()
        let isCut = unbroken ? try ReadableFile(path).map { $0.size > limit } ?? false : false
        for path in isCut ? [path] : [path + ".1", path] {
            guard let file = try ReadableFile(path) else { continue }
            let start = max(0, file.size - limit)
            var bytes = try file.read(from: start, limit: limit)
            contents.leftOut = contents.leftOut.addingClamped(start)
            // The line that the bound cuts is left out whole.
            if start > 0 { bytes.removeFirst((bytes.firstIndex(of: 10) ?? bytes.count - 1) + 1) }
            contents.parts.append(bytes)
        }
        return contents
    }
}

/// A regular file that is open for reading.
final class ReadableFile {
    let fd: Int32
    let identity: UInt64
    private let path: String

    /// nil: there is none. What is no regular file is refused.
    init?(_ path: String) throws(SystemError) {
        self.path = path
        let opened = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        if opened < 0, errno == ENOENT { return nil }
        guard opened >= 0 else { throw SystemError("open \(path)") }
        var info = stat()
        guard fstat(opened, &info) == 0, info.st_mode & S_IFMT == S_IFREG else {
            close(opened)
            throw SystemError("\(path) is no file", EINVAL)
        }
        fd = opened
        identity = UInt64(info.st_ino)
    }

    deinit { close(fd) }

    /// In bytes, now.
    var size: Int {
        var info = stat()
        return fstat(fd, &info) == 0 ? Int(info.st_size) : 0
    }

    func read(from offset: Int, limit: Int) throws(SystemError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: max(0, min(limit, size - offset))), got = 0
        while got < bytes.count {
            let count = bytes.withUnsafeMutableBytes { pread(fd, $0.baseAddress! + got, $0.count - got, off_t(offset + got)) }
            if count < 0, errno == EINTR { continue }
            if count < 0 { throw SystemError("read \(path)") }
            if count == 0 { break }
            got += count
        }
        return Array(bytes[..<got])
    }
}

/// Reads what is appended to a `LineFile`, from the beginning of the earlier file on, over rotations.
public struct LineFollower {
    private let path: String
    private var file: ReadableFile?
    private var offset = 0
    private var hasBegun = false

    private static let window = 1 << 20
    /// A longer line is no line of such a file.
    private static let longest = 64 << 10

    public init(_ path: String) { self.path = path }

    /// The lines that have been completed since the last call, without their line feeds. At most some MiB at once; call again while there
    /// are any.
    public mutating func next() throws(SystemError) -> [ArraySlice<UInt8>] {
        if !hasBegun {
            hasBegun = true
            file = try ReadableFile(path + ".1")
        }
        var lines = try more()
        // Nothing more comes into a file that has another name now.
        if lines.isEmpty, let current = try ReadableFile(path), current.identity != file?.identity {
            file = current
            offset = 0
            lines = try more()
        }
        return lines
    }

    private mutating func more() throws(SystemError) -> [ArraySlice<UInt8>] {
        guard let file else { return [] }
        // Emptied, or cut off behind its last whole line.
        if file.size < offset { offset = 0 }
        let bytes = try file.read(from: offset, limit: LineFollower.window)
        guard let end = bytes.lastIndex(of: 10) else {
            if bytes.count > LineFollower.longest { offset += bytes.count }
            return []
        }
        offset += end + 1
        return bytes[..<end].split(separator: 10)
    }
}
