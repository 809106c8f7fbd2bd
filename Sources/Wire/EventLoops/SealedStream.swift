import Basics
import CLinux
import Glibc

/// What a stream does differently when its connection has TLS.
extension Stream {
    /// Begins TLS as a server, on a socket that is open and was read in plain so far. `bytes` are those that came and were not used: the
    /// beginning of the handshake. `connected` follows when the handshake is done, or `closed`.
    public final func beginTLS(_ session: TLSSession, with bytes: UnsafeRawBufferPointer) {
        guard isOpen else { return }
        tls = session
        isShakingHands = true
        isConnected = false
        session.begin(loop.pipe)
        receivedSealed(bytes, session)
    }

    /// Begins TLS on a connection that has stood without it until now, for protocols that ask for it in their own words. `connected` is called
    /// once more when the handshake is through. Call it when nothing waits to be sent.
    public final func beginTLS(_ session: TLSSession) {
        precondition(isOpen && isConnected && tls == nil && output.isEmpty)
        tls = session
        isConnected = false
        _ = beginHandshake(session)
    }

    /// Adds bytes that leave in plain, before the handshake's first. Call it before the connection stands.
    public final func writeBeforeTLS(_ bytes: UnsafeRawBufferPointer) {
        guard let tls, !tls.hasBegun else { return }
        tls.sealed.append(bytes)
    }

    /// Begins TLS on a socket that is connected. False: the connection is closed already.
    final func beginHandshake(_ tls: TLSSession) -> Bool {
        isShakingHands = true
        tls.begin(loop.pipe)
        if let failure = tls.failure { close(.tls(failure)) } else { flush() }
        return isOpen
    }

    final func receivedSealed(_ bytes: UnsafeRawBufferPointer, _ tls: TLSSession) {
        let count = tls.open(bytes, loop.pipe)
        let plain = UnsafeRawBufferPointer(start: loop.pipe.plain.baseAddress, count: count)
        guard isShakingHands, tls.isReady else { return receivedOpened(plain, tls, stands: false) }
        isShakingHands = false
        isConnected = true
        connected()
        let receiver = heir ?? self
        heir = nil
        receiver.receivedOpened(plain, tls, stands: true)
    }

    private func receivedOpened(_ plain: UnsafeRawBufferPointer, _ tls: TLSSession, stands: Bool) {
        // The handshake's next words with what `connected` queued, or TLS's answer to new keys.
        if isOpen, stands || !tls.sealed.isEmpty { flush() }
        guard isOpen else { return }
        if isPaused { tls.held.append(plain) } else if !plain.isEmpty { received(plain) }
        _ = tellKept(tls)
    }

    /// Tells what had to wait while reading was paused: plain bytes that came with the end of the handshake, and the end if it came with
    /// the last bytes. False if no more is to be read now.
    final func tellKept(_ tls: TLSSession) -> Bool {
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
    final func receivedSealedEnd(_ tls: TLSSession) {
        if tls.sawEnd { return }
        close(isShakingHands ? .tls(tls.cut()) : sendFailure ?? .tls(tls.cut()))
    }

    final func readFailure(_ error: SystemError) -> CloseReason {
        if isShakingHands, let tls { .tls(tls.cut(error)) } else { .system(error) }
    }

    final func flushSealed(_ tls: TLSSession) {
        if sendSealed(tls), tls.carriesOutput {
            tls.carriesOutput = false
            drained()
        }
    }

    /// Seals and sends bytes while nothing waits; what the socket does not take waits.
    final func writeSealed(_ bytes: UnsafeRawBufferPointer, _ tls: TLSSession) {
        guard tls.sealed.isEmpty else {
            output.append(bytes)
            if sendSealed(tls) { tls.carriesOutput = false }
            return
        }
        var rest = bytes
        while !rest.isEmpty {
            let count = min(rest.count, TLSSession.sealAtOnce)
            let part = rest.part(0, count)
            rest = rest.part(count, rest.count - count)
            switch sealAndSend(part, tls) {
            case .sent: continue
            case .waits: return output.append(rest)
            case .failed(let reason, let begun):
                if !begun { output.append(part) }
                output.append(rest)
                return sendingFailed(reason)
            }
        }
    }

    /// What became of bytes. `begun`: the peer may have some of them.
    private enum Sending { case sent, waits, failed(CloseReason, begun: Bool) }

    /// Seals at most `TLSSession.sealAtOnce` bytes, when nothing sealed waits, and sends them from the loop's pipe.
    private func sealAndSend(_ part: UnsafeRawBufferPointer, _ tls: TLSSession) -> Sending {
        let pipe = loop.pipe
        tls.seal(part, pipe)
        defer { pipe.end() }
        if let failure = tls.failure { return .failed(.tls(failure), begun: false) }
        var bytes = pipe.output, begun = false
        while !bytes.isEmpty {
            let sent = send(fd, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
            if sent > 0 {
                bytes = bytes.part(sent, bytes.count - sent)
                begun = true
            } else if errno != EINTR {
                guard errno == EAGAIN else { return .failed(.system(SystemError("send")), begun: begun) }
                blocked = true
                tls.sealed.append(bytes)
                tls.carriesOutput = true
                return .waits
            }
        }
        return .sent
    }

    /// Sends what waits, sealed or plain, until the kernel takes no more; true when nothing waits.
    final func sendSealed(_ tls: TLSSession) -> Bool {
        while true {
            if tls.sealed.isEmpty {
                guard tls.isReady, !output.isEmpty else { break }
                let count = min(output.count, TLSSession.sealAtOnce)
                tls.carriesOutput = true
                switch sealAndSend(output.bytes.part(0, count), tls) {
                case .sent: leftLater &+= count
                case .waits:
                    output.consume(count)
                    return false
                case .failed(let reason, let begun):
                    if begun { output.consume(count) }
                    sendingFailed(reason)
                    return false
                }
                output.consume(count)
                continue
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
        tls.sealed.clear(keeping: 0)
        // During the handshake plain bytes wait.
        guard output.isEmpty else { return false }
        output.clear(keeping: 65536)
        return true
    }

    /// Sends TLS's last word, as far as the kernel takes it at once. Where closing loses bytes, none is sent: the peer must see that.
    final func endSealed(_ tls: TLSSession) {
        guard tls.hasBegun, sendFailure == nil, !resets, !blocked else { return }
        if output.isEmpty { tls.end(loop.pipe) }
        let bytes = tls.sealed.bytes
        if bytes.count > 0 { send(fd, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL)) }
    }
}
