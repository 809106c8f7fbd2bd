import Basics
import COpenSSL
import CTLS
import Glibc

/// What the TLS sessions of one loop read from and write to while one of them works: made when the loop has its first connection with TLS.
///
/// All sessions of a loop share one BIO. That is sound because a session uses it only within a call of ours, and a call leaves nothing in it
/// for the next: what came is consumed whole, and what is to be sent is sent or kept by its session. A BIO of its own would cost each
/// connection two hundred bytes. (OpenSSL chains a buffer before it during a handshake, and then notes itself as its predecessor; nobody
/// reads that note.)
final class TLSPipe {
    /// Room for a read's bytes, and for the record that had begun before them (16 KiB and what may be added to it, RFC 5246 6.2.3).
    static let openCapacity = 65536 + 16384 + 2048
    /// The memory for sealed bytes that stays between two calls: a write's (`TLSSession.sealAtOnce`) with what TLS adds to it.
    private static let keptOutput = 80 << 10

    let bio: OpaquePointer
    /// Plain bytes that were opened, good until the next call.
    let plain = UnsafeMutableRawBufferPointer.allocate(byteCount: TLSPipe.openCapacity, alignment: 64)
    private let raw: UnsafeMutablePointer<muster_tls_pipe>

    init() {
        raw = .allocate(capacity: 1)
        raw.initialize(to: muster_tls_pipe())
        // Fails for want of memory only.
        bio = muster_tls_bio(raw)!
    }

    deinit {
        BIO_free(bio)
        free(raw.pointee.output)
        raw.deallocate()
        plain.deallocate()
    }

    /// Gives a session sealed bytes to read.
    func begin(_ input: UnsafeRawBufferPointer) {
        raw.pointee.input = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
        raw.pointee.input_left = input.count
        raw.pointee.output_count = 0
    }

    /// Whether the session has read all that was there.
    var isRead: Bool { raw.pointee.input_left == 0 }

    /// What the session has sealed since `begin`.
    var output: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: raw.pointee.output, count: raw.pointee.output_count) }

    /// Forgets what was sealed; more memory than usual goes back.
    func end() {
        raw.pointee.input_left = 0
        raw.pointee.output_count = 0
        if raw.pointee.output_capacity > TLSPipe.keptOutput * 2 {
            free(raw.pointee.output)
            raw.pointee.output = nil
            raw.pointee.output_capacity = 0
        }
    }
}
