import CPCRE2

/// A regular expression (PCRE2, what nginx and HAProxy use), compiled once, shared by all threads.
///
/// Bounds: a pattern has at most 1,024 bytes; a match takes at most `stepLimit` steps and `stackLimit` bytes of stack, and what would take
/// more is `undecided`. So an expression that backtracks without end (`(a+)+$`) costs a bounded time, whatever a client sends. Whoever asks
/// must not take what was not decided for a no: the length of a subject would choose the answer then.
public final class Pattern: @unchecked Sendable {
    // @unchecked: the compiled code is never written after `init`; PCRE2 allows any number of threads to match with it.
    private let code: OpaquePointer
    public let text: String
    /// The number of the pattern's groups.
    public let groups: Int

    /// About a millisecond of backtracking here.
    static let stepLimit: UInt32 = 100_000
    static let lengthLimit = 1024
    /// In bytes. What PCRE2 takes by itself, 32 KiB, is spent after 1,411 characters of `(.|/)*`; this is enough for those of a longest
    /// request line (8 KiB) several times over, and is asked for only then.
    static let stackLimit = 1 << 20
    /// Where there is no JIT, the memory that takes the stack's place, in KiB.
    static let heapLimit: UInt32 = 8192

    /// What became of a search.
    public enum Outcome<Found> {
        case found(Found)
        case none
        /// A bound was reached before the search had ended.
        case undecided
    }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    public init(_ text: String) throws(Failure) {
        self.text = text
        guard text.utf8.count <= Pattern.lengthLimit else { throw Failure(description: "longer than \(Pattern.lengthLimit) bytes") }
        var error: Int32 = 0, offset = 0
        let bytes = Array(text.utf8)
        // Never reads beyond what is given and takes any bytes: a path need not be UTF-8.
        guard let code = pcre2_compile_8(bytes, bytes.count, UInt32(PCRE2_NEVER_UTF) | UInt32(PCRE2_DOLLAR_ENDONLY), &error, &offset, nil)
        else {
            var message = [UInt8](repeating: 0, count: 256)
            let length = pcre2_get_error_message_8(error, &message, message.count)
            throw Failure(description: "\(String(decoding: message[..<max(0, Int(length))], as: UTF8.self)) at character \(offset + 1)")
        }
        _ = pcre2_jit_compile_8(code, UInt32(PCRE2_JIT_COMPLETE))
        var count: UInt32 = 0
        pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_CAPTURECOUNT), &count)
        self.code = code
        groups = Int(count)
    }

    deinit { pcre2_code_free_8(code) }

    /// The places of a match and of its groups: `[0]` is the whole match; a group that took no part is nil.
    public func match(_ subject: UnsafeRawBufferPointer) -> Outcome<[Range<Int>?]> {
        withMatch(subject) { data, count in
            guard let vector = pcre2_get_ovector_pointer_8(data) else { return [] }
            var out: [Range<Int>?] = []
            for i in 0...groups {
                // PCRE2_UNSET, -1 here, is a group that took no part; beyond `count` nothing was set.
                let start = vector[2 * i], end = vector[2 * i + 1]
                out.append(i < count && start >= 0 && start <= end && end <= subject.count ? start..<end : nil)
            }
            return out
        }
    }

    /// Whether the pattern is somewhere in `subject`.
    public func matches(_ subject: UnsafeRawBufferPointer) -> MatchVerdict {
        switch withMatch(subject, { _, _ in () }) {
        case .found: .yes
        case .none: .no
        case .undecided: .undecided
        }
    }

    public func matches(_ text: String) -> MatchVerdict {
        var text = text
        return text.withUTF8 { matches(UnsafeRawBufferPointer($0)) }
    }

    private func withMatch<T>(_ subject: UnsafeRawBufferPointer, _ body: (OpaquePointer, Int) -> T) -> Outcome<T> {
        guard let data = pcre2_match_data_create_from_pattern_8(code, nil), let context = pcre2_match_context_create_8(nil) else {
            return .undecided
        }
        defer {
            pcre2_match_data_free_8(data)
            pcre2_match_context_free_8(context)
        }
        pcre2_set_match_limit_8(context, Pattern.stepLimit)
        pcre2_set_heap_limit_8(context, Pattern.heapLimit)
        let empty: StaticString = ""
        let base = subject.baseAddress?.assumingMemoryBound(to: UInt8.self) ?? empty.utf8Start
        var count = pcre2_match_8(code, base, subject.count, 0, 0, data, context)
        if count == PCRE2_ERROR_JIT_STACKLIMIT, let stack = pcre2_jit_stack_create_8(32_768, Pattern.stackLimit, nil) {
            // The stack is this match's own: no two threads may have one at a time.
            pcre2_jit_stack_assign_8(context, nil, UnsafeMutableRawPointer(stack))
            count = pcre2_match_8(code, base, subject.count, 0, 0, data, context)
            pcre2_jit_stack_assign_8(context, nil, nil)
            pcre2_jit_stack_free_8(stack)
        }
        if count > 0 { return .found(body(data, Int(count))) }
        return count == PCRE2_ERROR_NOMATCH ? .none : .undecided
    }
}

/// The answer to a question that may be beyond its bounds.
public enum MatchVerdict: Sendable, Equatable {
    case yes, no
    case undecided

    /// This, or else what `other` says: yes if either is, and no only if both are.
    public func or(_ other: @autoclosure () -> MatchVerdict) -> MatchVerdict {
        if self == .yes { return .yes }
        let second = other()
        return second == .no ? self : second
    }

    /// This and what `other` says: no if either is, and yes only if both are.
    public func and(_ other: @autoclosure () -> MatchVerdict) -> MatchVerdict {
        if self == .no { return .no }
        let second = other()
        return second == .yes ? self : second
    }
}

/// A text with places for a pattern's groups: `/v2/$1`. `$0` is the whole match, `$$` a dollar sign.
public struct Replacement: Sendable, Equatable {
    private enum Part: Sendable, Equatable {
        case text([UInt8])
        case group(Int)
    }
    private var parts: [Part] = []

    /// nil when the text names a group that the pattern does not have.
    public init?(_ text: String, groups: Int) {
        var literal: [UInt8] = []
        var bytes = Array(text.utf8)[...]
        while let byte = bytes.popFirst() {
            guard byte == 36, let next = bytes.first else {
                literal.append(byte)
                continue
            }
            bytes.removeFirst()
            if next == 36 {
                literal.append(36)
            } else if next &- 48 < 10 {
                guard Int(next - 48) <= groups else { return nil }
                parts.append(.text(literal))
                literal = []
                parts.append(.group(Int(next - 48)))
            } else {
                return nil
            }
        }
        parts.append(.text(literal))
    }

    /// The text, with its places filled from the groups of a match of `subject`.
    public func fill(_ match: [Range<Int>?], of subject: UnsafeRawBufferPointer) -> [UInt8] {
        var out: [UInt8] = []
        for part in parts {
            switch part {
            case .text(let bytes): out += bytes
            case .group(let number): if number < match.count, let range = match[number] { out += subject[range] }
            }
        }
        return out
    }
}
