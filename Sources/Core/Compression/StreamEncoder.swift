import CBrotli
import CZlib
import CZstd

/// Compresses a body piece by piece, for a client that reads while it is being made.
///
/// One encoder makes one body. `pass` any number of times, `flush` where a reader must have all that was passed so far, then `end` once.
/// What comes out is handed to `out` in pieces of at most 16 KiB.
public final class StreamEncoder {
    public enum Coding: Sendable { case zstd, brotli, gzip }

    private enum State {
        case zstd(OpaquePointer)
        case brotli(OpaquePointer)
        case gzip(UnsafeMutablePointer<z_stream>)
    }
    private enum Step { case pass, flush, end }

    private let state: State
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 16 << 10, alignment: 16)

    /// Levels for answers that are made while somebody waits: zstd 3, brotli 4, gzip 5. nil when the library has no memory.
    public init?(_ coding: Coding) {
        switch coding {
        case .zstd:
            guard let stream = ZSTD_createCStream() else { return nil }
            ZSTD_CCtx_setParameter(stream, ZSTD_c_compressionLevel, 3)
            // RFC 8878, 3.1.1.1.2, and RFC 9659: clients need not keep a larger window than 8 MiB; level 3 asks for 2.
            state = .zstd(stream)
        case .brotli:
            guard let encoder = BrotliEncoderCreateInstance(nil, nil, nil) else { return nil }
            BrotliEncoderSetParameter(encoder, BROTLI_PARAM_QUALITY, 4)
            // A window of 256 KiB: the default of 4 MiB is memory that a client's connection would hold.
            BrotliEncoderSetParameter(encoder, BROTLI_PARAM_LGWIN, 18)
            state = .brotli(encoder)
        case .gzip:
            let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
            stream.initialize(to: z_stream())
            let status = deflateInit2_(
                stream, 5, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
            guard status == Z_OK else {
                stream.deallocate()
                return nil
            }
            state = .gzip(stream)
        }
    }

    deinit {
        switch state {
        case .zstd(let stream): ZSTD_freeCStream(stream)
        case .brotli(let encoder): BrotliEncoderDestroyInstance(encoder)
        case .gzip(let stream):
            deflateEnd(stream)
            stream.deallocate()
        }
        buffer.deallocate()
    }

    /// Takes a part of the body. False: the library has failed, and what follows is worthless.
    public func pass(_ bytes: UnsafeRawBufferPointer, _ out: (UnsafeRawBufferPointer) -> Void) -> Bool { run(bytes, .pass, out) }

    /// Makes all that was passed readable for whoever decodes.
    public func flush(_ out: (UnsafeRawBufferPointer) -> Void) -> Bool { run(UnsafeRawBufferPointer(start: nil, count: 0), .flush, out) }

    /// Ends the body.
    public func end(_ out: (UnsafeRawBufferPointer) -> Void) -> Bool { run(UnsafeRawBufferPointer(start: nil, count: 0), .end, out) }

    /// Compresses a body at once; nil when the library fails.
    public static func pack(_ bytes: UnsafeRawBufferPointer, _ coding: Coding) -> [UInt8]? {
        guard let encoder = StreamEncoder(coding) else { return nil }
        var made: [UInt8] = []
        let passed = encoder.pass(bytes) { made.append(contentsOf: $0) }
        let ended = passed && encoder.end { made.append(contentsOf: $0) }
        return ended ? made : nil
    }

    private func run(_ bytes: UnsafeRawBufferPointer, _ step: Step, _ out: (UnsafeRawBufferPointer) -> Void) -> Bool {
        switch state {
        case .zstd(let stream): runZstd(stream, bytes, step, out)
        case .brotli(let encoder): runBrotli(encoder, bytes, step, out)
        case .gzip(let stream): runGzip(stream, bytes, step, out)
        }
    }

    private func made(_ count: Int, _ out: (UnsafeRawBufferPointer) -> Void) {
        if count > 0 { out(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<count])) }
    }

    private func runZstd(_ stream: OpaquePointer, _ bytes: UnsafeRawBufferPointer, _ step: Step, _ out: (UnsafeRawBufferPointer) -> Void)
        -> Bool
    {
        var input = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
        let directive = step == .pass ? ZSTD_e_continue : step == .flush ? ZSTD_e_flush : ZSTD_e_end
        while true {
            var output = ZSTD_outBuffer(dst: buffer.baseAddress, size: buffer.count, pos: 0)
            let left = ZSTD_compressStream2(stream, &output, &input, directive)
            if ZSTD_isError(left) != 0 { return false }
            made(output.pos, out)
            if step == .pass ? input.pos == input.size : left == 0 { return true }
        }
    }

    private func runBrotli(_ encoder: OpaquePointer, _ bytes: UnsafeRawBufferPointer, _ step: Step, _ out: (UnsafeRawBufferPointer) -> Void)
        -> Bool
    {
        var left = bytes.count
        var next = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
        let operation = step == .pass ? BROTLI_OPERATION_PROCESS : step == .flush ? BROTLI_OPERATION_FLUSH : BROTLI_OPERATION_FINISH
        while true {
            var room = buffer.count
            var to = buffer.baseAddress?.assumingMemoryBound(to: UInt8.self)
            guard BrotliEncoderCompressStream(encoder, operation, &left, &next, &room, &to, nil) != 0 else { return false }
            made(buffer.count - room, out)
            if left == 0, BrotliEncoderHasMoreOutput(encoder) == 0 { return true }
        }
    }

    private func runGzip(
        _ stream: UnsafeMutablePointer<z_stream>, _ bytes: UnsafeRawBufferPointer, _ step: Step, _ out: (UnsafeRawBufferPointer) -> Void
    ) -> Bool {
        stream.pointee.next_in = UnsafeMutablePointer(mutating: bytes.baseAddress?.assumingMemoryBound(to: UInt8.self))
        stream.pointee.avail_in = UInt32(bytes.count)
        let how = step == .pass ? Z_NO_FLUSH : step == .flush ? Z_SYNC_FLUSH : Z_FINISH
        while true {
            stream.pointee.next_out = buffer.baseAddress?.assumingMemoryBound(to: UInt8.self)
            stream.pointee.avail_out = UInt32(buffer.count)
            let status = deflate(stream, how)
            guard status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR else { return false }
            made(buffer.count - Int(stream.pointee.avail_out), out)
            if stream.pointee.avail_out > 0 { return step != .end || status == Z_STREAM_END }
        }
    }
}
