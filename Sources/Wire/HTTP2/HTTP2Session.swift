import Basics
import CNGHTTP2
import HTTP

/// What a session needs of its owner, which has the socket.
public protocol HTTP2SessionOwner: AnyObject {
    /// The table that a head is told in.
    var table: HeadTable { get }
    /// A client begins a stream.
    func streamBegan() -> HTTP2Stream
    /// There may be something to send: call `produce` soon, and not from here.
    func hasOutput()
    /// The peer announces that it takes no more streams above `last`.
    func peerLeaves(last: Int32, code: UInt32)
    /// The peer has answered our PING.
    func pingAnswered()
}

/// One end of a connection of HTTP/2, without its socket: bytes in, bytes out, and what comes is told to the streams. The library (nghttp2)
/// has frames, windows, HPACK and the order of what is sent; the meaning of fields, floods, and what a body's receiver has room for are
/// decided here.
///
/// Order: `receive` for what came, `produce` for what may leave. Neither may be called from inside what they tell. After `receive` has
/// returned false, or when `isOver`, send what `produce` still has and close.
public final class HTTP2Session {
    public enum Role: Sendable { case server, client }

    let role: Role
    let settings: HTTP2Settings
    unowned let owner: any HTTP2SessionOwner
    private(set) var native: OpaquePointer?
    /// The open streams, by number.
    public internal(set) var streams: [Int32: HTTP2Stream] = [:]
    var draft = FieldDraft()
    /// The fields of the list that comes are for this stream.
    var draftStream: HTTP2Stream?
    var account = FloodAccount()
    /// The time of the read at hand.
    var now = MonotonicTime(nanoseconds: 0)
    /// Since when a list of fields is incomplete; nil: none is.
    public internal(set) var fieldsBegan: MonotonicTime?
    /// Why the connection was ended for what the peer did; nil: it was not.
    public internal(set) var flood: FloodAccount.Reason?
    /// Streams that were refused because too many were open.
    public internal(set) var refusedStreams = 0
    /// Whether a GOAWAY was sent or came: no further streams.
    public internal(set) var isLeaving = false
    /// Whether a byte was sent since the peer last widened the connection's window.
    var sentSinceUpdate = false
    private var touched: [HTTP2Stream] = []
    /// Where `produce` writes to, while it does.
    var sink: UnsafeMutablePointer<ByteBuffer>?
    private var mostOut = 0
    private var patchesSettings: Bool
    private var isEnding = false

    /// Frames that may wait for a peer that does not read; beyond it the connection ends.
    static let mostQueued = 8192
    /// The number under which the bound of open streams is given to the library, which would end a connection where we refuse a stream: the
    /// first frame is given the real number (3, RFC 9113, 6.5.2) on its way out.
    private static let concurrentKey: UInt16 = 0x4D53

    public init(_ role: Role, _ settings: HTTP2Settings, owner: any HTTP2SessionOwner) {
        self.role = role
        self.settings = settings
        self.owner = owner
        patchesSettings = role == .server
        var made: OpaquePointer?
        let me = Unmanaged.passUnretained(self).toOpaque(), callbacks = SessionCallbacks.callbacks, option = SessionCallbacks.option
        // Both fail for want of memory only.
        switch role {
        case .server: precondition(nghttp2_session_server_new2(&made, callbacks, me, option) == 0)
        case .client: precondition(nghttp2_session_client_new2(&made, callbacks, me, option) == 0)
        }
        native = made
        var entries = [
            nghttp2_settings_entry(settings_id: Int32(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE.rawValue), value: UInt32(settings.streamWindow)),
            nghttp2_settings_entry(
                settings_id: Int32(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE.rawValue), value: UInt32(clamping: settings.fieldBytes)),
        ]
        if role == .server {
            entries += [
                nghttp2_settings_entry(settings_id: Int32(HTTP2Session.concurrentKey), value: UInt32(settings.concurrentStreams)),
                nghttp2_settings_entry(settings_id: Int32(NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL.rawValue), value: 1),
                nghttp2_settings_entry(settings_id: Int32(NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES.rawValue), value: 1),
            ]
        } else {
            entries.append(nghttp2_settings_entry(settings_id: Int32(NGHTTP2_SETTINGS_ENABLE_PUSH.rawValue), value: 0))
        }
        nghttp2_submit_settings(native, UInt8(NGHTTP2_FLAG_NONE.rawValue), entries, entries.count)
        nghttp2_session_set_local_window_size(native, UInt8(NGHTTP2_FLAG_NONE.rawValue), 0, Int32(settings.connectionWindow))
    }

