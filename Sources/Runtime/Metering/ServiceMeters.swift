import Basics
import EventLoops
import Gateway
import Measurement
import Observability
import Synchronization

/// All meters of a stack: told which services and replicas there are, they give their readings.
///
/// One pass over /proc serves all replicas, one request a page serves all metrics of that page, and the gateway is asked in-process.
public final class ServiceMeters: Sendable {
    private let loop: EventLoop
    private let schedule: MeterSchedule
    private let processes: ProcessMeter
    private let gateway: GatewayMeter?
    private let window: Duration
    private let bounds: MachineBounds
    private let limits: PageSource.Limits
    private let pages = Mutex<[String: PageMeter]>([:])

    /// Rates and means are over `window`; nil for one period. `gateway`: nil when this process has none, and its metrics are then absent.
    public init(
        loop: EventLoop, gateway: Gateway?, metrics: MetricsRegistry, settings: MeterSchedule.Settings = .init(), window: Duration? = nil,
        limits: PageSource.Limits = .init()
    ) {
        self.loop = loop
        let window = window ?? settings.period
        self.window = window
        self.limits = limits
        bounds = ProcessScan.machine()
        processes = ProcessMeter(window: window, bounds: bounds)
        let ofGateway = gateway.map { GatewayMeter(gateway: $0, window: window) }
        self.gateway = ofGateway
        schedule = MeterSchedule(loop: loop, settings: settings, metrics: metrics) { ofGateway?.sample() }
    }

    /// Reads in turn until its task is cancelled.
    public func run() async { await schedule.run() }

    /// The latest readings of a service, by metric and replica (those of the whole service first). There is a reading for everything that
    /// was asked for: one without a figure has a fault.
    public func readings(of service: String, now: MonotonicTime = .now) -> [MeterReading] { schedule.readings(of: service, now: now) }

    /// The latest readings of all services.
    public func readings(now: MonotonicTime = .now) -> [MeterReading] { schedule.readings(now: now) }

    /// The services and replicas that there are now. Call it again when replicas come or go; what stays keeps its figures and windows.
    public func follow(_ services: [MeteredService]) {
        var sources: [MeterSource] = []
        if let source = processSource(services) { sources.append(source) }
        if let source = gatewaySource(services) { sources.append(source) }
        var wanted: [String: PageMeter] = [:]
        let known = pages.withLock { $0 }
        for service in services {
            for replica in service.replicas { sources += pageSources(service, replica, known, &wanted) }
            sources += service.metrics.compactMap { serviceSource(service, $0, known, &wanted) }
        }
        let kept = wanted
        pages.withLock { $0 = kept }
        schedule.follow(sources)
    }

    private func processSource(_ services: [MeteredService]) -> MeterSource? {
        // By its own name for a metric → the names that were asked for.
        var names: [MeterKey: [MeterKey]] = [:]
        var watched: [MeteredProcess] = []
        for service in services {
            for metric in service.metrics {
                let own: String
                switch metric.source {
                case .cpu: own = ProcessMeter.cpu
                case .memory: own = ProcessMeter.memory
                default: continue
                }
                for replica in service.replicas {
                    let process = MeteredProcess(service: service.name, replica: replica.number, pid: replica.pid, started: replica.started)
                    if !watched.contains(process) { watched.append(process) }
                    names[MeterKey(service: service.name, replica: replica.number, metric: own), default: []].append(
                        MeterKey(service: service.name, replica: replica.number, metric: metric.name))
                }
            }
        }
        processes.follow(watched)
        let processes = processes
        return ServiceMeters.renamed("/proc", .process, names) { processes.read() }
    }

    private func gatewaySource(_ services: [MeteredService]) -> MeterSource? {
        var names: [MeterKey: [MeterKey]] = [:]
        var followed = Set<String>()
        for service in services {
            for metric in service.metrics {
                let own: String
                switch metric.source {
                case .requests: own = GatewayMeter.requests
                case .concurrency: own = GatewayMeter.concurrency
                case .latencyMean: own = GatewayMeter.latencyMean
                case .latencyP95: own = GatewayMeter.latencyP95
                default: continue
                }
                followed.insert(service.name)
                let numbers: [Int?] = own == GatewayMeter.latencyP95 ? [nil] : [nil] + service.replicas.map(\.number)
                for number in numbers {
                    names[MeterKey(service: service.name, replica: number, metric: own), default: []].append(
                        MeterKey(service: service.name, replica: number, metric: metric.name))
                }
            }
        }
        gateway?.follow(followed)
        let gateway = gateway
        return ServiceMeters.renamed("gateway", .gateway, names) { gateway?.read() ?? [:] }
    }

