import Basics
import CLinux
import Glibc

/// Signals as events of a loop. Make it before any other thread starts: threads inherit the mask that keeps
/// these signals from their default action.
public final class SignalWatch: Pollable {
    private let loop: EventLoop
    private let fd: Int32
    private var slot = 0
    private let onSignal: (Int32) -> Void

    public init(_ signals: [Int32], loop: EventLoop, onSignal: @escaping (Int32) -> Void) throws(SystemError) {
        self.loop = loop
        self.onSignal = onSignal
        fd = muster_signalfd(signals, Int32(signals.count))
        guard fd >= 0 else { throw SystemError("signalfd") }
        super.init()
    }

    /// Begins to watch; on the loop.
    public func start() throws(SystemError) { slot = try loop.register(self, fd: fd, level: true) }

    public override func ready(_ events: UInt32) {
        while true {
            let signal = muster_signalfd_read(fd)
            if signal == 0 { return }
            onSignal(signal)
        }
    }

    deinit { Glibc.close(fd) }
}

/// The end of a process as an event of a loop, through a pidfd: works for children and for others alike, and
/// never mistakes a reused pid for the old one.
public final class ProcessWatch: Pollable {
    private let loop: EventLoop
    private let fd: Int32
    private var slot = -1
    private let onExit: () -> Void

    public init(pid: Int32, loop: EventLoop, onExit: @escaping () -> Void) throws(SystemError) {
        self.loop = loop
        self.onExit = onExit
        fd = muster_pidfd_open(pid)
        guard fd >= 0 else { throw SystemError("pidfd_open \(pid)", -fd) }
        super.init()
        do throws(SystemError) { slot = try loop.register(self, fd: fd, level: true) } catch {
            Glibc.close(fd)
            throw error
        }
    }

    public override func ready(_ events: UInt32) {
        stop()
        onExit()
    }

    public func stop() {
        guard slot >= 0 else { return }
        loop.deregister(slot: slot, fd: fd)
        slot = -1
        Glibc.close(fd)
    }
}
