import EventLoops

extension EventLoop {
    /// Lets the loop whose thread this is look at its sockets and timers before the caller goes on. (`Task.yield` does not: jobs that wake
    /// each other run in one turn.) Off a loop it only yields.
    static func nextTurn() async {
        guard let loop = current else { return await Task.yield() }
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in loop.execute { continuation.resume() } }
    }
}

/// Long work in short turns: whoever tells what was done is held back now and then, while the loop answers others.
struct Pace {
    /// Bytes read or written in one turn: some milliseconds.
    private static let turn = 512 << 10
    /// What a step costs besides its bytes.
    private static let step = 2 << 10
    private var left = Pace.turn

    mutating func did(_ bytes: Int) async {
        left -= bytes + Pace.step
        if left > 0 { return }
        left = Pace.turn
        await EventLoop.nextTurn()
    }
}
