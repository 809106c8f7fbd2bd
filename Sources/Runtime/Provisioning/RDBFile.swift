import Basics
import Glibc

/// What a snapshot says of itself before its first key.
public struct RDBHeader: Sendable, Equatable {
    public var version = 0
    /// `redis-ver`, `ctime`, `used-mem`, `repl-id`, `repl-offset` and others.
    public var fields: [String: String] = [:]
    /// Keys at the moment of the snapshot, those included that had expired and were not removed yet.
    public var keys = 0
    /// Of these, with a time to live.
    public var expiring = 0
    public var libraries = 0
}

/// A snapshot of Redis (RDB) on disk: whether it is whole, and what stands at its beginning.
public struct RDBFile: Sendable, Equatable {
    public let header: RDBHeader
    public let bytes: Int
    public let sha256: String
    /// False where the server wrote none (`rdbchecksum no`).
    public let hasChecksum: Bool

    public struct Failure: Error, Equatable, CustomStringConvertible {
        public let description: String
    }

    /// Reads all of it once: SHA-256, CRC-64, the mark of its end, its header. A file of another size than `expected` (bytes, where somebody
    /// wrote down how many there were) is refused unread.
    public init(_ path: String, expected: Int? = nil) throws(Failure) {
        let fd = open(path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { throw Failure(description: "\(SystemError("open \(path)"))") }
        defer { close(fd) }
        var info = stat()
        guard fstat(fd, &info) == 0, info.st_mode & S_IFMT == S_IFREG else { throw Failure(description: "\(path) is no file") }
        let size = Int(info.st_size)
        if let expected, size != expected {
            throw Failure(description: "\(path) has \(size) bytes; the manifest says \(expected): it is cut off or altered")
        }
        // Magic, end, checksum: the shortest that can be.
        guard size >= 18 else { throw Failure(description: "\(path) has \(size) bytes: it is cut off, or no snapshot of Redis") }
        var reader = RDBReader(fd, path)
        header = try RDBFile.header(&reader).header
        let digest = RunningDigest()
        var checksum = RDBChecksum()
        var tail: [UInt8] = []
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
        defer { chunk.deallocate() }
        var at = 0
        while at < size {
            let got = pread(fd, chunk.baseAddress, chunk.count, off_t(at))
            guard got > 0 else {
                throw Failure(description: got == 0 ? "\(path) became shorter while it was read" : "\(SystemError("read \(path)"))")
            }
            let piece = UnsafeRawBufferPointer(rebasing: chunk[..<got])
            digest.add(piece)
            let covered = min(max(size - 8 - at, 0), got)
            checksum.add(UnsafeRawBufferPointer(rebasing: piece[..<covered]))
            tail.append(contentsOf: piece.suffix(9))
            tail = tail.suffix(9)
            at += got
        }
        bytes = size
        sha256 = digest.finish()
        guard tail[0] == 0xFF else { throw Failure(description: "\(path) does not end as a snapshot does: it is cut off or altered") }
        let said = tail[1...].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        hasChecksum = said != 0
        guard said == 0 || said == checksum.value else {
            throw Failure(description: "\(path) is damaged: its own checksum (CRC-64) does not fit")
        }
    }

    /// Reads only what stands before the first key. Something in it that only a later server writes ends the reading, and is no failure.
    static func header(of path: String) throws(Failure) -> RDBHeader {
        let fd = open(path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { throw Failure(description: "\(SystemError("open \(path)"))") }
        defer { close(fd) }
        var reader = RDBReader(fd, path)
        return try header(&reader, isLenient: true).header
    }

    private static func header(_ reader: inout RDBReader, isLenient: Bool = false) throws(Failure) -> (header: RDBHeader, isWhole: Bool) {
        var header = RDBHeader()
        let magic = try reader.take(9)
        guard magic.starts(with: Array("REDIS".utf8)), let version = Int(String(decoding: magic[5...], as: UTF8.self)) else {
            throw Failure(description: "\(reader.path) is no snapshot of Redis")
        }
        header.version = version
        while true {
            switch try reader.byte() {
            case 0xFA:
                let name = try reader.string()
                header.fields[name] = try reader.string()
            case 0xF5:
                _ = try reader.skipString()
                header.libraries += 1
            case 0xF7: try reader.skipModuleData()
            case 0xFE: _ = try reader.length()
            case 0xFB:
                header.keys = try reader.count()
                header.expiring = try reader.count()
                return (header, true)
            case 0xFF: return (header, true)
            case let other:
                if isLenient { return (header, false) }
                throw Failure(
                    description:
                        "\(reader.path): what stands before the first key is not understood (code \(other)); it may come from a later Redis"
                )
            }
        }
    }
}

/// Lengths and strings as they stand in a snapshot; what is not needed is stepped over.
struct RDBReader {
    let path: String
    private let fd: Int32
    private var position = 0
    private var buffer: [UInt8] = []
    private var at = 0

    /// Longest string that is read; nothing before the first key comes near but libraries, which are stepped over.
    static let stringLimit = 1 << 20

    init(_ fd: Int32, _ path: String) {
        self.fd = fd
        self.path = path
    }

    mutating func byte() throws(RDBFile.Failure) -> UInt8 {
        if at == buffer.count { try fill() }
        at += 1
        return buffer[at - 1]
    }

    private mutating func fill() throws(RDBFile.Failure) {
        var chunk = [UInt8](repeating: 0, count: 65536)
        let got = pread(fd, &chunk, chunk.count, off_t(position))
        guard got > 0 else { throw RDBFile.Failure(description: "\(path) ends before its first key: it is cut off") }
        position += got
        buffer = Array(chunk[..<got])
        at = 0
    }

    mutating func take(_ count: Int) throws(RDBFile.Failure) -> [UInt8] {
        var out: [UInt8] = []
        for _ in 0..<count { out.append(try byte()) }
        return out
    }

    private mutating func skip(_ count: UInt64) throws(RDBFile.Failure) {
        guard count < 1 << 40 else { throw RDBFile.Failure(description: "\(path): a length of \(count) bytes: it is damaged") }
        let here = min(Int(count), buffer.count - at)
        at += here
        position += Int(count) - here
        if here < Int(count) { (buffer, at) = ([], 0) }
    }

    private enum Length { case plain(UInt64), encoded(UInt8) }

    private mutating func encodedLength() throws(RDBFile.Failure) -> Length {
        let first = try byte()
        switch first >> 6 {
        case 0: return .plain(UInt64(first & 63))
        case 1: return .plain(UInt64(first & 63) << 8 | UInt64(try byte()))
        case 2:
            guard first == 0x80 || first == 0x81 else {
                throw RDBFile.Failure(description: "\(path): a length that cannot be: it is damaged")
            }
            var value: UInt64 = 0
            for _ in 0..<(first == 0x80 ? 4 : 8) { value = value << 8 | UInt64(try byte()) }
            return .plain(value)
        default: return .encoded(first & 63)
        }
    }

    mutating func length() throws(RDBFile.Failure) -> UInt64 {
        guard case .plain(let value) = try encodedLength() else {
            throw RDBFile.Failure(description: "\(path): a length was expected: it is damaged")
        }
        return value
    }

    mutating func count() throws(RDBFile.Failure) -> Int {
        guard let value = Int(exactly: try length()) else {
            throw RDBFile.Failure(description: "\(path): a count that cannot be: it is damaged")
        }
        return value
    }

    mutating func string() throws(RDBFile.Failure) -> String {
        switch try encodedLength() {
        case .plain(let count):
            guard count <= RDBReader.stringLimit else {
                throw RDBFile.Failure(description: "\(path): a name of \(count) bytes: it is damaged")
            }
            return String(decoding: try take(Int(count)), as: UTF8.self)
        case .encoded(let kind) where kind < 3:
            let bytes = try take(1 << Int(kind))
            let value = bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            let shift = 64 - 8 * bytes.count
            return String(Int64(bitPattern: value << UInt64(shift)) >> Int64(shift))
        case .encoded:
            // Compressed: no field that counts here is.
            try skipCompressed()
            return ""
        }
    }

    mutating func skipString() throws(RDBFile.Failure) {
        switch try encodedLength() {
        case .plain(let count): try skip(count)
        case .encoded(let kind) where kind < 3: try skip(1 << UInt64(kind))
        case .encoded(3): try skipCompressed()
        case .encoded: throw RDBFile.Failure(description: "\(path): a string that cannot be: it is damaged")
        }
    }

    private mutating func skipCompressed() throws(RDBFile.Failure) {
        let count = try length()
        _ = try length()
        try skip(count)
    }

    /// A module's id, when it is to be loaded, then values each behind its kind, up to kind 0.
    mutating func skipModuleData() throws(RDBFile.Failure) {
        for _ in 0..<3 { _ = try length() }
        while true {
            switch try length() {
            case 0: return
            case 1, 2: _ = try length()
            case 3: try skip(4)
            case 4: try skip(8)
            case 5: try skipString()
            case let kind: throw RDBFile.Failure(description: "\(path): a module's value of kind \(kind) is not understood")
            }
        }
    }
}
