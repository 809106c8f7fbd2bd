import Basics
import CLinux
import Glibc
import Synchronization

/// Writes the lines of a log for callers that may not wait: the sink takes lines at once, and a thread of its own writes them.
///
/// When the reader of a pipe has stopped or is gone, or a disk is full or hangs, lines are dropped and counted. Nobody is held up by that,
/// neither a loop nor the end of the process. Lines are only dropped whole, never in parts.
///
/// Bounds: at most `limit` bytes wait, and as many more are being written. The thread begins with the first line and ends after ten seconds
/// without one.
public final class LogSink: Sendable {
    public enum Trouble: Sendable {
        /// Lines are dropped from now on; the text says why.
        case began(String)
        /// No line was dropped for five seconds. `lines` is how many were dropped before that.
        case ended(lines: Int)
    }

    private struct State {
        var waiting: [UInt8] = []
        var lines = 0
        var hasThread = false
        var isAsleep = false
        /// Calls of `write` that took something: whether there is progress.
        var progress = 0
        /// Lines that were dropped: in all, and since the trouble began that has not ended yet.
        var dropped = 0
        var lost = 0
        var lostAt = MonotonicTime(nanoseconds: 0)
        var isInTrouble = false
    }

    private let descriptor: Int32
    private let limit: Int
    private let onTrouble: @Sendable (LogSink, Trouble) -> Void
    private let state = Mutex(State())
    nonisolated(unsafe) private let wakeUp: UnsafeMutablePointer<sem_t>

    /// Sinks that have a thread.
    private static let writing = Mutex<[ObjectIdentifier: LogSink]>([:])
    private static let waitsAtExit: Void = { _ = atexit { LogSink.finishAll() } }()
    private static let quiet = Duration.seconds(5)
    /// How long the thread waits for another line before it ends.
    private static let idleTime = Duration.seconds(10)

    /// `onTrouble` is called on any thread, and must not wait.
    public init(descriptor: Int32, limit: Int = 1 << 20, onTrouble: @escaping @Sendable (LogSink, Trouble) -> Void) {
        self.descriptor = descriptor
        self.limit = limit
        self.onTrouble = onTrouble
        wakeUp = .allocate(capacity: 1)
        sem_init(wakeUp, 0, 0)
    }

    deinit {
        sem_destroy(wakeUp)
        wakeUp.deallocate()
    }

    /// The number of lines that could not be written, since the beginning.
    public var dropped: Int { state.withLock { $0.dropped } }

    /// Takes whole lines; `lines` is how many. Never waits.
    public func write(_ bytes: UnsafeRawBufferPointer, lines: Int) {
        enum Next { case nothing, wake, start, full }
        let next: Next = state.withLock { state in
            guard state.waiting.count + bytes.count <= limit else { return .full }
            state.waiting.append(contentsOf: bytes)
            state.lines += lines
            if !state.hasThread {
                state.hasThread = true
                return .start
            }
            defer { state.isAsleep = false }
            return state.isAsleep ? .wake : .nothing
        }
        switch next {
        case .nothing: break
        case .wake: sem_post(wakeUp)
        case .start: start()
        case .full: drop(lines, "its reader takes nothing: \(limit) bytes wait already")
        }
    }

    private func drop(_ lines: Int, _ why: String) {
        let begins = state.withLock { state in
            state.dropped += lines
            state.lost += lines
            state.lostAt = .now
            defer { state.isInTrouble = true }
            return !state.isInTrouble
        }
        if begins { onTrouble(self, .began(why)) }
    }

    private func endTrouble() {
        let lost: Int? = state.withLock { state in
            guard state.isInTrouble, .now - state.lostAt >= LogSink.quiet else { return nil }
            state.isInTrouble = false
            defer { state.lost = 0 }
            return state.lost
        }
        if let lost { onTrouble(self, .ended(lines: lost)) }
    }

    // MARK: the thread

