import Basics
import Resilience

/// One replica's life, as a pure machine: events in, actions out; no process, no clock, no socket.
///
/// At most one timer is wanted at a time; each carries an id, and one that comes late is recognised and ignored.
struct ReplicaMachine {
    struct Settings: Equatable {
        /// From start to ready; beyond it the process is killed and that counts as a death.
        var startTime = Duration.seconds(30)
        /// From SIGTERM to SIGKILL; draining before it may take as long again.
        var grace = Duration.seconds(10)
        /// Failed probes in a row that take it out of the gateway.
        var withdrawAfter = 2
        /// Failed probes in a row after which it is taken for hung and killed.
        var killAfter = 10
    }

    /// Each phase, and how it is left.
    enum Phase: Equatable {
        /// Nothing runs yet. Leaves by `start` or `stop`.
        case idle
        /// The process runs and has not been ready. Leaves by a probe, its end, the start timer (kill, then its end), or `stop`.
        case starting
        /// It takes requests. Leaves by failed probes, its end, or `stop`.
        case ready
        /// It takes requests and says that something it needs is away. Leaves like `ready`.
        case degraded
        /// It was ready and does not answer its probes; it takes no requests. Leaves by a good probe, its end, a kill, or `stop`.
        case failing
        /// Requests under way finish. Leaves when they have, by the timer, or by its end.
        case draining
        /// SIGTERM was sent; SIGKILL follows by the timer. Leaves by its end.
        case stopping
        /// It ended and waits to be started again. Leaves by the timer or `stop`.
        case backingOff
        /// It ended as it was told to. Final.
        case stopped
    }

    enum Probe: Equatable {
        case ready
        case degraded
        /// It answers, and says that it cannot take requests now.
        case unready(String)
        /// It does not answer.
        case failed(String)
    }

    enum Event: Equatable {
        case start
        case spawnFailed(String)
        case probed(Probe)
        case exited(String)
        case drained
        case timer(Int)
        case stop
    }

    enum Action: Equatable {
        case spawn
        case terminate
        case kill
        case setTimer(id: Int, after: Duration)
        /// Requests may be sent to it.
        case admit
        /// No requests any more: it is gone or does not answer.
        case withdraw
        /// No new requests; tell `drained` when those under way are done.
        case drain
        case decided(DecisionRecord)
        /// It is `stopped`; nothing more will happen.
        case finished
    }

    let subject: String
    let settings: Settings
    private(set) var phase = Phase.idle
    /// Deaths that were followed by a new start.
    private(set) var restarts = 0
    private(set) var since: MonotonicTime
    /// How it last ended, or why it could not start; for tables.
    private(set) var trouble = ""
    private var crashes = CrashLoop()
    private var born = MonotonicTime(nanoseconds: 0)
    private var timer = 0
    private var failedProbes = 0
    private var startTimedOut = false
    private var served = false

    init(subject: String, settings: Settings, now: MonotonicTime) {
        self.subject = subject
        self.settings = settings
        since = now
    }

    /// Its process runs, and nobody has told it to end.
    var isRunningUnasked: Bool { phase == .starting || phase == .failing || isServing }
    var isServing: Bool { phase == .ready || phase == .degraded }
    var isLooping: Bool { crashes.isLooping && !isServing }

    /// The contract's word for `muster ps`.
    var state: String {
        switch phase {
        case .idle, .starting: crashes.isLooping ? "failed" : "starting"
        case .ready: "ready"
        case .degraded: "degraded"
        case .failing: "failed"
        case .draining, .stopping: "draining"
        case .backingOff: crashes.isLooping ? "failed" : "backing-off"
        case .stopped: "stopped"
        }
    }

    mutating func handle(_ event: Event, now: MonotonicTime) -> [Action] {
        switch event {
        case .start: phase == .idle ? spawn(now) : []
        case .spawnFailed(let reason): phase == .starting ? died(reason, now) : exited(reason, now)
        case .probed(let result): probed(result, now)
        case .exited(let how): exited(how, now)
        case .drained: phase == .draining ? terminate(now) : []
        case .timer(let id): id == timer ? timePassed(now) : []
        case .stop: stop(now)
        }
    }

    private mutating func enter(_ new: Phase, _ now: MonotonicTime) {
        phase = new
        since = now
        // Whatever timer was wanted belonged to the phase that ended.
        timer += 1
    }

