import Basics
import CNGHTTP2
import HTTP

/// What the library tells of frames, and what follows from it.
extension HTTP2Session {
    private typealias Calls = SessionCallbacks

    private static let headers = UInt8(NGHTTP2_HEADERS.rawValue)
    private static let endStream = UInt8(NGHTTP2_FLAG_END_STREAM.rawValue)
    private static let ack = UInt8(NGHTTP2_FLAG_ACK.rawValue)

    private func stream(_ id: Int32) -> HTTP2Stream? {
        nghttp2_session_get_stream_user_data(native, id).map { Unmanaged<HTTP2Stream>.fromOpaque($0).takeUnretainedValue() }
    }

    /// Ends the connection for a flood.
    private func stop(_ reason: FloodAccount.Reason) -> Int32 {
        if flood == nil { flood = reason }
        return Calls.fail
    }

    private func idleFrame() -> Int32 {
        guard role == .server else { return Calls.ok }
        return account.idleFrameCame() ? Calls.ok : stop(.idleFrames)
    }

    /// Frames of types that nobody knows, and priorities of the old kind, are skipped by the library and not told later.
    func frameBegins(_ header: nghttp2_frame_hd) -> Int32 {
        let isKnown = header.type <= 9 && header.type != UInt8(NGHTTP2_PRIORITY.rawValue)
        return isKnown || header.type == UInt8(NGHTTP2_PRIORITY_UPDATE.rawValue) ? Calls.ok : idleFrame()
    }

    // MARK: fields

    func fieldsBegin(_ frame: nghttp2_frame) -> Int32 {
        guard frame.hd.type == HTTP2Session.headers else { return Calls.ok }
        let id = frame.hd.stream_id
        fieldsBegan = now
        guard role == .server, frame.headers.cat == NGHTTP2_HCAT_REQUEST else {
            draftStream = stream(id)
            let kind = draftStream?.hasHead == true ? FieldDraft.Kind.trailers : role == .client ? .answer : .trailers
            draft.begin(kind, sizeLimit: settings.fieldBytes, fieldLimit: settings.fieldCount)
            return Calls.ok
        }
        if streams.count >= settings.concurrentStreams {
            refusedStreams += 1
            fieldsBegan = nil
            nghttp2_submit_rst_stream(native, UInt8(NGHTTP2_FLAG_NONE.rawValue), id, HTTP2Code.refusedStream.rawValue)
            return account.streamRefused() ? Calls.skip : stop(.refused)
        }
        let stream = owner.streamBegan()
        stream.id = id
        stream.session = self
        streams[id] = stream
        nghttp2_session_set_stream_user_data(native, id, Unmanaged.passUnretained(stream).toOpaque())
        draftStream = stream
        draft.begin(.request, sizeLimit: settings.fieldBytes, fieldLimit: settings.fieldCount)
        return Calls.ok
    }

    func fieldCame(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Int32 {
        draft.add(name, value)
        return draft.isFlood ? stop(.fields) : Calls.ok
    }

    /// A field whose name or value the library does not take. It would be left out; for us the message is malformed.
    func badFieldCame(_ nameCount: Int, _ valueCount: Int) -> Int32 {
        draft.refuse(.malformed)
        return draft.isFlood ? stop(.fields) : Calls.ok
    }

    private func fieldsCame(_ frame: nghttp2_frame) -> Int32 {
        fieldsBegan = nil
        guard let stream = draftStream else { return Calls.ok }
        draftStream = nil
        let ends = frame.hd.flags & HTTP2Session.endStream != 0, table = owner.table
        let isTrailers = stream.hasHead
        switch draft.finish(ends: ends, into: table, key: HTTP2Session.websocketKey) {
        case .refused(let fault):
            stream.refused(fault)
            stream.reset(.protocolError)
            return Calls.ok
        case .answer(let failure):
            stream.hasHead = true
            stream.peerHasEnded = ends
            if isTrailers { stream.reset(.protocolError) } else { stream.mustAnswer(failure, ends: ends) }
            return Calls.ok
        case .taken: break
        }
        if isTrailers {
            stream.trailersCame(table)
        } else if role == .client, table.status < 200 {
            stream.interimCame(table)
            return Calls.ok
        } else {
            stream.hasHead = true
            stream.isConnect = draft.isExtendedConnect
            stream.headCame(table, ends: ends)
        }
        if ends { messageEnded(stream) }
        return Calls.ok
    }

    private func messageEnded(_ stream: HTTP2Stream) {
        guard stream.isOpen else { return }
        stream.peerHasEnded = true
        stream.ended()
    }

    private static func websocketKey() -> [UInt8] {
        var random = SystemRandomNumberGenerator()
        let bytes = (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &random) }
        return bytes.withUnsafeBytes { Array(encodeBase64($0).utf8) }
    }

    // MARK: frames

