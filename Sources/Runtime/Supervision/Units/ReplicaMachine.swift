import Basics
import Resilience
import StackModel

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
        /// Probes in a row without an answer, and without a sign of work, after which it is taken for hung and killed.
        var killAfter = 10
        /// Probes in a row without an answer that take one out of the gateway which is at work: about 40 s, since each waits for 3 s.
        /// Longer than a large request takes, so that a dozen of them do not leave a service with nobody.
        var withdrawWorkingAfter = 10
        /// Probes in a row without an answer after which one is killed although it is at work: about 7 min. An endless loop works, too.
        var killWorkingAfter = 100
        /// Whether probes say something about it. What is not probed serves for all that is known as soon as it runs, so a life of a
        /// second proves nothing.
        var isProbed = true
        /// Whether it is started again when it ends by itself.
        var restart = RestartPolicy.always
        /// It is to end by itself: it never serves, and `startTime` is the longest time until its end.
        var isTask = false
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
        /// It ended, or could not be started for want of something here, and waits to be started again. Leaves by the timer or `stop`.
        case backingOff
        /// It ended by itself, and is not to be started again. Leaves by `stop`.
        case completed
        /// It ended as it was told to. Final.
        case stopped
    }

    enum Probe: Equatable {
        case ready
        /// It serves, and says what it lacks.
        case degraded(String)
        /// It answers, and says that it cannot take requests now. An error is an answer: whoever gives one does not hang.
        case unready(String)
        /// It answers that what it does now ends by itself: it loads its data, or a script runs. A start is not counted on meanwhile.
        case occupied(String)
        /// It does not answer, but it is at work: its processes compute, wait for a disk, or move bytes.
        case working(String)
        /// It does not answer, and shows no sign of work.
        case failed(String)
        /// It could not be asked, for want of something here (descriptors, say). That tells nothing about it; the time for a start begins anew.
        case unasked(String)
    }

    enum Event: Equatable {
        case start
        /// `isOwnWant`: for want of something here (descriptors, processes, memory). That is no death of the replica's: it is tried again
        /// for as long as that takes.
        case spawnFailed(String, isOwnWant: Bool = false)
        case probed(Probe)
        /// `isSuccess`: with exit status 0.
        case exited(String, isSuccess: Bool = false)
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
        /// It is `completed`, and how: nil when it ended with success.
        case completed(failure: String?)
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
    private var crashes: CrashLoop
    private var born = MonotonicTime(nanoseconds: 0)
    private var timer = 0
    /// In a row, those without an answer only where it shows no sign of work.
    private var failedProbes = 0
    /// In a row without an answer, at work or not.
    private var silentProbes = 0
    /// What the last probe of one that starts was told.
    private var lastAnswer = ""
    /// Starts in a row that failed for want of something here.
    private var wants = 0
    private var startTimedOut = false
    private var served = false

    init(subject: String, settings: Settings, now: MonotonicTime) {
        self.subject = subject
        self.settings = settings
        // Unprobed, only a life that forgives the past counts as useful.
        crashes = CrashLoop(useful: settings.isProbed ? CrashLoop.useful : CrashLoop.settled)
        since = now
    }

    /// Its process runs, and nobody has told it to end.
    var isRunningUnasked: Bool { phase == .starting || phase == .failing || isServing }
    var isServing: Bool { phase == .ready || phase == .degraded }
    var isLooping: Bool { crashes.isLooping && !isServing }

    /// What is wrong with it, for tables: why it last ended, what a probe found, what one that starts answers. Empty when it is ready.
    var note: String {
        switch phase {
        case .ready: ""
        case .starting where trouble.isEmpty: lastAnswer
        default: trouble
        }
    }

    /// The contract's word for `muster ps`.
    var state: String {
        switch phase {
        case .idle, .starting: crashes.isLooping ? "failed" : "starting"
        case .ready: "ready"
        case .degraded: "degraded"
        case .failing: "failed"
        case .draining, .stopping: "draining"
        case .backingOff: crashes.isLooping ? "failed" : "backing-off"
        case .completed: trouble.isEmpty ? "completed" : "failed"
        case .stopped: "stopped"
        }
    }

    mutating func handle(_ event: Event, now: MonotonicTime) -> [Action] {
        switch event {
        case .start: phase == .idle ? spawn(now) : []
        case .spawnFailed(let reason, true) where phase == .starting: wanted(reason, now)
        case .spawnFailed(let reason, _): phase == .starting ? died(reason, now) : exited(reason, now)
        case .probed(let result): probed(result, now)
        case .exited(let how, let isSuccess): exited(how, now, isSuccess: isSuccess)
        case .drained: phase == .draining ? terminate(now) : []
        case .timer(let id): id == timer ? timePassed(now) : []
        case .stop: stop(now)
        }
    }

    private static let firstWait = Duration.milliseconds(200), longestWait = Duration.seconds(10)

    private mutating func enter(_ new: Phase, _ now: MonotonicTime) {
        phase = new
        since = now
        // Whatever timer was wanted belonged to the phase that ended.
        timer += 1
    }

    /// What was asked of one that starts, and what came.
    private var asked: String { lastAnswer.isEmpty ? "" : "; the last probe: \(lastAnswer)" }

    private mutating func spawn(_ now: MonotonicTime) -> [Action] {
        enter(.starting, now)
        born = now
        (failedProbes, silentProbes, lastAnswer) = (0, 0, "")
        startTimedOut = false
        served = false
        return [.spawn, .setTimer(id: timer, after: settings.startTime)]
    }

    /// Its process is started only now, after it was held back: what passed before is not counted as time for its start.
    mutating func begins(_ now: MonotonicTime) -> [Action] {
        guard phase == .starting else { return [] }
        (startTimedOut, born) = (false, now)
        timer += 1
        return [.setTimer(id: timer, after: settings.startTime)]
    }

    private mutating func probed(_ result: Probe, _ now: MonotonicTime) -> [Action] {
        switch (phase, result) {
        case (.starting, _): return probedAtStart(result, now)
        case (_, .unasked): return []
        case (.ready, .ready), (.degraded, .ready), (.failing, .ready): return serves(.ready, "", now)
        case (.ready, .degraded(let detail)), (.degraded, .degraded(let detail)), (.failing, .degraded(let detail)):
            return serves(.degraded, detail, now)
        case (.ready, .unready(let detail)), (.degraded, .unready(let detail)), (.ready, .occupied(let detail)),
            (.degraded, .occupied(let detail)):
            silentProbes = 0
            failedProbes += 1
            return failedProbes >= settings.withdrawAfter ? withdraw(detail, now) : []
        case (.failing, .unready(let detail)), (.failing, .occupied(let detail)):
            // Alive, so not hung: it says itself when it can serve again.
            (failedProbes, silentProbes) = (0, 0)
            trouble = detail
            return []
        case (.ready, .failed(let detail)), (.degraded, .failed(let detail)), (.ready, .working(let detail)),
            (.degraded, .working(let detail)):
            note(result)
            guard failedProbes >= settings.withdrawAfter || silentProbes >= settings.withdrawWorkingAfter else { return [] }
            return withdraw(detail, now)
        case (.failing, .failed(let detail)), (.failing, .working(let detail)):
            note(result)
            guard failedProbes == settings.killAfter || silentProbes == settings.killWorkingAfter else { return [] }
            trouble = "hung: \(detail)"
            return [.kill, .decided(hung(detail))]
        default: return []
        }
    }

    private mutating func note(_ silence: Probe) {
        silentProbes += 1
        if case .working = silence { failedProbes = 0 } else { failedProbes += 1 }
    }

    private mutating func probedAtStart(_ result: Probe, _ now: MonotonicTime) -> [Action] {
        if startTimedOut || settings.isTask { return [] }
        switch result {
        case .ready: return serves(.ready, "", now)
        case .degraded(let detail): return serves(.degraded, detail, now)
        case .occupied(let detail), .unasked(let detail):
            lastAnswer = detail
            // The time for a start begins anew: it is on its way and says so, or what it would say cannot be heard.
            timer += 1
            return [.setTimer(id: timer, after: settings.startTime)]
        case .unready(let detail), .working(let detail), .failed(let detail):
            lastAnswer = detail
            return []
        }
    }

    private mutating func serves(_ new: Phase, _ detail: String, _ now: MonotonicTime) -> [Action] {
        (failedProbes, silentProbes, wants) = (0, 0, 0)
        trouble = detail
        let old = phase
        guard new != old else { return [] }
        enter(new, now)
        served = true
        let said: [Action] = new == .degraded && old == .ready ? [.decided(lacking(detail))] : []
        return (old == .ready || old == .degraded ? [] : [.admit]) + said
    }

    private mutating func withdraw(_ detail: String, _ now: MonotonicTime) -> [Action] {
        trouble = detail
        let count = max(failedProbes, silentProbes)
        enter(.failing, now)
        return [.withdraw, .decided(failing(count, detail))]
    }

    private mutating func exited(_ how: String, _ now: MonotonicTime, isSuccess: Bool = false) -> [Action] {
        switch phase {
        case .starting, .ready, .degraded, .failing:
            let tooLate =
                settings.isTask
                ? "it did not end within \(settings.startTime.brief)" : "not ready within \(settings.startTime.brief)\(asked)"
            return died(startTimedOut ? tooLate : how, now, isSuccess: isSuccess && !startTimedOut)
        case .draining, .stopping:
            enter(.stopped, now)
            return [.withdraw, .finished]
        case .idle, .backingOff, .completed, .stopped: return []
        }
    }

    /// It could not be started for want of something here: neither a death nor the end of a task. The wait before the next try doubles from
    /// 200 ms to 10 s.
    private mutating func wanted(_ reason: String, _ now: MonotonicTime) -> [Action] {
        let isNews = trouble != reason
        trouble = reason
        let wait = Duration.nanoseconds(
            min(ReplicaMachine.firstWait.nanoseconds << Int64(min(wants, 20)), ReplicaMachine.longestWait.nanoseconds))
        wants = wants.addingClamped(1)
        enter(.backingOff, now)
        return (isNews ? [.decided(wanting(reason))] : []) + [.setTimer(id: timer, after: wait)]
    }

    private mutating func died(_ how: String, _ now: MonotonicTime, isSuccess: Bool = false) -> [Action] {
        wants = 0
        if settings.isTask || settings.restart == .never || settings.restart == .onFailure && isSuccess {
            enter(.completed, now)
            trouble = isSuccess ? "" : how
            return [.withdraw, .decided(completed(how, isSuccess)), .completed(failure: isSuccess ? nil : how)]
        }
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
        case .idle, .ready, .degraded, .failing, .completed, .stopped: return []
        }
    }

    private mutating func stop(_ now: MonotonicTime) -> [Action] {
        switch phase {
        case .idle, .backingOff, .completed:
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

    private func wanting(_ reason: String) -> DecisionRecord {
        DecisionRecord(
            .restart, subject: subject, inputs: [.init("want", reason)], raw: "start", outcome: "tried again",
            sentence: "\(subject) cannot be started for want of something on this machine (\(reason)); it is tried again until it can, and "
                + "that counts as no death.",
            flip: "what is wanting: descriptors, processes, memory or space")
    }

    private func completed(_ how: String, _ isSuccess: Bool) -> DecisionRecord {
        DecisionRecord(
            .restart, subject: subject, inputs: [.init("ended", how)], raw: settings.isTask ? "leave" : "restart",
            outcome: "not started again",
            sentence: settings.isTask
                ? "\(subject), a task, \(isSuccess ? "is done" : "failed: \(how). It is not tried again by itself")."
                : "\(subject) ended (\(how)) and is not started again: its 'restart' is \(settings.restart.rawValue).",
            flip: settings.isTask ? (isSuccess ? "the next start of the stack" : "muster up, which tries it again") : "restart: always")
    }

    private func failing(_ count: Int, _ detail: String) -> DecisionRecord {
        DecisionRecord(
            .eject, subject: subject, inputs: [.init("failed_probes", count), .init("last_probe", detail)],
            raw: "withdraw", outcome: "withdrawn",
            sentence: "\(subject) gets no requests: \(count) probes in a row failed, the last with: \(detail).",
            flip: "one successful probe")
    }

    private func lacking(_ detail: String) -> DecisionRecord {
        DecisionRecord(
            .eject, subject: subject, inputs: [.init("last_probe", detail)], raw: "keep", outcome: "degraded",
            sentence: "\(subject) goes on serving, degraded: \(detail).", flip: "a probe that finds nothing wanting")
    }

    private func hung(_ detail: String) -> DecisionRecord {
        let isIdle = failedProbes >= settings.killAfter
        let count = isIdle ? failedProbes : silentProbes, limit = isIdle ? settings.killAfter : settings.killWorkingAfter
        return DecisionRecord(
            .restart, subject: subject,
            inputs: [.init("failed_probes", count), .init("limit", limit), .init("last_probe", detail)],
            raw: "kill", outcome: "killed, to be started again",
            sentence: "\(subject) is killed: it runs\(isIdle ? " without a sign of work" : ""), and \(count) probes in a row had no answer "
                + "(\(detail)).",
            flip: "one answer of any kind before\(isIdle ? ", or processor time, a disk or bytes that it is busy with" : "")")
    }
}
