import Basics
import CBrotli
import CZstd
import Compression
import Testing

/// What an encoder makes in pieces is what a decoder reads as a whole.
struct StreamEncoderTests {
    private static func decode(_ bytes: [UInt8], _ coding: StreamEncoder.Coding, most: Int) -> [UInt8]? {
        switch coding {
        case .gzip: return try? Gzip.unpack(bytes, limit: most)
        case .brotli:
            var size = most, out = [UInt8](repeating: 0, count: most + 1)
            guard BrotliDecoderDecompress(bytes.count, bytes, &size, &out) == BROTLI_DECODER_RESULT_SUCCESS else { return nil }
            return Array(out[..<size])
        case .zstd:
            var out = [UInt8](repeating: 0, count: most + 1)
            let size = ZSTD_decompress(&out, out.count, bytes, bytes.count)
            return ZSTD_isError(size) != 0 ? nil : Array(out[..<size])
        }
    }

    private static func text(_ count: Int, _ random: inout SeededRandom) -> [UInt8] {
        (0..<count).map { _ in UInt8(97 + random.next() % 7) }
    }

    @Test(arguments: [StreamEncoder.Coding.zstd, .brotli, .gzip])
    func piecesMakeAWhole(_ coding: StreamEncoder.Coding) throws {
        var random = SeededRandom(seed: 11)
        for size in [0, 1, 1000, 70_000, 400_000] {
            let plain = Self.text(size, &random), encoder = try #require(StreamEncoder(coding))
            var made: [UInt8] = [], at = 0
            while at < size {
                let piece = min(size - at, 1 + Int(random.next() % 50_000))
                let passed = plain[at..<at + piece].withUnsafeBytes { encoder.pass($0) { made += $0 } }
                #expect(passed)
                if random.next() % 3 == 0 {
                    let flushed = encoder.flush { made += $0 }
                    #expect(flushed)
                }
                at += piece
            }
            let ended = encoder.end { made += $0 }
            #expect(ended && Self.decode(made, coding, most: size) == plain, "\(coding) \(size)")
            if size >= 1000 { #expect(made.count < size) }
        }
    }

    @Test func whatIsFlushedCanBeReadAtOnce() throws {
        for coding in [StreamEncoder.Coding.zstd, .brotli, .gzip] {
            let encoder = try #require(StreamEncoder(coding))
            var made = 0
            let event = Array("data: hello\n\n".utf8)
            _ = event.withUnsafeBytes { encoder.pass($0) { made += $0.count } }
            _ = encoder.flush { made += $0.count }
            #expect(made > 0)
        }
    }
}
