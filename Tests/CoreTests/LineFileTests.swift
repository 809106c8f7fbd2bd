import Basics
import Glibc
import JSONCoding
import Observability
import Synchronization
import TestSupport
import Testing

/// A bounded file of lines, on a real disk: what crashes, other writers and odd files leave in it.
@Suite struct LineFileTests {
    private static func lines(_ texts: [String]) -> ArraySlice<[UInt8]> { texts.map { Array(($0 + "\n").utf8) }[...] }

    private static func read(_ path: String, limit: Int = 1 << 20) throws -> [String] {
        var found: [String] = []
        try LineFile.read(path, limit: limit).each { line, _ in found.append(String(decoding: line, as: UTF8.self)) }
        return found
    }

    @Test func whateverIsWrittenItStaysWithinItsBound() async throws {
        try await withFolder { folder in
            let file = LineFile(try OpenFolder(folder + "/j"), name: "d", limit: 1000), path = folder + "/j/d"
            for round in 0..<300 {
                let texts = (0..<7).map { "\(round) \($0) " + String(repeating: "x", count: (round * 13 + $0) % 90) }
                let (written, failure) = file.append(Self.lines(texts))
                #expect(written == 7 && failure == nil)
                for name in [path, path + ".1"] where Files.exists(name) { #expect(try Files.size(name) <= 1000) }
            }
            let found = try Self.read(path)
            #expect(found.last?.hasPrefix("299 6 ") == true && found.count > 10)
            // In their order, and none is missing between the first and the last.
            let numbers = found.map { $0.split(separator: " ") }.map { Int($0[0])! * 7 + Int($0[1])! }
            #expect(numbers == Array(numbers[0]...numbers.last!))
            // A line that has no room at all does not stand in the way of others.
            let (written, failure) = file.append(Self.lines(["a", String(repeating: "y", count: 5000), "b"]))
            #expect(written == 3 && failure == nil)
            #expect(try Self.read(path).suffix(2) == ["a", "b"])
        }
    }

    @Test func aLineThatWasCutOffIsRemovedAndTheRestStays() async throws {
        try await withFolder { folder in
            let file = LineFile(try OpenFolder(folder + "/j"), name: "d", limit: 1000), path = folder + "/j/d"
            _ = file.append(Self.lines(["one", "two"]))
            #expect(truncate(path, 5) == 0)
            #expect(try Self.read(path) == ["one", "t"])
            _ = file.append(Self.lines(["three"]))
            #expect(try Self.read(path) == ["one", "three"])
            // Cut in its first line.
            #expect(truncate(path, 2) == 0)
            _ = file.append(Self.lines(["four"]))
            #expect(try Self.read(path) == ["four"])
        }
    }

    @Test func onlyItsOwnerMayReadIt() async throws {
        try await withFolder { folder in
            let file = LineFile(try OpenFolder(folder + "/j"), name: "d", limit: 1000)
            _ = file.append(Self.lines(["one"]))
            func mode(_ path: String) -> mode_t {
                var info = stat()
                return stat(path, &info) == 0 ? info.st_mode & 0o777 : 0
            }
            #expect(mode(folder + "/j") == 0o700 && mode(folder + "/j/d") == 0o600)
            chmod(folder + "/j/d", 0o644)
            _ = file.append(Self.lines(["two"]))
            #expect(mode(folder + "/j/d") == 0o600)
        }
    }

    /// Neither through a link, nor into a pipe (which would wait for its reader), nor into another folder of the same name.
    @Test func whatIsNoFileIsRefused() async throws {
        try await withFolder { folder in
            let open = try OpenFolder(folder + "/j"), path = folder + "/j/d"
            let file = LineFile(open, name: "d", limit: 1000)
            try Files.replace(folder + "/other", with: Array("kept\n".utf8))
            #expect(symlink(folder + "/other", path) == 0)
            #expect(file.append(Self.lines(["one"])).failure != nil)
            #expect(Files.text(folder + "/other") == "kept\n")
            unlink(path)
            #expect(mkfifo(path, 0o600) == 0)
            #expect(file.append(Self.lines(["one"])).failure != nil)
            #expect(throws: SystemError.self) { try Self.read(path) }
            unlink(path)
            Files.remove(folder + "/j")
            try Files.makeFolder(folder + "/j")
            let (written, failure) = file.append(Self.lines(["one"]))
            #expect(written == 0 && failure?.code == ENOENT && !Files.exists(path))
        }
    }

    @Test func aHugeFileIsReadAtItsEndOnly() async throws {
        try await withFolder { folder in
            let path = folder + "/d"
            try Files.replace(path, with: Array(String(repeating: "0123456789\n", count: 100_000).utf8))
            let contents = try LineFile.read(path, limit: 1000)
            var count = 0
            contents.each { line, _ in
                count += 1
                #expect(line.count == 10)
            }
            #expect((80...91).contains(count) && contents.leftOut == 1_100_000 - 1000)
            // Without any line feed there is no line in it.
            try Files.replace(path, with: [UInt8](repeating: 48, count: 100_000))
            #expect(try Self.read(path, limit: 1000).isEmpty)
        }
    }

    /// What was left out in the middle separates what came before from what came after.
    @Test func readUnbrokenNothingComesFromBeforeAGap() async throws {
        try await withFolder { folder in
            let path = folder + "/d"
            try Files.replace(path + ".1", with: Array("one\ntwo\n".utf8))
            try Files.replace(path, with: Array("three\nfour\n".utf8))
            func read(_ limit: Int, unbroken: Bool) throws -> [String] {
                var found: [String] = []
                try LineFile.read(path, limit: limit, unbroken: unbroken).each { line, _ in
                    found.append(String(decoding: line, as: UTF8.self))
                }
                return found
            }
            #expect(try read(11, unbroken: true) == ["one", "two", "three", "four"])
            #expect(try read(10, unbroken: true) == ["four"] && read(10, unbroken: false) == ["one", "two", "four"])
            #expect(try !LineFile.read(folder + "/none", limit: 10).isThere && LineFile.read(path, limit: 10).isThere)
        }
    }

    @Test func aFileThatCannotBeReadIsNotAbsent() async throws {
        try await withFolder { folder in
            #expect(try Files.firstLine(folder + "/none") == nil)
            try Files.replace(folder + "/some", with: Array("one\ntwo\n".utf8))
            #expect(try Files.firstLine(folder + "/some") == "one")
            #expect(throws: SystemError.self) { try Files.firstLine(folder) }
        }
    }

    @Test func aFolderReplacesAFileOfItsOwn() async throws {
        try await withFolder { folder in
            let open = try OpenFolder(folder + "/j"), path = folder + "/j/d"
            for text in ["one", "", "three"] {
                try open.replace("d", with: Array(text.utf8))
                #expect(Files.text(path) == text && Files.list(folder + "/j") == ["d"])
            }
            // Not in another folder of the same name.
            Files.remove(folder + "/j")
            try Files.makeFolder(folder + "/j")
            #expect(throws: SystemError.self) { try open.replace("d", with: []) }
            #expect(!Files.exists(path))
        }
    }

    @Test func aFollowerGoesOnOverRotations() async throws {
        try await withFolder { folder in
            let file = LineFile(try OpenFolder(folder + "/j"), name: "d", limit: 500), path = folder + "/j/d"
            var follower = LineFollower(path), found: [String] = []
            func look() throws {
                while true {
                    let lines = try follower.next()
                    if lines.isEmpty { return }
                    found += lines.map { String(decoding: $0, as: UTF8.self) }
                }
            }
            try look()
            for i in 0..<200 {
                _ = file.append(Self.lines(["line \(i)"]))
                if i % 20 == 0 { try look() }
            }
            try look()
            #expect(found == (0..<200).map { "line \($0)" })
        }
    }
}

/// A line of the journal's file says what was decided, whatever was decided; and whatever a line says, it is read or refused.
@Suite struct JournalLineTests {
    private static let record = DecisionRecord(
        .scale, subject: "web", inputs: [.init("replicas", 3), .init("a\"b\u{1}", "ü\n")], raw: "4",
        constraints: [.init("pace", before: "4", after: "3", reason: "r")], outcome: "3", sentence: "It stays.", flip: "more")

