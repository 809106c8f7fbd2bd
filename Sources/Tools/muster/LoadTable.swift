import Basics
import LoadPlanning
import Synchronization

/// What is told while a load test runs: on a terminal one line that changes each second, else a line every five seconds.
final class LoadProgress: Sendable {
    private let isTerminal: Bool
    private let whole: Int
    private let totals = Mutex((ended: 0, errors: 0, isShown: false))

    init(_ scenario: Scenario, isTerminal: Bool) {
        self.isTerminal = isTerminal
        whole = Int(clamped: scenario.duration.secondsAsDouble.rounded(.up))
    }

    func tell(_ second: LoadSecond) {
        let (ended, errors) = totals.withLock { totals in
            totals.ended += second.ended
            totals.errors += second.errors
            totals.isShown = true
            return (totals.ended, totals.errors)
        }
        guard isTerminal || (second.second + 1) % 5 == 0 else { return }
        var line =
            "\(second.second + 1) of \(whole) s: \(second.ended)/s, p50 \(latencyText(second.p50)), p95 \(latencyText(second.p95)), "
            + "\(second.inFlight) under way"
        if second.users > 0 { line += ", \(second.users) users" }
        if second.waiting > 0 { line += ", \(second.waiting) waiting" }
        line += "; \(ended) in all, \(errors) errors"
        if isTerminal { write("\r\u{1B}[K\(line)") } else { printError(line) }
    }

    /// Leaves the line.
    func end() { if isTerminal, totals.withLock({ $0.isShown }) { write("\r\u{1B}[K") } }

    private func write(_ text: String) {
        var text = text
        text.withUTF8 { writeAll(2, UnsafeRawBufferPointer($0)) }
    }
}

/// The result for a person.
func loadTable(_ report: LoadReport, _ verdict: LoadVerdict) -> String {
    var lines: [String] = []
    let share = LoadExpectation.Metric.errors.text(report.errorShare)
    lines.append(
        "\(report.ended) requests in \(decimals(Double(report.elapsed) / 1e9, 1)) s, \(decimals(report.rate, 1)) answers/s, "
            + "\(report.errors) errors (\(share))\(report.endedEarly ? "; ended early" : "")"
    )
    lines.append("")
    lines.append(row("latency", ["p50", "p90", "p95", "p99", "p99.9", "max", "mean"]))
    lines.append(row(report.isOpen ? "from when it was due" : "of answers", report.total.response))
    if report.isOpen { lines.append(row("from when it was sent", report.service)) }
    if report.labels.count > 1 {
        for (label, part) in zip(report.labels, report.parts) { lines.append(row("  \(part.ended) \(label)", part.response)) }
    }
    if report.isClosed {
        lines.append("")
        lines.append(
            "Users wait for their answers, so what a slow server kept them from asking is not in these latencies (closed model: not "
                + "corrected)."
        )
    }
    lines.append("")
    let statuses = report.statuses.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
    let failures = LoadError.allCases.compactMap { error in report.failures[error].map { "\(error.rawValue): \($0)" } }
    lines.append("answers  \((statuses + failures).joined(separator: ", "))")
    if let first = report.firstFailure { lines.append("first error  \(first)") }
    if report.repeated > 0 { lines.append("sent once more, as the server closed a kept connection  \(report.repeated)") }
    let late = report.delay.quantile(0.99)
    if report.isOpen, late >= 10_000_000 {
        lines.append("sent late  p99 \(latencyText(late)): connections were all taken, or this machine was busy")
    }
    if let unmeasured = verdict.unmeasured { lines.append("FAILS  the run \(unmeasured)") }
    for finding in verdict.findings { lines.append("\(finding.holds ? "holds" : "FAILS")  \(finding.sentence)") }
    return lines.joined(separator: "\n")
}

private func row(_ name: String, _ latencies: LatencyDistribution) -> String {
    var cells: [String] = []
    for metric in [LoadExpectation.Metric.p50, .p90, .p95, .p99, .p999] { cells.append(latencyText(latencies.quantile(metric.share ?? 0))) }
    return row(name, cells + [latencyText(latencies.most), latencyText(Int64(clamped: latencies.mean))])
}

private func row(_ name: String, _ cells: [String]) -> String {
    let label = name.count > 44 ? String(name.prefix(43)) + "…" : name
    return label + String(repeating: " ", count: 46 - label.count)
        + cells.map { String(repeating: " ", count: max(9 - $0.count, 1)) + $0 }.joined()
}
