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
    case tls(TLSFailure)

    public var description: String {
        switch self {
        case .ours: "closed here"
        case .endOfFile: "closed by the peer"
        case .system(let error): error.description
        case .tls(let failure): failure.description
        }
    }

    /// Whether this process lacked something of its own (see `SystemError.isOwnWant`): then the peer has no part in it.
    public var isOwnWant: Bool { if case .system(let error) = self { error.isOwnWant } else { false } }

    /// The number of the system's error; 0: it was none.
    public var systemCode: Int32 { if case .system(let error) = self { error.code } else { 0 } }
}

/// A connected socket on a loop. Subclasses are told what arrived and say what to send.
///
/// Writing: `write` sends at once when nothing waits, else keeps the rest until the socket takes it
/// (`drained` tells). `queue` waits for the end of the loop's turn, so that what many callers write leaves in
/// one call. What waits is not bounded here: whoever produces watches `waiting` and stops (back-pressure).
///
/// Reading: `received` gets bytes that are gone when it returns. `pauseReading` leaves the rest with the
/// kernel, which then slows the peer down.
///
/// TLS: with `tls` set, all of this holds for plain bytes. What is written is sealed when it is sent, once a flush.
open class Stream: Pollable {
    /// Most reads for one event before other sockets get their turn; the kernel keeps the rest.
    private static let readsPerEvent = 4

    public final let loop: EventLoop
    public final private(set) var isOpen = false
    public final private(set) var isConnected = false
    public final private(set) var isPaused = false
    /// TLS for this connection, set before connecting; the connection is up when its handshake is done.
    public final var tls: TLSSession?
    /// How many bytes were still waiting when the connection ended: they never left this machine. What was sealed by TLS counts as sent.
    public final private(set) var unsentAtClose = 0
    /// How many bytes have left after they had waited, in all: as long as some wait, this grows only when the peer has read.
    public final private(set) var leftLater = 0
    private final var fd: Int32 = -1
    private final var slot = 0
    final private(set) var output = ByteBuffer()
    private final var flushQueued = false
    private final var blocked = false
    private final var mayHaveInput = false
    /// Whether the kernel has told that the peer sends no more, or is gone. What it sent before may still be unread.
    public final private(set) var sawHangUp = false
    /// Whether the peer has reset the connection or closed it whole: it reads no more either. A peer that only ended its own side is not
    /// gone.
    public final private(set) var peerIsGone = false
    /// Whether we have ended our sending side: from then on a hang-up on both sides is also what an orderly end looks like.
    private final var hasShutDown = false
    /// Whether the socket is connected and TLS is not ready yet.
    private final var isShakingHands = false
    private final var resets = false
    /// Whether a name is being resolved: what is written meanwhile waits.
    private var isOpening = false
    /// By when whoever connects wants the connection to stand: the addresses of a name share the time until then. Set before the turn ends
    /// in which `connect` was called. nil: each address but the last has `addressTime`.
    public final var connectBy: MonotonicTime?
    /// Further addresses of the name, should the first not answer.
    private var fallbacks: [SocketAddress] = []
    /// Runs while an address is tried that others come after.
    private var addressTimer: LoopTimer?
    /// The address that is connected to, or was last.
    private var target: SocketAddress?
    /// Time for Linux's first question and its repetition, which comes after a second: an address that is silent to both is left for the next.
    private static let addressTime = Duration.milliseconds(1500)
    /// Why sending has failed. What the peer sent before that is still read, because it may say why.
    private var sendFailure: CloseReason?

    public init(loop: EventLoop) {
        self.loop = loop
        super.init()
    }

    // MARK: what subclasses are told

