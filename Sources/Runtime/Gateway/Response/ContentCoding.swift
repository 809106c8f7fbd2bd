import Caching
import Compression
import HTTP

/// A coding of bodies, in the order in which equal wishes of a client are met.
enum ContentCoding: UInt8, Sendable, CaseIterable {
    case zstd, br, gzip

    /// Smaller bodies are sent as they are: what coding saves is less than a packet's head.
    static let smallest = 1024

    static let names: [StaticString] = ["zstd", "br", "gzip"]
    var name: StaticString { ContentCoding.names[Int(rawValue)] }
    var algorithm: StreamEncoder.Coding {
        switch self {
        case .zstd: .zstd
        case .br: .brotli
        case .gzip: .gzip
        }
    }

    /// The coding that a request takes best; nil: none, or it forbids transformations.
    static func wanted(_ table: HeadTable) -> ContentCoding? {
        var lines: [UnsafeRawBufferPointer] = [], directives = RequestDirectives()
        for field in table.fields where field.known == .other {
            let name = table.text(field.name)
            if name.equals("accept-encoding") { lines.append(table.text(field.value)) }
            if name.equals("cache-control") { directives.take(table.text(field.value)) }
        }
        if directives.noTransform { return nil }
        return AcceptedCoding.choose(lines, of: names).flatMap { ContentCoding(rawValue: UInt8($0)) }
    }
}

/// Compresses the answer of one request.
final class BodyCoder {
    let coding: ContentCoding
    private let encoder: StreamEncoder
    /// Whether each piece must reach the client at once: a stream of events.
    let flushes: Bool

    init?(_ coding: ContentCoding, flushes: Bool) {
        guard let encoder = StreamEncoder(coding.algorithm) else { return nil }
        self.coding = coding
        self.encoder = encoder
        self.flushes = flushes
    }

    /// Passes a part of the body to `client`. Returns the bytes that left; nil when the library failed.
    func pass(_ bytes: UnsafeRawBufferPointer, to client: ClientSide) -> Int? {
        var count = 0
        let isGood = encoder.pass(bytes) { count += client.pass($0) ? $0.count : 0 }
        return isGood ? count : nil
    }

    func flush(to client: ClientSide) -> Int? {
        var count = 0
        let isGood = encoder.flush { count += client.pass($0) ? $0.count : 0 }
        return isGood ? count : nil
    }

    func end(to client: ClientSide) -> Int? {
        var count = 0
        let isGood = encoder.end { count += client.pass($0) ? $0.count : 0 }
        return isGood ? count : nil
    }
}

/// Which answers are worth compressing.
enum Compressible {
    /// Whether a replica's answer may be compressed for some client.
    static func isWorthwhile(_ table: HeadTable) -> Bool {
        switch table.framing {
        case .none: return false
        case .length(let count): if count < ContentCoding.smallest { return false }
        case .chunked, .untilClose: break
        }
        guard ![204, 205, 206, 304].contains(table.status), table.status >= 200, let type = table.first(.contentType), isTextual(type)
        else {
            return false
        }
        var facts = ResponseFacts(status: table.status)
        for field in table.fields where field.known == .other { facts.take(table.text(field.name), table.text(field.value)) }
        return !facts.isEncoded && !facts.directives.noTransform
    }

    /// Whether the fields of a stored answer say a textual type, and nothing forbids to code it.
    static func isWorthwhile(_ fields: [FieldMerge.Field], _ facts: ResponseFacts) -> Bool {
        guard !facts.isEncoded, !facts.directives.noTransform, ![204, 205, 206, 304].contains(facts.status) else { return false }
        return fields.contains { field in
            field.name.withUnsafeBytes { $0.equals("content-type") } && field.value.withUnsafeBytes { isTextual($0) }
        }
    }

    private static let types: [StaticString] = [
        "application/json", "application/javascript", "application/xml", "application/x-javascript", "application/ndjson",
        "application/x-ndjson", "application/wasm", "application/yaml", "application/toml", "image/bmp", "font/ttf", "font/otf",
    ]

    /// Whether a `Content-Type` is textual, or repeats itself like text.
    static func isTextual(_ type: UnsafeRawBufferPointer) -> Bool {
        let name = essence(type)
        if name.count > 5, name.part(0, 5).equals("text/") { return true }
        for suffix: StaticString in ["+json", "+xml"] where name.count > suffix.utf8CodeUnitCount {
            if name.part(name.count - suffix.utf8CodeUnitCount, suffix.utf8CodeUnitCount).equals(suffix) { return true }
        }
        return types.contains { name.equals($0) }
    }

    /// Whether each piece of such a body is meant to be read at once.
    static func isStream(_ type: UnsafeRawBufferPointer) -> Bool {
        let name = essence(type)
        return name.equals("text/event-stream") || name.equals("application/x-ndjson") || name.equals("application/ndjson")
    }

    private static func essence(_ type: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        trimmed(type[..<(type.firstIndex(of: 59) ?? type.count)])
    }
}

/// Compressing a replica's answer on its way.
extension Exchange {
    /// Settles how the answer that begins goes to the client: notes in `additions` what its head says then.
    func settleCoding(_ table: HeadTable, _ additions: inout HeadRewriter.Additions) {
        guard Compressible.isWorthwhile(table) else { return }
        additions.varies = true
        guard let coding = request.coding, let type = table.first(.contentType),
            let coder = BodyCoder(coding, flushes: Compressible.isStream(type))
        else { return }
        additions.coding = coding
        if !request.isHead { answer.coder = coder }
    }

    /// Passes a part of a replica's body to the client, compressed if that was settled.
    func pass(_ bytes: UnsafeRawBufferPointer, to client: ClientSide) -> Bool {
        guard let coder = answer.coder else {
            guard client.pass(bytes) else { return false }
            answer.bytes += bytes.count
            return true
        }
        guard let count = coder.pass(bytes, to: client) else { return false }
        answer.bytes += count
        return true
    }

    /// Lets out what the coder holds back, where the client must have it at once (`isLast`: whatever it holds).
    func drainCoder(isLast: Bool, to client: ClientSide) {
        guard let coder = answer.coder, isLast || coder.flushes else { return }
        answer.bytes += (isLast ? coder.end(to: client) : coder.flush(to: client)) ?? 0
        if isLast { answer.coder = nil }
    }
}
