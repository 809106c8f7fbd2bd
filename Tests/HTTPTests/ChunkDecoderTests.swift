import Basics
import Testing

@testable import HTTP

@Suite struct ChunkDecoderTests {
    /// The body and how many bytes were used, or nil when it was refused; fed in pieces of at most `piece` bytes.
    private func decode(_ text: String, piece: Int) -> (body: String, used: Int, done: Bool)? {
        let bytes = Array(text.utf8)
        var decoder = ChunkDecoder()
        var body: [UInt8] = []
        var used = 0
        return bytes.withUnsafeBytes { raw in
            do throws(HTTPFailure) {
                while used < bytes.count, !decoder.isDone {
                    let part = UnsafeRawBufferPointer(rebasing: raw[used..<min(used + piece, bytes.count)])
                    used += try decoder.decode(part) { (bytes) throws(HTTPFailure) -> Bool in
                        body.append(contentsOf: bytes)
                        return true
                    }
                }
                return (String(decoding: body, as: UTF8.self), used, decoder.isDone)
            } catch { return nil }
        }
    }

    @Test(arguments: [1, 2, 3, 7, 1000])
    func decodesInPiecesOfAnySize(piece: Int) {
        let text = "5\r\nhello\r\n6;ext=\"x\"\r\n world\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
        let result = decode(text + "GET", piece: piece)
        #expect(result?.body == "hello world0123456789")
        #expect(result?.used == text.utf8.count)
        #expect(result?.done == true)
    }

    @Test(arguments: [
        "x\r\n", "\r\n", "-1\r\n", "+1\r\nx\r\n", "0x1\r\n", " 1\r\nx", "1 \r\nx\r\n", "1\nx\n0\n\n", "1\r\nxy\r\n", "1\r\nx\n0\r\n\r\n",
        "1\r\nx\rX",
        "FFFFFFFFFFFFFFFF\r\n",
        "0\r\nBad Trailer: x\r\n\r\n", "0\r\n\n", "0\r\n x\r\n\r\n", "1;a\nb\r\nx\r\n", "1;\u{0}\r\nx\r\n",
    ])
    func refuses(text: String) {
        #expect(decode(text, piece: 1) == nil)
        #expect(decode(text, piece: 1000) == nil)
    }

    @Test func ornamentIsBounded() {
        #expect(decode("1;" + String(repeating: "a", count: 9000) + "\r\nx\r\n", piece: 500) == nil)
        #expect(decode("0\r\n" + String(repeating: "A: b\r\n", count: 5000) + "\r\n", piece: 500) == nil)
    }

    /// Every byte that is no data counts: names, colons and line ends of trailers, extensions of many chunks together.
    @Test func nothingIsFree() {
        #expect(decode("0\r\n" + String(repeating: "a:\r\n", count: 3000) + "\r\n", piece: 500) == nil)
        #expect(decode("0\r\n" + String(repeating: "a:\r\n", count: 300) + "\r\n", piece: 500) != nil)
        let chunk = "1;" + String(repeating: "a", count: 4000) + "\r\nx\r\n"
        #expect(decode(chunk + "0\r\n\r\n", piece: 500) != nil)
        #expect(decode(chunk + chunk + chunk + "0\r\n\r\n", piece: 500) == nil)
        let zeros = "000000000000001\r\nx\r\n"
        #expect(decode(String(repeating: zeros, count: 10_000) + "0\r\n\r\n", piece: 1000)?.body.utf8.count == 10_000)
    }

    /// Signatures of chunks, as object stores are sent them, are no more than their data pays for.
    @Test func extensionsOfLargeChunksAreTaken() {
        let data = String(repeating: "x", count: 1024)
        let chunk = "400;chunk-signature=" + String(repeating: "0", count: 64) + "\r\n\(data)\r\n"
        #expect(decode(String(repeating: chunk, count: 2000) + "0\r\n\r\n", piece: 4096)?.body.utf8.count == 2_048_000)
    }
}