    private static func read(_ text: String) -> JournalLine.Content { JournalLine.read(Array(text.utf8)[...], JSONDocument()) }

    @Test func whatIsWrittenIsRead() throws {
        for kind in DecisionRecord.Kind.allCases {
            let record = DecisionRecord(
                kind, subject: Self.record.subject, inputs: Self.record.inputs, raw: "4", constraints: Self.record.constraints,
                outcome: "3",
                sentence: "s", flip: "f")
            let stamp = LineStamp(), at = WallTime(milliseconds: 1_764_547_200_123)
            let line = JournalLine.bytes(.init(at: at, record: record), stamp)
            #expect(line.last == 10 && line.dropLast().allSatisfy { $0 != 10 })
            guard case .decision(let entry, let read) = JournalLine.read(line.dropLast(), JSONDocument()) else {
                Issue.record("\(String(decoding: line, as: UTF8.self))")
                continue
            }
            #expect(entry.at == at && entry.record == record && read == stamp)
        }
        guard case .lost(17) = JournalLine.read(JournalLine.lost(17, at: .now, LineStamp()).dropLast(), JSONDocument()) else {
            Issue.record("lost")
            return
        }
    }

    @Test func passwordsAreHiddenAndLinesBounded() {
        let url = "redis://me:secret@h:1/0"
        func line(_ sentence: String, _ inputs: [DecisionRecord.Input] = []) -> String {
            let record = DecisionRecord(
                .scale, subject: "web", inputs: inputs, raw: url, constraints: [.init("x", before: url, after: url, reason: "of \(url)")],
                outcome: url, sentence: sentence, flip: "not \(url)")
            return String(decoding: JournalLine.bytes(.init(at: .now, record: record), LineStamp()), as: UTF8.self)
        }
        let text = line("It asks \(url) and http://token@h/p.", [.init(url, url)])
        #expect(!text.contains("secret") && !text.contains("token") && text.contains("me:***@h:1"), "\(text)")
        let long = String(repeating: "ü", count: 1 << 20)
        let escaped = String(repeating: "\u{1}", count: 7000)
        for text in [
            line(long, (0..<5000).map { .init("n\($0)", long) }), line(escaped, (0..<20).map { .init("n\($0)", escaped) }), line(escaped),
        ] {
            #expect(text.utf8.count <= JournalLine.longest, "\(text.utf8.count)")
            guard case .decision = Self.read(String(text.dropLast())) else {
                Issue.record("\(text.prefix(200))")
                continue
            }
        }
    }