    open func connected() {}
    /// Called with bytes that came. Every byte must be used or copied before returning.
    open func received(_ bytes: UnsafeRawBufferPointer) {}
    /// Called when the peer sends no more. Closes by default.
    open func receivedEnd() { close(.endOfFile) }
    /// Called while reading is paused, when the peer has ended its side, or is gone (`peerIsGone`). Without a pause `receivedEnd` or
    /// `closed` says so. May be called more than once.
    open func hungUp() {}
    /// Called when all that waited has been given to the kernel.
    open func drained() {}
    /// Called last, when the connection has ended. `isOpen` is false already.
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
    /// addresses are tried in turn: one that refuses, and one that does not answer in its part of the time, is followed by the next. What is
    /// written meanwhile is sent when the connection stands.
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
        case .success(let addresses): connect(toOneOf: addresses)
        case .failure(let failure):
            giveUpConnecting(SystemError("resolve \(failure)", 0, isOwnWant: failure.isOwnWant))
        }
    }

    /// Begins to connect to the first of several addresses, of which there is at least one; the others are tried after it.
    func connect(toOneOf addresses: [SocketAddress]) {
        fallbacks = Array(addresses.dropFirst())
        connect(to: addresses[0])
    }

    /// Tries the next address after one could not be connected to, or ends the connection when there is none.
    private func giveUpConnecting(_ error: SystemError) {
        addressTimer?.cancel()
        if !fallbacks.isEmpty { return connect(to: fallbacks.removeFirst()) }
        unsentAtClose = output.count
        output.clear(keeping: 0)
        closed(.system(error))
    }

    /// Begins to connect to a numeric address.
    public func connect(to address: SocketAddress) {
        precondition(!isOpen)
        target = address
        let descriptor = socket(address.family, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return failLater(SystemError("socket")) }
        if address.family != AF_UNIX { setNoDelay(descriptor) }
        let result = address.withSockaddr { Glibc.connect(descriptor, $0, $1) }
        // EAGAIN is a Unix socket whose backlog is full: refused, as far as the caller is concerned.
        if result == nil || (result != 0 && errno != EINPROGRESS) {
            let failure = result == nil ? SystemError("connect \(address)", ENAMETOOLONG) : connectFailure("connect \(address)", errno)
            Glibc.close(descriptor)
            return failLater(failure)
        }
        do throws(SystemError) {
            fd = descriptor
            slot = try loop.register(self, fd: descriptor, level: false)
            isOpen = true
            blocked = true
            limitAddress()
        } catch {
            Glibc.close(descriptor)
            fd = -1
            failLater(error)
        }
    }

    /// Gives the address its part of the time, if another one comes after it.
    private func limitAddress() {
        guard !fallbacks.isEmpty else { return }
        if addressTimer == nil { addressTimer = LoopTimer(loop: loop) { [unowned self] in addressTimedOut() } }
        let now = max(loop.now, .now), others = Int64(fallbacks.count)
        let time = connectBy.map { Duration.nanoseconds(max(0, ($0 - now).nanoseconds) / (others + 1)) } ?? Stream.addressTime
        addressTimer?.schedule(at: now + time)
    }

    private func addressTimedOut() {
        guard isOpen, !isConnected, !isShakingHands else { return }
        dropSocket()
        withExtendedLifetime(self) { giveUpConnecting(SystemError("connect \(target.map { "\($0)" } ?? "")", ETIMEDOUT)) }
    }

    /// Closes a socket that did not get connected.
    private func dropSocket() {
        isOpen = false
        loop.deregister(slot: slot, fd: fd)
        Glibc.close(fd)
        fd = -1
    }

    /// The error of a connect. EADDRNOTAVAIL says either that no local port is free, which is this machine's want, or that this machine has
    /// no address from which the destination could be reached (IPv6 is switched off, say), which is as good as no route to it.
    private func connectFailure(_ call: String, _ code: Int32) -> SystemError {
        if code == EADDRNOTAVAIL, let target, target.ip != nil, Stream.lacksSource(for: target) {
            return SystemError(call, code, isOwnWant: false)
        }
        return SystemError(call, code)
    }

    /// Whether this machine has no address from which it could reach another one: a datagram socket, which sends nothing by connecting and
    /// has ports of its own, tells.
    private static func lacksSource(for address: SocketAddress) -> Bool {
        let descriptor = socket(address.family, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { Glibc.close(descriptor) }
        return address.withSockaddr { Glibc.connect(descriptor, $0, $1) } != 0 && errno == EADDRNOTAVAIL
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
        if !isConnected, !isShakingHands {
            if !finishConnecting(events) { return }
        } else if blocked, events & UInt32(MUSTER_EPOLLOUT) != 0 {
            blocked = false
            flush()
        }
        let input = UInt32(MUSTER_EPOLLIN | MUSTER_EPOLLRDHUP | MUSTER_EPOLLHUP | MUSTER_EPOLLERR)
        if isOpen, events & input != 0 {
            mayHaveInput = true
            if events & UInt32(MUSTER_EPOLLRDHUP | MUSTER_EPOLLHUP | MUSTER_EPOLLERR) != 0 { sawHangUp = true }
            if events & UInt32(MUSTER_EPOLLERR) != 0 || events & UInt32(MUSTER_EPOLLHUP) != 0 && !hasShutDown { peerIsGone = true }
            if !holdsBack { readAvailable() }
            tellHangUp()
        }
    }

    /// Calls `hungUp` where no further event would: reading may have been paused in the middle of what came with the hang-up.
    private func tellHangUp() { if isOpen, holdsBack, sawHangUp { hungUp() } }

    private func finishConnecting(_ events: UInt32) -> Bool {
        var code: Int32 = 0
        var length = socklen_t(4)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length)
        if code != 0 {
            dropSocket()
            withExtendedLifetime(self) { giveUpConnecting(connectFailure("connect", code)) }
            return false
        }
        guard events & UInt32(MUSTER_EPOLLOUT) != 0 else { return false }
        addressTimer?.cancel()
        blocked = false
        if let tls { return beginHandshake(tls) }
        isConnected = true
        connected()
        if isOpen { flush() }
        return isOpen
    }

    private func readAvailable() {
        if let tls, !tellKept(tls) { return }
        for _ in 0..<Stream.readsPerEvent {
            let got = recv(fd, loop.readBuffer.baseAddress, loop.readBuffer.count, 0)
            if got > 0 {
                // A short read has emptied the socket, unless the peer has hung up: then the end is still to be read.
                if got < loop.readBuffer.count, !sawHangUp { mayHaveInput = false }
                let bytes = UnsafeRawBufferPointer(start: loop.readBuffer.baseAddress, count: got)
                if let tls { receivedSealed(bytes, tls) } else { received(bytes) }
                if !isOpen || holdsBack || !mayHaveInput { return }
            } else if got == 0 {
                mayHaveInput = false
                if let tls { receivedSealedEnd(tls) } else { receivedEnd() }
                // A failed send has taken the socket's error away: the end is all that is left to read of a reset.
                if isOpen, let sendFailure { close(sendFailure) }
                return
            } else {
                let code = errno
                if code == EINTR { continue }
                mayHaveInput = false
                if code != EAGAIN { close(readFailure(SystemError("recv", code))) } else if let sendFailure { close(sendFailure) }
                return
            }
        }
        loop.readLater(self)
    }

    func continueReading() {
        guard isOpen, isConnected || isShakingHands, !holdsBack, mayHaveInput else { return }
        readAvailable()
        tellHangUp()
    }

    /// How many bytes the kernel has that were not read yet.
    public final var unread: Int {
        var count: Int32 = 0
        return isOpen && ioctl(fd, UInt(FIONREAD), &count) == 0 ? Int(count) : 0
    }

    public final func pauseReading() { isPaused = true }

    /// Whether reading waits because of a pause. A handshake goes on during one: it is no reading of the subclass's.
    private var holdsBack: Bool { isPaused && !isShakingHands }

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

    /// Whether sending still works. False once a send has failed: what is written from then on goes nowhere.
    public final var canSend: Bool { isOpen && sendFailure == nil }

    /// Bytes that wait for the kernel to take them.
    public final var waiting: Int { output.count + (tls?.sealed.count ?? 0) }

    public final func write(_ bytes: UnsafeRawBufferPointer) {
        guard isOpen || isOpening, sendFailure == nil else { return }
        var rest = bytes
        if output.isEmpty, !blocked, isConnected {
            if let tls {
                output.append(bytes)
                if sendSealed(tls) { tls.carriesOutput = false }
                return
            }
            let sent = send(fd, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
            if sent == bytes.count { return }
            if sent < 0, errno != EAGAIN, errno != EINTR {
                let failure = SystemError("send")
                output.append(bytes)
                return sendingFailed(.system(failure))
            }
            if sent >= 0 { rest = bytes.part(sent, bytes.count - sent) }
            blocked = true
        }
        output.append(rest)
    }

    /// Adds bytes to those that leave at the end of this turn of the loop.
    public final func queue(_ bytes: UnsafeRawBufferPointer) {
        guard isOpen || isOpening, sendFailure == nil else { return }
        output.append(bytes)
        if !flushQueued {
            flushQueued = true
            loop.flushAtEndOfTurn(self)
        }
    }

    /// Gives the memory back of buffers in which nothing waits. For a connection that becomes idle: a peer that read slowly may have let them
    /// grow, and thousands may be idle.
    public final func releaseBuffers() {
        if output.isEmpty { output.clear(keeping: 0) }
        if let tls, tls.sealed.isEmpty { tls.sealed.clear(keeping: 0) }
    }

    func flushAtEndOfTurn() {
        flushQueued = false
        flush()
    }

    private func flush() {
        guard isOpen, isConnected || isShakingHands, !blocked else { return }
        if let tls { return flushSealed(tls) }
        let hadOutput = !output.isEmpty
        while !output.isEmpty {
            let bytes = output.bytes
            let sent = send(fd, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
            if sent > 0 {
                leftLater &+= sent
                output.consume(sent)
            } else if sent < 0, errno == EINTR {
                continue
            } else {
                if errno == EAGAIN { blocked = true } else { sendingFailed(.system(SystemError("send"))) }
                return
            }
        }
        output.clear(keeping: 65536)
        if hadOutput { drained() }
    }

    // MARK: TLS

    /// Begins TLS on a connection that has stood without it until now, for protocols that ask for it in their own words. `connected` is called
    /// once more when the handshake is through. Call it when nothing waits to be sent.
    public final func beginTLS(_ session: TLSSession) {
        precondition(isOpen && isConnected && tls == nil && output.isEmpty)
        tls = session
        isConnected = false
        _ = beginHandshake(session)
    }

    /// Begins TLS on a socket that is connected. False: the connection is closed already.
    private func beginHandshake(_ tls: TLSSession) -> Bool {
        isShakingHands = true
        tls.begin()
        if let failure = tls.failure { close(.tls(failure)) } else { flush() }
        return isOpen
    }

    private func receivedSealed(_ bytes: UnsafeRawBufferPointer, _ tls: TLSSession) {
        let buffer = loop.plainBuffer.bytes
        let count = tls.open(bytes, into: buffer)
        let stands = isShakingHands && tls.isReady
        if stands {
            isShakingHands = false
            isConnected = true
            connected()
        }
        // The handshake's next words with what `connected` queued, or TLS's answer to new keys.
        if isOpen, stands || !tls.sealed.isEmpty { flush() }
        guard isOpen else { return }
        let plain = UnsafeRawBufferPointer(start: buffer.baseAddress, count: count)
        if isPaused { tls.held.append(plain) } else if count > 0 { received(plain) }
        _ = tellKept(tls)
    }

    /// Tells what had to wait while reading was paused: plain bytes that came with the end of the handshake, and the end if it came with
    /// the last bytes. False if no more is to be read now.
    private func tellKept(_ tls: TLSSession) -> Bool {
        if isOpen, !isPaused, !tls.held.isEmpty {
            withUnsafeTemporaryAllocation(byteCount: tls.held.count, alignment: 1) { copy in
                copy.copyMemory(from: tls.held.bytes)
                tls.held.clear(keeping: 0)
                received(UnsafeRawBufferPointer(copy))
            }
        }
        guard isOpen else { return false }
        let ends = !tls.toldEnd && (tls.sawEnd || tls.failure != nil)
        if holdsBack {
            if ends || !tls.held.isEmpty { mayHaveInput = true }
            return false
        }
        if ends {
            tls.toldEnd = true
            if let failure = tls.failure { close(.tls(failure)) } else { receivedEnd() }
        }
        return isOpen && !holdsBack
    }

    /// Handles the end of the socket: it is in order only after TLS's own end, which has been told by then.
    private func receivedSealedEnd(_ tls: TLSSession) {
        if tls.sawEnd { return }
        close(isShakingHands ? .tls(tls.cut()) : sendFailure ?? .tls(tls.cut()))
    }

    private func readFailure(_ error: SystemError) -> CloseReason {
        if isShakingHands, let tls { .tls(tls.cut(error)) } else { .system(error) }
    }

    private func flushSealed(_ tls: TLSSession) {
        if sendSealed(tls), tls.carriesOutput {
            tls.carriesOutput = false
            drained()
        }
    }

    /// Seals and sends until the kernel takes no more; true when nothing waits.
    private func sendSealed(_ tls: TLSSession) -> Bool {
        while true {
            if tls.sealed.isEmpty {
                guard tls.isReady, !output.isEmpty else { break }
                let count = min(output.count, TLSSession.sealAtOnce)
                tls.seal(output.bytes.part(0, count))
                if let failure = tls.failure {
                    sendingFailed(.tls(failure))
                    return false
                }
                output.consume(count)
            }
            let bytes = tls.sealed.bytes
            let sent = send(fd, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
            if sent > 0 {
                leftLater &+= sent
                tls.sealed.consume(sent)
            } else if errno != EINTR {
                if errno == EAGAIN { blocked = true } else { sendingFailed(.system(SystemError("send"))) }
                return false
            }
        }
        tls.sealed.clear(keeping: 131072)
        // During the handshake plain bytes wait.
        guard output.isEmpty else { return false }
        output.clear(keeping: 65536)
        return true
    }

    /// Sends TLS's last word, as far as the kernel takes it at once. Where closing loses bytes, none is sent: the peer must see that.
    private func endSealed(_ tls: TLSSession) {
        guard sendFailure == nil, !resets, !blocked else { return }
        if output.isEmpty { tls.end() }
        let bytes = tls.sealed.bytes
        if bytes.count > 0 { send(fd, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL)) }
    }

    // MARK: closing

    public func close() { close(.ours) }

    /// Called when the peer takes no more. It may have said why before it closed: reading goes on until its end, and only then is this
    /// connection closed (in a later turn, never inside the subclass's own call).
    private func sendingFailed(_ reason: CloseReason) {
        sendFailure = reason
        unsentAtClose = output.count
        tls?.sealed.clear(keeping: 0)
        output.clear(keeping: 0)
        isPaused = false
        mayHaveInput = true
        loop.readLater(self)
    }

    public func close(_ reason: CloseReason) {
        addressTimer?.cancel()
        if isOpening {
            isOpening = false
            fallbacks = []
            unsentAtClose = output.count
            output.clear(keeping: 0)
            return closed(reason)
        }
        guard isOpen else { return }
        if let tls { endSealed(tls) }
        isOpen = false
        isConnected = false
        isShakingHands = false
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
    public final func shutdownSending() {
        guard isOpen else { return }
        if let tls { endSealed(tls) }
        hasShutDown = true
        _ = Glibc.shutdown(fd, Int32(SHUT_WR))
    }

    /// Makes the close a reset: the peer learns at once that the rest of its bytes were not read.
    public final func resetOnClose() {
        guard isOpen else { return }
        resets = true
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
