import Basics
import LoadPlanning
import Testing

@Suite struct LoadExpectationTests {
    @Test func allForms() throws {
        let read = try LoadExpectation.parse(
            "p50<1ms, p90<=2ms,p95 > 3ms,p99>=1.5s,p99.9<2m, max<1s,mean<250us,errors<0.1%,errors<=0,rate>=500/s")
        #expect(
            read == [
                LoadExpectation(.p50, .below, 1e6), LoadExpectation(.p90, .atMost, 2e6), LoadExpectation(.p95, .above, 3e6),
                LoadExpectation(.p99, .atLeast, 1.5e9),
                LoadExpectation(.p999, .below, 120e9), LoadExpectation(.max, .below, 1e9), LoadExpectation(.mean, .below, 250e3),
                LoadExpectation(.errors, .below, 0.001),
                LoadExpectation(.errors, .atMost, 0), LoadExpectation(.rate, .atLeast, 500),
            ])
    }

    @Test func descriptionsAreReadAgain() throws {
        for text in ["p95<150ms", "p99.9<=1.5s", "errors<0.1%", "rate>=500/s", "max<2.5s", "mean>250us"] {
            let expectation = try #require(try LoadExpectation.parse(text).first)
            #expect(expectation.description == text)
            #expect(try LoadExpectation.parse(expectation.description) == [expectation])
        }
    }

    @Test(arguments: [
        ("", 0, "expected an expectation such as p95<150ms, found nothing"),
        ("p95<1ms,", 8, "expected an expectation such as p95<150ms, found nothing"),
        ("p95<1ms,,p99<1s", 8, "expected an expectation such as p95<150ms, found nothing"),
        ("p95", 0, "'p95' compares with nothing: expected <, <=, > or >=, as in p95<150ms"),
        ("p95<1ms, p98<2ms", 9, "'p98' is none of p50, p90, p95, p99, p99.9, max, mean, errors, rate; did you mean 'p90'?"),
        ("error<1%", 0, "'error' is none of p50, p90, p95, p99, p99.9, max, mean, errors, rate; did you mean 'errors'?"),
        ("p95<", 4, "p95: expected a time with its unit, such as 150ms or 1.5s, found nothing"),
        ("p95<150", 4, "p95: expected a time with its unit, such as 150ms or 1.5s, found '150'"),
        ("p95<1%", 4, "p95: expected a time with its unit, such as 150ms or 1.5s, found '1%'"),
        ("errors<1ms", 7, "errors: expected a share such as 0.1%, found '1ms'"),
        ("errors<101%", 7, "errors: expected a share such as 0.1%, found '101%'"),
        ("rate > 5", 7, "rate: expected answers a second such as 500/s, found '5'"),
        ("p95<<1ms", 4, "p95: expected a time with its unit, such as 150ms or 1.5s, found '<1ms'"),
        ("p95==1ms", 0, "'p95==1ms' compares with nothing: expected <, <=, > or >=, as in p95<150ms"),
    ])
    func mistakesAreToldWithTheirPlace(text: String, offset: Int, message: String) {
        let failure = #expect(throws: LoadExpectation.Failure.self) { try LoadExpectation.parse(text) }
        #expect(failure?.offset == offset && failure?.message == message, "\(String(describing: failure))")
    }

    @Test func noTextTraps() {
        var random = SeededRandom(seed: 5)
        let pieces = [
            "p95", "p99.9", "errors", "rate", "<", ">", "=", ",", " ", "1", ".", "ms", "s", "%", "/s", "é", "\r\n", "{{", "-", "e9",
        ]
        for _ in 0..<5000 {
            var text = ""
            for _ in 0..<Int.random(in: 0...8, using: &random) { text += pieces.randomElement(using: &random) ?? "" }
            do throws(LoadExpectation.Failure) {
                for expectation in try LoadExpectation.parse(text) { #expect(expectation.limit.isFinite && expectation.limit >= 0) }
            } catch { #expect(error.offset <= text.utf8.count) }
        }
    }

    // MARK: verdicts

    private func report(_ latencies: [Int64], errors: Int = 0) throws -> LoadReport {
        let scenario = Scenario(requests: [LoadRequest("GET", try LoadText("/"))], phases: [.hold(.arrivals, 1, for: .seconds(1))])
        var report = LoadReport(scenario)
        for (i, latency) in latencies.enumerated() {
            report.ended(0, i < errors ? .status(500) : .status(200), due: 0, begun: 0, at: latency, why: "status 500")
        }
        report.finish(elapsed: 2_000_000_000, endedEarly: false, processorTime: 0)
        return report
    }

    @Test func limitsHoldOrNotAtTheirEdge() throws {
        let report = try report([Int64](repeating: 100_000_000, count: 100), errors: 1)
        func holds(_ text: String) throws -> Bool { LoadVerdict(try LoadExpectation.parse(text), of: report).holds }
        #expect(try holds("max<=100ms") && holds("max>=100ms"))
        #expect(try !holds("max<100ms") && !holds("max>100ms"))
        #expect(try holds("errors<=1%") && !holds("errors<1%"))
        // 99 answers without an error in two seconds.
        #expect(try holds("rate>49/s") && !holds("rate>50/s"))
        #expect(try holds("mean<101ms,p50<101ms,p99.9<101ms"))
    }

    @Test func theReasonIsWhatWasWantedAndMeasured() throws {
        let verdict = LoadVerdict(try LoadExpectation.parse("p95<50ms,errors<0.1%"), of: try report([80_000_000, 80_000_000]))
        #expect(!verdict.holds)
        #expect(verdict.findings.map(\.sentence) == ["p95<50ms: 80ms measured, which it is not", "errors<0.1%: 0% measured"])
    }

    @Test func nothingMeasuredShowsNothing() throws {
        let verdict = LoadVerdict(try LoadExpectation.parse("p95<50ms,errors<1%"), of: try report([]))
        #expect(!verdict.holds && verdict.findings.allSatisfy { !$0.holds && $0.measured == nil })
        #expect(LoadVerdict([], of: try report([])).holds)
        // What we lacked ourselves is no request of the service, and no verdict on it is given.
        var short = try report([1_000_000])
        short.ended(0, .failed(.own), due: 0, begun: 0, at: 9_000_000_000, why: "no port")
        let (ended, errors) = (short.ended as Int, short.errors)
        #expect(ended == 1 && errors == 0 && short.total.response.most < 2_000_000)
        let unknown = LoadVerdict(try LoadExpectation.parse("errors<=0"), of: short)
        #expect(!unknown.holds && unknown.findings.allSatisfy(\.holds) && unknown.unmeasured?.contains("1 request was not sent") == true)
    }

    @Test func whatCountsAsAnError() {
        #expect(!LoadOutcome.status(200).isError && !LoadOutcome.status(304).isError && !LoadOutcome.status(399).isError)
        #expect(LoadOutcome.status(400).isError && LoadOutcome.status(503).isError)
        for error in LoadError.allCases { #expect(LoadOutcome.failed(error).isError == (error != .own)) }
    }
}