    deinit { nghttp2_session_del(native) }

    // MARK: in

    /// Takes bytes that came. False: the connection is over; what `produce` has still tells the peer why.
    public func receive(_ bytes: UnsafeRawBufferPointer, now: MonotonicTime) -> Bool {
        self.now = now
        let used = nghttp2_session_mem_recv(native, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count)
        readFinished()
        if used < 0 {
            if used == Int(NGHTTP2_ERR_FLOODED.rawValue) { flood = flood ?? .unread }
            if used == Int(NGHTTP2_ERR_TOO_MANY_CONTINUATIONS.rawValue) { flood = flood ?? .fields }
            end(flood == nil ? .protocolError : .enhanceYourCalm)
            return false
        }
        if nghttp2_session_get_outbound_queue_size(native) > HTTP2Session.mostQueued {
            flood = flood ?? .unread
            end(.enhanceYourCalm)
            return false
        }
        owner.hasOutput()
        return !isOver
    }

    private func readFinished() {
        guard !touched.isEmpty else { return }
        for stream in touched {
            stream.isTouched = false
            stream.readFinished()
        }
        touched.removeAll(keepingCapacity: true)
    }

    /// Tells a stream at the end of this read that it is over.
    public func tellReadFinished(_ stream: HTTP2Stream) { touch(stream) }

    func touch(_ stream: HTTP2Stream) {
        guard !stream.isTouched else { return }
        stream.isTouched = true
        touched.append(stream)
    }

    // MARK: out

    /// Adds to `out` what may leave now, until it has about `most` bytes.
    public func produce(into out: inout ByteBuffer, most: Int) {
        withUnsafeMutablePointer(to: &out) { sink in
            self.sink = sink
            mostOut = most
            while sink.pointee.count < most {
                var bytes: UnsafePointer<UInt8>?
                let count = nghttp2_session_mem_send(native, &bytes)
                guard count > 0, let bytes else {
                    if count < 0, !isEnding { end(flood == nil ? .internalError : .enhanceYourCalm) } else if count <= 0 { break }
                    continue
                }
                sink.pointee.append(UnsafeRawBufferPointer(start: bytes, count: count))
                if patchesSettings { announceStreams(sink, count) }
            }
            self.sink = nil
        }
    }

    /// Gives the first frame the number under which the bound of open streams is known.
    private func announceStreams(_ sink: UnsafeMutablePointer<ByteBuffer>, _ count: Int) {
        patchesSettings = false
        let frame = sink.pointee.count - count
        for place in stride(from: frame + 9, to: sink.pointee.count - 5, by: 6) {
            let bytes = sink.pointee.bytes
            guard UInt16(bytes[place]) << 8 | UInt16(bytes[place + 1]) == HTTP2Session.concurrentKey else { continue }
            let key: [UInt8] = [0, 3]
            key.withUnsafeBytes { sink.pointee.overwrite(at: place, $0) }
        }
    }

    var isFull: Bool { sink.map { $0.pointee.count >= mostOut } ?? true }

    /// Whether nothing more is to be read or sent.
    public var isOver: Bool { nghttp2_session_want_read(native) == 0 && nghttp2_session_want_write(native) == 0 }
    /// Whether nothing more is to be read.
    public var wantsNoMore: Bool { nghttp2_session_want_read(native) == 0 }

    func resume(_ stream: HTTP2Stream) {
        if stream.isDeferred {
            stream.isDeferred = false
            nghttp2_session_resume_data(native, stream.id)
        }
        owner.hasOutput()
    }

    func consume(_ stream: HTTP2Stream, _ count: Int) {
        nghttp2_session_consume(native, stream.id, count)
        owner.hasOutput()
    }

    /// Whether less than a frame's worth may still come for a stream.
    func isCreditLow(_ stream: HTTP2Stream) -> Bool {
        stream.uncredited + 16_384 > settings.streamWindow
            || nghttp2_session_get_local_window_size(native) - nghttp2_session_get_effective_recv_data_length(native) < 16_384
    }

    func consumeConnection(_ count: Int) {
        guard count > 0 else { return }
        nghttp2_session_consume_connection(native, count)
        owner.hasOutput()
    }

