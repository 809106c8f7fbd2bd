import Basics

/// A chart as SVG that needs nothing beside itself: light or dark as the reader's screen is, a word for each stretch where the pointer
/// rests.
///
/// For each run a field with what was asked and what its ready replicas carried, and a last field with the sizes of all of them.
public struct SVGChart {
    private let chart: LoadChart
    private let width = 960.0
    private let left = 64.0
    private let fieldHeight = 200.0
    private let sizeHeight = 120.0
    private let columnLimit = 840
    /// Stretches with words of their own.
    private let stretchLimit = 168

    public init(_ chart: LoadChart) { self.chart = chart }

    /// The SVG element alone, as it stands in a page.
    public var element: String {
        let fields = Double(chart.runs.count) * (fieldHeight + 64), height = fields + sizeHeight + 72
        var out =
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(n(width)) \(n(height))\" role=\"img\" "
            + "aria-label=\"Replay of \(Markup.escaped(chart.subject))\">\n<style>\(SVGChart.style)</style>\n"
        out += "<rect class=\"paper\" width=\"\(n(width))\" height=\"\(n(height))\"/>\n"
        var top = 40.0
        for (number, run) in chart.runs.enumerated() {
            out += field(run, number, top)
            top += fieldHeight + 64
        }
        return out + sizes(top) + "</svg>\n"
    }

    /// The chart as a file of its own.
    public var file: String { "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" + element }

    static let style = """
        svg{font:12px system-ui,sans-serif;--ink:#1f2328;--soft:#6e7781;--line:#d8dee4;--paper:#fff;--asked:#54aeff;--a:#0550ae;--b:#bc4c00;--over:#cf222e}
        @media(prefers-color-scheme:dark){svg{--ink:#e6edf3;--soft:#9198a1;--line:#30363d;--paper:#0d1117;--asked:#1f6feb;--a:#79c0ff;--b:#ffa657;--over:#ff7b72}}
        .paper{fill:var(--paper)}text{fill:var(--soft)}.name{fill:var(--ink);font-weight:600}.grid{stroke:var(--line);stroke-width:1}
        .asked{fill:var(--asked);fill-opacity:.55}.over{fill:var(--over)}.p0,.p1{fill:none;stroke-width:1.5;stroke-linejoin:round}
        .p0{stroke:var(--a)}.p1{stroke:var(--b)}.k0{fill:var(--a)}.k1{fill:var(--b)}.hit{fill:transparent}.hit:hover{fill:var(--soft);fill-opacity:.15}
        """

    // MARK: one run

    private func field(_ run: LoadChart.Run, _ number: Int, _ top: Double) -> String {
        let columns = chart.columns(columnLimit, run), each = run.capacity
        let carried = columns.map { column in each.map { $0 * Double(column.ready) } }
        let asked = columns.compactMap(\.most).max() ?? 0
        let most = LoadChart.round(above: max(asked, min(carried.compactMap { $0 }.max() ?? 0, asked * 2)))
        func y(_ value: Double) -> Double { top + fieldHeight * (1 - min(value, most) / most) }
        var out = heading(run.name, "\(chart.title): asked (filled), carried by ready replicas (line), beyond (red)", number, top)
        out += grid(top, fieldHeight, most)
        out += area(columns, y) + over(columns, carried, top, y)
        if each != nil { out += "<path class=\"p\(number % 2)\" d=\"\(stairs(columns.count) { y(carried[$0] ?? 0) })\"/>\n" }
        return out + hits(run, top, fieldHeight, each)
    }

    private func heading(_ name: String, _ rest: String, _ number: Int, _ top: Double) -> String {
        "<rect class=\"k\(number % 2)\" x=\"\(n(left))\" y=\"\(n(top - 25))\" width=\"10\" height=\"10\"/>"
            + "<text x=\"\(n(left + 16))\" y=\"\(n(top - 16))\"><tspan class=\"name\">\(Markup.escaped(name))</tspan>  "
            + "\(Markup.escaped(rest))</text>\n"
    }

    private func x(_ column: Int, of count: Int) -> Double { left + (width - left - 16) * Double(column) / Double(max(1, count)) }

    private func grid(_ top: Double, _ height: Double, _ most: Double, divisions: Int = 4) -> String {
        var out = ""
        for line in 0...divisions {
            let share = Double(line) / Double(divisions), y = top + height * (1 - share)
            out +=
                "<path class=\"grid\" d=\"M\(n(left)) \(n(y))H\(n(width - 16))\"/><text x=\"\(n(left - 8))\" y=\"\(n(y + 4))\" "
                + "text-anchor=\"end\">\(Figures.short(most * share))</text>\n"
        }
        for mark in chart.marks(atMost: 14) {
            let x = x(mark.step, of: chart.count)
            out += "<path class=\"grid\" d=\"M\(n(x)) \(n(top))V\(n(top + height))\"/>"
            if x < width - 60 { out += "<text x=\"\(n(x + 3))\" y=\"\(n(top + height + 15))\">\(mark.text)</text>\n" }
        }
        return out
    }

