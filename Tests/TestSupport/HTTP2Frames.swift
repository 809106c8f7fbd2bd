import CNGHTTP2

/// A frame of HTTP/2 as it stands on the wire, for tests that send what no library would.
public struct HTTP2Frame: Sendable, CustomStringConvertible {
    public var type: UInt8
    public var flags: UInt8
    public var stream: UInt32
    public var payload: [UInt8]

    public static let data: UInt8 = 0
    public static let headers: UInt8 = 1
    public static let priority: UInt8 = 2
    public static let rstStream: UInt8 = 3
    public static let settings: UInt8 = 4
    public static let ping: UInt8 = 6
    public static let goAway: UInt8 = 7
    public static let windowUpdate: UInt8 = 8
    public static let continuation: UInt8 = 9
    public static let priorityUpdate: UInt8 = 16
    public static let endStream: UInt8 = 1
    public static let ack: UInt8 = 1
    public static let endHeaders: UInt8 = 4
    public static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

    public init(_ type: UInt8, _ flags: UInt8 = 0, stream: UInt32 = 0, _ payload: [UInt8] = []) {
        self.type = type
        self.flags = flags
        self.stream = stream
        self.payload = payload
    }

    public var bytes: [UInt8] {
        let count = payload.count
        return [UInt8(count >> 16 & 255), UInt8(count >> 8 & 255), UInt8(count & 255), type, flags] + Self.four(stream) + payload
    }

    /// The number at the payload's end: an error's code.
    public var code: UInt32 {
        let place = type == Self.goAway ? 4 : 0
        guard payload.count >= place + 4 else { return .max }
        return payload[place..<(place + 4)].reduce(0) { $0 << 8 | UInt32($1) }
    }

    public var description: String { "type \(type) flags \(flags) stream \(stream) \(payload.count) bytes" }

    public static func four(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) } }

    public static func settings(_ pairs: [(UInt16, UInt32)] = []) -> HTTP2Frame {
        HTTP2Frame(settings, 0, stream: 0, pairs.flatMap { [UInt8($0 >> 8), UInt8($0 & 255)] + four($1) })
    }

    public static func reset(_ stream: UInt32, _ code: UInt32 = 8) -> HTTP2Frame { HTTP2Frame(rstStream, stream: stream, four(code)) }
    public static func window(_ stream: UInt32, _ count: UInt32) -> HTTP2Frame { HTTP2Frame(windowUpdate, stream: stream, four(count)) }
    public static func data(_ stream: UInt32, _ bytes: [UInt8], ends: Bool = false) -> HTTP2Frame {
        HTTP2Frame(data, ends ? endStream : 0, stream: stream, bytes)
    }

    /// Fields in HPACK's simplest form: each literal, none remembered, none compressed.
    public static func headers(_ stream: UInt32, _ fields: [(String, String)], ends: Bool = true) -> HTTP2Frame {
        HTTP2Frame(headers, endHeaders | (ends ? endStream : 0), stream: stream, block(fields))
    }

    public static func block(_ fields: [(String, String)]) -> [UInt8] {
        fields.flatMap { [0] + literal(Array($0.utf8)) + literal(Array($1.utf8)) }
    }

    private static func literal(_ bytes: [UInt8]) -> [UInt8] {
        if bytes.count < 127 { return [UInt8(bytes.count)] + bytes }
        var rest = bytes.count - 127, out: [UInt8] = [127]
        while rest >= 128 {
            out.append(UInt8(rest & 127 | 128))
            rest >>= 7
        }
        return out + [UInt8(rest)] + bytes
    }

    /// A whole request.
    public static func request(
        _ stream: UInt32, _ method: String = "GET", _ path: String = "/", more: [(String, String)] = [], ends: Bool = true
    ) -> HTTP2Frame {
        headers(
            stream, [(":method", method), (":scheme", "http"), (":authority", "test"), (":path", path)] + more, ends: ends)
    }
}

/// Takes HPACK apart, by the library: one for each connection.
public final class HTTP2Fields {
    private var inflater: OpaquePointer?

    public init() { nghttp2_hd_inflate_new(&inflater) }
    deinit { nghttp2_hd_inflate_del(inflater) }

    public func read(_ block: [UInt8]) -> [(String, String)] {
        var out: [(String, String)] = []
        var rest = block
        while true {
            var pair = nghttp2_nv(), flags: Int32 = 0
            let used = rest.withUnsafeBufferPointer {
                nghttp2_hd_inflate_hd2(inflater, &pair, &flags, $0.baseAddress, $0.count, 1)
            }
            guard used >= 0 else { return out + [("broken", "\(used)")] }
            rest.removeFirst(used)
            if flags & Int32(NGHTTP2_HD_INFLATE_EMIT.rawValue) != 0 {
                let name = UnsafeBufferPointer(start: pair.name, count: pair.namelen)
                let value = UnsafeBufferPointer(start: pair.value, count: pair.valuelen)
                out.append((String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self)))
            }
            if flags & Int32(NGHTTP2_HD_INFLATE_FINAL.rawValue) != 0 {
                nghttp2_hd_inflate_end_headers(inflater)
                return out
            }
            if used == 0 { return out }
        }
    }
}

