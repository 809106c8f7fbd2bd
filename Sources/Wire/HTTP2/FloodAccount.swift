import Basics
import Resilience

/// What one connection may cost beyond what its requests are worth. Each kind of frame that makes work and asks for nothing has an account;
/// when one is empty, the connection ends with ENHANCE_YOUR_CALM.
///
/// The figures: 1,000 resets at once and 100 a second are far above what a browser does that leaves page after page (about 60 a second), and
/// far below an attack (HTTP/2 rapid reset: hundreds of thousands a second). Pure: time comes in as `now`. O(1), no allocation.
public struct FloodAccount: Sendable {
    public enum Reason: String, CaseIterable, Sendable {
        /// Streams that the client resets (CVE-2023-44487).
        case resets
        /// Streams that we must reset for what the client did on them (CVE-2025-8671).
        case faults
        /// Streams beyond the number that may be open.
        case refused
        /// Frames without effect: SETTINGS, PING, PRIORITY, PRIORITY_UPDATE, empty DATA, frames of unknown types, and WINDOW_UPDATE for
        /// which nothing was sent.
        case idleFrames = "idle_frames"
        /// A list of fields of more than four times the size that is taken, or in more than nine frames.
        case fields
        /// Answers to the client's frames that it does not read.
        case unread
    }

    /// Resets, and faults, that may come at once; and a second.
    public static let burst = 1000
    public static let rate = 100.0
    /// Streams that may be refused.
    public static let mostRefused = 1000
    /// Frames without effect that may come between two finished requests.
    public static let mostIdleFrames = 10_000
    /// Bytes sent that are worth one frame without effect: a frame of data has about this size, and is answered by a WINDOW_UPDATE.
    public static let bytesAFrame = 16_384

    // A bucket takes its burst and one more.
    private static let bucket = TokenBucket(rate: rate, burst: burst - 1)
    private var resets: Int64 = 0
    private var faults: Int64 = 0
    private var refused = 0
    private var idleFrames = 0
    private var bytesSent = 0

    public init() {}

    /// The client has reset a stream; false: once too often.
    public mutating func resetCame(_ now: MonotonicTime) -> Bool { FloodAccount.bucket.take(&resets, now: now).allowed }

    /// We reset a stream for a fault of the client's.
    public mutating func faultFound(_ now: MonotonicTime) -> Bool { FloodAccount.bucket.take(&faults, now: now).allowed }

    /// A stream was refused because too many are open.
    public mutating func streamRefused() -> Bool {
        refused += 1
        return refused <= FloodAccount.mostRefused
    }

    public mutating func idleFrameCame() -> Bool {
        idleFrames += 1
        return idleFrames <= FloodAccount.mostIdleFrames
    }

    /// A request was answered to its end.
    public mutating func requestFinished() {
        idleFrames = 0
        if refused > 0 { refused -= 1 }
    }

    /// Bytes of bodies were sent.
    public mutating func sent(_ bytes: Int) {
        bytesSent = bytesSent.addingClamped(bytes)
        idleFrames = max(0, idleFrames - bytesSent / FloodAccount.bytesAFrame)
        bytesSent %= FloodAccount.bytesAFrame
    }
}
