import Basics
import CLinux
import Glibc

/// Why a connection ended.
public enum CloseReason: Equatable, Sendable, CustomStringConvertible {
    /// We closed it.
    case ours
    /// The peer closed its side.
    case endOfFile
    case system(SystemError)

    public var description: String {
        switch self {
        case .ours: "closed here"
        case .endOfFile: "closed by the peer"
        case .system(let error): error.description
        }
    }
}

/// A connected socket on a loop. Subclasses are told what arrived and say what to send.
///
/// Writing: `write` sends at once when nothing waits, else keeps the rest until the socket takes it
/// (`drained` tells). `queue` waits for the end of the loop's turn, so that what many callers write leaves in
/// one call. What waits is not bounded here: whoever produces watches `waiting` and stops (back-pressure).
///
/// Reading: `received` gets bytes that are gone when it returns. `pauseReading` leaves the rest with the
/// kernel, which then slows the peer down.
open class Stream: Pollable {
    /// The kernel keeps at most this much for one read event before other sockets get their turn.
    private static let readsPerEvent = 4

    public final let loop: EventLoop
    public final private(set) var isOpen = false
    public final private(set) var isConnected = false
    public final private(set) var isPaused = false
    /// How many bytes were still waiting when the connection ended: they never left this machine.
    public final private(set) var unsentAtClose = 0
    private final var fd: Int32 = -1
    private final var slot = 0
    private final var output = ByteBuffer()
    private final var flushQueued = false
    private final var blocked = false
    private final var mayHaveInput = false
    private final var sawHangUp = false
    /// A name is being resolved: what is written waits.
    private var isOpening = false
    /// Further addresses of the name, should the first not answer.
    private var fallbacks: [SocketAddress] = []
    /// Sending has failed. What the peer sent before that is still read, because it may say why.
    private var sendFailure: SystemError?

    public init(loop: EventLoop) {
        self.loop = loop
        super.init()
    }

    // MARK: what subclasses are told

    open func connected() {}
    /// Every byte must be used or copied before returning.
    open func received(_ bytes: UnsafeRawBufferPointer) {}
    /// The peer sends no more. Closes by default.
    open func receivedEnd() { close(.endOfFile) }
    /// All that waited has been given to the kernel.
    open func drained() {}
    /// The last event. `isOpen` is false already.
    open func closed(_ reason: CloseReason) {}

    // MARK: opening

    /// Takes over an accepted, non-blocking socket.
    public func adopt(_ descriptor: Int32) throws(SystemError) {
        fd = descriptor
        slot = try loop.register(self, fd: fd, level: false)
        isOpen = true
        isConnected = true
    }

    /// Begins to connect; `connected` or `closed` follows, never before this returns. A name is resolved first (see `Resolver`) and its
    /// addresses are tried in turn. What is written meanwhile is sent when the connection stands.
    public func connect(to endpoint: Endpoint) {
        switch endpoint {
        case .address(let address): connect(to: address)
        case .name(let host, let port):
            isOpening = true
            let bound = LoopBound(self, on: loop)
            Resolver.shared.resolve(host, port: port, on: loop) { bound.value.resolved($0) }
        }
    }

    private func resolved(_ result: Result<[SocketAddress], Resolver.Failure>) {
        // Closed while the name was being resolved.
        guard isOpening else { return }
        isOpening = false
        switch result {
        case .success(let addresses):
            fallbacks = Array(addresses.dropFirst())
            connect(to: addresses[0])
        case .failure(let failure): giveUpConnecting(SystemError("resolve \(failure)", EHOSTUNREACH))
        }
    }

    /// Never connected: the next address, or the end.
    private func giveUpConnecting(_ error: SystemError) {
        if !fallbacks.isEmpty { return connect(to: fallbacks.removeFirst()) }
        unsentAtClose = output.count
        output.clear(keeping: 0)
        closed(.system(error))
    }

    /// Begins to connect to a numeric address.
    public func connect(to address: SocketAddress) {
        precondition(!isOpen)
        let descriptor = socket(address.family, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return failLater(SystemError("socket")) }
        if address.family != AF_UNIX { setNoDelay(descriptor) }
        let result = address.withSockaddr { Glibc.connect(descriptor, $0, $1) }
        // EAGAIN is a Unix socket whose backlog is full: refused, as far as the caller is concerned.
        if result == nil || (result != 0 && errno != EINPROGRESS) {
            let failure = result == nil ? SystemError("connect \(address)", ENAMETOOLONG) : SystemError("connect \(address)")
            Glibc.close(descriptor)
            return failLater(failure)
        }
        do throws(SystemError) {
            fd = descriptor
            slot = try loop.register(self, fd: descriptor, level: false)
            isOpen = true
            blocked = true
        } catch {
            Glibc.close(descriptor)
            fd = -1
            failLater(error)
        }
    }

    private func failLater(_ error: SystemError) {
        let bound = LoopBound(self, on: loop)
        isOpening = true
        loop.execute {
            let stream = bound.value
            guard stream.isOpening else { return }
            stream.isOpening = false
            stream.giveUpConnecting(error)
        }
    }

    // MARK: events

    public final override func ready(_ events: UInt32) {
        guard isOpen else { return }
        if !isConnected {
            if !finishConnecting(events) { return }
        } else if blocked, events & UInt32(MUSTER_EPOLLOUT) != 0 {
            blocked = false
            flush()
        }
        let input = UInt32(MUSTER_EPOLLIN | MUSTER_EPOLLRDHUP | MUSTER_EPOLLHUP | MUSTER_EPOLLERR)
        if isOpen, events & input != 0 {
            mayHaveInput = true
            if events & UInt32(MUSTER_EPOLLRDHUP | MUSTER_EPOLLHUP | MUSTER_EPOLLERR) != 0 { sawHangUp = true }
            if !isPaused { readAvailable() }
        }
    }

