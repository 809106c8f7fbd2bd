import Basics
import EventLoops
import StoreKinds

/// What the runner of an external store tells the stack. All on the control loop.
protocol ExternalHost: AnyObject {
    var loop: EventLoop { get }
    var tell: (String) -> Void { get }
    func decided(_ record: DecisionRecord)
    /// It serves, for the first time or again.
    func answers(_ runner: ExternalRunner)
    /// It was waited for long enough at the start, and is away.
    func isAway(_ runner: ExternalRunner, _ reason: String)
    func measured(_ unit: String, _ number: Int, isUp: Bool, _ figures: [StoreFigure])
}

/// Probes a store that somebody else runs, from `start` until `stop`. On the control loop.
final class ExternalRunner {
    let unit: String
    private(set) var machine: ExternalMachine
    private(set) var role: String?
    private(set) var startedAt = WallTime.now
    private let probe: any NodeProbe
    private unowned let host: any ExternalHost
    private var timer: LoopTimer?
    private var isOver = false
    private var turns = 0

    /// One that is waited for is asked often, so that what needs it starts as soon as it can.
    private static let startingInterval = Duration.milliseconds(200)
    private static let interval = Duration.seconds(1)
    /// Probes from one look at its figures to the next.
    static let turnsPerMeasurement = 10

    init(unit: String, store: any Store, host: any ExternalHost) {
        self.unit = unit
        self.host = host
        probe = store.probe(nil)
        machine = ExternalMachine(subject: unit, place: store.place, now: .now)
    }

    func start() {
        timer = LoopTimer(loop: host.loop) { [weak self] in self?.ask() }
        timer?.schedule(after: .milliseconds(20))
    }

    func stop() {
        isOver = true
        timer?.cancel()
        timer = nil
        probe.close()
    }

    private func ask() {
        let bound = LoopBound(self, on: host.loop)
        // Ends with the probe's answer or its time limit; the next one is only asked then.
        Task(executorPreference: host.loop) {
            bound.value.answered(await bound.value.probe.ask())
            guard bound.value.isMeasuring else { return }
            bound.value.measured(await bound.value.probe.figures())
        }
    }

    private var isMeasuring: Bool { !isOver && machine.isServing && turns % ExternalRunner.turnsPerMeasurement == 1 }

    private func measured(_ figures: [StoreFigure]) {
        if !isOver, machine.isServing { host.measured(unit, 1, isUp: true, figures) }
    }

    private func answered(_ report: ProbeReport) {
        if isOver { return }
        role = report.role
        turns += 1
        let served = machine.isServing
        let news = machine.probed(report.answer, now: .now)
        if machine.isServing != served {
            startedAt = .now
            host.measured(unit, 1, isUp: machine.isServing, [])
        }
        timer?.schedule(after: machine.phase == .starting ? ExternalRunner.startingInterval : ExternalRunner.interval)
        for one in news {
            if isOver { return }
            switch one {
            case .serves: host.answers(self)
            case .waits(let reason): host.tell("waiting for \(unit), an external store at \(machine.place): \(reason)")
            case .isAway(let reason): host.isAway(self, reason)
            case .decided(let record):
                host.decided(record)
                host.tell(record.sentence)
            }
        }
    }
}
