import Basics
import EventLoops

/// One plain connection that asks a Redis server anything at all and listens for any answer. It settles the question that a client with a
/// password and a pool cannot: does the process behind this port still react? An error is a reaction, and so is hanging up.
final class FirstWords: Stream {
    private let done: (String?) -> Void
    private var timer: LoopTimer?
    private var wasConnected = false
    private var isOver = false

    /// Calls `done` once, on the loop: with what was said (a few words for a message), or nil after silence, or when nobody listens.
    static func ask(port: UInt16, within limit: Duration, on loop: EventLoop, _ done: @escaping (String?) -> Void) {
        let words = FirstWords(loop: loop, done)
        // The loop holds the connection while it is open; the timer ends it, and with it the cycle between the two.
        words.timer = LoopTimer(loop: loop) { words.finish(nil) }
        words.timer?.schedule(after: limit)
        words.connect(to: .loopback(port: port))
    }

    private init(loop: EventLoop, _ done: @escaping (String?) -> Void) {
        self.done = done
        super.init(loop: loop)
    }

    private func finish(_ answer: String?) {
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
        finish(String(decoding: line, as: UTF8.self))
    }

    override func closed(_ reason: CloseReason) { finish(wasConnected ? "the connection was \(reason)" : nil) }
}