/// What has come of one stream.
public struct HTTP2Answer: Sendable {
    /// The heads in their order: interim ones, the answer's, trailers.
    public var heads: [[(name: String, value: String)]] = []
    public var body: [UInt8] = []
    public var ended = false
    /// The code of a reset.
    public var reset: UInt32?

    public var isOver: Bool { ended || reset != nil }
    public var status: Int {
        for head in heads.reversed() { if let code = head.first(where: { $0.name == ":status" }) { return Int(code.value) ?? 0 } }
        return 0
    }
    public var text: String { String(decoding: body, as: UTF8.self) }
    public func all(_ name: String) -> [String] { heads.flatMap { $0.filter { $0.name == name }.map(\.value) } }
}

/// A client of HTTP/2 that sends frames as it is told and keeps what comes. Blocks its thread.
public final class HTTP2Peer {
    public let raw: RawPeer
    private let fields = HTTP2Fields()
    public private(set) var answers: [UInt32: HTTP2Answer] = [:]
    /// The frames that belong to the connection: SETTINGS, PING, GOAWAY, WINDOW_UPDATE.
    public private(set) var others: [HTTP2Frame] = []
    public private(set) var isOver = false
    private var block: [UInt8] = []
    private var blockFlags: UInt8 = 0
    /// Whether the peer's windows are kept open.
    public var givesCredit = true

    /// Connects and says what a client says first.
    public convenience init(port: UInt16, settings: [(UInt16, UInt32)] = []) throws {
        try self.init(RawPeer(port: port), settings: settings)
        raw.send(HTTP2Frame.preface + HTTP2Frame.settings(settings).bytes)
    }

    public init(_ raw: RawPeer, settings: [(UInt16, UInt32)] = []) throws { self.raw = raw }

    @discardableResult
    public func send(_ frames: HTTP2Frame...) -> Bool { raw.send(frames.flatMap(\.bytes)) }
    @discardableResult
    public func send(_ frames: [HTTP2Frame]) -> Bool { raw.send(frames.flatMap(\.bytes)) }

    /// Reads one frame and keeps what it says; false at the end of the connection.
    @discardableResult
    public func step() -> Bool {
        let head = raw.read(9)
        guard head.count == 9 else {
            isOver = true
            return false
        }
        let count = Int(head[0]) << 16 | Int(head[1]) << 8 | Int(head[2])
        let stream = head[5..<9].reduce(0) { $0 << 8 | UInt32($1) }
        let frame = HTTP2Frame(head[3], head[4], stream: stream, raw.read(count))
        take(frame)
        return true
    }

    private func take(_ frame: HTTP2Frame) {
        switch frame.type {
        case HTTP2Frame.headers, HTTP2Frame.continuation:
            if frame.type == HTTP2Frame.headers { blockFlags = frame.flags }
            block += frame.payload
            guard frame.flags & HTTP2Frame.endHeaders != 0 else { return }
            answers[frame.stream, default: HTTP2Answer()].heads.append(fields.read(block).map { (name: $0, value: $1) })
            block = []
            if blockFlags & HTTP2Frame.endStream != 0 { answers[frame.stream, default: HTTP2Answer()].ended = true }
        case HTTP2Frame.data:
            answers[frame.stream, default: HTTP2Answer()].body += frame.payload
            if frame.flags & HTTP2Frame.endStream != 0 { answers[frame.stream, default: HTTP2Answer()].ended = true }
            if givesCredit, frame.payload.count > 0 {
                send(.window(0, UInt32(frame.payload.count)), .window(frame.stream, UInt32(frame.payload.count)))
            }
        case HTTP2Frame.rstStream: answers[frame.stream, default: HTTP2Answer()].reset = frame.code
        case HTTP2Frame.settings:
            others.append(frame)
            if frame.flags & HTTP2Frame.ack == 0 { send(HTTP2Frame(HTTP2Frame.settings, HTTP2Frame.ack)) }
        case HTTP2Frame.ping:
            others.append(frame)
            if frame.flags & HTTP2Frame.ack == 0 { send(HTTP2Frame(HTTP2Frame.ping, HTTP2Frame.ack, stream: 0, frame.payload)) }
        default: others.append(frame)
        }
    }

    /// Waits until the stream is over, or the connection.
    public func answer(_ stream: UInt32) -> HTTP2Answer {
        while answers[stream]?.isOver != true, step() {}
        return answers[stream] ?? HTTP2Answer()
    }

    /// Reads until `enough`, or to the end of the connection.
    public func read(until enough: (HTTP2Peer) -> Bool) { while !enough(self), step() {} }

    /// Waits for the end of the connection; the code that the last GOAWAY names, nil if there was none.
    public func goodbye() -> UInt32? {
        while step() {}
        return goAways.last?.code
    }

    public var goAways: [HTTP2Frame] { others.filter { $0.type == HTTP2Frame.goAway } }
}
