import Autoscaling
import Basics
import EventLoops
import Gateway
import Measurement
import Metering
import Observability
import Rightsizing
import StackModel
import StoreKinds

/// What the scaling loop needs of the stack around it. All on the control loop.
protocol ScalingHost: AnyObject {
    var loop: EventLoop { get }
    /// nil: the service is not running yet, or the stack is ending.
    /// With the number of the replica that a roll has added, which is no additional one.
    func size(of service: String) -> (desired: Int, surge: Int?)?
    func runners(of service: String) -> [ReplicaRunner]
    /// Counts something in a store of the stack; nil: nothing of the sort can be counted there.
    func gauge(_ store: String, _ length: MetricOrigin.Length) -> StoreGauge?
    /// Sets the size; of those that go, the ones with the least `work`. False when it was not set, and nothing was told: the stack is ending,
    /// or the service has gone.
    func autoscale(_ service: String, to count: Int, work: [Int: Int], because record: DecisionRecord) -> Bool
    func decided(_ record: DecisionRecord)
    /// An autoscaler has made a pass.
    func passed(_ line: ScalingLine)
    /// Does what waits for a disk, one thing after the other.
    func inBackground(_ work: @escaping @Sendable () -> Void)
    /// A line for whoever runs the stack.
    var tell: (String) -> Void { get }
}

/// Runs the autoscalers of a stack: has the meters read, lets each service's autoscaler decide in its turn, and hands its wish to the
/// supervisor. What every service uses is recorded here too, because one pass over /proc serves both. On the control loop.
final class ScalingLoop {
    private unowned let host: any ScalingHost
    private let gateway: Gateway?
    private let meters: ServiceMeters
    private var scalers: [String: ServiceScaler] = [:]
    private var nextPass: [String: MonotonicTime] = [:]
    private var timer: LoopTimer?
    private var metering: Task<Void, Never>?
    private let store: ScalingStore
    /// What all services use, scaled or not.
    private(set) var resources: ResourceRecorder
    private let resourceStore: ResourceStore
    private var memoryKills = MemoryKills()
    /// Why the last writing failed.
    private var unwritten: String?
    /// What was learned is being written.
    private var isKeeping = false
    /// The files that could not be read yet. Each is tried again every second, and not written before.
    private var unread: Set<String> = []
    private var services: [ServiceSpec] = []
    private var hasStopped = false
    private var nextRecording = MonotonicTime.now
    private var nextKeeping = MonotonicTime.now + ResourceStore.interval

    /// How often it is looked whose turn it is.
    private static let tick = Duration.milliseconds(250)

    /// `recorded`: what a supervisor before this one has left; the autoscalers go on from it. `resources`: what was recorded so far, which
    /// is not read again.
    init(
        _ services: [ServiceSpec], host: any ScalingHost, gateway: Gateway?, metrics: MetricsRegistry, folder: String,
        recorded: RecordedScaling?, resources: ResourceRecorder = ResourceRecorder()
    ) {
        self.host = host
        self.resources = resources
        self.gateway = gateway
        store = ScalingStore(folder: folder)
        resourceStore = ResourceStore(folder: folder)
        let shortest = services.compactMap(\.scaling?.period).min() ?? .seconds(15)
        var settings = MeterSchedule.Settings()
        // Three looks between two decisions, over the last two of which a rate is taken.
        settings.period = min(.seconds(15), max(.seconds(1), shortest / 3))
        meters = ServiceMeters(loop: host.loop, gateway: gateway, metrics: metrics, settings: settings, window: settings.period * 2)
        follow(services)
        guard let recorded else { return }
        let now = MonotonicTime.now
        for (name, scaler) in scalers {
            scalers[name]!.recall(
                recorded.pasts[name], recorded.points(name, metrics: ScalingReadings.names(scaler.scaling)), now: now)
        }
    }

    /// Another stack file: services that are new to scaling begin, those that no longer scale are forgotten.
    func follow(_ services: [ServiceSpec]) {
        let now = MonotonicTime.now
        self.services = services
        resources.follow(services.map(\.name)) { storedUsage(of: $0) ?? [:] }
        // Of a service that is gone nothing is decided; one that comes again under its name begins anew.
        let names = Set(services.map(\.name))
        scalers = scalers.filter { names.contains($0.key) }
        nextPass = nextPass.filter { names.contains($0.key) }
        for service in services {
            guard let scaling = service.scaling else {
                scalers[service.name] = nil
                continue
            }
            if scalers[service.name] != nil {
                scalers[service.name]!.follow(service, scaling)
            } else {
                scalers[service.name] = ServiceScaler(
                    service, scaling, history: storedHistory(of: service.name) ?? DemandHistory(), now: now)
                nextPass[service.name] = now + scaling.period
            }
        }
        replicasChanged()
    }

    func start() {
        let meters = meters
        // Ends with `stop`.
        metering = Task(executorPreference: host.loop) { await meters.run() }
        timer = LoopTimer(loop: host.loop) { [unowned self] in
            turn(.now)
            timer?.schedule(after: ScalingLoop.tick)
        }
        timer?.schedule(after: ScalingLoop.tick)
    }

