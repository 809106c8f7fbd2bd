import Basics
import Compression
import JSONCoding
import Testing

@testable import ProtobufCoding

@Suite struct ProtobufTests {
    private func fields(_ bytes: [UInt8]) throws -> [(Int, UInt64, [UInt8])] {
        try bytes.withUnsafeBytes { raw in
            var reader = ProtobufReader(raw)
            var out: [(Int, UInt64, [UInt8])] = []
            while let field = try reader.next() { out.append((field.number, field.scalar, Array(field.bytes))) }
            return out
        }
    }

    @Test func readsWhatItWrites() throws {
        var writer = ProtobufWriter()
        writer.varint(1, .max)
        writer.fixed64(2, 7)
        writer.fixed32(3, 8)
        writer.string(4, "ä")
        writer.message(5) { $0.varint(1, 300) }
        let read = try fields(writer.bytes)
        #expect(read.map(\.0) == [1, 2, 3, 4, 5])
        #expect(read.map(\.1) == [.max, 7, 8, 0, 0])
        #expect(read[3].2 == Array("ä".utf8) && read[4].2 == [8, 0xAC, 2])
    }

    static let wrong: [[UInt8]] = [
        [8], [0, 1], [9, 1, 2], [13, 1], [10, 5, 1], [14], [15], [12], [11], [11, 8], [11, 20],
        [8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2], [10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        Array(repeating: 11, count: 100),
    ]

    @Test(arguments: wrong) func refusesWhatHasNoMeaning(bytes: [UInt8]) {
        #expect(throws: ProtobufFailure.self) { try fields(bytes) }
    }

    @Test func groupsAreUnknownFieldsAndPass() throws {
        #expect(try fields([11, 8, 1, 19, 20, 12, 16, 5]).map(\.0) == [2])
    }

    private static let schema = ProtobufSchema([
        .init(
            "Outer",
            [.init(1, "name", .string), .init(2, "inner", .message(0), repeated: true), .init(3, "count", .int64), .init(4, "id", .hex)])
    ])

    private func check(_ bytes: [UInt8]) throws { try bytes.withUnsafeBytes { try Self.schema.check($0, as: 0) } }

    @Test func checksToTheInnermostField() throws {
        try check([10, 1, 97, 18, 3, 10, 1, 98, 200, 1, 5])
        #expect(throws: ProtobufFailure.self) { try check([18, 3, 10, 1, 255]) }
        #expect(throws: ProtobufFailure.self) { try check([18, 2, 10, 5]) }
        #expect(throws: ProtobufFailure.self) { try check([8, 1]) }
        var deep: [UInt8] = []
        for _ in 0...ProtobufSchema.depthLimit { deep = [18] + length(deep.count) + deep }
        try check(Array(deep.dropFirst(deep.count > 128 ? 3 : 2)))
        #expect(throws: ProtobufFailure.self) { try check([18] + length(deep.count) + deep) }
    }

    private func length(_ count: Int) -> [UInt8] { count < 128 ? [UInt8(count)] : [UInt8(count & 127 | 128), UInt8(count >> 7)] }

    @Test func jsonBecomesProtobufOrTellsThePlace() throws {
        func encode(_ text: String) throws -> [UInt8] { try JSONDocument().parse(Array(text.utf8)) { try Self.schema.encode($0, as: 0) } }
        #expect(
            try encode(#"{"name":"a","inner":[{"name":"b"}],"count":"-1","id":"0aFF","other":1}"#) == [10, 1, 97, 18, 3, 10, 1, 98, 24]
                + Array(repeating: 255, count: 9)
                + [1, 34, 2, 10, 255])
        for (text, place) in [
            (#"{"inner":[{},{"name":5}]}"#, "inner[1].name"), (#"{"count":1.5}"#, "count"), (#"{"count":"9223372036854775808"}"#, "count"),
            (#"{"id":"0g"}"#, "id"),
            (#"{"inner":{}}"#, "inner"), ("[]", "the body"),
        ] {
            let failure = #expect(throws: ProtobufFailure.self) { try encode(text) }
            #expect(failure?.description.hasPrefix(place) == true, "\(failure?.description ?? "")")
        }
    }

    @Test func base64AndHex() {
        for count in 0..<20 {
            let bytes = (0..<count).map { UInt8(($0 * 37) & 255) }
            let text = bytes.withUnsafeBytes { encodeBase64($0) }
            #expect(Array(text.utf8).withUnsafeBytes { decodeBase64($0) } == bytes)
            #expect(Array(text.replacing("=", with: "").utf8).withUnsafeBytes { decodeBase64($0) } == bytes)
            let hex = bytes.withUnsafeBytes { hexText($0) }
            #expect(Array(hex.uppercased().utf8).withUnsafeBytes { decodeHex($0) } == bytes)
        }
        #expect(
            Array("a".utf8).withUnsafeBytes { decodeBase64($0) } == nil && Array("ab=c".utf8).withUnsafeBytes { decodeBase64($0) } == nil)
    }
}

@Suite struct GzipTests {
    @Test(arguments: [0, 1, 1000, 100_000]) func whatIsPackedComesBack(count: Int) throws {
        var random = SeededRandom(seed: 1)
        let bytes = (0..<count).map { _ in UInt8.random(in: 0...60, using: &random) }
        #expect(try Gzip.unpack(Gzip.pack(bytes), limit: count) == bytes)
    }

    @Test func severalMembersAreOneBody() throws {
        #expect(try Gzip.unpack(Gzip.pack([1, 2]) + Gzip.pack([3]), limit: 10) == [1, 2, 3])
    }

    @Test func aBombCostsItsLimitAndNoMore() {
        let bomb = Gzip.pack(Array(repeating: 0, count: 50 << 20))
        #expect(bomb.count < 300_000)
        #expect(throws: Gzip.Failure.tooLarge(limit: 1 << 20)) { try Gzip.unpack(bomb, limit: 1 << 20) }
        #expect(throws: Gzip.Failure.tooLarge(limit: 1)) { try Gzip.unpack(Gzip.pack([1, 2]), limit: 1) }
    }

    @Test func everyTruncationIsRefused() {
        let packed = Gzip.pack(Array("a body that is long enough to have several blocks".utf8))
        for count in 0..<packed.count { #expect(throws: Gzip.Failure.self) { try Gzip.unpack(Array(packed.prefix(count)), limit: 1000) } }
        #expect(throws: Gzip.Failure.self) { try Gzip.unpack(Array("not gzip at all".utf8), limit: 1000) }
    }
}
