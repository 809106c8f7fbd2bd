import Basics
import EventLoops
import Glibc

/// One line a request, gathered in memory and written when 32 KiB have come together or a second has passed.
///
/// `2026-11-21T03:30:00.123Z 127.0.0.1 "POST /api/logs" 202 105 correlation-engine/2 total=1.9ms tries=1 id=5f…`
final class AccessLog {
    private let descriptor: Int32
    private var pending = ByteBuffer()
    private var timer: LoopTimer?
    private static let flushAt = 32_768
    /// More of a target than this serves nobody.
    private static let targetLimit = 512

    /// -1: none is wanted.
    init(descriptor: Int32, loop: EventLoop) {
        self.descriptor = descriptor
        if descriptor >= 0 {
            timer = LoopTimer(loop: loop) { [unowned self] in flush() }
        }
    }

    func line(
        peer: [UInt8], method: UnsafeRawBufferPointer, target: UnsafeRawBufferPointer, status: Int, bytes: Int, replica: String,
        total: Duration, tries: Int, id: UnsafeRawBufferPointer
    ) {
        guard descriptor >= 0 else { return }
        if pending.isEmpty { timer?.schedule(after: .seconds(1)) }
        withUnsafeTemporaryAllocation(byteCount: 24, alignment: 1) { stamp in
            CalendarTime.render(.now, into: stamp)
            pending.append(UnsafeRawBufferPointer(stamp))
        }
        pending.append(32)
        pending.append(peer)
        pending.append(" \"")
        pending.append(method)
        pending.append(32)
        for byte in target.prefix(AccessLog.targetLimit) { if byte == 34 { pending.append("%22") } else { pending.append(byte) } }
        pending.append("\" ")
        pending.append(decimal: status)
        pending.append(32)
        pending.append(decimal: bytes)
        pending.append(32)
        pending.append(text: replica)
        pending.append(" total=")
        let microseconds = Int(total.nanoseconds / 1000)
        pending.append(decimal: microseconds / 1000)
        pending.append(46)
        pending.append(UInt8(48 + microseconds / 100 % 10))
        pending.append("ms tries=")
        pending.append(decimal: tries)
        pending.append(" id=")
        pending.append(id)
        pending.append(10)
        if pending.count >= AccessLog.flushAt { flush() }
    }

    func flush() {
        guard descriptor >= 0 else { return }
        while !pending.isEmpty {
            let wrote = write(descriptor, pending.bytes.baseAddress, pending.count)
            if wrote > 0 { pending.consume(wrote) } else if errno != EINTR { break }
        }
        pending.clear(keeping: 131_072)
    }
}
