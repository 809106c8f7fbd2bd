import Basics

/// Takes a chunked body apart as its bytes arrive (RFC 9112, 7.1), strictly: sizes are 1 to 15 hex digits,
/// lines end in CR LF, extensions are read, bounded and dropped; trailers are kept, as the lines that they are.
///
/// Every byte that is no data counts against `ornamentLimit`: sizes, extensions, line ends, trailers. A chunk pays for 20 such bytes (a size
/// and its two line ends) and for two more with each byte of its data, as in Go's net/http; what it does not use is not saved up. So no
/// body is much longer on the wire than its data, however its chunks are cut.
struct ChunkDecoder {
    private enum State {
        case size(digits: Int)
        case extensions
        case sizeLineFeed
        case data
        case dataReturn
        case dataLineFeed
        case trailerStart
        case trailerName
        case trailerValue
        case trailerLineFeed
        case endLineFeed
        case done
    }

    /// Most bytes of a body that are no data and that no chunk pays for.
    private static let ornamentLimit = 8192
    /// Bytes that each chunk pays for: at most 15 digits, and two line ends.
    private static let perChunk = 20

    private var state = State.size(digits: 0)
    private var remaining = 0
    private var ornament = 0
    /// The lines after the last chunk; nil as long as there is none, so that a body without trailers pays nothing for them.
    private(set) var trailers: TrailerText?

    var isDone: Bool { if case .done = state { true } else { false } }

    /// Hands pieces of the body to `body` (which returns false to stop early) and returns how many bytes of
    /// `bytes` were used; what follows the end is not touched.
    mutating func decode(
        _ bytes: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) throws(HTTPFailure) -> Bool
    ) throws(HTTPFailure) -> Int {
        let span = Span<UInt8>(_unsafeBytes: bytes)
        var at = 0
        while at < span.count {
            if case .done = state { return at }
            if case .data = state {
                let part = min(remaining, span.count - at)
                remaining -= part
                if remaining == 0 { state = .dataReturn }
                at += part
                if try !body(bytes.part(at - part, part)) { return at }
                continue
            }
            try count()
            try step(span[at])
            at += 1
        }
        return at
    }

    private mutating func step(_ byte: UInt8) throws(HTTPFailure) {
        switch state {
        case .size(let digits):
            if let value = ChunkDecoder.hex(byte) {
                guard digits < 15 else { throw .badChunk }
                remaining = remaining << 4 | value
                state = .size(digits: digits + 1)
            } else {
                guard digits > 0 else { throw .badChunk }
                if byte == 13 { state = .sizeLineFeed } else if byte == 59 { state = .extensions } else { throw .badChunk }
            }
        case .extensions:
            if byte == 13 { state = .sizeLineFeed } else { try check(byte) }
        case .sizeLineFeed:
            guard byte == 10 else { throw .badChunk }
            state = remaining == 0 ? .trailerStart : .data
            // A size is below 2^60: twice that fits.
            if remaining > 0 { ornament = max(0, ornament - ChunkDecoder.perChunk - 2 * remaining) }
        case .dataReturn:
            guard byte == 13 else { throw .badChunk }
            state = .dataLineFeed
        case .dataLineFeed:
            guard byte == 10 else { throw .badChunk }
            state = .size(digits: 0)
        case .trailerStart:
            if byte == 13 {
                state = .endLineFeed
            } else {
                guard HeadParser.isToken(byte) else { throw .badChunk }
                state = .trailerName
                if trailers == nil { trailers = TrailerText() }
                trailers?.text.append(byte)
            }
        case .trailerName:
            if byte == 58 {
                state = .trailerValue
            } else {
                guard HeadParser.isToken(byte) else { throw .badChunk }
            }
            trailers?.text.append(byte)
        case .trailerValue:
            if byte == 13 { state = .trailerLineFeed } else { try check(byte) }
            trailers?.text.append(byte)
        case .trailerLineFeed:
            guard byte == 10 else { throw .badChunk }
            trailers?.text.append(byte)
            state = .trailerStart
        case .endLineFeed:
            guard byte == 10 else { throw .badChunk }
            trailers?.text.append("\r\n")
            state = .done
        case .data, .done: break
        }
    }

    private mutating func count() throws(HTTPFailure) {
        ornament += 1
        guard ornament <= ChunkDecoder.ornamentLimit + ChunkDecoder.perChunk else { throw .badChunk }
    }

    private func check(_ byte: UInt8) throws(HTTPFailure) {
        guard byte >= 32 || byte == 9, byte != 127 else { throw .badChunk }
    }

    private static func hex(_ byte: UInt8) -> Int? {
        if byte &- 48 < 10 { return Int(byte - 48) }
        let lower = byte | 32
        return lower &- 97 < 6 ? Int(lower - 87) : nil
    }
}

/// The fields after a chunked body as they came, with the empty line that ends them. At most as long as `ChunkDecoder` lets ornament be.
final class TrailerText {
    var text = ByteBuffer()
}
