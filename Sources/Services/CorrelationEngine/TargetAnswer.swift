import Basics
import HTTP
import JSONCoding
import ProtobufCoding

/// What a target's answer says about the records that it was sent: its status, and what stands in its body.
struct TargetAnswer: Equatable {
    enum Verdict: Equatable {
        case taken
        /// 2xx, but the body says that it did not take so many of the records. Not sent again: OTLP forbids it, and the answer would be the
        /// same.
        case takenWithout(Int)
        /// 2xx, but the body says that nothing was taken.
        case takenNothing
        /// This body will never do.
        case refused
        /// The target does not take compressed bodies.
        case notPacked
        /// Not now; after at least so long if the target said so.
        case later(Duration?)
    }

    let verdict: Verdict
    /// The target's own words, cut to 200 characters, or what is to be told of its answer; may be empty.
    let words: String

    /// Longest `Retry-After` that is believed.
    static let longestWait = Duration.seconds(3600)

    private init(_ verdict: Verdict, _ words: String) {
        self.verdict = verdict
        self.words = String(words.prefix(200))
    }

    init(_ response: HTTPClientResponse, packed: Bool, now: WallTime, _ document: JSONDocument) {
        switch response.status {
        case 200..<300: self = TargetAnswer.success(response, document)
        // These say that this body will never do. Anything else (no such path, no access, busy) may be mended, and is waited for.
        case 400, 413, 422: self.init(.refused, "status \(response.status): \(response.text.prefix(160))")
        case 415 where packed: self.init(.notPacked, "status 415")
        case 300..<400:
            let place =
                response.header("location").map { " to \($0.prefix(120)), which is not followed: name it in the target's URL" } ?? ""
            self.init(.later(nil), "status \(response.status)\(place)")
        default:
            let wait = response.header("retry-after").flatMap { TargetAnswer.wait($0, date: response.header("date"), now: now) }
            let text = response.text.prefix(160)
            self.init(.later(wait), text.isEmpty ? "status \(response.status)" : "status \(response.status): \(text)")
        }
    }

    /// `Retry-After`: seconds, or a date in one of HTTP's three forms, counted from the answer's own `Date` (so that clocks that differ do
    /// no harm). nil for anything else.
    static func wait(_ text: String, date: String?, now: WallTime) -> Duration? {
        let text = text.trimmed
        if !text.isEmpty, text.utf8.allSatisfy({ $0 &- 48 < 10 }) {
            // More digits than an Int has are a long time.
            return min(.seconds(Int(text).map { min($0, 1 << 30) } ?? 1 << 30), longestWait)
        }
        guard let then = httpTime(text) else { return nil }
        let from = date.flatMap { httpTime($0.trimmed) } ?? now
        let milliseconds = then.milliseconds.subtractingClamped(from.milliseconds)
        return .milliseconds(min(max(milliseconds, 0), longestWait.milliseconds))
    }

    // MARK: what an answer of 2xx says in its body

    private static func success(_ response: HTTPClientResponse, _ document: JSONDocument) -> TargetAnswer {
        if response.body.isEmpty || response.isCut { return TargetAnswer(.taken, "") }
        if response.header("content-type")?.lowercased().hasPrefix("application/x-protobuf") == true {
            return partialSuccess(response.body) ?? TargetAnswer(.taken, "")
        }
        guard response.body.first(where: { $0 > 32 }) == 123 else { return TargetAnswer(.taken, "") }
        let answer = try? document.parse(response.body) { root in partialSuccess(root) ?? failure(root) }
        return (answer ?? nil) ?? TargetAnswer(.taken, "")
    }

    private static func told(_ rejected: Int, _ message: String) -> TargetAnswer {
        TargetAnswer(rejected > 0 ? .takenWithout(rejected) : .taken, message)
    }

    /// OTLP's `Export…ServiceResponse`: field 1 is a partial success with 1 the count and 2 the message.
    private static func partialSuccess(_ body: [UInt8]) -> TargetAnswer? {
        body.withUnsafeBytes { bytes in
            var answer: TargetAnswer?
            var reader = ProtobufReader(bytes)
            while let field = try? reader.next() {
                guard field.number == 1, field.wire == .bytes else { continue }
                var rejected = 0, message = ""
                var inner = ProtobufReader(field.bytes)
                while let part = try? inner.next() {
                    if part.number == 1, part.wire == .varint { rejected = Int(clamping: part.int64) }
                    if part.number == 2, part.wire == .bytes { message = part.bytes.string }
                }
                answer = told(rejected, message)
            }
            return answer
        }
    }

    /// The same in JSON, in protobuf's names and in those of the schema.
    private static func partialSuccess(_ root: JSONElement) -> TargetAnswer? {
        guard let partial = root["partialSuccess"] ?? root["partial_success"], partial.kind == .object else { return nil }
        let count =
            partial["rejectedSpans"] ?? partial["rejectedLogRecords"] ?? partial["rejected_spans"] ?? partial["rejected_log_records"]
        let rejected = count.flatMap { $0.int ?? $0.string.flatMap { Int($0) } ?? $0.double.map { Int(clamped: $0) } } ?? 0
        return told(rejected, (partial["errorMessage"] ?? partial["error_message"])?.string ?? "")
    }

    /// `{"status":"error","error":"…"}` and its relatives, which Loki and proxies before it answer.
    private static func failure(_ root: JSONElement) -> TargetAnswer? {
        func words(_ element: JSONElement?) -> String? {
            switch element?.kind {
            case .string?: element?.string.flatMap { $0.isEmpty ? nil : $0 }
            case .object?: element?["message"]?.string ?? element?["reason"]?.string ?? "an error without words"
            case .array?: element?.array?.first.map { words($0) ?? "an error without words" }
            case .bool?: element?.bool == true ? "an error without words" : nil
            default: nil
            }
        }
        let said = words(root["error"]) ?? words(root["errors"])
        let isError = ["error", "failure", "failed", "fail"].contains(root["status"]?.string?.lowercased() ?? "")
        guard said != nil || isError else { return nil }
        return TargetAnswer(.takenNothing, said ?? words(root["message"]) ?? "an error without words")
    }
}

extension String {
    /// Without blanks and tabs at either end.
    var trimmed: String {
        let from = self.drop { $0 == " " || $0 == "\t" }
        guard let last = from.lastIndex(where: { $0 != " " && $0 != "\t" }) else { return "" }
        return String(from[...last])
    }
}
