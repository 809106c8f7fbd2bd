import Basics
import EventLoops
import HTTP
import JSONCoding
import Observability
import StackModel

/// Writes one line per request. Lines are gathered in memory and given to a `LogSink` when 32 KiB have come together or a second has
/// passed. If the sink's reader has stopped, or its disk is full, lines are lost; no request waits for it.
///
/// `2026-11-21T03:30:00.123Z 127.0.0.1 "POST /api/logs" 202 105 correlation-engine/2 total=1.9ms tries=1 id=5f…`
final class AccessLog {
    private let sink: LogSink?
    private let form: Form
    private var pending = ByteBuffer()
    private var lines = 0
    private var timer: LoopTimer?
    private static let flushAt = 32_768
    /// More of a target than this serves nobody.
    private static let targetLimit = 512

    private enum Form {
        case text, json
        case custom([Part])
    }

    private enum Part {
        case literal([UInt8])
        case field(String)
    }

    /// Whether `Host` and `User-Agent` must be kept while the request is under way, because the log's format wants them.
    private let wantsHost: Bool
    private let wantsAgent: Bool

    /// `sink` nil: no log is wanted.
    init(_ sink: LogSink?, format: AccessLogSpec.Format = .text, loop: EventLoop) {
        switch format {
        case .none: (self.sink, form) = (nil, .text)
        case .text: (self.sink, form) = (sink, .text)
        case .json: (self.sink, form) = (sink, .json)
        case .custom(let text): (self.sink, form) = (sink, .custom(AccessLog.parts(text)))
        }
        switch form {
        case .text: (wantsHost, wantsAgent) = (false, false)
        case .json: (wantsHost, wantsAgent) = (true, true)
        case .custom(let parts):
            func names(_ wanted: String) -> Bool { parts.contains { if case .field(wanted) = $0 { true } else { false } } }
            (wantsHost, wantsAgent) = (names("host"), names("user_agent"))
        }
        if self.sink != nil { timer = LoopTimer(loop: loop) { [unowned self] in flush() } }
    }

    private static func parts(_ text: String) -> [Part] {
        var out: [Part] = []
        for (i, piece) in text.split(separator: "$", omittingEmptySubsequences: false).enumerated() {
            if i == 0 {
                out.append(.literal(Array(piece.utf8)))
                continue
            }
            let name = piece.prefix { $0.isASCII && ($0.isLetter || $0 == "_") }
            out.append(.field(String(name)))
            out.append(.literal(Array(piece.dropFirst(name.count).utf8)))
        }
        return out
    }

    /// Keeps the fields of a head that the log will want.
    func noteFields(_ table: HeadTable, into exchange: Exchange) {
        if wantsHost, let host = table.first(.host) { exchange.request.host = Array(host.prefix(255)) }
        if wantsAgent, let agent = table.value(Array("user-agent".utf8)) {
            exchange.request.userAgent = Array(agent.prefix(AccessLog.targetLimit))
        }
    }

    func line(_ exchange: Exchange, replica: String, total: Duration) {
        guard sink != nil else { return }
        if pending.isEmpty { timer?.schedule(after: .seconds(1)) }
        switch form {
        case .text: textLine(exchange, replica, total)
        case .json: jsonLine(exchange, replica, total)
        case .custom(let parts):
            for part in parts {
                switch part {
                case .literal(let bytes): pending.append(bytes)
                case .field(let name): field(name, exchange, replica, total)
                }
            }
        }
        pending.append(10)
        lines += 1
        if pending.count >= AccessLog.flushAt { flush() }
    }

    private func textLine(_ exchange: Exchange, _ replica: String, _ total: Duration) {
        time()
        pending.append(32)
        HeadRewriter.append(exchange.request.clientAddress, into: &pending)
        pending.append(" \"")
        known(exchange.request.method)
        pending.append(32)
        known(exchange.request.target)
        pending.append("\" ")
        pending.append(decimal: exchange.answer.status)
        pending.append(32)
        pending.append(decimal: exchange.answer.bytes)
        pending.append(32)
        pending.append(text: replica)
        pending.append(" total=")
        milliseconds(total)
        pending.append("ms tries=")
        pending.append(decimal: exchange.attempts.tries)
        if exchange.wait.time > .zero {
            pending.append(" held=")
            milliseconds(exchange.wait.time)
            pending.append("ms")
        }
        pending.append(" id=")
        known(exchange.request.id)
    }

