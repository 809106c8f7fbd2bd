import CZlib

/// Gzip bodies (RFC 1952), by zlib. Both ways in one piece: what is compressed here are request bodies that are bounded anyway.
public enum Gzip {
    public enum Failure: Error, Equatable, CustomStringConvertible {
        /// The unpacked content would have more than `limit` bytes. Nothing beyond the limit was unpacked.
        case tooLarge(limit: Int)
        case malformed(String)

        public var description: String {
            switch self {
            case .tooLarge(let limit): "the unpacked body has more than \(limit) bytes"
            case .malformed(let reason): "the body is no complete gzip: \(reason)"
            }
        }
    }

    /// The most gzip members that one body may have. Programs write one member, or one a block. Each member costs time even if it is empty.
    public static let memberLimit = 4096

    /// Unpacks one or more gzip members, at most `limit` bytes in all. A bomb costs `limit` bytes and no more.
    public static func unpack(_ bytes: [UInt8], limit: Int) throws(Failure) -> [UInt8] {
        var stream = z_stream()
        // 15 bits of window; 16 more ask for gzip's frame and nothing else.
        guard inflateInit2_(&stream, 15 + 16, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            throw .malformed("out of memory")
        }
        defer { inflateEnd(&stream) }
        var out: [UInt8] = []
        out.reserveCapacity(min(bytes.count * 4, limit))
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 128 << 10, alignment: 16)
        defer { chunk.deallocate() }
        var members = 0
        let failure: Failure? = bytes.withUnsafeBufferPointer { input in
            stream.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
            stream.avail_in = UInt32(input.count)
            while true {
                stream.next_out = chunk.baseAddress!.assumingMemoryBound(to: UInt8.self)
                stream.avail_out = UInt32(chunk.count)
                let status = inflate(&stream, Z_NO_FLUSH)
                let made = chunk.count - Int(stream.avail_out)
                if out.count + made > limit { return .tooLarge(limit: limit) }
                out.append(contentsOf: UnsafeRawBufferPointer(rebasing: chunk[..<made]))
                switch status {
                case Z_STREAM_END:
                    if stream.avail_in == 0 { return nil }
                    // A further member.
                    members += 1
                    if members == memberLimit { return .malformed("it has more than \(memberLimit) members") }
                    guard inflateReset(&stream) == Z_OK else { return .malformed("it cannot be gone on with") }
                case Z_OK: if stream.avail_in == 0, stream.avail_out > 0 { return .malformed("it ends too early") }
                case Z_BUF_ERROR: if stream.avail_out > 0 { return .malformed("it ends too early") }
                default: return .malformed(stream.msg.map { String(cString: $0) } ?? "error \(status)")
                }
            }
        }
        if let failure { throw failure }
        return out
    }

    /// Packs `bytes` at zlib's fastest level: for telemetry the second best ratio at a third of the time.
    public static func pack(_ bytes: [UInt8]) -> [UInt8] {
        var stream = z_stream()
        let status = deflateInit2_(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
        precondition(status == Z_OK, "zlib does not start: \(status)")
        defer { deflateEnd(&stream) }
        // zlib promises that one call into a buffer of this bound ends the stream.
        let bound = Int(deflateBound(&stream, UInt(bytes.count)))
        return [UInt8](unsafeUninitializedCapacity: bound) { out, count in
            bytes.withUnsafeBufferPointer { input in
                stream.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
                stream.avail_in = UInt32(input.count)
                stream.next_out = out.baseAddress
                stream.avail_out = UInt32(bound)
                let status = deflate(&stream, Z_FINISH)
                precondition(status == Z_STREAM_END, "zlib broke its bound: \(status)")
            }
            count = bound - Int(stream.avail_out)
        }
    }
}