    /// A source whose figures have the names that were asked for; nil when nothing was asked for.
    private static func renamed(
        _ id: String, _ kind: MeterSource.Kind, _ names: [MeterKey: [MeterKey]],
        _ read: @escaping @Sendable () -> [MeterKey: Result<MeterFigure, MeterFault>]
    ) -> MeterSource? {
        if names.isEmpty { return nil }
        return MeterSource(id: id, kind: kind, keys: names.values.flatMap { $0 }) {
            var answers: [MeterKey: Result<MeterFigure, MeterFault>] = [:]
            for (own, result) in read() { for key in names[own] ?? [] { answers[key] = result } }
            return answers
        }
    }

    /// Sources of pages, one for each path that the service's metrics name.
    private func pageSources(
        _ service: MeteredService, _ replica: MeteredService.Replica, _ known: [String: PageMeter], _ wanted: inout [String: PageMeter]
    ) -> [MeterSource] {
        var metrics: [String: [PageMetric]] = [:]
        for metric in service.metrics {
            guard case .page(let selector, let path, let kind, let most) = metric.source else { continue }
            metrics[path, default: []].append(PageMetric(metric.name, selector, kind: kind, most: most))
        }
        return metrics.map { path, metrics in
            let keys = metrics.map { MeterKey(service: service.name, replica: replica.number, metric: $0.name) }
            guard let endpoint = replica.endpoint else {
                let fault = MeterFault(.absent, "\(service.name)/\(replica.number) answers no HTTP: it has no metrics page")
                return MeterSource(id: "page \(service.name)/\(replica.number) \(path)", kind: .page, keys: keys) {
                    Dictionary(uniqueKeysWithValues: keys.map { ($0, .failure(fault)) })
                }
            }
            // Another process, or other metrics: their counters have nothing to do with those before.
            let asked = metrics.map { "\($0.name) \($0.selector) \($0.kind) \($0.most ?? -1)" }.joined(separator: ";")
            let id = "page \(service.name)/\(replica.number) \(replica.pid) \(endpoint)\(path) \(asked)"
            let page = PageSource(loop: loop, endpoint: endpoint, path: path, limits: limits)
            let meter = known[id] ?? PageMeter(page, metrics, window: window, bounds: bounds)
            wanted[id] = meter
            return MeterSource(id: id, kind: .page, keys: keys) {
                Dictionary(zip(keys, await meter.read())) { first, _ in first }
            }
        }
    }

    /// A source of one figure of the whole service.
    private func serviceSource(
        _ service: MeteredService, _ metric: MeteredService.Metric, _ known: [String: PageMeter], _ wanted: inout [String: PageMeter]
    ) -> MeterSource? {
        let key = MeterKey(service: service.name, metric: metric.name)
        switch metric.source {
        case .counted(let id, let read):
            return MeterSource(id: "store \(service.name) \(metric.name) \(id)", kind: .store, keys: [key]) { [key: await read()] }
        case .lag(let meter):
            return MeterSource(id: "lag \(service.name) \(metric.name) \(meter)", kind: .lag, keys: [key]) { [key: await meter.read()] }
        case .otherPage(let page, let selector):
            let id = "page \(service.name) \(metric.name) \(page) \(selector)"
            let meter = known[id] ?? PageMeter(page, [PageMetric(metric.name, selector)], window: window, bounds: bounds)
            wanted[id] = meter
            return MeterSource(id: id, kind: .page, keys: [key]) { Dictionary(zip([key], await meter.read())) { first, _ in first } }
        case .cpu, .memory, .page, .requests, .concurrency, .latencyMean, .latencyP95: return nil
        }
    }
}