    private mutating func spawn(_ now: MonotonicTime) -> [Action] {
        enter(.starting, now)
        born = now
        failedProbes = 0
        startTimedOut = false
        served = false
        return [.spawn, .setTimer(id: timer, after: settings.startTime)]
    }

    private mutating func probed(_ result: Probe, _ now: MonotonicTime) -> [Action] {
        switch (phase, result) {
        case (.starting, .failed), (.starting, .unready): return []
        case (.starting, _) where startTimedOut: return []
        case (.starting, _), (.failing, .ready), (.failing, .degraded):
            failedProbes = 0
            served = true
            enter(result == .ready ? .ready : .degraded, now)
            return [.admit]
        case (.ready, .degraded), (.degraded, .ready):
            failedProbes = 0
            enter(result == .ready ? .ready : .degraded, now)
            return []
        case (.ready, .ready), (.degraded, .degraded):
            failedProbes = 0
            return []
        case (.ready, .failed(let detail)), (.degraded, .failed(let detail)), (.ready, .unready(let detail)),
            (.degraded, .unready(let detail)):
            failedProbes += 1
            guard failedProbes >= settings.withdrawAfter else { return [] }
            enter(.failing, now)
            return [.withdraw, .decided(failing(detail))]
        case (.failing, .unready):
            // Alive, so not hung: it says itself when it can serve again.
            failedProbes = 0
            return []
        case (.failing, .failed(let detail)):
            failedProbes += 1
            guard failedProbes == settings.killAfter else { return [] }
            trouble = "hung: \(detail)"
            return [.kill, .decided(hung(detail))]
        default: return []
        }
    }

    private mutating func exited(_ how: String, _ now: MonotonicTime) -> [Action] {
        switch phase {
        case .starting, .ready, .degraded, .failing:
            return died(startTimedOut ? "not ready within \(settings.startTime.brief)" : how, now)
        case .draining, .stopping:
            enter(.stopped, now)
            return [.withdraw, .finished]
        case .idle, .backingOff, .stopped: return []
        }
    }

    private mutating func died(_ how: String, _ now: MonotonicTime) -> [Action] {
        trouble = how
        let decision = crashes.died(after: now - born, served: served, how: how, subject: subject)
        restarts += 1
        if decision.result == .zero { return [.withdraw, .decided(decision.record)] + spawn(now) }
        enter(.backingOff, now)
        return [.withdraw, .decided(decision.record), .setTimer(id: timer, after: decision.result)]
    }

    private mutating func timePassed(_ now: MonotonicTime) -> [Action] {
        switch phase {
        case .starting:
            startTimedOut = true
            return [.kill]
        case .draining: return terminate(now)
        case .stopping: return [.kill]
        case .backingOff: return spawn(now)
        case .idle, .ready, .degraded, .failing, .stopped: return []
        }
    }

    private mutating func stop(_ now: MonotonicTime) -> [Action] {
        switch phase {
        case .idle, .backingOff:
            enter(.stopped, now)
            return [.finished]
        case .ready, .degraded:
            enter(.draining, now)
            return [.drain, .setTimer(id: timer, after: settings.grace)]
        case .starting, .failing: return terminate(now)
        case .draining, .stopping, .stopped: return []
        }
    }

    private mutating func terminate(_ now: MonotonicTime) -> [Action] {
        enter(.stopping, now)
        return [.terminate, .setTimer(id: timer, after: settings.grace)]
    }

    private func failing(_ detail: String) -> DecisionRecord {
        DecisionRecord(
            .eject, subject: subject, inputs: [.init("failed_probes", failedProbes), .init("last_probe", detail)],
            raw: "withdraw", outcome: "withdrawn",
            sentence: "\(subject) gets no requests: \(failedProbes) probes in a row failed, the last with: \(detail).",
            flip: "one successful probe")
    }

    private func hung(_ detail: String) -> DecisionRecord {
        DecisionRecord(
            .restart, subject: subject,
            inputs: [.init("failed_probes", failedProbes), .init("limit", settings.killAfter), .init("last_probe", detail)],
            raw: "kill", outcome: "killed, to be started again",
            sentence: "\(subject) is killed: it runs but has failed \(failedProbes) probes in a row (\(detail)).",
            flip: "one successful probe before")
    }
}
