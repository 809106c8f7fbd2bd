import Basics
import EventLoops

/// One plain connection that asks a Redis server anything at all and listens for any answer. It settles the question that a client with a
/// password and a pool cannot: does the process behind this port still react? An error is a reaction, and so is hanging up.
final class FirstWords: Stream {
    enum Answer: Equatable, Sendable {
        /// What was said, a few words for a message.
        case words(String)
        /// Silence, or nobody listens.
        case silence
        /// The server could not be asked for want of something here: why.
        case unasked(String)
    }

    private let done: (Answer) -> Void
    private var timer: LoopTimer?
    private var wasConnected = false
    private var isOver = false

    /// Calls `done` once, on the loop.
    static func ask(port: UInt16, within limit: Duration, on loop: EventLoop, _ done: @escaping (Answer) -> Void) {
        let words = FirstWords(loop: loop, done)
        // The loop holds the connection while it is open; the timer ends it, and with it the cycle between the two.
        words.timer = LoopTimer(loop: loop) { words.finish(.silence) }
        words.timer?.schedule(after: limit)
        words.connect(to: .loopback(port: port))
    }

    private init(loop: EventLoop, _ done: @escaping (Answer) -> Void) {
        self.done = done
        super.init(loop: loop)
    }

    private func finish(_ answer: Answer) {
        guard !isOver else { return }
        isOver = true
        timer?.cancel()
        timer = nil
        close()
        done(answer)
    }

    override func connected() {
        wasConnected = true
        Array("PING\r\n".utf8).withUnsafeBytes { write($0) }
    }

    override func received(_ bytes: UnsafeRawBufferPointer) {
        let line = bytes.prefix(200).prefix { $0 != 13 && $0 != 10 }
        finish(.words(String(decoding: line, as: UTF8.self)))
    }

    override func closed(_ reason: CloseReason) {
        if reason.isOwnWant { return finish(.unasked(reason.description)) }
        finish(wasConnected ? .words("the connection was \(reason)") : .silence)
    }
}
