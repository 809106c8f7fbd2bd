import EventLoops
import Observability

/// Whose records may be stored now, who waits for room, and who is refused.
///
/// What is under way is bounded in records and in bytes. Who finds no room waits in a line, first come first served, so that a large batch
/// has its turn however many small ones come after it: nothing overtakes it. The line is bounded likewise, and always has a place when it is
/// empty. So whoever is refused would have found a place a little later; nobody is told to try again what cannot succeed.
struct IntakeLine {
    struct Load: Equatable {
        var records = 0
        var bytes = 0

        func with(_ other: Load) -> Load {
            Load(records: records.addingClamped(other.records), bytes: bytes.addingClamped(other.bytes))
        }
        func without(_ other: Load) -> Load { Load(records: records - other.records, bytes: bytes - other.bytes) }
        func fits(_ most: Load) -> Bool { records <= most.records && bytes <= most.bytes }
    }

    enum Entry: Equatable {
        case go
        /// Until `leave` returns this ticket.
        case wait(Int)
        case refused
    }

    let most: Load
    /// What is being stored.
    private(set) var inside = Load()
    private(set) var waiting = Load()
    private var count = 0
    private var line: [(ticket: Int, load: Load)] = []
    private var ticket = 0

    /// `most`: of what is under way, and of what waits. A load beyond it goes alone.
    init(most: Load) { self.most = most }

    mutating func enter(_ load: Load) -> Entry {
        if line.isEmpty, admit(load) { return .go }
        guard line.isEmpty || waiting.with(load).fits(most) else { return .refused }
        ticket += 1
        line.append((ticket, load))
        waiting = waiting.with(load)
        return .wait(ticket)
    }

    /// Call it once for each load that went in. Returns the tickets that may go in now.
    mutating func leave(_ load: Load) -> [Int] {
        inside = inside.without(load)
        count -= 1
        var next = 0
        while next < line.count, admit(line[next].load) {
            waiting = waiting.without(line[next].load)
            next += 1
        }
        defer { line.removeFirst(next) }
        return line[..<next].map(\.ticket)
    }

    private mutating func admit(_ load: Load) -> Bool {
        guard count == 0 || inside.with(load).fits(most) else { return false }
        inside = inside.with(load)
        count += 1
        return true
    }
}

/// The line, and those who wait in it. It lives on the engine's loop.
final class Intake {
    private var line: IntakeLine
    private var waiting: [Int: UnsafeContinuation<Void, Never>] = [:]
    private let depth: Gauge

    /// `depth` shows the records that are under way.
    init(most: IntakeLine.Load, depth: Gauge) {
        line = IntakeLine(most: most)
        self.depth = depth
    }

    /// Records that are being stored and that wait to be.
    var records: Int { line.inside.records + line.waiting.records }

    /// False: there is no room, and no place in the line. Otherwise call `leave` at the end, once.
    func enter(_ load: IntakeLine.Load) async -> Bool {
        defer { depth.set(line.inside.records) }
        switch line.enter(load) {
        case .go: return true
        case .refused: return false
        case .wait(let ticket):
            await withUnsafeContinuation { waiting[ticket] = $0 }
            return true
        }
    }

    func leave(_ load: IntakeLine.Load) {
        for ticket in line.leave(load) { waiting.removeValue(forKey: ticket)?.resume() }
        depth.set(line.inside.records)
    }
}