    func stop() {
        hasStopped = true
        timer?.cancel()
        timer = nil
        metering?.cancel()
        keep()
    }

    /// A request waits at the gateway for a replica of this service: not later than now.
    func wake(_ service: String) {
        // One is on its way already, or there: its turns come with the others.
        guard scalers[service] != nil, host.size(of: service)?.desired == 0 else { return }
        pass(service, .now)
    }

    /// Whether any service scales.
    var scalesAny: Bool { !scalers.isEmpty }

    /// Somebody has set the size of a service, or freed it (nil). What is to be told.
    func set(_ service: String, _ count: Int?, from current: Int) -> DecisionRecord? {
        scalers[service]?.set(count, from: current, now: .now)
    }

    /// Of each service that is scaled, its present standing.
    var standings: [(name: String, scaler: ServiceScaler)] { scalers.sorted { $0.key < $1.key }.map { ($0.key, $0.value) } }

    // MARK: passes

    private func turn(_ now: MonotonicTime) {
        for name in scalers.keys.sorted() where now >= nextPass[name] ?? now {
            // From now, not from when it was due: what was late is not made up for.
            nextPass[name] = now + scalers[name]!.scaling.period
            pass(name, now)
        }
        record(now)
    }

    /// Looks whether a replica's sample is due; writes down what was seen now and then.
    private func record(_ now: MonotonicTime) {
        guard now >= nextRecording else { return }
        nextRecording = now + .seconds(1)
        memoryKills.look(MemoryKills.count(), now: now)
        if !unread.isEmpty { readLate() }
        let wall = WallTime.now
        if let record = resources.look(now: now, wall: wall) { host.decided(record) }
        for service in services { resources.take(meters.readings(of: service.name, now: now), of: service.name, now: now, wall: wall) }
        guard now >= nextKeeping else { return }
        nextKeeping = now + ResourceStore.interval
        resources.forget(wall)
        // A disk that takes longer than the interval is not given the same once more.
        if !isKeeping { keep() }
    }

    /// A replica's process has ended by a SIGKILL from outside. Where the kernel says that it ended one for want of memory, this one is taken
    /// to have needed more than it had.
    func killedByOthers(_ service: String, _ number: Int) {
        guard let spec = services.first(where: { $0.name == service }),
            memoryKills.explainsAnEnd(MemoryKills.count(), now: .now),
            let record = resources.outOfMemory(service, number, declared: spec.memory, wall: .now)
        else { return }
        host.decided(record)
    }

    /// Writes down what was learned and seen, in the background: the disk may take its time. What cannot be written is told once, until it can
    /// be again.
    private func keep() {
        isKeeping = true
        let store = store, resourceStore = resourceStore
        let histories = scalers.filter { !unread.contains(store.file($0.key).path) }.mapValues(\.demandHistory)
        var usages: [String: [Int: ContainerUsage]] = [:]
        for service in services where !unread.contains(resourceStore.file(service.name).path) {
            usages[service.name] = resources.usage(of: service.name)
        }
        let seen = usages, loop = host.loop, bound = LoopBound(self, on: loop)
        host.inBackground {
            var trouble: String?
            do throws(SystemError) {
                for (name, history) in histories { try store.keep(history, of: name) }
                for (name, usage) in seen { try resourceStore.keep(usage, of: name) }
            } catch { trouble = "\(error)" }
            let told = trouble
            loop.execute { bound.value.kept(told) }
        }
    }

    /// What was learned is written; or why not.
    private func kept(_ trouble: String?) {
        isKeeping = false
        if let trouble, trouble != unwritten {
            host.tell(
                "scaling: what was learned cannot be written (\(trouble)): a restart now would lose it; it is tried again in "
                    + "\(ResourceStore.interval.brief)")
        }
        unwritten = trouble
    }

    private func storedHistory(of service: String) -> DemandHistory? {
        stored(store.file(service)) { DemandHistory(text: String(decoding: $0, as: UTF8.self)) }
    }

    private func storedUsage(of service: String) -> [Int: ContainerUsage]? {
        stored(resourceStore.file(service)) { try? ResourceStore.read($0, now: .now) }
    }

    /// What a file holds; nil when there is none, or none that can be read now. Each trouble is told once.
    private func stored<Content>(_ file: LearnedFile, _ decode: ([UInt8]) -> Content?) -> Content? {
        do throws(SystemError) {
            let found = try file.read(decode)
            unread.remove(file.path)
            switch found {
            case .nothing: return nil
            case .content(let content): return content
            case .setAside(let path):
                host.tell(
                    "scaling: \(file.path) is damaged, or of another version of muster: it is kept as \(path), and what it had is learned "
                        + "anew")
                return nil
            }
        } catch {
            if unread.insert(file.path).inserted {
                host.tell(
                    "scaling: what was learned cannot be read (\(error)): it is tried again every second, and \(file.path) is not written "
                        + "before")
            }
            return nil
        }
    }

