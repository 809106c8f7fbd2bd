import Basics
import TestSupport
import Testing

@testable import Observability

@Suite struct SampleSelectorTests {
    @Test(arguments: [
        ("up", "up"), (" job:rate:5m ", "job:rate:5m"), ("up{}", "up"), ("up { a = \"1\" , b != \"2\" , }", "up{a=\"1\",b!=\"2\"}"),
        ("up{a=\"x\\\"y\\\\z\\nw\"}", "up{a=\"x\\\"y\\\\z\\nw\"}"),
    ])
    func readsAndWrites(text: String, form: String) throws {
        let selector = try SampleSelector(text)
        #expect(selector.description == form)
        #expect(try SampleSelector(form) == selector)
    }

    @Test(arguments: [
        ("", 1, "expected a metric's name, such as queue_depth"), ("1up", 1, "expected a metric's name, such as queue_depth"),
        ("up{a}", 5, "expected = or !="), ("up{a=~\"x\"}", 6, "expressions are not taken; name the value with = or !="),
        ("up{a!~\"x\"}", 6, "expressions are not taken; name the value with = or !="), ("up{a=x}", 6, "expected a value in \" \""),
        ("up{a=\"x}", 9, "the value has no closing \""), ("up{a=\"x\" b", 10, "expected , or }"),
        ("up{a=\"\\d\"}", 8, "after \\ stands \\, \" or n"),
        ("up{a=\"x\"} > 1", 11, "expected the end, or conditions in braces"), ("up{,}", 4, "expected a label's name or }"),
    ])
    func saysWhatIsWrongAndWhere(text: String, column: Int, reason: String) {
        #expect(throws: SampleSelector.Failure(reason: reason, column: column)) { try SampleSelector(text) }
    }

    @Test func aTextOfAMegabyteIsNoSelector() {
        #expect(throws: SampleSelector.Failure.self) { try SampleSelector(String(repeating: "a", count: 1 << 20)) }
    }
}

@Suite struct ExpositionReaderTests {
    private func read(_ page: String, _ selectors: String..., lineLimit: Int = 65_536) throws -> [ExpositionReader.Total] {
        var reader = ExpositionReader(try selectors.map { try SampleSelector($0) }, lineLimit: lineLimit)
        try Array(page.utf8).withUnsafeBytes { try reader.feed($0) }
        try reader.finish()
        return reader.totals
    }

    @Test func addsUpWhatIsMeant() throws {
        let page = """
            # HELP jobs Jobs that wait.
            # TYPE jobs gauge
            jobs{queue="a",state="ready"} 3
            jobs{queue="b",state="ready"} 4 1395066363000
            jobs{queue="b",state="stuck"} 100
            jobs_total 7
            """
        let totals = try read(page, "jobs{state=\"ready\"}", "jobs", "jobs{queue=\"\"}", "jobs{state!=\"ready\"}", "jobs_total", "job")
        #expect(totals.map(\.sum) == [7, 107, 0, 100, 7, 0])
        #expect(totals.map(\.count) == [2, 3, 0, 1, 1, 0])
        #expect(totals.map(\.type) == ["gauge", "gauge", "gauge", "gauge", nil, nil])
        #expect(totals[1].least == 3 && totals[1].most == 100)
    }

    @Test func openMetricsNamesCountersWithoutTheirEnding() throws {
        let page =
            "# TYPE jobs counter\njobs_total{a=\"b\"} 17.0 1520879607.789 # {trace_id=\"x\"} 0.5\njobs_created{a=\"b\"} 1520872607.1\n# "
            + "EOF\njobs_total 5\n"
        let totals = try read(page, "jobs_total")
        #expect(totals[0].sum == 17 && totals[0].count == 1 && totals[0].type == "counter")
    }

    @Test func numbersThatAreNoneComeThrough() throws {
        #expect(
            try read("a NaN\nb +Inf\nc -inf\r\nd 0x1p3\ne 1e3", "a", "b", "c", "d", "e").map { "\($0.sum)" } == [
                "nan", "inf", "-inf", "8.0", "1000.0",
            ])
    }

    @Test(arguments: ["up{a=1} 1", "up", "up{} ", "up 1 2 3", "up one", "up{a=\"x\" 1", "up{a=\"1\",a=\"2\"} 1", "up 1_000", "up-1"])
    func whatIsMeantAndCannotBeReadIsTold(line: String) {
        #expect(throws: ExpositionReader.Failure.malformed(line: 3)) { try read("# x\nother{ 1\n\(line)\n", "up") }
    }

    @Test func whatIsNotMeantIsNotRead() throws {
        let page = "<html>{{\n\u{0}\u{1}\nother{\"\n" + String(repeating: "x", count: 300) + " 1\nup 2\n"
        #expect(try read(page, "up", lineLimit: 100)[0].sum == 2)
    }

    @Test func aLineTooLongAndASeriesTwiceAreTold() {
        let long = "up{a=\"" + String(repeating: "x", count: 100) + "\"} 1\n"
        #expect(throws: ExpositionReader.Failure.lineTooLong(line: 1, limit: 100)) { try read(long, "up", lineLimit: 100) }
        #expect(throws: ExpositionReader.Failure.duplicate(line: 2)) { try read("up{a=\"1\",b=\"2\"} 1\nup{b=\"2\",a=\"1\"} 1", "up") }
        let many = (0...10_000).map { "up{i=\"\($0)\"} 1\n" }.joined()
        #expect(throws: ExpositionReader.Failure.tooManySamples(limit: 10_000)) { try read(many, "up") }
    }

    /// A line that never ends costs its limit, not its length.
    @Test func memoryIsThatOfOneLine() throws {
        var reader = ExpositionReader([try SampleSelector("up")])
        let chunk = [UInt8](repeating: 120, count: 1 << 20)
        try chunk.withUnsafeBytes { try reader.feed($0) }
        for _ in 0..<100 { try chunk.withUnsafeBytes { try reader.feed($0) } }
        #expect(reader.reserved <= 2 * 65_536)
        try reader.finish()
        #expect(reader.lines == 1 && reader.totals[0].count == 0)
    }
}

/// The fuzz target's properties, over its committed corpus and seeded mutations of it.
@Suite struct ExpositionFuzzReplayTests {
    @Test func thereIsACorpus() throws { #expect(try FuzzReplay.corpus("exposition").count >= 20) }

    @Test func pagesAndSelectors() throws { #expect(try FuzzReplay.faults("exposition", mutations: 80, checkExposition) == []) }
}
