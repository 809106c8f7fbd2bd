import Basics
import CLinux
import Glibc
import Synchronization

/// One thread that waits for sockets and timers and runs what they wake; also a Swift executor, so that an
/// `async` handler runs where its bytes were read, without a hop.
///
/// A turn: wait, sockets, timers, jobs from elsewhere, Swift jobs, then the end-of-turn callbacks (where what
/// was queued is written). Everything but `execute`, `enqueue` and `stop` may be used on the loop's own
/// thread only.
public final class EventLoop: TaskExecutor, SerialExecutor, @unchecked Sendable {
    // @unchecked: `inbox` is a Mutex, `wakeUp` is an eventfd, `stopping` is read under the inbox's lock or on the
    // loop; all other state is touched by the loop's thread only (checked by `assertOnLoop`).
    private struct Inbox {
        var jobs: [UnownedJob] = []
        var closures: [@Sendable () -> Void] = []
        var awake = true
    }

    private let epoll: Int32
    private let wakeUp: Int32
    private let inbox = Mutex(Inbox())
    private let stopping = Atomic<Bool>(false)
    private var localJobs: [UnownedJob] = []
    private var slots: [Pollable?] = []
    private var generations: [UInt32] = []
    private var freeSlots: [Int] = []
    private var timers = TimerHeap()
    private var endOfTurn: [Stream] = []
    private var readAgain: [Stream] = []
    private let events: UnsafeMutablePointer<muster_event>
    private static let eventCapacity = 256

    /// The buffer that every socket of this loop reads into; its contents are gone when the read callback returns.
    let readBuffer: UnsafeMutableRawBufferPointer
    /// What TLS makes of `readBuffer`, and what it seals: just as short-lived.
    lazy var pipe = TLSPipe()

    /// The time at which this turn began to work. Cheap: read once a turn.
    public private(set) var now: MonotonicTime

    /// Called at the end of each turn, after everything else: for logs and the like.
    public var onTurnEnd: (() -> Void)?

    public init() throws(SystemError) {
        epoll = muster_epoll_create()
        guard epoll >= 0 else { throw SystemError("epoll_create", -epoll) }
        wakeUp = muster_eventfd()
        guard wakeUp >= 0 else { throw SystemError("eventfd") }
        events = .allocate(capacity: EventLoop.eventCapacity)
        // 64 KiB: a whole response of nearly every API in one read, and small enough to stay in the L2 cache.
        readBuffer = .allocate(byteCount: 65536, alignment: 64)
        now = .now
        let added = muster_epoll_add_level(epoll, wakeUp, UInt64.max)
        guard added == 0 else { throw SystemError("epoll_ctl", -added) }
    }

    deinit {
        close(epoll)
        close(wakeUp)
        events.deallocate()
        readBuffer.deallocate()
    }

    /// The loop whose thread this is.
    public static var current: EventLoop? {
        muster_thread_slot().map { Unmanaged<EventLoop>.fromOpaque($0).takeUnretainedValue() }
    }

    public var isCurrent: Bool { muster_thread_slot() == Unmanaged.passUnretained(self).toOpaque() }

    func assertOnLoop() { assert(isCurrent, "used outside its loop") }

    // MARK: running

    /// Runs until `stop`. Takes the calling thread.
    public func run() {
        muster_set_thread_slot(Unmanaged.passUnretained(self).toOpaque())
        defer { muster_set_thread_slot(nil) }
        while !stopping.load(ordering: .acquiring) { turn() }
        // Swift jobs that are still queued must run, or their tasks leak; they see a stopped loop's sockets closed.
        runJobs()
    }

    /// Starts a thread for a new loop.
    public static func start(name: String) throws(SystemError) -> EventLoop {
        let loop = try EventLoop()
        var thread = pthread_t()
        let context = Unmanaged.passRetained(LoopThread(loop: loop, name: name))
        let result = pthread_create(
            &thread, nil,
            { raw in
                let context = Unmanaged<LoopThread>.fromOpaque(raw!).takeRetainedValue()
                muster_name_thread(String(context.name.prefix(15)))
                context.loop.run()
                return nil
            }, context.toOpaque())
        guard result == 0 else {
            context.release()
            throw SystemError("pthread_create", result)
        }
        pthread_detach(thread)
        return loop
    }

    /// Ends `run` after the current turn. From any thread.
    public func stop() {
        stopping.store(true, ordering: .releasing)
        wake()
    }

    /// Closes every connection that is still open; on the loop. A loop and its open connections hold each other, so a loop that is made for
    /// one question must be left without any.
    public func closeStreams() {
        assertOnLoop()
        for case let stream as Stream in slots { stream.close() }
    }

    private func turn() {
        var timeout: Int64 = -1
        if !localJobs.isEmpty || !readAgain.isEmpty {
            timeout = 0
        } else if let next = timers.earliest {
            timeout = max(0, next.nanoseconds - MonotonicTime.now.nanoseconds)
        }
        if timeout != 0 {
            let idle = inbox.withLock { inbox in
                let empty = inbox.jobs.isEmpty && inbox.closures.isEmpty
                if empty { inbox.awake = false }
                return empty
            }
            if !idle { timeout = 0 }
        }
        let count = muster_epoll_wait(epoll, events, Int32(EventLoop.eventCapacity), timeout)
        now = .now
        if count > 0 {
            for i in 0..<Int(count) { dispatch(events[i]) }
        }
        runTimers()
        runReadAgain()
        runJobs()
        runEndOfTurn()
        onTurnEnd?()
    }