    private func finishConnecting(_ events: UInt32) -> Bool {
        var code: Int32 = 0
        var length = socklen_t(4)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length)
        if code != 0 {
            isOpen = false
            loop.deregister(slot: slot, fd: fd)
            Glibc.close(fd)
            fd = -1
            withExtendedLifetime(self) { giveUpConnecting(SystemError("connect", code)) }
            return false
        }
        guard events & UInt32(MUSTER_EPOLLOUT) != 0 else { return false }
        isConnected = true
        blocked = false
        connected()
        if isOpen { flush() }
        return isOpen
    }

    private func readAvailable() {
        for _ in 0..<Stream.readsPerEvent {
            let got = recv(fd, loop.readBuffer.baseAddress, loop.readBuffer.count, 0)
            if got > 0 {
                // A short read has emptied the socket, unless the peer has hung up: then the end is still to be read.
                if got < loop.readBuffer.count, !sawHangUp { mayHaveInput = false }
                received(UnsafeRawBufferPointer(start: loop.readBuffer.baseAddress, count: got))
                if !isOpen || isPaused || !mayHaveInput { return }
            } else if got == 0 {
                mayHaveInput = false
                receivedEnd()
                // A failed send has taken the socket's error away: the end is all that is left to read of a reset.
                if isOpen, let sendFailure { close(.system(sendFailure)) }
                return
            } else {
                let code = errno
                if code == EINTR { continue }
                mayHaveInput = false
                if code != EAGAIN { close(.system(SystemError("recv", code))) } else if let sendFailure { close(.system(sendFailure)) }
                return
            }
        }
        loop.readLater(self)
    }

    func continueReading() {
        if isOpen, isConnected, !isPaused, mayHaveInput { readAvailable() }
    }

    public final func pauseReading() { isPaused = true }

    /// Reads what the kernel may have although no event told of it: before an idle connection is closed.
    public final func readNow() {
        guard isOpen, isConnected, !isPaused else { return }
        mayHaveInput = true
        readAvailable()
    }

    public final func resumeReading() {
        guard isPaused else { return }
        isPaused = false
        if mayHaveInput { loop.readLater(self) }
    }

    // MARK: writing

    /// False once a send has failed: what is written from then on goes nowhere.
    public final var canSend: Bool { isOpen && sendFailure == nil }

    /// Bytes that wait for the kernel to take them.
    public final var waiting: Int { output.count }

    public final func write(_ bytes: UnsafeRawBufferPointer) {
        guard isOpen || isOpening, sendFailure == nil else { return }
        var rest = bytes
        if output.isEmpty, !blocked, isConnected {
            let sent = send(fd, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
            if sent == bytes.count { return }
            if sent < 0, errno != EAGAIN, errno != EINTR {
                let failure = SystemError("send")
                output.append(bytes)
                return sendingFailed(failure)
            }
            if sent >= 0 { rest = bytes.part(sent, bytes.count - sent) }
            blocked = true
        }
        output.append(rest)
    }

    /// Adds to what leaves at the end of this turn of the loop.
    public final func queue(_ bytes: UnsafeRawBufferPointer) {
        guard isOpen || isOpening, sendFailure == nil else { return }
        output.append(bytes)
        if !flushQueued {
            flushQueued = true
            loop.flushAtEndOfTurn(self)
        }
    }

    func flushAtEndOfTurn() {
        flushQueued = false
        flush()
    }

    private func flush() {
        guard isOpen, isConnected, !blocked else { return }
        let hadOutput = !output.isEmpty
        while !output.isEmpty {
            let bytes = output.bytes
            let sent = send(fd, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
            if sent > 0 {
                output.consume(sent)
            } else if sent < 0, errno == EINTR {
                continue
            } else {
                if errno == EAGAIN { blocked = true } else { sendingFailed(SystemError("send")) }
                return
            }
        }
        output.clear(keeping: 65536)
        if hadOutput { drained() }
    }

    // MARK: closing

    public func close() { close(.ours) }

    /// The peer takes no more. It may have said why before it closed: reading goes on until its end, and only then is this closed (in a
    /// later turn, never inside the subclass's own call).
    private func sendingFailed(_ error: SystemError) {
        sendFailure = error
        unsentAtClose = output.count
        output.clear(keeping: 0)
        isPaused = false
        mayHaveInput = true
        loop.readLater(self)
    }

    public func close(_ reason: CloseReason) {
        if isOpening {
            isOpening = false
            fallbacks = []
            unsentAtClose = output.count
            output.clear(keeping: 0)
            return closed(reason)
        }
        guard isOpen else { return }
        isOpen = false
        isConnected = false
        withExtendedLifetime(self) {
            loop.deregister(slot: slot, fd: fd)
            Glibc.close(fd)
            fd = -1
            if sendFailure == nil { unsentAtClose = output.count }
            output.clear(keeping: 0)
            closed(reason)
        }
    }

    /// Ends our sending side only: the peer sees the end and may still answer.
    public final func shutdownSending() { if isOpen { _ = Glibc.shutdown(fd, Int32(SHUT_WR)) } }

    /// Makes the close a reset: the peer learns at once that the rest of its bytes were not read.
    public final func resetOnClose() {
        guard isOpen else { return }
        var linger = linger(l_onoff: 1, l_linger: 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
    }

    public var peerAddress: SocketAddress? {
        guard isOpen else { return nil }
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let result = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(fd, $0, &length) }
        }
        return result == 0 ? SocketAddress(storage) : nil
    }
}

func setNoDelay(_ fd: Int32) {
    var one: Int32 = 1
    setsockopt(fd, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
}
