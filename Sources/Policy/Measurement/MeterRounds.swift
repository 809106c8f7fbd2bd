import Basics

/// Decides when each source is asked: a schedule that cannot pile up.
///
/// Each source has its turn once a period, at a phase of its own, so that hundreds of them are spread over the period. A source that is
/// still at work when its turn comes is not asked again: the turn is skipped, and counted. At most `concurrency` are asked at once; the
/// others wait in a queue that holds each source at most once. A new source is asked at once. Turns that were missed altogether (the
/// machine stood still) are skipped, not made up for.
public struct MeterRounds: Sendable {
    /// What a source is doing.
    private enum State {
        /// Nothing. Left at its turn, for `queued`.
        case idle
        /// Its turn has come and it waits for a place. Left by `take`, for `underWay`; or by `follow`, when it is gone.
        case queued
        /// It is being asked. Left by `finished`, for `idle`; by `follow`, when it is gone, for `leaving`.
        case underWay
        /// It is being asked and nobody wants it any more. Left by `finished`, for good; by `follow`, when it is back, for `underWay`.
        case leaving
    }

    private struct Source {
        var state: State
        var due: MonotonicTime
        /// Turns skipped since it last answered.
        var skipped = 0
    }

    private let period: Duration
    private let concurrency: Int
    private var sources: [String: Source] = [:]
    private var queue: [String] = []
    private var underWay = 0

    /// `period` is at least a millisecond, `concurrency` at least 1.
    public init(period: Duration, concurrency: Int) {
        self.period = max(period, .milliseconds(1))
        self.concurrency = max(concurrency, 1)
    }

    /// Sets the sources that there are now. New ones are due at once.
    public mutating func follow(_ ids: Set<String>, now: MonotonicTime) {
        for id in ids {
            if sources[id]?.state == .leaving { sources[id]!.state = .underWay }
            if sources[id] == nil { sources[id] = Source(state: .idle, due: now) }
        }
        for (id, source) in sources where !ids.contains(id) {
            switch source.state {
            case .idle, .queued: sources[id] = nil
            case .underWay: sources[id]!.state = .leaving
            case .leaving: break
            }
        }
        queue.removeAll { sources[$0]?.state != .queued }
    }

    /// Queues the sources whose turn has come (`due <= now`), in the order of their names. Returns the names of the sources whose turn was
    /// skipped, a name for each skipped turn.
    public mutating func turn(_ now: MonotonicTime) -> [String] {
        var skipped: [String] = []
        for id in sources.keys.sorted() {
            var source = sources[id]!
            // After a clock that went back, the next turn would be far away.
            if source.due - now > period * 2 { source.due = next(id, after: now) }
            if source.due <= now, source.state != .leaving {
                let missed = Int(min((now - source.due).nanoseconds / period.nanoseconds, 1000))
                source.skipped += missed
                skipped += Array(repeating: id, count: missed)
                if source.state == .idle {
                    source.state = .queued
                    queue.append(id)
                } else {
                    source.skipped += 1
                    skipped.append(id)
                }
                source.due = next(id, after: now)
            }
            sources[id] = source
        }
        return skipped
    }

    /// Takes the next source to ask, if there is a place. `finished` gives the place back.
    public mutating func take() -> String? {
        guard underWay < concurrency, !queue.isEmpty else { return nil }
        let id = queue.removeFirst()
        sources[id]!.state = .underWay
        underWay += 1
        return id
    }

    /// Notes that a source that was taken has answered, or failed to.
    public mutating func finished(_ id: String) {
        guard let source = sources[id], source.state == .underWay || source.state == .leaving else { return }
        underWay -= 1
        if source.state == .leaving {
            sources[id] = nil
        } else {
            sources[id]!.state = .idle
            sources[id]!.skipped = 0
        }
    }

    /// When the next turn comes; nil without sources.
    public var nextTurn: MonotonicTime? { sources.values.lazy.filter { $0.state != .leaving }.map(\.due).min() }

    /// The number of turns that a source has missed since it last answered.
    public func skipped(_ id: String) -> Int { sources[id]?.skipped ?? 0 }

    /// The number of sources that are being asked.
    public var active: Int { underWay }
    /// The number of sources that wait for a place.
    public var waiting: Int { queue.count }

    /// The first time of the source's own phase that is at least a quarter of a period away: its first answer and the next one would stand
    /// too near to each other for a rate.
    private func next(_ id: String, after now: MonotonicTime) -> MonotonicTime {
        let length = period.nanoseconds
        let earliest = now.nanoseconds &+ length / 4
        let phase = MeterRounds.phase(id, of: length)
        let past = (earliest - phase) % length
        return MonotonicTime(nanoseconds: past > 0 ? earliest + (length - past) : earliest - past)
    }

    /// FNV-1a of the name: the same in every run, so that a restart does not shift everything.
    static func phase(_ id: String, of period: Int64) -> Int64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in id.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return Int64(hash % UInt64(period))
    }
}
