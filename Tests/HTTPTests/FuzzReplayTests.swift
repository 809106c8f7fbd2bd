import Basics
import TestSupport
import Testing

@testable import HTTP

/// The fuzz target's property, over its committed corpus and seeded mutations of it: whatever comes, parsing ends in a value or a
/// failure, uses no more bytes than there are, and says the same however the bytes are split. (`Fuzz/run` does it for hours.)
@Suite struct FuzzReplayTests {
    private static let folder = projectFolder + "/Fuzz/corpus/http1"

    @Test func corpusAndMutations() throws {
        let names = Files.list(Self.folder)
        #expect(names.count >= 20)
        var random = SeededRandom(seed: 2026)
        for name in names {
            let seed = try Files.read("\(Self.folder)/\(name)")
            #expect(checkHTTP1(seed) == nil, "\(name)")
            for _ in 0..<150 {
                let mutated = mutate(seed, &random)
                #expect(checkHTTP1(mutated) == nil, "\(name) mutated: \(mutated)")
            }
        }
    }

    private func mutate(_ seed: [UInt8], _ random: inout SeededRandom) -> [UInt8] {
        var bytes = seed
        for _ in 0...Int.random(in: 0...4, using: &random) where !bytes.isEmpty {
            let at = Int.random(in: 0..<bytes.count, using: &random)
            switch Int.random(in: 0...4, using: &random) {
            case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
            case 1: bytes.remove(at: at)
            case 2: bytes.insert([0, 10, 13, 32, 58, 255].randomElement(using: &random)!, at: at)
            case 3: bytes.insert(contentsOf: bytes[at..<min(at + 9, bytes.count)], at: at)
            default: bytes = Array(bytes[..<at])
            }
        }
        return bytes
    }
}
