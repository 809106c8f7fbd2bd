import Basics
import Measurement
import Observability
import Synchronization

/// A metric of a replica's own page.
public struct PageMetric: Sendable, Equatable {
    /// How its figure is made.
    public enum Kind: Sendable, Equatable {
        /// As the page's `# TYPE` says; without one, a name that ends in `_total`, `_count`, `_sum` or `_bucket` is a counter.
        case automatic
        /// The sum of the samples as it is.
        case gauge
        /// The increase of all samples together, a second. Each series counts by itself (`CounterRate`).
        case counter
    }

    /// The figure's name.
    public let name: String
    /// The samples whose sum is the figure.
    public let selector: SampleSelector
    /// How the figure is made; a page that says otherwise is told as a fault.
    public let kind: Kind
    /// The most that the figure can be (a value above it is refused); nil: for a counter of CPU seconds what the machine can do, else
    /// `Plausibility.bound`.
    public let most: Double?

    /// A metric by its selector.
    public init(_ name: String, _ selector: SampleSelector, kind: Kind = .automatic, most: Double? = nil) {
        self.name = name
        self.selector = selector
        self.kind = kind
        self.most = most
    }
}

/// Reads figures from one page of Prometheus' text format: a replica's own, or an exporter's.
///
/// Times on the page are looked at for staleness alone. Each figure is checked before it is one: see `Plausibility`.
public final class PageMeter: Sendable {
    private let source: PageSource
    private let metrics: [PageMetric]
    private let bounds: MachineBounds
    private let window: Duration
    private let rates: Mutex<[CounterRate]>

    /// Rates are over `window`, and the page is asked about as often.
    public init(_ source: PageSource, _ metrics: [PageMetric], window: Duration, bounds: MachineBounds) {
        self.source = source
        self.metrics = metrics
        self.bounds = bounds
        self.window = window
        rates = Mutex(metrics.map { CounterRate($0.selector.description, window: window) })
    }

    /// Asks for the page once. One result for each metric, in their order.
    public func read() async -> [Result<MeterFigure, MeterFault>] {
        switch await source.fetch(metrics.map(\.selector)) {
        case .failure(let fault): return metrics.map { _ in .failure(fault) }
        case .success(let found):
            return rates.withLock { rates in
                metrics.indices.map { figure(metrics[$0], found, $0, &rates[$0]) }
            }
        }
    }

    private func figure(
        _ metric: PageMetric, _ found: PageFetch.Found, _ place: Int, _ rate: inout CounterRate
    ) -> Result<MeterFigure, MeterFault> {
        let name = metric.selector.description, total = found.totals[place], at = found.at
        guard total.count > 0 else { return .failure(MeterFault(.absent, "\(source) has no sample \(name)")) }
        if let fault = found.staleness(place, called: name) { return .failure(fault) }
        let isCounter: Bool
        switch PageMeter.isCounter(metric, total.type) {
        case .failure(let fault): return .failure(fault)
        case .success(let found): isCounter = found
        }
        // The sum of -5 and 10 looks harmless.
        for value in [total.sum, total.least, total.most] {
            if let fault = Plausibility.fault(value, called: name, most: isCounter ? nil : metric.most) { return .failure(fault) }
        }
        guard isCounter else { return .success(MeterFigure(total.sum, .count, takenAt: at)) }
        switch rate.add(series: found.series[place], at: at) {
        case .failure(let fault): return .failure(fault)
        case .success(let rate):
            let isCPU = metric.selector.name.hasSuffix("cpu_seconds_total")
            let most = metric.most ?? (isCPU ? bounds.mostMilliCores / 1000 : nil)
            if let fault = Plausibility.fault(rate.perSecond, called: "the rate of \(name)", most: most) { return .failure(fault) }
            return .success(MeterFigure(rate.perSecond, .perSecond, takenAt: at, window: rate.window, note: rate.note))
        }
    }

    /// Whether the metric is a counter; a fault when the page says other than was asked for.
    static func isCounter(_ metric: PageMetric, _ type: String?) -> Result<Bool, MeterFault> {
        let name = metric.selector.name
        switch (metric.kind, type) {
        case (.counter, "gauge"):
            return .failure(MeterFault(.wrongType, "the page says that \(name) is a gauge: ask for its value, not for its rate"))
        case (.gauge, "counter"):
            return .failure(MeterFault(.wrongType, "the page says that \(name) is a counter: ask for its rate, not for its value"))
        case (.counter, _), (.automatic, "counter"): return .success(true)
        case (.gauge, _), (.automatic, "gauge"): return .success(false)
        case (.automatic, _): return .success(["_total", "_count", "_sum", "_bucket"].contains { name.hasSuffix($0) })
        }
    }
}
