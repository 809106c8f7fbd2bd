import Basics

/// A timer of one loop. Re-arming to a later time is free (the heap is told only when the old time comes),
/// so a connection may push its time-out forward at every byte.
public final class LoopTimer {
    private unowned let loop: EventLoop
    private let action: () -> Void
    /// The time for which it is armed; nil when it is not.
    public fileprivate(set) var deadline: MonotonicTime?
    fileprivate var queuedFor: MonotonicTime?

    public init(loop: EventLoop, _ action: @escaping () -> Void) {
        self.loop = loop
        self.action = action
    }

    public var isArmed: Bool { deadline != nil }

    public func schedule(after delay: Duration) { schedule(at: loop.isCurrent ? max(loop.now, .now) + delay : .now + delay) }

    public func schedule(at time: MonotonicTime) {
        deadline = time
        if let queuedFor, queuedFor <= time { return }
        queuedFor = time
        loop.arm(self)
    }

    public func cancel() { deadline = nil }

    func fire(now: MonotonicTime) {
        guard let deadline else { return }
        if deadline > now {
            queuedFor = deadline
            loop.arm(self)
            return
        }
        self.deadline = nil
        action()
    }
}

/// A binary heap of timers by the time they were queued for. An entry whose timer was since queued for an
/// earlier time is stale and skipped.
///
/// Stale entries, and those of timers that are cancelled and that nobody else holds, are taken out when the heap has doubled since that was
/// last done. So the heap has at most twice as many entries as timers in use, or 128 if that is more, however far off their times are; and
/// a timer costs no more than before.
struct TimerHeap {
    private var entries: [(time: MonotonicTime, timer: LoopTimer)] = []
    private var sweepAt = TimerHeap.leastSweep
    private static let leastSweep = 128

    var earliest: MonotonicTime? { entries.first?.time }
    var count: Int { entries.count }

    mutating func push(_ timer: LoopTimer) {
        if entries.count >= sweepAt { sweep() }
        entries.append((timer.queuedFor!, timer))
        rise(from: entries.count - 1)
    }

    private mutating func rise(from place: Int) {
        var i = place
        while i > 0 {
            let parent = (i - 1) / 2
            if entries[parent].time <= entries[i].time { break }
            entries.swapAt(parent, i)
            i = parent
        }
    }

    /// Takes out what will never fire, and sets the size at which that is done again.
    private mutating func sweep() {
        var kept = 0
        for i in entries.indices {
            if entries[i].timer.queuedFor != entries[i].time { continue }
            if entries[i].timer.deadline == nil, isKnownUniquelyReferenced(&entries[i].timer) { continue }
            if kept != i { entries.swapAt(kept, i) }
            kept += 1
        }
        entries.removeSubrange(kept...)
        for i in entries.indices { rise(from: i) }
        sweepAt = max(TimerHeap.leastSweep, 2 * entries.count)
    }

    /// The next timer whose time has come, taken out; nil when there is none.
    mutating func popDue(_ now: MonotonicTime) -> LoopTimer? {
        while let first = entries.first, first.time <= now {
            let last = entries.removeLast()
            if !entries.isEmpty {
                entries[0] = last
                sink()
            }
            if first.timer.queuedFor == first.time {
                first.timer.queuedFor = nil
                return first.timer
            }
        }
        return nil
    }

    private mutating func sink() {
        var i = 0
        while true {
            let left = 2 * i + 1
            if left >= entries.count { return }
            let right = left + 1
            let child = right < entries.count && entries[right].time < entries[left].time ? right : left
            if entries[i].time <= entries[child].time { return }
            entries.swapAt(i, child)
            i = child
        }
    }
}