    @Test func whatCannotBeReadIsRefused() {
        let line = JournalLine.bytes(.init(at: .now, record: Self.record), LineStamp(boot: "b"))
        let whole = String(decoding: line.dropLast(), as: UTF8.self)
        for cut in 0..<whole.utf8.count {
            guard case .damaged = Self.read(String(decoding: Array(whole.utf8.prefix(cut)), as: UTF8.self)) else {
                Issue.record("cut at \(cut)")
                continue
            }
        }
        func replaced(_ a: String, _ b: String) -> JournalLine.Content { Self.read(whole.replacing(a, with: b)) }
        for version in ["2", "-1", "9223372036854775807"] {
            guard case .otherVersion = replaced("\"v\":1", "\"v\":\(version)") else {
                Issue.record("version \(version)")
                continue
            }
        }
        guard case .otherVersion = replaced("\"kind\":\"scale\"", "\"kind\":\"later\"") else {
            Issue.record("kind")
            return
        }
        let damaged = [
            ("\"v\":1", "\"v\":1.5"), ("\"v\":1", "\"v\":18446744073709551615"), ("\"mono_ns\":", "\"mono_ns\":99999999999999999999"),
            ("\"mono_ns\":", "\"mono_ns\":-"), ("\"boot\":\"b\"", "\"boot\":1"), ("\"at\":\"", "\"at\":\"x"),
            ("\"sentence\":", "\"other\":"),
            ("\"replicas\":\"3\"", "\"replicas\":3"), ("\"inputs\":{", "\"inputs\":[{"), ("\"subject\":\"web\"", "\"subject\":null"),
        ]
        for (a, b) in damaged {
            guard case .damaged = replaced(a, b) else {
                Issue.record("\(b)")
                continue
            }
        }
        for text in [
            "", "{}", "[]", "1", "null", "\"x\"", String(repeating: "[", count: 60_000),
            "{\"v\":1,\"boot\":\"\",\"mono_ns\":1,\"at\":\"2026-01-01T00:00:00Z\",\"lost\":1e99}",
        ] {
            guard case .damaged = Self.read(text) else {
                Issue.record("\(text.prefix(80))")
                continue
            }
        }
    }

    /// No age is told where the machine was started again, or the time lies ahead.
    @Test func ageIsOfOneStartOfTheMachine() {
        let now = MonotonicTime(nanoseconds: 10_000_000_000)
        func age(_ at: Int64, _ boot: String) -> Duration? { LineStamp(boot: boot, at: .init(nanoseconds: at)).age(now, boot: "a") }
        #expect(age(4_000_000_000, "a") == .seconds(6))
        #expect(age(4_000_000_000, "b") == nil && age(11_000_000_000, "a") == nil)
        #expect(LineStamp(boot: "", at: .init(nanoseconds: 0)).age(now, boot: "") == nil)
    }

    @Test func aJournalBeginsWithWhatWasBefore() {
        let seen = Counter()
        let earlier = Journal.Entry(at: WallTime(milliseconds: 5), record: Self.record)
        let journal = Journal(earlier: [earlier]) { _ in seen.add() }
        #expect(journal.entries().count == 1 && seen.count == 0)
        journal.append(Self.record)
        #expect(journal.entries().map(\.at)[0].milliseconds == 5 && journal.entries().count == 2 && seen.count == 1)
    }
}

private final class Counter: Sendable {
    private let value = Mutex(0)
    func add() { value.withLock { $0 += 1 } }
    var count: Int { value.withLock { $0 } }
}