    private func dispatch(_ event: muster_event) {
        if event.data == .max {
            var value: UInt64 = 0
            _ = read(wakeUp, &value, 8)
            return
        }
        let slot = Int(event.data & 0xFFFF_FFFF)
        guard slot < slots.count, generations[slot] == UInt32(event.data >> 32), let pollable = slots[slot] else { return }
        pollable.ready(event.events)
    }

    private func runTimers() {
        while let timer = timers.popDue(now) { timer.fire(now: now) }
    }

    private func runReadAgain() {
        if readAgain.isEmpty { return }
        let streams = readAgain
        readAgain.removeAll(keepingCapacity: true)
        for stream in streams { stream.continueReading() }
    }

    private func runJobs() {
        let (jobs, closures) = inbox.withLock { inbox in
            inbox.awake = true
            if inbox.jobs.isEmpty, inbox.closures.isEmpty { return ([UnownedJob](), [@Sendable () -> Void]()) }
            defer {
                inbox.jobs = []
                inbox.closures = []
            }
            return (inbox.jobs, inbox.closures)
        }
        for closure in closures { closure() }
        for job in jobs { run(job) }
        // A chain of jobs that wake each other is cut after this many, so that sockets get their turn.
        var budget = 1024
        var next = 0
        while next < localJobs.count, budget > 0 {
            let job = localJobs[next]
            next += 1
            budget -= 1
            run(job)
        }
        localJobs.removeFirst(next)
    }

    private func run(_ job: UnownedJob) {
        job.runSynchronously(isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
    }

    private func runEndOfTurn() {
        var i = 0
        while i < endOfTurn.count {
            endOfTurn[i].flushAtEndOfTurn()
            i += 1
        }
        endOfTurn.removeAll(keepingCapacity: true)
    }

    func flushAtEndOfTurn(_ stream: Stream) { endOfTurn.append(stream) }
    func readLater(_ stream: Stream) { readAgain.append(stream) }

    // MARK: from any thread

    /// Runs `body` on the loop, soon. From any thread.
    public func execute(_ body: @escaping @Sendable () -> Void) {
        let mustWake = inbox.withLock { inbox in
            inbox.closures.append(body)
            let asleep = !inbox.awake
            inbox.awake = true
            return asleep
        }
        if mustWake { wake() }
    }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if isCurrent {
            localJobs.append(job)
            return
        }
        let mustWake = inbox.withLock { inbox in
            inbox.jobs.append(job)
            let asleep = !inbox.awake
            inbox.awake = true
            return asleep
        }
        if mustWake { wake() }
    }

    private func wake() {
        var one: UInt64 = 1
        _ = write(wakeUp, &one, 8)
    }

    /// Runs `body` on the loop and returns its result.
    public func run<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
        try await withUnsafeThrowingContinuation { continuation in
            execute { continuation.resume(with: Result(catching: body)) }
        }
    }

    /// Waits without a thread. Cancelling the task ends the wait at its next wake only; use it for short waits.
    public func sleep(_ duration: Duration) async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            execute {
                // Retained by the heap until it fires.
                let timer = LoopTimer(loop: self) { continuation.resume() }
                timer.schedule(after: duration)
            }
        }
    }

    // MARK: descriptors and timers, on the loop

    func register(_ pollable: Pollable, fd: Int32, level: Bool, writable: Bool = true) throws(SystemError) -> Int {
        assertOnLoop()
        let slot: Int
        if let free = freeSlots.popLast() {
            slot = free
        } else {
            slot = slots.count
            slots.append(nil)
            generations.append(0)
        }
        let data = UInt64(generations[slot]) << 32 | UInt64(slot)
        let result = level ? muster_epoll_add_level(epoll, fd, data) : muster_epoll_add(epoll, fd, data, writable)
        guard result == 0 else {
            freeSlots.append(slot)
            throw SystemError("epoll_ctl", -result)
        }
        slots[slot] = pollable
        return slot
    }

    /// Wakes another one from now on where a slot's socket wakes: with its next event, also one that was fetched already.
    func replace(slot: Int, with pollable: Pollable) {
        assertOnLoop()
        slots[slot] = pollable
    }

    /// Forgets the slot; events already fetched for it are recognised by their old generation and dropped.
    func deregister(slot: Int, fd: Int32) {
        assertOnLoop()
        _ = muster_epoll_remove(epoll, fd)
        slots[slot] = nil
        generations[slot] &+= 1
        freeSlots.append(slot)
    }

    /// Number of entries in the heap of timers, stale ones included.
    var timerCount: Int { timers.count }

    func arm(_ timer: LoopTimer) {
        assertOnLoop()
        timers.push(timer)
    }
}

private final class LoopThread {
    let loop: EventLoop
    let name: String
    init(loop: EventLoop, name: String) {
        self.loop = loop
        self.name = name
    }
}

/// Something that epoll wakes: sockets, listeners, signals, processes.
open class Pollable {
    public init() {}
    /// `events` are epoll's bits.
    open func ready(_ events: UInt32) {}
}

/// A value that belongs to a loop, carried through code that must be `Sendable`. Touching it elsewhere traps.
public struct LoopBound<Value>: @unchecked Sendable {
    // @unchecked: guarded by the check in `value`.
    private let content: Value
    private let loop: EventLoop

    public init(_ value: Value, on loop: EventLoop) {
        content = value
        self.loop = loop
    }

    public var value: Value {
        precondition(loop.isCurrent, "a loop's value was used outside its loop")
        return content
    }
}
