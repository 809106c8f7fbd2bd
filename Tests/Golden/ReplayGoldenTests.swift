import Autoscaling
import Basics
import Drawing
import Replaying
import TestSupport
import Testing

/// What a replay looks like, as text: the chart with and without colour, the page, the drawing. Look at the pictures when these change.
@Suite struct ReplayGoldenTests {
    /// Four hours in steps of five minutes: a calm, a rush, a gap, a calm.
    private static let picture: ReplayPicture = {
        let rush: [Double] = [20, 22, 25, 35, 60, 95, 130, 140, 138, 120, 90, 70, 50, 40]
        let demand = [Double](repeating: 20, count: 12) + rush + [.nan, .nan] + [Double](repeating: 15, count: 20)
        let trace = LoadTrace(
            service: "api <1>", start: WallTime(milliseconds: 1_794_787_200_000), step: .seconds(300),
            series: [LoadTrace.Series("requests", demand)],
            notes: ["left out because they are negative: 1 value (the first in line 7)"])
        let model = ReplicaModel(startTimes: [.seconds(60)], capacity: ["requests": 12], drain: .seconds(10))
        func run(_ name: String, _ target: Int, _ most: Int) -> ReplayPicture.Run {
            let policy = ReplayPolicy(
                name, ScalingPolicy(minimum: 2, maximum: most, metrics: [ScalingMetric("requests", .replicas, .average(target * 1000))]))
            return ReplayPicture.Run(policy, model, Replay.run(trace, policy, model))
        }
        return ReplayPicture(trace, [run("tight.yaml", 11, 10), run("wide.yaml", 7, 30)])
    }()

    private func compare(_ name: String, _ text: String) throws {
        try GoldenTests().compare("\(GoldenTests.folder)/Replay/\(name).expected", text + "\n")
    }

    @Test func theChartInATerminal() throws {
        try compare("chart", TerminalChart(Self.picture.chart, width: 60, isColoured: false).text)
        let coloured = TerminalChart(Self.picture.chart, width: 60, isColoured: true).text
        #expect(coloured.contains("\u{1B}[31m▓"))
        // Colour adds to the plain one and changes nothing in it but where a line's last blanks are.
        let stripped = coloured.replacing(#/\u{1B}\[[0-9]+m/#, with: "")
        let plain = TerminalChart(Self.picture.chart, width: 60, isColoured: false).text
        #expect(Self.words(stripped) == Self.words(plain))
    }

    private static func words(_ text: String) -> [String] { text.split { $0 == " " || $0 == "\n" }.map(String.init) }

    /// As wide as it is told, within its bounds.
    @Test(arguments: [10, 40, 77, 200, 500]) func theChartKeepsToItsWidth(width: Int) {
        for line in TerminalChart(Self.picture.chart, width: width, isColoured: false).text.split(separator: "\n") {
            #expect(line.count <= max(40, min(200, width)) || line.contains("asked"))
        }
    }

    @Test func thePageAndItsDrawing() throws {
        let comparison = Comparison(Self.picture.runs[0].outcome, Self.picture.runs[1].outcome)
        let page = HTMLReport(
            title: "Replay: api <1>", [ReplaySection(Self.picture, comparison, notes: ["a replica is ready 1m after its start"]).report]
        ).text
        // Nothing but the name of SVG's own vocabulary looks like an address.
        #expect(!page.contains("<script") && page.components(of: "http://") == ["www.w3.org/2000/svg\""])
        #expect(page.contains("api &lt;1&gt;") && !page.contains("api <1>"))
        try compare("report.html", page)
    }

    @Test func theTable() throws {
        try compare("table", ReplayTable.rows(Self.picture.runs.map(\.outcome)).map { $0.joined(separator: " | ") }.joined(separator: "\n"))
    }
}

extension String {
    /// What follows each occurrence, up to the next space.
    fileprivate func components(of text: String) -> [String] {
        var out: [String] = [], rest = self[...]
        while let range = rest.firstRange(of: text) {
            rest = rest[range.upperBound...]
            out.append(String(rest.prefix { $0 != " " }))
        }
        return out
    }
}
