import Basics
import EventLoops
import Measurement
import Observability
import Synchronization

/// Asks sources for figures in turn and keeps the latest of each: each source once a period and never twice at a time, and at most so many
/// sources at once.
///
/// `MeterRounds` decides whose turn it is. Time is the monotonic clock's alone. Everything may be called from any thread.
public final class MeterSchedule: Sendable {
    /// How often sources are asked, and how many at once.
    public struct Settings: Sendable, Equatable {
        /// The time between two turns of a source: 15 s, the period of the Horizontal Pod Autoscaler.
        public var period = Duration.seconds(15)
        /// Sources that are asked at once.
        public var concurrency = 32

        /// The defaults: 15 s, 32 at once.
        public init() {}
    }

    private struct Known {
        var source: String
        var figure: MeterFigure?
        var fault: MeterFault?
    }

    private struct State {
        var rounds: MeterRounds
        var sources: [String: MeterSource] = [:]
        var known: [MeterKey: Known] = [:]
    }

    /// Interval of waking up, to find turns that are due and a task that was cancelled.
    private static let step = Duration.milliseconds(250)

    private let loop: EventLoop
    private let settings: Settings
    private let figures: MeterFigures
    private let everySecond: @Sendable () -> Void
    private let state: Mutex<State>

    /// The sources' own work is done on `loop`, which should be no loop of the gateway: a pass over /proc holds it up for some
    /// milliseconds. `everySecond` is called while `run` runs, for what wants more looks than one a round.
    public init(
        loop: EventLoop, settings: Settings = Settings(), metrics: MetricsRegistry, everySecond: @escaping @Sendable () -> Void = {}
    ) {
        self.loop = loop
        self.settings = settings
        self.everySecond = everySecond
        figures = MeterFigures(metrics)
        state = Mutex(State(rounds: MeterRounds(period: settings.period, concurrency: settings.concurrency)))
    }

    /// The sources that there are now. Those that were there before, by their id, keep their figures and their turns; new ones are asked at
    /// once.
    public func follow(_ sources: [MeterSource], now: MonotonicTime = .now) {
        let count = state.withLock { state in
            state.sources = Dictionary(sources.map { ($0.id, $0) }) { first, _ in first }
            state.rounds.follow(Set(state.sources.keys), now: now)
            var known: [MeterKey: Known] = [:]
            for source in state.sources.values {
                for key in source.keys {
                    let old = state.known[key]
                    known[key] = old?.source == source.id ? old : Known(source: source.id)
                }
            }
            state.known = known
            return state.sources.count
        }
        figures.sources.set(count)
    }

    /// Asks in turn until its task is cancelled; then ends when those that are being asked have answered or given up (a page at once).
    public func run() async {
        await withDiscardingTaskGroup { group in
            var nextSecond = MonotonicTime.now
            while !Task.isCancelled {
                let now = MonotonicTime.now
                if now >= nextSecond {
                    everySecond()
                    nextSecond = now + .seconds(1)
                }
                for source in begin(now) {
                    group.addTask(executorPreference: loop) { await self.ask(source) }
                }
                await loop.sleep(wait(now))
            }
            group.cancelAll()
        }
    }

    private func wait(_ now: MonotonicTime) -> Duration {
        let next = state.withLock { $0.rounds.nextTurn }
        return min(MeterSchedule.step, max((next ?? now + MeterSchedule.step) - now, .milliseconds(1)))
    }

    /// The sources to ask now.
    private func begin(_ now: MonotonicTime) -> [MeterSource] {
        let (begun, skipped, underWay) = state.withLock { state in
            let skipped = state.rounds.turn(now).compactMap { state.sources[$0]?.kind }
            var begun: [MeterSource] = []
            while let source = MeterSchedule.take(&state) { begun.append(source) }
            return (begun, skipped, state.rounds.active)
        }
        for kind in skipped { figures.skip(kind) }
        figures.underWay.set(underWay)
        return begun
    }

    private static func take(_ state: inout State) -> MeterSource? {
        while let id = state.rounds.take() {
            if let source = state.sources[id] { return source }
            state.rounds.finished(id)
        }
        return nil
    }

    /// Asks one source, and then those that have waited for its place.
    private func ask(_ first: MeterSource) async {
        var next: MeterSource? = first
        while let source = next {
            let began = MonotonicTime.now
            let answers = await source.read()
            figures.answered(source.kind, .now - began)
            let (faults, underWay) = state.withLock { state in
                let faults = MeterSchedule.record(answers, of: source, &state)
                state.rounds.finished(source.id)
                next = Task.isCancelled ? nil : MeterSchedule.take(&state)
                return (faults, state.rounds.active)
            }
            for fault in faults { figures.fault(fault) }
            figures.underWay.set(underWay)
        }
    }

    /// The kinds of the faults among the answers. Answers of a source that nobody follows any more are dropped.
    private static func record(
        _ answers: [MeterKey: Result<MeterFigure, MeterFault>], of source: MeterSource, _ state: inout State
    ) -> [MeterFault.Kind] {
        var faults: [MeterFault.Kind] = []
        for key in source.keys where state.known[key]?.source == source.id {
            switch answers[key] ?? .failure(MeterFault(.absent, "\(source.id) told nothing of \(key)")) {
            case .success(let figure):
                state.known[key]!.figure = figure
                state.known[key]!.fault = nil
            case .failure(let fault):
                faults.append(fault.kind)
                state.known[key]!.fault = fault
                // What a process used that is no more says nothing of the one to come.
                if fault.kind == .gone { state.known[key]!.figure = nil }
            }
        }
        return faults
    }

    /// The readings known now of everything that is followed, or of one service: by service, metric, replica. Outliers among siblings are
    /// noted on their figures.
    public func readings(of service: String? = nil, now: MonotonicTime = .now) -> [MeterReading] {
        let all = state.withLock { state in
            state.known.compactMap { key, known -> MeterReading? in
                guard service == nil || key.service == service else { return nil }
                let fault = known.figure == nil ? known.fault ?? MeterFault(.pending, "\(key) has not been read yet") : known.fault
                return MeterReading(
                    key: key, figure: known.figure, fault: fault, now: now, skippedRounds: state.rounds.skipped(known.source))
            }
        }
        return Plausibility.withOutliersNoted(all).sorted {
            ($0.key.service, $0.key.metric, $0.key.replica ?? -1) < ($1.key.service, $1.key.metric, $1.key.replica ?? -1)
        }
    }
}
