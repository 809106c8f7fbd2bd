import Basics
import EventLoops

/// One user of a closed phase: asks, waits for the answer, thinks, asks again. States: thinking (its timer is armed) and asking (its
/// connection has a request); `leave` ends the first at once and the second with its answer.
final class LoadUser {
    private unowned let engine: LoadEngine
    private var connection: LoadConnection?
    private var timer: LoopTimer?
    /// When the next request is due, nanoseconds from the start of the run.
    private var due: Int64 = 0
    private(set) var isLeaving = false
    private var isAsking = false

    init(engine: LoadEngine) {
        self.engine = engine
        timer = LoopTimer(loop: engine.loop) { [weak self] in self?.ask() }
    }

    func begin(at time: Int64) { think(until: time) }

    private func think(until time: Int64) {
        due = time
        timer?.schedule(at: engine.time(time))
    }

    private func ask() {
        if connection?.isOpen != true { connection = LoadConnection(engine: engine, user: self) }
        isAsking = true
        engine.send(on: connection!, due: due)
    }

    /// Its request is to be sent again.
    func repeats(_ exchange: LoadConnection.Exchange) {
        connection = LoadConnection(engine: engine, user: self)
        engine.send(again: exchange, on: connection!)
    }

    /// Its request has ended; the next is due at `time`, which may be now. Unless `keeps`, the connection is about to close.
    func ended(next time: Int64, atOnce: Bool, keeps: Bool) {
        isAsking = false
        if !keeps { connection = nil }
        if isLeaving { return end() }
        if !atOnce { return think(until: time) }
        due = time
        ask()
    }

    /// True if it is gone at once, false if it goes with its answer.
    func leave() -> Bool {
        isLeaving = true
        if isAsking { return false }
        end()
        return true
    }

    private func end() {
        timer?.cancel()
        connection?.leave()
        connection = nil
    }
}
