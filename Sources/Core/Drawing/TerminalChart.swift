import Basics

/// A chart of block characters, as wide as it is told.
///
/// `█` is what was asked, `░` what ready replicas had room for beyond it, `▓` what was asked and nobody carried. Where something was
/// overloaded a row beneath says so with `×`, so that nothing depends on colour.
public struct TerminalChart {
    private let chart: LoadChart
    private let width: Int
    private let height: Int
    private let isColoured: Bool

    private static let eighths: [Character] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]

    private enum Ink: String {
        case asked = "34", room = "90", beyond = "31", plain = ""
    }

    /// `width` in characters (40 to 200 are used), `height` in rows of the field.
    public init(_ chart: LoadChart, width: Int, height: Int = 10, isColoured: Bool) {
        self.chart = chart
        self.width = min(max(width, 40), 200)
        self.height = max(3, height)
        self.isColoured = isColoured
    }

    /// The chart as text, without a line end at its end.
    public var text: String { chart.runs.map(field).joined(separator: "\n\n") }

    private func field(_ run: LoadChart.Run) -> String {
        let gutter = 7
        let columns = chart.columns(width - gutter, run), each = run.capacity
        let carried = columns.map { column in (each ?? 0) * Double(column.ready) }
        // Room far above the demand is cut: what is asked is what the eye looks for.
        let asked = columns.compactMap(\.most).max() ?? 0, top = LoadChart.round(above: max(asked, min(carried.max() ?? 0, asked * 2)))
        var lines = [
            "\(run.name): \(chart.title), asked █, room "
                + "░\(columns.contains(where: \.isOverloaded) ? ", beyond what was carried ▓" : "")"
        ]
        for row in (0..<height).reversed() {
            let low = top * Double(row) / Double(height), high = top * Double(row + 1) / Double(height)
            let isLabelled = row == height - 1 || row == (height - 1) / 2
            let label = isLabelled ? Figures.short(high) : ""
            let cells = columns.indices.map { cell(columns[$0].most, carried[$0], columns[$0].isOverloaded, low, high) }
            lines.append(
                "\(String(repeating: " ", count: max(0, gutter - 2 - label.count)))\(label) \(isLabelled ? "┤" : "│")\(painted(cells))")
        }
        let indent = String(repeating: " ", count: gutter - 1)
        lines.append("\(String(repeating: " ", count: gutter - 3))0 └\(axis(columns))")
        lines.append(indent + " " + labels(columns))
        if columns.contains(where: \.isOverloaded) {
            lines.append("  over \(painted(columns.map { $0.isOverloaded ? ("×", .beyond) : (" ", .plain) }))")
        }
        lines.append("  size " + sizes(columns))
        return lines.map(trimmed).joined(separator: "\n")
    }

    private func cell(_ asked: Double?, _ carried: Double, _ isOverloaded: Bool, _ low: Double, _ high: Double) -> (Character, Ink) {
        guard let asked else { return (" ", .plain) }
        let share = (asked - low) / (high - low)
        if share >= 1 { return isOverloaded && low >= carried ? ("▓", .beyond) : ("█", .asked) }
        let eighth = share > 0 ? Int(clamped: (share * 8).rounded()) : 0
        if eighth > 0 { return isOverloaded && low >= carried ? ("▓", .beyond) : (TerminalChart.eighths[eighth], .asked) }
        return (low + high) / 2 <= carried ? ("░", .room) : (" ", .plain)
    }

    /// Cells in colour where that is wanted, runs of one colour at once.
    private func painted(_ cells: [(Character, Ink)]) -> String {
        var out = "", ink = Ink.plain
        for (character, next) in cells {
            if isColoured, next != ink {
                if ink != .plain { out += "\u{1B}[0m" }
                if next != .plain { out += "\u{1B}[\(next.rawValue)m" }
                ink = next
            }
            out.append(character)
        }
        return isColoured && ink != .plain ? out + "\u{1B}[0m" : out
    }

    private func axis(_ columns: [LoadChart.Column]) -> String {
        let marks = Set(places(columns).map(\.column))
        return String(columns.indices.map { marks.contains($0) ? "┴" : "─" })
    }

    private func places(_ columns: [LoadChart.Column]) -> [(column: Int, text: String)] {
        chart.marks(atMost: columns.count / 8).compactMap { mark in
            columns.firstIndex { $0.steps.contains(mark.step) }.map { ($0, mark.text) }
        }
    }

    private func labels(_ columns: [LoadChart.Column]) -> String {
        var out = ""
        for (column, text) in places(columns) where column >= out.count && column + text.count <= columns.count {
            out += String(repeating: " ", count: column - out.count) + text + " "
        }
        return out
    }

    /// The number of replicas in eighths of the largest, and its range.
    private func sizes(_ columns: [LoadChart.Column]) -> String {
        let most = max(1, columns.map(\.largest).max() ?? 1), least = columns.map(\.smallest).min() ?? 0
        let bars = columns.map { TerminalChart.eighths[min(8, max(1, Int(clamped: (Double($0.largest) * 8 / Double(most)).rounded(.up))))] }
        return String(bars) + "\n" + String(repeating: " ", count: 7) + "\(least) to \(most) replicas"
    }

    private func trimmed(_ line: String) -> String {
        var line = line
        while line.hasSuffix(" ") { line.removeLast() }
        return line
    }
}
