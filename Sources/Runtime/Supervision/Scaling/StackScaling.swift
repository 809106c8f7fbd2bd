import Basics
import EventLoops
import Observability
import StackModel
import StoreKinds

/// The stack as its autoscalers see it: begins when the stack runs, and follows its file. On the control loop.
final class StackScaling: ScalingHost {
    private unowned let stack: StackRunner
    private let context: StackContext
    /// nil: the stack does not run yet.
    private(set) var scalers: ScalingLoop?
    /// Until the scalers have them.
    private var asked: AskedSizes
    private let housekeeping: Housekeeping
    /// What a supervisor before this one has left, until the scalers have it.
    private var recorded: RecordedScaling?

    init(_ stack: StackRunner, _ context: StackContext, _ housekeeping: Housekeeping, asked: AskedSizes, recorded: RecordedScaling?) {
        self.housekeeping = housekeeping
        self.stack = stack
        self.context = context
        self.asked = asked
        self.recorded = recorded
    }

    /// The services have changed, or have all started, before which there is no load to scale by: what they use is recorded even where none
    /// scales.
    func follow() {
        let services = stack.stack.services, scales = services.contains { $0.scaling != nil }
        // The first that scale by themselves set the pace of the meters, so these begin anew; what was recorded is kept and read again.
        if let scalers, scalers.scalesAny || !scales { return scalers.follow(services) }
        guard stack.phase == "running" else { return }
        scalers?.stop()
        start(services)
    }

    private func start(_ services: [ServiceSpec]) {
        // What was recorded until now goes on in memory: its file may still be on the way to the disk.
        let scalers = ScalingLoop(
            services, host: self, gateway: context.gateway, metrics: context.metrics, folder: context.folder.scaling, recorded: recorded,
            resources: scalers?.resources ?? ResourceRecorder())
        let isFirst = self.scalers == nil
        self.scalers = scalers
        recorded = nil
        // A size that was asked for on the command line, or while the stack was starting, is a hand's.
        for (service, count) in asked.held.sorted(by: { $0.key < $1.key }) where isFirst {
            if let record = scalers.set(service, count, from: count) { context.journal.append(record) }
        }
        scalers.start()
    }

    /// Somebody has set the size of a service, or freed it (nil). What is to be told; nil: it does not scale by itself.
    func set(_ service: ServiceSpec, _ count: Int?, from current: Int) -> DecisionRecord? {
        if let scalers { return scalers.set(service.name, count, from: current) }
        let record = asked.set(service.name, count, from: current, now: .now)
        return service.scaling == nil ? nil : record
    }

    func stop() { scalers?.stop() }

    /// Replicas have come or gone.
    func replicasChanged() { scalers?.replicasChanged() }

    // MARK: what the scaling loop asks and tells

    var loop: EventLoop { context.loop }
    var tell: (String) -> Void { context.tell }
    func runners(of service: String) -> [ReplicaRunner] { stack.runners(of: service) }
    func gauge(_ store: String, _ length: MetricOrigin.Length) -> StoreGauge? { stack.units.gauge(store, length) }
    func decided(_ record: DecisionRecord) { stack.decided(record) }
    func passed(_ line: ScalingLine) { context.record.take(line) }
    func inBackground(_ work: @escaping @Sendable () -> Void) { housekeeping.inBackground(work) }

    func size(of service: String) -> (desired: Int, surge: Int?)? {
        guard stack.phase == "running", !stack.isLeaving(service), let machine = stack.serviceMachine(service) else { return nil }
        return (machine.desired, machine.surge)
    }

    func autoscale(_ service: String, to count: Int, work: [Int: Int], because record: DecisionRecord) -> Bool {
        // The machine sets no size while the stack is starting its stores or ending.
        guard size(of: service) != nil else { return false }
        context.journal.append(record)
        context.tell("scale: \(record.sentence)")
        stack.setSize(service, count, work)
        return true
    }
}
