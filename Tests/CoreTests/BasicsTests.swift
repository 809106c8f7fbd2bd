import TestSupport
import Testing

@testable import Basics

@Suite struct CalendarTimeTests {
    @Test(arguments: [
        ("1970-01-01T00:00:00Z", 0), ("2026-11-21T03:30:00.123Z", 1_795_231_800_123), ("2026-11-21T04:30:00+01:00", 1_795_231_800_000),
        ("2024-02-29T23:59:59.9Z", 1_709_251_199_900), ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ("2026-11-21T03:30:00.123456789Z", 1_795_231_800_123),
    ])
    func reads(text: String, milliseconds: Int64) throws {
        #expect(try CalendarTime.parse(text).milliseconds == milliseconds)
    }

    @Test(arguments: [
        "", "now", "2026-11-21", "2026-11-21T03:30:00", "2026-11-21T03:30Z", "2026-1-21T03:30:00Z", "2026-11-21T03:30:00.Z",
        "2026-11-21T03:30:00ZZ",
        "2026-11-21T03:30:00+0100",
    ])
    func refusesOtherForms(text: String) {
        #expect(throws: CalendarTime.Failure.syntax) { try CalendarTime.parse(text) }
    }

    @Test(arguments: [
        "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:00+25:00",
    ])
    func refusesTimesThatDoNotExist(text: String) {
        #expect(throws: CalendarTime.Failure.outOfRange) { try CalendarTime.parse(text) }
    }

    @Test func readsWhatItRenders() throws {
        var random = SeededRandom(seed: 7)
        for _ in 0..<2000 {
            let time = WallTime(milliseconds: Int64.random(in: -62_167_219_200_000...253_402_300_799_999, using: &random))
            #expect(try CalendarTime.parse(CalendarTime.render(time)) == time)
        }
    }
}

@Suite struct DurationTests {
    @Test(arguments: [("250ms", 250_000_000), ("1.5s", 1_500_000_000), ("2m", 120_000_000_000), ("0s", 0), ("1d", 86_400_000_000_000)])
    func reads(text: String, nanoseconds: Int64) { #expect(Duration(text: text)?.nanoseconds == nanoseconds) }

    @Test(arguments: ["", "5", "5 s", "-5s", "s", "5x", "1e9s", "99999999999d", "infs", "nans", "1..5s"])
    func refuses(text: String) { #expect(Duration(text: text) == nil) }

    @Test func writesBriefly() {
        #expect(Duration.milliseconds(1500).brief == "1.5s")
        #expect(Duration.seconds(120).brief == "2m")
        #expect(Duration.zero.brief == "0s")
    }
}

@Suite struct ByteBufferTests {
    @Test func keepsWhatWasAppendedThroughGrowthAndConsumption() {
        var random = SeededRandom(seed: 3)
        var buffer = ByteBuffer()
        var model: [UInt8] = []
        for _ in 0..<3000 {
            if Bool.random(using: &random) {
                let piece = (0..<Int.random(in: 0...90, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
                buffer.append(piece)
                model += piece
            } else {
                let count = Int.random(in: 0...model.count, using: &random)
                buffer.consume(count)
                model.removeFirst(count)
            }
            #expect(Array(buffer.bytes) == model)
        }
    }

    @Test(arguments: [0, 7, 10, 99, 100, 4096, -12, Int.max, Int.min])
    func writesDecimals(value: Int) {
        var buffer = ByteBuffer()
        buffer.append(decimal: value)
        #expect(buffer.bytes.string == String(value))
    }

    @Test(arguments: [0, 9, 10, 255, 65536, Int.max])
    func writesHex(value: Int) {
        var buffer = ByteBuffer()
        buffer.append(hex: value)
        #expect(buffer.bytes.string == String(value, radix: 16))
    }
}

@Suite struct SmallThingsTests {
    @Test func boundedQueueRefusesBeyondItsCapacityAndKeepsOrder() {
        var queue = BoundedQueue<Int>(capacity: 3)
        let taken = (0..<5).map { queue.append($0) }
        #expect(taken == [true, true, true, false, false])
        let first = queue.removeFirst()
        #expect(first == 0)
        let again = queue.append(4)
        #expect(again)
        let rest = (0..<4).map { _ in queue.removeFirst() }
        #expect(rest == [1, 2, 4, nil])
    }

    @Test func backoffDoublesWithinItsJitterAndStopsAtItsLimit() {
        var random = SeededRandom(seed: 1)
        var backoff = Backoff(initial: .milliseconds(100), limit: .seconds(2))
        for full in [100, 200, 400, 800, 1600, 2000, 2000] {
            let wait = backoff.next(using: &random)
            #expect(wait >= .milliseconds(full / 2) && wait <= .milliseconds(full))
        }
        backoff.reset()
        let first = backoff.next(using: &random)
        #expect(first <= .milliseconds(100))
    }

    @Test func nearestWordFindsSlipsAndNothingElse() {
        #expect(nearestWord(to: "replcias", in: ["replicas", "routes"]) == "replicas")
        #expect(nearestWord(to: "por", in: ["port", "path"]) == "port")
        #expect(nearestWord(to: "xyzzy", in: ["port", "path"]) == nil)
        #expect(editDistance("ab", "ba") == 1)
    }

    /// A whole file is read up to 16 MiB; the end of a log is shown at any size.
    @Test func theLastLinesOfALargeLogAreFound() async throws {
        try await withFolder { folder in
            let path = folder + "/log"
            try Files.replace(path, with: [UInt8](repeating: 97, count: 17 << 20) + Array("\none\ntwo\r\nthree\n".utf8))
            #expect(Files.lastLines(path, 2) == ["two", "three"])
            #expect(Files.lastLines(folder + "/none", 2).isEmpty)
        }
    }

    @Test func secretsDiffer() {
        #expect(secretHex(bytes: 24).utf8.count == 48)
        #expect(secretHex(bytes: 24) != secretHex(bytes: 24))
    }
}
