import Basics
import StoreKinds

/// The standing of an external store, as a pure machine: probes' answers in, news out. Nothing is started or stopped by it.
struct ExternalMachine {
    /// Each phase, and how it is left.
    enum Phase: Equatable {
        /// It has not answered yet. Leaves by an answer that says that it serves.
        case starting
        /// It serves. Leaves by probes that fail.
        case ready
        /// It serves and says what it lacks. Leaves like `ready`.
        case degraded
        /// It served and does not now. Leaves by an answer that says that it serves.
        case failed
    }

    enum News: Equatable {
        /// It serves: for the first time, or again.
        case serves
        /// The first answer that says otherwise, or the first silence, while it is waited for.
        case waits(String)
        /// It was waited for long enough. Told once.
        case isAway(String)
        case decided(DecisionRecord)
    }

    let subject: String
    /// Hosts and ports.
    let place: String
    private(set) var phase = Phase.starting
    private(set) var since: MonotonicTime
    /// What the last probe found wrong; empty when nothing is.
    private(set) var note = ""
    private var failed = 0
    private var hasTold = false
    private var hasGivenUp = false
    private let began: MonotonicTime

    /// How long a stack that starts waits for it. One that is away for longer is not about to come, and whoever waits is told.
    static let patience = Duration.seconds(10)
    /// Failed probes in a row, a second apart, after which it counts as away: one may be an accident.
    private static let lostAfter = 2

    init(subject: String, place: String, now: MonotonicTime) {
        self.subject = subject
        self.place = place
        since = now
        began = now
    }

    var isServing: Bool { phase == .ready || phase == .degraded }

    /// The contract's word for `muster ps`.
    var state: String {
        switch phase {
        case .starting: "starting"
        case .ready: "ready"
        case .degraded: "degraded"
        case .failed: "failed"
        }
    }

    mutating func probed(_ answer: NodeAnswer, now: MonotonicTime) -> [News] {
        switch answer {
        case .ready: return serves(.ready, "", now)
        case .degraded(let detail): return serves(.degraded, detail, now)
        case .unasked: return []
        case .unready(let detail), .occupied(let detail), .failed(let detail): return fails(detail, now)
        }
    }

    private mutating func enter(_ new: Phase, _ now: MonotonicTime) {
        phase = new
        since = now
    }

    private mutating func serves(_ new: Phase, _ detail: String, _ now: MonotonicTime) -> [News] {
        failed = 0
        note = detail
        let old = phase
        guard old != new else { return [] }
        enter(new, now)
        var news: [News] = old == .starting || old == .failed ? [.serves] : []
        if old == .failed {
            news.append(
                .decided(record("serves again", "\(subject) (external, \(place)) answers again.", flip: "probes that find it away")))
        }
        if new == .degraded {
            news.append(
                .decided(
                    record(
                        "degraded", "\(subject) (external, \(place)) serves, degraded: \(detail).",
                        flip: "a probe that finds nothing wanting")))
        }
        return news
    }

    private mutating func fails(_ detail: String, _ now: MonotonicTime) -> [News] {
        note = detail
        failed += 1
        switch phase {
        case .starting:
            if !hasTold {
                hasTold = true
                return [.waits(detail)]
            }
            guard !hasGivenUp, now - began >= ExternalMachine.patience else { return [] }
            hasGivenUp = true
            return [.isAway(detail)]
        case .ready, .degraded:
            guard failed >= ExternalMachine.lostAfter else { return [] }
            enter(.failed, now)
            return [
                .decided(
                    record(
                        "away", "\(subject) (external, \(place)) is away: \(failed) probes in a row failed, the last with: \(detail).",
                        flip: "one answer that it serves"))
            ]
        case .failed: return []
        }
    }

    private func record(_ outcome: String, _ sentence: String, flip: String) -> DecisionRecord {
        DecisionRecord(
            .store, subject: subject, inputs: [.init("place", place), .init("last_probe", note.isEmpty ? "ready" : note)], raw: "probe",
            outcome: outcome, sentence: sentence, flip: flip)
    }
}
