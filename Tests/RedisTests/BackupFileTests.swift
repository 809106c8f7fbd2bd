import Basics
import Glibc
import Sharding
import TestSupport
import Testing

@testable import Provisioning

@Suite struct RDBFileTests {
    /// What Redis 7.0.15 wrote by SAVE: a library, "a" = 1, "b" = 2 with a time.
    private static let real = decode(
        "524544495330303130fa0972656469732d76657206372e302e3135fa0a72656469732d62697473c040fa056374696d65c29d9c016bfa08757365642d6d656dc2f8b60e00fa08616f662d62617365"
            + "c000f5404223216c7561206e616d653d660a72656469732e72656769737465725f66756e6374696f6e282767272c2066756e6374696f6e28292072657475726e203120656e6429fe00fb0201fc"
            + "d2a74104a2010000000162c002000161c001ff454e1968080fa02c")

    private static func decode(_ hex: String) -> [UInt8] {
        let text = Array(hex.utf8)
        return text.withUnsafeBytes { decodeHex($0) ?? [] }
    }

    private func inspect(_ bytes: [UInt8]) async throws -> Result<RDBFile, RDBFile.Failure> {
        try await withFolder { folder in
            try Files.replace(folder + "/x.rdb", with: bytes)
            do throws(RDBFile.Failure) { return .success(try RDBFile(folder + "/x.rdb")) } catch { return .failure(error) }
        }
    }

    @Test func aRealOneIsRead() async throws {
        let file = try await inspect(Self.real).get()
        #expect(file.header.version == 10 && file.header.keys == 2 && file.header.expiring == 1 && file.header.libraries == 1)
        #expect(
            file.header.fields["redis-ver"] == "7.0.15" && file.header.fields["redis-bits"] == "64" && file.header.fields["aof-base"] == "0"
        )
        #expect(file.header.fields["used-mem"] == "964344" && file.bytes == Self.real.count && file.hasChecksum)
    }

    /// Redis' own test vector.
    @Test(arguments: [1, 7, 8, 9, 64]) func theChecksumIsRedis(pieces: Int) {
        let text = Array("123456789".utf8)
        var whole = RDBChecksum()
        for start in stride(from: 0, to: text.count, by: pieces) {
            Array(text[start..<min(text.count, start + pieces)]).withUnsafeBytes { whole.add($0) }
        }
        #expect(whole.value == 0xE9C6_D914_C4B8_D9CA)
    }

    @Test func eachFlippedBitIsFound() async throws {
        for i in Self.real.indices {
            var bytes = Self.real
            bytes[i] ^= 1 << UInt8(i % 8)
            let result = try await inspect(bytes)
            guard case .failure = result else {
                Issue.record("byte \(i) was flipped and nothing was said")
                continue
            }
        }
    }

    @Test func eachCutIsFound() async throws {
        for count in 0..<Self.real.count {
            let result = try await inspect(Array(Self.real[..<count]))
            guard case .failure = result else {
                Issue.record("\(count) bytes were taken for a whole snapshot")
                continue
            }
        }
    }

    /// `rdbchecksum no` writes zeros.
    @Test func withoutAChecksumOfItsOwnItSaysSo() async throws {
        let file = try await inspect(Self.real.dropLast(8) + Array(repeating: 0, count: 8)).get()
        #expect(!file.hasChecksum && file.header.keys == 2)
    }

    @Test func lengthsBeyondTheFileEnd() async throws {
        // An empty one with a length of 64 bits where a name is expected.
        let bytes = Array("REDIS0010".utf8) + [0xFA, 0x81] + Array(repeating: 0xFF, count: 8) + Array(repeating: 0, count: 9)
        let result = try await inspect(bytes)
        guard case .failure(let failure) = result else { throw SystemError("no failure", EINVAL) }
        #expect(failure.description.contains("damaged"))
    }
}