    func frameCame(_ frame: nghttp2_frame) -> Int32 {
        let header = frame.hd, isServer = role == .server
        switch UInt32(header.type) {
        case NGHTTP2_HEADERS.rawValue: return fieldsCame(frame)
        case NGHTTP2_DATA.rawValue:
            let isLast = header.flags & HTTP2Session.endStream != 0
            if isLast, let stream = stream(header.stream_id) { messageEnded(stream) }
            if !isLast, header.length == frame.data.padlen { return idleFrame() }
        case NGHTTP2_RST_STREAM.rawValue:
            if isServer, !account.resetCame(now) { return stop(.resets) }
        case NGHTTP2_PING.rawValue:
            if header.flags & HTTP2Session.ack != 0 { owner.pingAnswered() }
            return idleFrame()
        case NGHTTP2_SETTINGS.rawValue, NGHTTP2_PRIORITY_UPDATE.rawValue: return idleFrame()
        case NGHTTP2_WINDOW_UPDATE.rawValue: return windowCame(header.stream_id)
        case NGHTTP2_GOAWAY.rawValue:
            isLeaving = isLeaving || !isServer
            owner.peerLeaves(last: frame.goaway.last_stream_id, code: frame.goaway.error_code)
        default: break
        }
        return Calls.ok
    }

    private func windowCame(_ id: Int32) -> Int32 {
        if id == 0 {
            defer { sentSinceUpdate = false }
            return sentSinceUpdate ? Calls.ok : idleFrame()
        }
        guard let stream = stream(id), stream.sentSinceUpdate else { return idleFrame() }
        stream.sentSinceUpdate = false
        return Calls.ok
    }

    func dataCame(_ id: Int32, _ bytes: UnsafeRawBufferPointer) -> Int32 {
        guard let stream = stream(id), stream.isOpen else {
            consumeConnection(bytes.count)
            return Calls.ok
        }
        stream.uncredited += bytes.count
        touch(stream)
        stream.bodyCame(bytes)
        return Calls.ok
    }

    func streamClosed(_ id: Int32, _ code: UInt32) {
        guard let stream = streams[id] else { return }
        if role == .server, !stream.hasHead, code == HTTP2Code.protocolError.rawValue { stream.refused(.malformed) }
        forget(stream, code)
    }

    func frameSent(_ frame: nghttp2_frame) -> Int32 {
        guard role == .server else { return Calls.ok }
        switch UInt32(frame.hd.type) {
        case NGHTTP2_RST_STREAM.rawValue:
            // What we reset of our own accord has other codes.
            guard let code = HTTP2Code(rawValue: frame.rst_stream.error_code) else { break }
            if [.protocolError, .flowControl, .streamClosed, .frameSize].contains(code), !account.faultFound(now) { return stop(.faults) }
        case NGHTTP2_DATA.rawValue, NGHTTP2_HEADERS.rawValue:
            guard frame.hd.flags & HTTP2Session.endStream != 0, let stream = stream(frame.hd.stream_id), !stream.peerHasEnded else { break }
            // The answer is whole and needs no more of the request (RFC 9113, 8.1).
            nghttp2_submit_rst_stream(native, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream.id, HTTP2Code.noError.rawValue)
        default: break
        }
        return Calls.ok
    }

    // MARK: bodies going out

    func nextData(_ stream: HTTP2Stream, _ length: Int, _ flags: UnsafeMutablePointer<UInt32>?) -> Int {
        let count = min(length, stream.pending.count)
        if stream.wasReset || (count == 0 && !stream.hasEnded) {
            stream.isDeferred = true
            return Int(NGHTTP2_ERR_DEFERRED.rawValue)
        }
        flags?.pointee |= NGHTTP2_DATA_FLAG_NO_COPY.rawValue
        guard stream.hasEnded, count == stream.pending.count else { return count }
        flags?.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
        if var trailers = stream.trailers.take() {
            flags?.pointee |= NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
            _ = trailers.give { nghttp2_submit_trailer(native, stream.id, $0, $1) }
        }
        return count
    }

    func send(_ stream: HTTP2Stream, _ header: UnsafePointer<UInt8>, _ length: Int, padding: Int) -> Int32 {
        guard let sink, !isFull else { return Int32(NGHTTP2_ERR_WOULDBLOCK.rawValue) }
        // It was reset while its bytes waited for room.
        guard !stream.wasReset, length <= stream.pending.count else { return Calls.skip }
        sink.pointee.append(UnsafeRawBufferPointer(start: header, count: 9))
        guard length > 0 else { return Calls.ok }
        let before = stream.pending.count
        sink.pointee.append(stream.pending.bytes.part(0, length))
        stream.pending.consume(length)
        stream.left += length
        stream.sentSinceUpdate = true
        sentSinceUpdate = true
        account.sent(length)
        if stream.pending.isEmpty || (before > HTTP2Session.lowWater && stream.pending.count <= HTTP2Session.lowWater) { stream.drained() }
        return Calls.ok
    }

    /// When no more than this waits of a body, its producer is told to go on.
    private static let lowWater = 65_536
}