    /// Tries again to read what could not be read.
    private func readLate() {
        for service in services {
            if unread.contains(store.file(service.name).path), let history = storedHistory(of: service.name) {
                scalers[service.name]?.adopt(history)
            }
            if unread.contains(resourceStore.file(service.name).path), let usage = storedUsage(of: service.name) {
                resources.adopt(usage, of: service.name)
            }
        }
        let known = Set(services.flatMap { [store.file($0.name).path, resourceStore.file($0.name).path] })
        unread.formIntersection(known)
    }

    private func pass(_ name: String, _ now: MonotonicTime) {
        guard let size = host.size(of: name) else { return }
        let runners = host.runners(of: name)
        let situation = ServiceScaler.Situation(
            now: now, wall: .now, current: size.desired, replicas: runners.filter { $0.number != size.surge }.map(ScalingLoop.state),
            readings: meters.readings(of: name, now: now), demand: demand(name, now))
        let outcome = scalers[name]!.pass(situation)
        if let finding = outcome.finding { host.decided(finding) }
        if let count = outcome.count, let record = outcome.record {
            let work = Dictionary(uniqueKeysWithValues: runners.map { ($0.number, $0.replica?.inFlight ?? 0) })
            let isSet = host.autoscale(name, to: count, work: work, because: record)
            // The host may have taken the service out of scaling meanwhile.
            scalers[name]?.settle(isSet, from: size.desired, now: now)
        } else if let record = outcome.record {
            host.decided(record)
        }
        if let line = scalers[name]?.line(at: now) { host.passed(line) }
    }

    private func demand(_ service: String, _ now: MonotonicTime) -> Idling.Demand {
        guard let gateway else { return Idling.Demand(waiting: 0, underWay: 0, quiet: nil) }
        return Idling.Demand(
            waiting: gateway.waiting(for: service), underWay: gateway.inFlight(service: service),
            quiet: gateway.lastRequest(service: service).map { max(.zero, now - $0) })
    }

    /// A replica that starts counts as one that is coming; one that has served and does not now, as one that is unready.
    private static func state(_ runner: ReplicaRunner) -> ServiceScaler.ReplicaNow {
        let phase: ReplicaState.Phase, ready: ReplicaState.Readiness
        switch runner.machine.phase {
        case .ready, .degraded: (phase, ready) = (.running, .yes)
        case .failing: (phase, ready) = (.running, .no)
        default: (phase, ready) = (.pending, .no)
        }
        let isLeaving = [.draining, .stopping, .stopped].contains(runner.machine.phase)
        return ServiceScaler.ReplicaNow(
            state: ReplicaState(
                id: runner.number, phase: phase, isLeaving: isLeaving, ready: ready, startedAt: runner.bornAt,
                readyChangedAt: runner.servingChangedAt),
            isServing: runner.machine.isServing)
    }

    // MARK: meters

    /// Replicas have come or gone.
    func replicasChanged() {
        guard !hasStopped else { return }
        meters.follow(
            services.map { service in
                let replicas = host.runners(of: service.name).filter { $0.pid > 0 && $0.machine.isServing }.map {
                    MeteredService.Replica(number: $0.number, pid: $0.pid, endpoint: $0.endpoint)
                }
                let usage = [MeteredService.Metric(ResourceRecorder.cpu, .cpu), MeteredService.Metric(ResourceRecorder.memory, .memory)]
                return MeteredService(name: service.name, metrics: usage + (scalers[service.name].map(metrics) ?? []), replicas: replicas)
            })
    }

    private func metrics(_ scaler: ServiceScaler) -> [MeteredService.Metric] {
        zip(ScalingReadings.names(scaler.scaling), scaler.scaling.origins).compactMap { name, origin in
            source(origin, scaler.service).map { MeteredService.Metric(name, $0) }
        }
    }

    /// nil: what cannot be read has been told when the stack file was, or is told by the metric's being unknown.
    private func source(_ origin: MetricOrigin, _ service: ServiceSpec) -> MeteredService.Metric.Source? {
        switch origin {
        case .cpu: return .cpu
        case .memory: return .memory
        case .gateway(.requests): return .requests
        case .gateway(.concurrency): return .concurrency
        case .gateway(.latency): return .latencyP95
        case .replicaPage(let selector): return (try? SampleSelector(selector)).map { .page($0, path: service.http?.metrics ?? "/metrics") }
        case .page(let url, let selector):
            guard let page = page(url), let selector = try? SampleSelector(selector) else { return nil }
            return .otherPage(page, selector)
        case .length(let store, let length):
            return host.gauge(store, length).map { .counted(id: "\(store) \($0.id)", read: $0.read) }
        case .lag(let topic, let group, let url, _):
            guard let page = page(url), let meter = try? LagMeter(page, group: group, topic: topic) else { return nil }
            return .lag(meter)
        }
    }

    /// `http://host:port/path`
    private func page(_ url: String) -> PageSource? {
        let rest = url.dropFirst("http://".count), slash = rest.firstIndex(of: "/") ?? rest.endIndex
        let place = rest[..<slash]
        guard let endpoint = Endpoint(place.contains(":") ? String(place) : "\(place):80") else { return nil }
        return PageSource(loop: host.loop, endpoint: endpoint, path: slash == rest.endIndex ? "/metrics" : String(rest[slash...]))
    }
}
