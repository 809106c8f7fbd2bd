import Basics
import Testing

@testable import Replaying

/// What is read from recordings, and what is said of those that cannot be.
@Suite struct RecordingTests {
    private func read(_ text: String, pieces: Int = .max) throws -> Recording {
        var csv = CSVRecording(), rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let piece = Array(rest.prefix(pieces))
            rest = rest.dropFirst(piece.count)
            try piece.withUnsafeBytes { try csv.feed($0) }
        }
        return try csv.finish()
    }

    private func demand(_ text: String, _ metric: String = "cpu", _ rules: DemandRules = DemandRules()) throws -> [Double] {
        let trace = try read(text).trace(of: "api", rules)
        return try #require(trace.series(of: metric).map { trace.series[$0].demand })
    }

    /// NaN as -1, to compare.
    private func plain(_ values: [Double]) -> [Double] { values.map { $0.isNaN ? -1 : $0 } }

    // MARK: the form of the file

    static let wrong: [(String, String)] = [
        ("", "line 1: the recording is empty"),
        ("time,service,metric,value\n", "line 2: no row follows the names of the columns"),
        ("time,service,metrik,value\n", "line 1: 'metrik' is no column of a recording; did you mean 'metric'?"),
        (
            "time,service,metric,value,colour\n",
            "line 1: 'colour' is no column of a recording; the columns are time, service, metric, value, replica"
        ),
        ("time,service,metric\n", "line 1: the column 'value' is missing"),
        ("time,time,service,metric,value\n", "line 1: the column 'time' is named twice"),
        ("time,service,metric,value\n1000,api,cpu\n", "line 2: 3 fields, and the first line names 4 columns"),
        ("time,service,metric,value\n1000,api,cpu,1,2\n", "line 2: 5 fields, and the first line names 4 columns"),
        ("time,service,metric,value\n1000,api,cpu,much\n", "line 2: 'much' is no number"),
        ("time,service,metric,value\n1000,api,cpu,0x1p3\n", "line 2: '0x1p3' is no number"),
        ("time,service,metric,value\n1000,api,cpu,1.\n1000,api,cpu,1e\n", "line 3: '1e' is no number"),
        ("time,service,metric,value\n1000,api,cpu,0.50000000000000000000x\n", "line 2: '0.50000000000000000000x' is no number"),
        (
            "time,service,metric,value\n1000,api,cpu,\(String(repeating: "9", count: 65))\n",
            "line 2: '9999999999999999999999999999999999999999' is no number"
        ),
        ("time,service,metric,value\n99999999999999999999999999999999,api,cpu,1\n", "lies after the year 9999"),
        ("time,service,metric,value\nnoon,api,cpu,1\n", "line 2: 'noon' is no time: write 2026-11-21T08:00:00Z"),
        ("time,service,metric,value\n-5,api,cpu,1\n", "line 2: '-5' is no time"),
        ("time,service,metric,value\n2026-13-01T00:00:00Z,api,cpu,1\n", "line 2: '2026-13-01T00:00:00Z' is no time of the calendar"),
        ("time,service,metric,value\n2026-11-21 noon o'clock,api,cpu,1\n", "is no time as RFC 3339 writes it"),
        ("time,service,metric,value\n1e18,api,cpu,1\n", "lies after the year 9999"),
        ("time,service,metric,value\n1000,,cpu,1\n", "line 2: the service is empty"),
        ("time,service,metric,value\n1000,api,,1\n", "line 2: the metric is empty"),
        ("time,service,metric,value\n1000,\"api,cpu,1\n", "line 2: a quote is opened and never closed"),
        ("time,service,metric,value\n1000,\"api\"x,cpu,1\n", "line 2: something follows a closing quote"),
        ("time,service,metric,value\n1000,a\"pi,cpu,1\n", "line 2: a quote stands inside a field"),
        ("time,service,metric,value\r1000,api,cpu,1\n", "line 1: a carriage return stands alone"),
        ("time,service,metric,value\n1000,\"a\npi\",cpu,x\n", "line 2: 'x' is no number"),
        ("time,service,metric,value\n1000,\"a\npi\",cpu,1\n1000,api,cpu,x\n", "line 4: 'x' is no number"),
    ]

    @Test(arguments: wrong) func aWrongRecordingIsToldPrecisely(text: String, message: String) {
        for pieces in [1, 7, Int.max] {
            let failure = #expect(throws: ReplayFailure.self) { try read(text, pieces: pieces) }
            #expect(failure?.description.contains(message) ?? false, "\(failure?.description ?? "")")
        }
    }

    @Test func columnsInAnyOrderQuotesReturnsAndAMark() throws {
        let text = "\u{FEFF}value,metric,\"service\",time\r\n\"1.5\",cpu,api,1000\r\n\r\n2.5,\"cpu\",api,1015"
        #expect(try demand(text) == [1.5, 2.5])
        let odd = try read("time,service,metric,value\n1000,\"a,\"\"b\"\"\nc\",cpu,1\n")
        #expect(odd.services == ["a,\"b\"\nc"])
    }

    @Test func timesInEachForm() throws {
        for times in [
            ["1000000000", "1000000015"], ["1000000000000", "1000000015000"], ["2001-09-09T01:46:40Z", "2001-09-09T03:46:55+02:00"],
            ["1000000000.0", "1000000015.0"],
        ] {
            let trace = try read("time,service,metric,value\n\(times[0]),api,cpu,1\n\(times[1]),api,cpu,2\n").trace(
                of: "api", DemandRules())
            #expect(trace.start.milliseconds == 1_000_000_000_000 && trace.series[0].demand == [1, 2])
        }
    }

    @Test func numbersInEachForm() throws {
        let text =
            "time,service,metric,value\n1000,api,cpu,0.1\n1015,api,cpu,1e3\n1030,api,cpu,12345678901234567890\n1045,api,cpu,.5\n1060,api,cpu,0000.250\n1075,api,cpu,+2\n"
        #expect(try demand(text) == [0.1, 1000, 12_345_678_901_234_567_168, 0.5, 0.25, 2])
    }

    /// Databases write them with as many digits as they have. The digits alone would be more than any whole number holds.
    @Test func longDecimalsAreRead() throws {
        let text =
            "time,service,metric,value\n1000,api,cpu,0.50000000000000000000\n1015,api,cpu,0.12345678901234567890123456789\n"
            + "1030,api,cpu,9007199254740993\n1045,api,cpu,999999999999999.5\n1060,api,cpu,99999999999999999999999999999999\n"
            + "1075.000000000000000000,api,cpu,1\n"
        #expect(try demand(text) == [0.5, 0.123456789012345678, 9_007_199_254_740_992, 999_999_999_999_999.5, 1e32, 1])
    }

    // MARK: what is odd in it

    @Test func whatIsNoFigureIsLeftOutAndCounted() throws {
        let text =
            "time,service,metric,value\n1000,api,cpu,1\n1015,api,cpu,NaN\n1030,api,cpu,inf\n1045,api,cpu,-3\n1060,api,cpu,\n1075,api,cpu,2\n1060,api,cpu,5\n1060,api,cpu,7\n"
        let trace = try read(text).trace(of: "api", DemandRules())
        // Distances of 60 and 15 s: the usual one is 60 s, and the first figure stands for as long.
        #expect(trace.series[0].demand == [1, 1, 1, 1, 7, 2])
        #expect(
            trace.notes == [
                "left out because they are no finite numbers: 3 values (the first in line 3)",
                "left out because they are negative: 1 value (the first in line 5)",
                "put in order because they are earlier than the one before: 1 value (the first in line 8)",
                "left out because the same time comes again later in the recording: 1 value",
            ])
    }

    /// Points every 15 s; a figure stands over two that are missing, and not over three.
    @Test func aGapIsBridgedUpToThreeSteps() throws {
        func text(_ times: [Int]) -> String { "time,service,metric,value\n" + times.map { "\(1000 + $0 * 15),api,cpu,1\n" }.joined() }
        #expect(plain(try demand(text([0, 1, 2, 3, 6, 7]))) == [1, 1, 1, 1, 1, 1, 1, 1])
        #expect(plain(try demand(text([0, 1, 2, 3, 7, 8]))) == [1, 1, 1, 1, -1, -1, -1, 1, 1])
    }

    /// A recording of each minute, replayed in steps of 15 s: each figure stands for its minute.
    @Test func aCoarserRecordingStands() throws {
        let text = "time,service,metric,value\n0,api,cpu,1\n60,api,cpu,2\n120,api,cpu,3\n"
        #expect(try demand(text) == [1, 1, 1, 1, 2, 2, 2, 2, 3])
    }

    // MARK: from figures to demand

    @Test func figuresOfReplicasAreSummedOverThoseThatHaveOne() throws {
        let text =
            "time,service,metric,value,replica\n" + (0..<6).map { "\(1000 + $0 * 15),api,cpu,1,1\n" }.joined()
            + (2..<4).map { "\(1000 + $0 * 15),api,cpu,0.5,2\n" }.joined()
        #expect(try demand(text) == [1, 1, 1.5, 1.5, 1, 1])
        let trace = try read(text).trace(of: "api", DemandRules())
        #expect(trace.series[0].origin == "sum of up to 2 replicas")
    }

    @Test func averagesNeedTheNumberOfReplicas() throws {
        let text = "time,service,metric,value\n1000,api,cpu,0.4\n1015,api,cpu,0.5\n1000,api,replicas,2\n1015,api,replicas,3\n"
        #expect(try demand(text, "cpu", DemandRules(averages: ["cpu"])) == [0.8, 1.5])
        #expect(try demand(text) == [0.4, 0.5])
        let without = "time,service,metric,value\n1000,api,cpu,0.4\n"
        let failure = #expect(throws: ReplayFailure.self) { try demand(without, "cpu", DemandRules(averages: ["cpu"])) }
        #expect(failure?.message.contains("record a series named 'replicas'") ?? false)
    }

    @Test func percentagesNeedTheRequest() throws {
        let text = "time,service,metric,value,replica\n1000,api,cpu_percent,80,a\n1000,api,cpu_percent,40,b\n"
        #expect(try demand(text, "cpu", DemandRules(requests: ["cpu": 0.5])) == [0.6])
        let failure = #expect(throws: ReplayFailure.self) { try demand(text) }
        #expect(failure?.message.contains("in percent of a request, and none is declared") ?? false)
        let average = "time,service,metric,value\n1000,api,cpu_percent,80\n1000,api,replicas,4\n"
        #expect(try demand(average, "cpu", DemandRules(requests: ["cpu": 0.5])) == [1.6])
    }

    /// 0, 150, 300, then a restart that counts 45 by the next look, then 195: 10 a second, 3 after the reset, 10.
    @Test func countersBecomeRatesAndFallsAreResets() throws {
        let values = [0, 150, 300, 45, 195]
        let text = "time,service,metric,value\n" + values.enumerated().map { "\(1000 + $0 * 15),api,http_requests_total,\($1)\n" }.joined()
        #expect(plain(try demand(text, "http_requests")) == [-1, 10, 10, 3, 10])
        #expect(try read(text).trace(of: "api", DemandRules()).notes == ["the counter http_requests_total was reset 1 time"])
    }

    @Test func theWholeAndItsReplicasAreNotCountedTwice() throws {
        let text = "time,service,metric,value,replica\n1000,api,cpu,3,\n1000,api,cpu,1,a\n1000,api,cpu,1,b\n"
        #expect(try demand(text) == [2])
        #expect(
            try read(text).trace(of: "api", DemandRules()).notes == [
                "cpu is recorded of each replica and of the whole: the replicas' figures are used"
            ])
    }

    @Test func anUnknownServiceIsToldWithWhatIsKnown() throws {
        let recording = try read("time,service,metric,value\n1000,api,cpu,3\n")
        let failure = #expect(throws: ReplayFailure.self) { try recording.trace(of: "apu", DemandRules()) }
        #expect(failure?.message == "nothing is recorded of 'apu': it knows of api; did you mean 'api'?")
        let sizes = try read("time,service,metric,value\n1000,api,replicas,3\n")
        #expect(throws: ReplayFailure.self) { try sizes.trace(of: "api", DemandRules()) }
    }

    @Test func aTimeInAnotherUnitIsToldAndNotReplayedForever() throws {
        let recording = try read("time,service,metric,value\n10,api,cpu,3\n1700000000,api,cpu,3\n")
        let failure = #expect(throws: ReplayFailure.self) { try recording.trace(of: "api", DemandRules()) }
        #expect(failure?.code == .tooLarge)
    }

    // MARK: journals

    @Test func figuresOfAJournal() {
        func figure(_ text: String) -> [String] { JournalFigure(text).map { ["\($0.value)", "\($0.form)"] } ?? [] }
        #expect(figure("87 % of the request, target 70 %: 4 replicas") == ["87.0", "averagePercent"])
        #expect(figure("350m each, target 200m each: 4 replicas") == ["0.35", "average"])
        #expect(figure("64 MiB each, target 50 MiB each: 2 replicas (1 still starting)") == ["67108864.0", "average"])
        #expect(figure("12.5 each, target 10 each: 2 replicas") == ["12.5", "average"])
        #expect(figure("900, target 300: 3 replicas") == ["900.0", "total"])
        #expect(figure("87 %") == ["87.0", "averagePercent"] && figure("3") == ["3.0", "total"])
        #expect(figure("unknown: its source returned no figures") == [] && figure("") == [])
    }

    @Test func aJournalIsReadAsItWasWritten() throws {
        func record(_ minute: Int, _ replicas: Int, _ cpu: String) -> String {
            """
            {"at":"2026-11-21T08:0\(minute):00.000Z","kind":"scale","subject":"api","inputs":{"replicas":"\(replicas)","range":"1..9","cpu":"\(cpu)"},"raw":"2","constraints":[],"outcome":"2","sentence":"s","flip":"f"}
            """
        }
        let text =
            "[\(record(0, 2, "80 % of the request, target 70 %: 3 replicas")),{\"kind\":\"route\"},\(record(2, 3, "50 % of the request, target 70 %: 3 replicas"))]"
        let recording = try JournalRecording.read(Array(text.utf8))
        let trace = try recording.trace(of: "api", DemandRules(step: .seconds(60), requests: ["cpu": 0.5]))
        #expect(trace.series.map(\.metric) == ["cpu"] && trace.series[0].demand == [0.8, 0.8, 0.75])
        #expect(trace.recordedSize == [2, 2, 3])
        for (wrong, message) in [
            ("{}", "a journal is an array"), ("[", "the journal is no JSON"), ("[]", "no decision to scale"),
            ("[{\"kind\":\"scale\"}]", "record 1: 'at' is no time"),
        ] {
            let failure = #expect(throws: ReplayFailure.self) { try JournalRecording.read(Array(wrong.utf8)) }
            #expect(failure?.message.contains(message) ?? false)
        }
    }

    /// From an explicit "unknown" on nothing is known, until the next figure. A counter's figure in a journal is its rate already.
    @Test func anUnknownOfAJournalEndsTheFigure() throws {
        func record(_ minute: Int, _ jobs: String) -> String {
            """
            {"at":"2026-11-21T08:0\(minute):00.000Z","kind":"scale","subject":"api","inputs":{"replicas":"2","jobs_total":"\(jobs)"}}
            """
        }
        let text = [
            record(0, "unknown: never read"), record(1, "40 each, target 70: 3 replicas"),
            record(3, "unknown: http://h/m answered 500"), record(5, "50 each, target 70: 3 replicas"), record(6, "unknown"),
            record(7, "unknown"),
        ]
        let recording = try JournalRecording.read(Array("[\(text.joined(separator: ","))]".utf8))
        let trace = try recording.trace(of: "api", DemandRules(step: .seconds(60)))
        #expect(plain(trace.series[0].demand) == [-1, 80, 80, -1, -1, 100, -1, -1], "\(trace.series[0].demand)")
        #expect(trace.series(of: "jobs_total") == 0 && trace.series(of: "jobs") == 0)
    }

    // MARK: Prometheus

    @Test func rangesAreSplitWhereAnAnswerWouldBeTooLong() {
        func targets(_ steps: Int64) -> [String] {
            PrometheusRange(
                metric: "cpu", query: "up", from: WallTime(milliseconds: 0), to: WallTime(milliseconds: steps * 15_000), step: .seconds(15)
            ).targets()
        }
        #expect(targets(0) == ["/api/v1/query_range?query=up&start=0.000&end=0.000&step=15.000"])
        #expect(targets(10_999).count == 1)
        #expect(
            targets(11_000) == [
                "/api/v1/query_range?query=up&start=0.000&end=164985.000&step=15.000",
                "/api/v1/query_range?query=up&start=165000.000&end=165000.000&step=15.000",
            ])
        #expect(targets(40_319).count == 4)
    }

    @Test func queriesAreEscapedAndNamed() {
        #expect(PrometheusRange.escaped("sum(rate(x[1m])) by (a)") == "sum%28rate%28x%5B1m%5D%29%29%20by%20%28a%29")
        #expect(PrometheusRange.split("cpu=sum(x{a=\"b\"})").map { [$0.metric, $0.query] } == ["cpu", "sum(x{a=\"b\"})"])
        for wrong in ["cpu", "=x", "cpu=", "sum(x{a=1})"] { #expect(PrometheusRange.split(wrong) == nil) }
    }

    @Test func answersAreReadAndRefusalsToldAsTheyStand() throws {
        let range = PrometheusRange(
            metric: "cpu", query: "q", from: WallTime(milliseconds: 0), to: WallTime(milliseconds: 15_000), step: .seconds(15))
        var recording = Recording()
        let answer = """
            {"status":"success","data":{"resultType":"matrix","result":[
             {"metric":{"pod":"a"},"values":[[1000,"0.5"],[1015,"NaN"],[1030,"1"]]},{"metric":{"pod":"b"},"values":[[1000.5,"+Inf"],[1015,"0.25"]]}]}}
            """
        try range.read(Array(answer.utf8), of: "api", into: &recording)
        let trace = try recording.trace(of: "api", DemandRules())
        #expect(trace.series[0].demand == [0.5, 0.75, 1])
        func failure(_ text: String) -> String {
            do {
                try range.read(Array(text.utf8), of: "api", into: &recording)
                return "none"
            } catch { return "\(error)" }
        }
        #expect(
            failure("{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"parse error\"}")
                == "Prometheus refuses the query 'q': bad_data: parse error")
        #expect(failure("<html>").contains("no JSON") && failure("{}").contains("no range query of Prometheus"))
    }
}
