import EventLoops

/// Holds the caller back until the loop has looked at its sockets and timers.
typealias Pause = @Sendable () async -> Void

/// Pieces of long work, of all requests together: one a turn of the loop, in their order, so that others wait for one piece at most.
/// (`Task.yield` does not do that: jobs that wake each other run in one turn, and so do the jobs of many requests.)
///
/// It lives on its loop.
final class Turns {
    private let loop: EventLoop
    private var waiting: [UnsafeContinuation<Void, Never>] = []
    private var begin = 0

    init(loop: EventLoop) { self.loop = loop }

    /// A way to wait for a turn of `loop`; call it there.
    static func pause(on loop: EventLoop) -> Pause {
        let turns = LoopBound(Turns(loop: loop), on: loop)
        return { await turns.value.next() }
    }

    private func next() async {
        await withUnsafeContinuation { continuation in
            waiting.append(continuation)
            if waiting.count - begin == 1 { schedule() }
        }
    }

    private func schedule() {
        let bound = LoopBound(self, on: loop)
        loop.execute { bound.value.go() }
    }

    private func go() {
        waiting[begin].resume()
        begin += 1
        if begin < waiting.count { schedule() }
        if begin > waiting.count / 2 {
            waiting.removeFirst(begin)
            begin = 0
        }
    }
}

/// Long work in short turns: whoever tells what was done is held back now and then.
struct Pace {
    /// Bytes read or written in one turn: some milliseconds.
    static let turn = 512 << 10
    /// A correlation that is larger than this is read and written in a turn of its own.
    static let piece = 32 << 10
    /// What a step costs besides its bytes.
    private static let step = 2 << 10
    private let pause: Pause
    private var left = Pace.turn

    init(_ pause: @escaping Pause) { self.pause = pause }

    mutating func did(_ bytes: Int) async {
        left -= bytes + Pace.step
        if left > 0 { return }
        left = Pace.turn
        await pause()
    }
}
