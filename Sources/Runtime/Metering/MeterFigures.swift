import Basics
import Measurement
import Observability

/// Metrics of the meters about themselves.
struct MeterFigures: Sendable {
    private let durations: [MeterSource.Kind: Histogram]
    private let skipped: [MeterSource.Kind: Counter]
    private let faults: [MeterFault.Kind: Counter]
    let sources: Gauge
    let underWay: Gauge

    init(_ registry: MetricsRegistry) {
        var durations: [MeterSource.Kind: Histogram] = [:], skipped: [MeterSource.Kind: Counter] = [:]
        for kind in MeterSource.Kind.allCases {
            let labels = [("source", kind.rawValue)]
            durations[kind] = registry.histogram(
                "muster_meter_read_seconds", "How long a source of figures took to answer.", labels: labels)
            skipped[kind] = registry.counter(
                "muster_meter_turns_skipped_total", "Turns at which a source was not asked: it was still at work.", labels: labels)
        }
        var faults: [MeterFault.Kind: Counter] = [:]
        for kind in MeterFault.Kind.allCases {
            faults[kind] = registry.counter(
                "muster_meter_faults_total", "Figures that were not given, or not believed.", labels: [("kind", kind.rawValue)])
        }
        self.durations = durations
        self.skipped = skipped
        self.faults = faults
        sources = registry.gauge("muster_meter_sources", "Sources of figures that are asked in turn.")
        underWay = registry.gauge("muster_meter_under_way", "Sources that are being asked.")
    }

    func answered(_ kind: MeterSource.Kind, _ time: Duration) { durations[kind]?.observe(time) }
    func skip(_ kind: MeterSource.Kind) { skipped[kind]?.add() }
    func fault(_ kind: MeterFault.Kind) { faults[kind]?.add() }
}