    /// What was asked, from the axis up; apart where nothing is known.
    private func area(_ columns: [LoadChart.Column], _ y: (Double) -> Double) -> String {
        var path = "", start: Int?
        for index in 0...columns.count {
            let most = index < columns.count ? columns[index].most : nil
            if most != nil, start == nil {
                start = index
                path += "M\(n(x(index, of: columns.count))) \(n(y(0)))"
            }
            if let most { path += "V\(n(y(most)))H\(n(x(index + 1, of: columns.count)))" }
            if most == nil, start != nil {
                path += "V\(n(y(0)))Z"
                start = nil
            }
        }
        return "<path class=\"asked\" d=\"\(path)\"/>\n"
    }

    /// From what was carried up to what was asked, where that was more; at least two points wide, so that a minute of a week is seen.
    private func over(_ columns: [LoadChart.Column], _ carried: [Double?], _ top: Double, _ y: (Double) -> Double) -> String {
        var path = ""
        for (index, column) in columns.enumerated() where column.isOverloaded {
            let from = x(index, of: columns.count), wide = max(2, x(index + 1, of: columns.count) - from)
            let bottom = carried[index].map(y) ?? y(0), high = min(y(column.most ?? 0), bottom - 3)
            path += "M\(n(from)) \(n(bottom))V\(n(high))h\(n(wide))V\(n(bottom))Z"
            path += "M\(n(from)) \(n(top - 8))h\(n(wide))v5h\(n(-wide))Z"
        }
        return path.isEmpty ? "" : "<path class=\"over\" d=\"\(path)\"/>\n"
    }

    private func stairs(_ count: Int, _ y: (Int) -> Double) -> String {
        var path = "", last: Double?
        for index in 0..<count {
            let height = y(index)
            if let before = last, before == height { continue }
            path += last == nil ? "M\(n(x(index, of: count))) \(n(height))" : "H\(n(x(index, of: count)))V\(n(height))"
            last = height
        }
        return path + "H\(n(x(count, of: count)))"
    }

    /// Invisible, with words where the pointer rests.
    private func hits(_ run: LoadChart.Run, _ top: Double, _ height: Double, _ each: Double?) -> String {
        let columns = chart.columns(stretchLimit, run)
        var out = "<g class=\"hit\">\n"
        for (index, column) in columns.enumerated() {
            let from = x(index, of: columns.count), wide = x(index + 1, of: columns.count) - from
            var words = Figures.date(chart.time(of: column.steps.lowerBound))
            words += column.most.map { ": \(chart.metric) up to \(Figures.short($0))" } ?? ": \(chart.metric) unknown"
            if let each { words += ", \(column.ready) ready carry \(Figures.short(each * Double(column.ready)))" }
            words += ", \(column.smallest == column.largest ? "\(column.largest)" : "\(column.smallest) to \(column.largest)") replicas"
            if column.isOverloaded { words += "; overloaded, \(LoadChart.words(ofLoad: column.load))" }
            out +=
                "<rect class=\"hit\" x=\"\(n(from))\" y=\"\(n(top))\" width=\"\(n(wide))\" "
                + "height=\"\(n(height))\"><title>\(Markup.escaped(words))</title></rect>\n"
        }
        return out + "</g>\n"
    }

    // MARK: all runs

    private func sizes(_ top: Double) -> String {
        let peak = chart.runs.map(\.peak).max() ?? 1
        let most = Double(max(4, (peak + 3) / 4 * 4))
        func y(_ value: Int) -> Double { top + sizeHeight * (1 - Double(value) / most) }
        var out =
            "<text x=\"\(n(left))\" y=\"\(n(top - 16))\"><tspan class=\"name\">replicas</tspan>  "
            + "\(Markup.escaped(chart.runs.map(\.name).joined(separator: ", ")))</text>\n"
        out += grid(top, sizeHeight, most)
        for (number, run) in chart.runs.enumerated() {
            let columns = chart.columns(columnLimit, run)
            out += "<path class=\"p\(number % 2)\" d=\"\(stairs(columns.count) { y(columns[$0].largest) })\"/>\n"
        }
        return out
    }

    // MARK: text

    private func n(_ value: Double) -> String {
        var text = Figures.fixed(value, 1)
        if text.hasSuffix(".0") { text.removeLast(2) }
        return text
    }
}