    private func start() {
        _ = LogSink.waitsAtExit
        LogSink.writing.withLock { $0[ObjectIdentifier(self)] = self }
        var thread = pthread_t()
        let context = Unmanaged.passRetained(self)
        let failed = pthread_create(
            &thread, nil,
            { raw in
                Unmanaged<LogSink>.fromOpaque(raw!).takeRetainedValue().run()
                return nil
            }, context.toOpaque())
        if failed == 0 {
            pthread_detach(thread)
            return
        }
        context.release()
        LogSink.writing.withLock { $0[ObjectIdentifier(self)] = nil }
        let lines = state.withLock { state in
            state.hasThread = false
            state.waiting = []
            defer { state.lines = 0 }
            return state.lines
        }
        drop(lines, "no thread to write it: \(errorText(failed))")
    }

    private func run() {
        // Signals are others' business; and a pipe without a reader is an error here, not the end of the process.
        var all = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, nil)
        var batch: [UInt8] = []
        var isCut = false
        while true {
            let lines = state.withLock { state in
                batch.removeAll(keepingCapacity: batch.capacity <= 65_536)
                swap(&batch, &state.waiting)
                state.isAsleep = batch.isEmpty
                defer { state.lines = 0 }
                return state.lines
            }
            if batch.isEmpty {
                endTrouble()
                if !sleepEnds() { return }
                continue
            }
            if isCut { batch.insert(10, at: 0) }
            let (wrote, code) = put(batch)
            isCut = wrote > 0 ? batch[wrote - 1] != 10 : isCut
            if wrote == batch.count {
                endTrouble()
            } else {
                drop(wrote == 0 ? lines : batch[wrote...].count { $0 == 10 }, errorText(code))
            }
        }
    }

    /// Waits for more; false when the thread is to end. In trouble it waits no longer than until the trouble is over, and does not end: the
    /// end of the trouble is told also when no further line comes.
    private func sleepEnds() -> Bool {
        let rest = state.withLock { $0.isInTrouble ? max(.milliseconds(1), LogSink.quiet - (.now - $0.lostAt)) : LogSink.idleTime }
        if muster_semaphore_wait(wakeUp, (MonotonicTime.now + rest).nanoseconds) != 0 {
            let isOver = state.withLock { state in
                guard state.waiting.isEmpty, !state.isInTrouble else { return false }
                state.hasThread = false
                state.isAsleep = false
                return true
            }
            if isOver {
                LogSink.writing.withLock { if !state.withLock({ $0.hasThread }) { $0[ObjectIdentifier(self)] = nil } }
                return false
            }
            return true
        }
        return true
    }

    /// How much was written, and why no more.
    private func put(_ bytes: [UInt8]) -> (Int, Int32) {
        var offset = 0
        while offset < bytes.count {
            let wrote = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress! + offset, $0.count - offset) }
            let code = errno
            if wrote > 0 {
                offset += wrote
                state.withLock { $0.progress &+= 1 }
            } else if wrote < 0, code == EAGAIN {
                // Somebody who has the same terminal or pipe has made it so that it does not wait: this thread may.
                var one = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&one, 1, 1000)
            } else if wrote == 0 || code != EINTR {
                return (offset, wrote == 0 ? EIO : code)
            }
        }
        return (offset, 0)
    }

    // MARK: the end

    /// Waits until all lines have been written, as long as there is progress: a reader that has stopped is waited for no longer than
    /// `patience`.
    public func finish(patience: Duration = .milliseconds(300)) {
        var seen = -1, since = MonotonicTime.now
        while true {
            let (isDone, progress) = state.withLock { (!$0.hasThread || $0.isAsleep && $0.waiting.isEmpty, $0.progress) }
            if isDone { return }
            if progress != seen { (seen, since) = (progress, .now) }
            if .now - since >= patience { return }
            usleep(1000)
        }
    }

    private static func finishAll() {
        let all = writing.withLock { Array($0.values) }
        for sink in all { sink.finish() }
    }
}