    private func jsonLine(_ exchange: Exchange, _ replica: String, _ total: Duration) {
        var json = JSONWriter(reserving: 512)
        json.beginObject()
        json.member("time", CalendarTime.render(.now))
        json.member("remote_addr", exchange.request.clientAddress?.description ?? "unix")
        json.member("method", AccessLog.known(exchange.request.method))
        json.member("uri", AccessLog.known(UnsafeRawBufferPointer(rebasing: exchange.request.target.prefix(AccessLog.targetLimit))))
        json.member("protocol", "\(exchange.request.version)")
        json.member("host", exchange.request.host.withUnsafeBytes(AccessLog.known))
        json.member("user_agent", exchange.request.userAgent.withUnsafeBytes(AccessLog.known))
        json.member("status", exchange.answer.status)
        json.member("bytes", exchange.answer.bytes)
        json.member("route", exchange.route?.route.label ?? "-")
        json.member("replica", replica)
        json.key("duration_ms")
        json.double(Double(total.nanoseconds / 1000) / 1000)
        if let upstream = exchange.answer.upstreamTime {
            json.key("upstream_ms")
            json.double(Double(upstream.nanoseconds / 1000) / 1000)
        }
        json.member("tries", exchange.attempts.tries)
        if exchange.wait.time > .zero {
            json.key("held_ms")
            json.double(Double(exchange.wait.time.nanoseconds / 1000) / 1000)
        }
        json.member("request_id", AccessLog.known(exchange.request.id))
        if let trace = exchange.request.trace { json.member("trace_id", AccessLog.traceID(trace)) }
        json.endObject()
        pending.append(json.bytes)
    }

    private func field(_ name: String, _ exchange: Exchange, _ replica: String, _ total: Duration) {
        switch name {
        case "time": time()
        case "remote_addr": HeadRewriter.append(exchange.request.clientAddress, into: &pending)
        case "method": known(exchange.request.method)
        case "uri": known(exchange.request.target)
        case "protocol": pending.append(exchange.request.version)
        case "status": pending.append(decimal: exchange.answer.status)
        case "bytes": pending.append(decimal: exchange.answer.bytes)
        case "replica": pending.append(text: replica)
        case "duration_ms": milliseconds(total)
        case "upstream_ms": if let upstream = exchange.answer.upstreamTime { milliseconds(upstream) } else { pending.append(45) }
        case "held_ms": if exchange.wait.time > .zero { milliseconds(exchange.wait.time) } else { pending.append(45) }
        case "tries": pending.append(decimal: exchange.attempts.tries)
        case "request_id": known(exchange.request.id)
        case "route": pending.append(text: exchange.route?.route.label ?? "-")
        case "host": exchange.request.host.withUnsafeBytes { known($0) }
        case "user_agent": exchange.request.userAgent.withUnsafeBytes { known($0) }
        default: pending.append(text: exchange.request.trace.map(AccessLog.traceID) ?? "-")
        }
    }

    private static func traceID(_ trace: TraceContext) -> String {
        var buffer = ByteBuffer()
        HeadRewriter.hex(trace.traceHigh, into: &buffer)
        HeadRewriter.hex(trace.traceLow, into: &buffer)
        return buffer.bytes.string
    }

    private func time() {
        withUnsafeTemporaryAllocation(byteCount: 24, alignment: 1) { stamp in
            CalendarTime.render(.now, into: stamp)
            pending.append(UnsafeRawBufferPointer(stamp))
        }
    }

    private func milliseconds(_ time: Duration) {
        let microseconds = Int(time.nanoseconds / 1000)
        pending.append(decimal: microseconds / 1000)
        pending.append(46)
        pending.append(UInt8(48 + microseconds / 100 % 10))
    }

    /// Writes a value that came from outside, with the characters replaced that would end a quoted text or a line; `-` when the value is
    /// empty or only blanks.
    private func known(_ bytes: UnsafeRawBufferPointer) {
        if AccessLog.isUnknown(bytes) { return pending.append(45) }
        for byte in bytes.prefix(AccessLog.targetLimit) {
            if byte == 34 { pending.append("%22") } else { pending.append(byte < 32 || byte == 127 ? 63 : byte) }
        }
    }

    private static func known(_ bytes: UnsafeRawBufferPointer) -> String { isUnknown(bytes) ? "-" : bytes.string }
    private static func isUnknown(_ bytes: UnsafeRawBufferPointer) -> Bool { bytes.allSatisfy { $0 == 32 || $0 == 9 } }

    func flush() {
        guard let sink, !pending.isEmpty else { return }
        sink.write(pending.bytes, lines: lines)
        lines = 0
        pending.clear(keeping: 131_072)
    }
}
