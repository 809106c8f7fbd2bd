import Basics

/// A page that needs nothing beside itself, not even a script: for each section a verdict, figures side by side, the chart, and further
/// tables and notes.
public struct HTMLReport {
    /// A part of the page. All texts are plain: the page escapes them.
    public struct Section: Sendable {
        public let title: String
        /// What the section is about, beneath its title: the time, for example.
        public let subtitle: String
        /// The verdict in a sentence, and what makes the difference; nil where nothing is compared.
        public let verdict: (sentence: String, difference: String)?
        /// Figures side by side. The first row has the heads of the columns, each row begins with the name of its figure.
        public let figures: [[String]]
        public let chart: LoadChart
        /// The heading of a second table, and that table, beneath the chart.
        public let causes: (heading: String, rows: [[String]])
        /// What a reader has to know about the figures.
        public let notes: [String]

        /// The parameters are those of the properties.
        public init(
            title: String, subtitle: String, verdict: (sentence: String, difference: String)?, figures: [[String]], chart: LoadChart,
            causes: (heading: String, rows: [[String]]), notes: [String]
        ) {
            self.title = title
            self.subtitle = subtitle
            self.verdict = verdict
            self.figures = figures
            self.chart = chart
            self.causes = causes
            self.notes = notes
        }
    }

    private let title: String
    private let sections: [Section]

    /// `title` is the page's own.
    public init(title: String, _ sections: [Section]) {
        self.title = title
        self.sections = sections
    }

    public var text: String {
        """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width,initial-scale=1">
        <title>\(Markup.escaped(title))</title>
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
        var out = "<h1>\(Markup.escaped(section.title))</h1>\n<p class=\"soft\">\(Markup.escaped(section.subtitle))</p>\n"
        if let verdict = section.verdict {
            out += "<p class=\"verdict\">\(Markup.escaped(verdict.sentence))</p>\n<p>\(Markup.escaped(verdict.difference))</p>\n"
        }
        out += table(section.figures)
        out += SVGChart(section.chart).element
        out += "<h2>\(Markup.escaped(section.causes.heading))</h2>\n" + table(section.causes.rows)
        out += "<h2>How to read this</h2>\n<ul>\n"
        for note in section.notes { out += "<li>\(Markup.escaped(note))</li>\n" }
        return out + "</ul>\n"
    }

    private func table(_ rows: [[String]]) -> String {
        var out =
            "<table>\n<thead><tr>" + (rows.first ?? []).map { "<th>\(Markup.escaped($0))</th>" }.joined() + "</tr></thead>\n<tbody>\n"
        for row in rows.dropFirst() {
            out +=
                "<tr><th>\(Markup.escaped(row.first ?? ""))</th>" + row.dropFirst().map { "<td>\(Markup.escaped($0))</td>" }.joined()
                + "</tr>\n"
        }
        return out + "</tbody>\n</table>\n"
    }
}
