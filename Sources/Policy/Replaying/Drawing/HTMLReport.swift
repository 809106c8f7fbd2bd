import Basics

/// A page that needs nothing beside itself, not even a script: for each service the verdict, the figures side by side, the chart, and what
/// held the sizes.
public struct HTMLReport {
    public struct Section: Sendable {
        public let picture: ReplayPicture
        public let comparison: Comparison?
        /// Facts that a reader has to know about the figures.
        public let notes: [String]

        public init(_ picture: ReplayPicture, _ comparison: Comparison?, notes: [String]) {
            self.picture = picture
            self.comparison = comparison
            self.notes = notes
        }
    }

    private let sections: [Section]

    public init(_ sections: [Section]) { self.sections = sections }

    public var text: String {
        """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width,initial-scale=1">
        <title>Replay: \(SVGChart.escaped(sections.map(\.picture.trace.service).joined(separator: ", ")))</title>
        <style>\(HTMLReport.style)</style>
        </head>
        <body>
        <main>
        \(sections.map(section).joined(separator: "\n"))</main>
        </body>
        </html>

        """
    }

    private static let style = """
        :root{color-scheme:light dark;--ink:#1f2328;--soft:#59636e;--line:#d1d9e0;--paper:#fff}
        @media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#30363d;--paper:#0d1117}}
        body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}main{max-width:1000px;margin:0 auto;padding:24px 16px}
        h1{font-size:22px;margin:0 0 4px}h2{font-size:16px;margin:28px 0 8px}p{margin:6px 0}.soft{color:var(--soft)}svg{width:100%;height:auto;display:block}
        table{border-collapse:collapse;margin:14px 0;font-variant-numeric:tabular-nums}th,td{text-align:left;padding:5px 18px 5px 0;border-bottom:1px solid var(--line)}
        thead th{font-weight:600}tbody th{font-weight:400;color:var(--soft)}.verdict{font-size:17px}li{margin:3px 0}
        """

    private func section(_ section: Section) -> String {
        let picture = section.picture, trace = picture.trace, outcomes = picture.runs.map(\.outcome)
        var out = "<h1>Replay of \(SVGChart.escaped(trace.service))</h1>\n"
        out +=
            "<p class=\"soft\">\(Figures.date(trace.start)) to \(Figures.date(trace.time(of: trace.count))) UTC, \(trace.count) steps of "
            + "\(trace.step.brief)</p>\n"
        if let comparison = section.comparison {
            out += "<p class=\"verdict\">\(SVGChart.escaped(comparison.sentence))</p>\n<p>\(SVGChart.escaped(comparison.difference))</p>\n"
        }
        out += table(ReplayTable.rows(outcomes))
        out += SVGChart(picture).element
        out += "<h2>What held the size, and what left it too small</h2>\n" + table(causes(outcomes))
        out += "<h2>How to read this</h2>\n<ul>\n"
        for one in trace.series { out += "<li>\(SVGChart.escaped("Demand of \(one.metric): \(one.origin)."))</li>\n" }
        for note in section.notes + trace.notes { out += "<li>\(SVGChart.escaped(note))</li>\n" }
        return out + "</ul>\n"
    }

    /// Replica-hours that each constraint kept or withheld, and minutes of overload by cause.
    private func causes(_ outcomes: [ReplayOutcome]) -> [[String]] {
        var rows = [[""] + outcomes.map(\.policy)]
        for cause in HoldCause.allCases {
            let found = outcomes.map { one in one.holdings.first { $0.cause == cause } }
            if found.contains(where: { ($0?.kept ?? 0) > 0 }) {
                rows.append(["\(cause.rawValue): kept, replica-hours"] + found.map { Figures.fixed($0?.kept ?? 0) })
            }
            if found.contains(where: { ($0?.withheld ?? 0) > 0 }) {
                rows.append(["\(cause.rawValue): withheld, replica-hours"] + found.map { Figures.fixed($0?.withheld ?? 0) })
            }
        }
        let causes = Set(outcomes.flatMap { $0.overloadCauses.map(\.cause) }).sorted { $0.name < $1.name }
        for cause in causes {
            rows.append(
                ["\(cause.name): overload-minutes"]
                    + outcomes.map { one in Figures.fixed(one.overloadCauses.first { $0.cause == cause }?.minutes ?? 0) })
        }
        return rows
    }

    private func table(_ rows: [[String]]) -> String {
        var out =
            "<table>\n<thead><tr>" + (rows.first ?? []).map { "<th>\(SVGChart.escaped($0))</th>" }.joined() + "</tr></thead>\n<tbody>\n"
        for row in rows.dropFirst() {
            out +=
                "<tr><th>\(SVGChart.escaped(row.first ?? ""))</th>" + row.dropFirst().map { "<td>\(SVGChart.escaped($0))</td>" }.joined()
                + "</tr>\n"
        }
        return out + "</tbody>\n</table>\n"
    }
}
