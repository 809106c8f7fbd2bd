import Basics
import OpenTelemetry
import ProtobufCoding

/// Export requests with many small traces, made once and filled with fresh ids and times for each use: the load must not cost more than
/// what it loads. A trace is five spans and five logs of three services; it comes as spans in one request and as logs in another.
struct TraceTemplate {
    private var bytes: [UInt8] = []
    /// Places in `bytes`, by what goes there.
    private var traceIDs: [(at: Int, trace: Int)] = []
    private var spanIDs: [(at: Int, trace: Int, span: Int)] = []
    private var times: [(at: Int, offset: UInt64)] = []
    let traces: Int

    static let services = [("gateway", [0]), ("orders", [1, 2]), ("payments", [3, 4])]
    static let parents = [nil, 0, 1, 2, 3] as [Int?]

    // Bytes that nothing else has, to be found and replaced.
    private static func mark(_ kind: UInt8, _ a: Int, _ b: Int, count: Int) -> [UInt8] {
        var out: [UInt8] = [0xF5, kind, 0xF6, UInt8(a & 255), UInt8(a >> 8), UInt8(b), 0xF7, 0xF8]
        while out.count < count { out.append(0xF9) }
        return out
    }

    init(_ signal: OTLP.Signal, traces: Int) {
        self.traces = traces
        var request = ProtobufWriter()
        for (name, spans) in TraceTemplate.services {
            request.message(1) { outer in
                outer.message(1) { resource in
                    for (key, value) in [
                        ("service.name", name), ("host.name", "host-\(name)"), ("service.instance.id", "\(name)-1"),
                        ("telemetry.sdk.language", "python"),
                        ("telemetry.sdk.name", "opentelemetry"), ("telemetry.sdk.version", "1.45.2"),
                    ] { resource.attribute(1, key, value) }
                }
                outer.message(2) { scoped in
                    scoped.message(1) { $0.string(1, "app.\(name)") }
                    for trace in 0..<traces {
                        for span in spans {
                            scoped.message(2) {
                                signal == .traces ? TraceTemplate.span(trace, span, name, &$0) : TraceTemplate.log(trace, span, &$0)
                            }
                        }
                    }
                }
            }
        }
        bytes = request.bytes
        findMarks()
    }

    private static func span(_ trace: Int, _ span: Int, _ service: String, _ out: inout ProtobufWriter) {
        out.bytes(1, mark(1, trace, 0, count: 16))
        out.bytes(2, mark(2, trace, span, count: 8))
        if let parent = parents[span] { out.bytes(4, mark(2, trace, parent, count: 8)) }
        out.string(5, "POST /\(service)/step-\(span)")
        out.varint(6, span == 0 ? 2 : 1)
        for (field, offset) in [(7, span * 200_000), (8, 2_000_000 - span * 200_000)] {
            out.fixed64(field, mark(3, offset / 100_000, 0, count: 8).withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) })
        }
        out.attribute(9, "http.request.method", "POST")
        out.attribute(9, "url.path", "/\(service)/step-\(span)")
        out.message(9) { pair in
            pair.string(1, "http.response.status_code")
            pair.message(2) { $0.varint(3, 200) }
        }
    }

    private static func log(_ trace: Int, _ span: Int, _ out: inout ProtobufWriter) {
        out.fixed64(1, mark(3, span, 0, count: 8).withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) })
        out.varint(2, span == 4 ? 13 : 9)
        out.string(3, span == 4 ? "WARN" : "INFO")
        out.message(5) { $0.string(1, "order \(trace) is at step \(span) and everything looks as it should") }
        out.attribute(6, "order.id", "\(trace)")
        out.bytes(9, mark(1, trace, 0, count: 16))
        out.bytes(10, mark(2, trace, span, count: 8))
    }

    private mutating func findMarks() {
        var at = 0
        while at + 8 <= bytes.count {
            guard bytes[at] == 0xF5, bytes[at + 2] == 0xF6, bytes[at + 6] == 0xF7, bytes[at + 7] == 0xF8 else {
                at += 1
                continue
            }
            let a = Int(bytes[at + 3]) | Int(bytes[at + 4]) << 8, b = Int(bytes[at + 5])
            switch bytes[at + 1] {
            case 1: traceIDs.append((at, a))
            case 2: spanIDs.append((at, a, b))
            default: times.append((at, UInt64(a) * 100_000))
            }
            at += 8
        }
    }

    /// A request whose traces begin with this number.
    func filled(first number: UInt64, run: UInt64, nanoseconds: UInt64) -> [UInt8] {
        var out = bytes
        out.withUnsafeMutableBytes { raw in
            for (at, trace) in traceIDs {
                raw.storeBytes(of: run, toByteOffset: at, as: UInt64.self)
                raw.storeBytes(of: (number + UInt64(trace) + 1).bigEndian, toByteOffset: at + 8, as: UInt64.self)
            }
            for (at, trace, span) in spanIDs {
                raw.storeBytes(of: ((number + UInt64(trace) + 1) << 3 | UInt64(span + 1)).bigEndian, toByteOffset: at, as: UInt64.self)
            }
            for (at, offset) in times { raw.storeBytes(of: nanoseconds + offset, toByteOffset: at, as: UInt64.self) }
        }
        return out
    }
}
