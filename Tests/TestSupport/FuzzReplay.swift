import Basics

/// A fuzz target's committed corpus, and what becomes of it by a few changes. The same seed gives the same bytes.
public enum FuzzReplay {
    public static func corpus(_ target: String) throws -> [(name: String, bytes: [UInt8])] {
        try files("\(projectFolder)/Fuzz/corpus/\(target)")
    }

    private static func files(_ folder: String) throws -> [(name: String, bytes: [UInt8])] {
        try Files.list(folder).map { ($0, try Files.read("\(folder)/\($0)")) }
    }

    /// What `check` finds wrong: first in the corpus, then in `mutations` of each of its files. Stops after ten.
    public static func faults(_ target: String, mutations: Int, _ check: ([UInt8]) -> String?) throws -> [String] {
        try faults(in: "\(projectFolder)/Fuzz/corpus/\(target)", mutations: mutations, check)
    }

    /// The same of the files in a folder.
    public static func faults(in folder: String, mutations: Int, _ check: ([UInt8]) -> String?) throws -> [String] {
        var random = SeededRandom(seed: 2026)
        var faults: [String] = []
        for (name, seed) in try files(folder) {
            if let wrong = check(seed) { faults.append("\(name): \(wrong)") }
            for _ in 0..<mutations where faults.count < 10 {
                let mutated = mutate(seed, &random)
                if let wrong = check(mutated) { faults.append("\(name) mutated, \(mutated): \(wrong)") }
            }
        }
        return faults
    }

    private static func mutate(_ seed: [UInt8], _ random: inout SeededRandom) -> [UInt8] {
        var bytes = seed
        for _ in 0...Int.random(in: 0...4, using: &random) where !bytes.isEmpty {
            let at = Int.random(in: 0..<bytes.count, using: &random)
            switch Int.random(in: 0...4, using: &random) {
            case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
            case 1: bytes.remove(at: at)
            case 2: bytes.insert([0, 10, 13, 32, 37, 46, 47, 58, 59, 92, 255].randomElement(using: &random)!, at: at)
            case 3: bytes.insert(contentsOf: bytes[at..<min(at + 9, bytes.count)], at: at)
            default: bytes = Array(bytes[..<at])
            }
        }
        return bytes
    }
}
