import Basics
import CNGHTTP2
import HTTP

/// What the library calls, and how it is set up: made once for the process.
enum SessionCallbacks {
    static let ok: Int32 = 0
    static let fail = Int32(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue)
    static let skip = Int32(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)

    static var callbacks: OpaquePointer? { OpaquePointer(bitPattern: callbacksAddress) }
    static var option: OpaquePointer? { OpaquePointer(bitPattern: optionAddress) }

    static func session(_ data: UnsafeMutableRawPointer?) -> HTTP2Session? {
        data.map { Unmanaged<HTTP2Session>.fromOpaque($0).takeUnretainedValue() }
    }

    static func provider(_ own: HTTP2Stream) -> nghttp2_data_provider {
        nghttp2_data_provider(
            source: nghttp2_data_source(ptr: Unmanaged.passUnretained(own).toOpaque()),
            read_callback: { _, _, _, length, flags, source, data in
                guard let session = SessionCallbacks.session(data), let stream = source?.pointee.ptr else {
                    return Int(SessionCallbacks.fail)
                }
                let owner = Unmanaged<HTTP2Stream>.fromOpaque(stream).takeUnretainedValue()
                return session.nextData(owner, length, flags)
            })
    }

    /// Addresses, because a pointer is no value that threads may share; what they point to never changes once it is made.
    private static let callbacksAddress: UInt = {
        var made: OpaquePointer?
        nghttp2_session_callbacks_new(&made)
        nghttp2_session_callbacks_set_on_begin_frame_callback(made) { _, header, data in
            guard let header, let session = session(data) else { return fail }
            return session.frameBegins(header.pointee)
        }
        // Frames of unknown types are counted when they begin, and then skipped.
        nghttp2_session_callbacks_set_unpack_extension_callback(made) { _, _, _, _ in Int32(NGHTTP2_ERR_CANCEL.rawValue) }
        nghttp2_session_callbacks_set_on_begin_headers_callback(made) { _, frame, data in
            guard let frame, let session = session(data) else { return fail }
            return session.fieldsBegin(frame.pointee)
        }
        nghttp2_session_callbacks_set_on_header_callback(made) { _, _, name, nameCount, value, valueCount, _, data in
            guard let session = session(data) else { return fail }
            return session.fieldCame(
                UnsafeRawBufferPointer(start: name, count: nameCount), UnsafeRawBufferPointer(start: value, count: valueCount))
        }
        nghttp2_session_callbacks_set_on_invalid_header_callback(made) { _, _, _, nameCount, _, valueCount, _, data in
            guard let session = session(data) else { return fail }
            return session.badFieldCame(nameCount, valueCount)
        }
        nghttp2_session_callbacks_set_on_frame_recv_callback(made) { _, frame, data in
            guard let frame, let session = session(data) else { return fail }
            return session.frameCame(frame.pointee)
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made) { _, _, id, bytes, count, data in
            guard let session = session(data) else { return fail }
            return session.dataCame(id, UnsafeRawBufferPointer(start: bytes, count: count))
        }
        nghttp2_session_callbacks_set_on_stream_close_callback(made) { _, id, code, data in
            guard let session = session(data) else { return fail }
            session.streamClosed(id, code)
            return ok
        }
        nghttp2_session_callbacks_set_on_frame_send_callback(made) { _, frame, data in
            guard let frame, let session = session(data) else { return fail }
            return session.frameSent(frame.pointee)
        }
        nghttp2_session_callbacks_set_send_data_callback(made) { _, frame, header, length, source, data in
            guard let session = session(data), let stream = source?.pointee.ptr, let header, let frame else { return fail }
            let owner = Unmanaged<HTTP2Stream>.fromOpaque(stream).takeUnretainedValue()
            return session.send(owner, header, length, padding: frame.pointee.data.padlen)
        }
        return UInt(bitPattern: made)
    }()

    private static let optionAddress: UInt = {
        var made: OpaquePointer?
        nghttp2_option_new(&made)
        // Credit returns when bytes have gone on, not when they came.
        nghttp2_option_set_no_auto_window_update(made, 1)
        nghttp2_option_set_no_closed_streams(made, 1)
        nghttp2_option_set_max_continuations(made, 8)
        // Ours comes first, and says why.
        nghttp2_option_set_stream_reset_rate_limit(made, UInt64(FloodAccount.burst * 2), UInt64(FloodAccount.rate * 2))
        nghttp2_option_set_max_outbound_ack(made, HTTP2Session.mostQueued)
        nghttp2_option_set_max_settings(made, 32)
        nghttp2_option_set_builtin_recv_extension_type(made, UInt8(NGHTTP2_PRIORITY_UPDATE.rawValue))
        for type in UInt8(10)...255 where type != UInt8(NGHTTP2_PRIORITY_UPDATE.rawValue) {
            nghttp2_option_set_user_recv_extension_type(made, type)
        }
        // The largest head that is taken from a replica, and what is added to it.
        nghttp2_option_set_max_send_header_block_length(made, 1 << 20)
        return UInt(bitPattern: made)
    }()
}