    func reset(_ stream: HTTP2Stream, _ code: HTTP2Code) {
        nghttp2_submit_rst_stream(native, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream.id, code.rawValue)
        owner.hasOutput()
    }

    // MARK: messages

    /// Sends an interim answer (1xx).
    public func interim(_ stream: HTTP2Stream, _ fields: inout OutgoingFields) {
        guard stream.isOpen, !stream.hasSentHead else { return }
        _ = fields.give { nghttp2_submit_headers(native, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream.id, nil, $0, $1, nil) }
        owner.hasOutput()
    }

    /// Sends the head of an answer; with `ends` the whole of it.
    public func respond(_ stream: HTTP2Stream, _ fields: inout OutgoingFields, ends: Bool) {
        guard stream.isOpen, !stream.hasSentHead else { return }
        stream.hasSentHead = true
        if ends { stream.hasEnded = true }
        var provider = SessionCallbacks.provider(stream)
        _ = fields.give { pairs, count in
            withUnsafePointer(to: &provider) { nghttp2_submit_response(native, stream.id, pairs, count, ends ? nil : $0) }
        }
        owner.hasOutput()
    }

    /// Begins a stream of our own with the head of a request. False: the connection takes no more of them.
    public func request(_ stream: HTTP2Stream, _ fields: inout OutgoingFields, ends: Bool) -> Bool {
        var provider = SessionCallbacks.provider(stream)
        let me = Unmanaged.passUnretained(stream).toOpaque()
        let id = fields.give { pairs, count in
            withUnsafePointer(to: &provider) { nghttp2_submit_request(native, nil, pairs, count, ends ? nil : $0, me) }
        }
        guard id > 0 else { return false }
        stream.id = id
        stream.session = self
        stream.hasSentHead = true
        if ends { stream.hasEnded = true }
        streams[id] = stream
        owner.hasOutput()
        return true
    }

    /// The answer's own priority outweighs what the client asked for (RFC 9218, 8).
    public func prioritize(_ stream: HTTP2Stream, urgency: Int, incremental: Bool) {
        var priority = nghttp2_extpri(urgency: UInt32(min(max(urgency, 0), 7)), inc: incremental ? 1 : 0)
        nghttp2_session_change_extpri_stream_priority(native, stream.id, &priority, 1)
    }

    /// How many streams the peer lets us have open.
    public var peerStreams: Int {
        Int(nghttp2_session_get_remote_settings(native, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS))
    }
    /// Whether the peer has told its settings, and takes extended CONNECT (RFC 8441).
    public var peerTakesConnect: Bool {
        nghttp2_session_get_remote_settings(native, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1
    }

    // MARK: the end

    /// Asks the peer for no more streams, and takes those that are on their way.
    public func announceEnd() {
        nghttp2_submit_shutdown_notice(native)
        ping()
    }

    public func ping() {
        nghttp2_submit_ping(native, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil)
        owner.hasOutput()
    }

    /// Takes no more streams: what is above the last one that came may be sent elsewhere.
    public func refuseMore() {
        guard !isLeaving else { return }
        isLeaving = true
        let last = nghttp2_session_get_last_proc_stream_id(native)
        nghttp2_submit_goaway(native, UInt8(NGHTTP2_FLAG_NONE.rawValue), last, HTTP2Code.noError.rawValue, nil, 0)
        owner.hasOutput()
    }

    /// Ends the connection: the peer is told why, and no stream goes on.
    public func end(_ code: HTTP2Code) {
        guard !isEnding else { return }
        isEnding = true
        isLeaving = true
        nghttp2_session_terminate_session(native, code.rawValue)
        owner.hasOutput()
    }

    /// The socket has gone: tells every stream.
    public func lost() {
        for stream in Array(streams.values) { forget(stream, HTTP2Code.cancel.rawValue) }
    }

    func forget(_ stream: HTTP2Stream, _ code: UInt32) {
        guard stream.isOpen else { return }
        stream.isOpen = false
        streams[stream.id] = nil
        if draftStream === stream { draftStream = nil }
        consumeConnection(stream.uncredited)
        stream.uncredited = 0
        stream.pending.clear(keeping: 0)
        if code == 0, stream.hasEnded, stream.peerHasEnded { account.requestFinished() }
        stream.closed(code)
        stream.session = nil
    }

    /// Gives back what only a busy connection needs.
    public func releaseMemory() {
        draft.releaseMemory()
        touched = []
    }
}