@Suite struct BackupManifestTests {
    static func shard(_ slots: ClosedRange<Int>, at moment: Int64) -> BackupManifest.Shard {
        BackupManifest.Shard(
            id: "c2069fad096edf18e9294b8e6fc038145342c086", address: "10.0.0.1:7001", configEpoch: 3, slots: SlotSet([slots]),
            sourceID: "x", source: "10.0.0.4:7004",
            replicationID: "r", offset: 77, lag: 5, file: "a\(slots.lowerBound).rdb", bytes: 100, sha256: "0123", keys: 7, expiring: 2,
            redisVersion: "7.0.15",
            begun: WallTime(milliseconds: moment), ended: WallTime(milliseconds: moment + 50))
    }
    static let manifest = BackupManifest(
        begun: WallTime(milliseconds: 1_700_000_000_000), ended: WallTime(milliseconds: 1_700_000_001_000),
        shards: [shard(0...8191, at: 1_700_000_000_100), shard(8192...16383, at: 1_700_000_000_112)])

    @Test func whatIsWrittenIsRead() throws {
        let read = try BackupManifest(json: Array(Self.manifest.json.utf8))
        #expect(read == Self.manifest)
        #expect(read.keys == 14 && read.bytes == 200 && read.spread == .milliseconds(12))
    }

    static let wrong: [(from: String, to: String, says: String)] = [
        ("\"format\":1", "\"format\":2", "later version"), ("\"format\":1", "\"form\":1", "its format"),
        ("0-8191", "0-8190", "exactly one master"),
        ("8192-16383", "8191-16383", "exactly one master"), ("0-8191", "0-99999", "no range of slots"),
        ("a0.rdb", "../a.rdb", "no name of a snapshot"),
        ("\"bytes\":100", "\"bytes\":-1", "masters[0].bytes"), ("\"keys\":7", "\"keys\":\"7\"", "masters[0].keys"),
        ("\"sha256\"", "\"sha\"", "masters[0].sha256"),
        ("2023-11-14T22:13:20.100Z", "yesterday", "no time"), ("\"masters\":[", "\"masters\":[1,", "masters[0].file"),
        ("{\"format\"", "{{\"format\"", "cannot be read"),
    ]

    @Test(arguments: wrong.indices) func whatWasAlteredIsNamed(i: Int) throws {
        let (from, to, says) = Self.wrong[i]
        let text = Self.manifest.json
        var changed = ""
        for (n, part) in text.split(separator: from, maxSplits: 1, omittingEmptySubsequences: false).enumerated() {
            changed += (n == 0 ? "" : to) + part
        }
        #expect(changed != text)
        let failure = #expect(throws: BackupManifest.Failure.self) { try BackupManifest(json: Array(changed.utf8)) }
        #expect(failure?.description.contains(says) == true, "\(failure?.description ?? "")")
    }
}

@Suite struct RestoreBoundsTests {
    @Test func aTagLeadsToItsSlot() {
        for slot in [0, 1, 5461, 16383] { #expect(HashSlot.of("{\(RestoreLargeKey.tag(slot: slot))}:muster:restore:ff") == slot) }
    }

    /// Elements of a command: about 1 MiB of them, at most 1,000, never none.
    @Test(arguments: [(100 << 20, 100, 1), (100 << 20, 1_000_000, 1000), (8 << 20, 80, 10), (5 << 20, 1, 1), (0, 0, 1)])
    func piecesAreBounded(
        size: Int, length: Int, count: Int
    ) {
        let found = RestoreLargeKey.count(size: size, length: length)
        #expect(found == max(1, count == 1000 ? 1000 : length * RestoreLargeKey.elementBytes / max(1, size)) && found == count)
    }

    @Test func versionsAreCompared() {
        #expect(
            Restore.version("7.0.15") > Restore.version("6.2.99") && Restore.version("7.10") > Restore.version("7.2.1")
                && Restore.version("7.0.1") == Restore.version("7.0.15"))
    }
}
