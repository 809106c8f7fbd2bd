import Basics

/// The records of what the failover machine decides, for the journal.
extension FailoverMachine {
    private func record(
        _ kind: DecisionRecord.Kind, _ number: Int, raw: String, outcome: String, _ sentence: String, flip: String,
        inputs: [DecisionRecord.Input] = []
    ) -> DecisionRecord {
        DecisionRecord(
            kind, subject: name(number), inputs: [.init("term", record.term)] + inputs, raw: raw, outcome: outcome, sentence: sentence,
            flip: flip)
    }

    func lostPrimary(_ how: String) -> DecisionRecord {
        record(
            .failover, record.primary, raw: "dead", outcome: "fenced",
            "\(name(record.primary)), the primary, \(how): it is fenced before anybody takes over, because processes of it may still "
                + "acknowledge writes.",
            flip: "an answer to a new connection", inputs: [.init("last known position", lastPosition?.description ?? "unknown")])
    }

    func isFenced(_ clean: WALPosition?) -> DecisionRecord {
        let how = clean.map { "it had stopped in order, with its last checkpoint at \($0)" } ?? "it had not stopped in order"
        return record(
            .fence, record.primary, raw: "fence", outcome: "fenced",
            "\(name(record.primary)) is fenced: no process works in its folder, and it cannot start as primary; \(how).",
            flip: "a process of it that does not end")
    }

    func notFenced(_ why: String) -> DecisionRecord {
        record(
            .fence, record.primary, raw: "fence", outcome: "nobody is promoted",
            "\(name(record.primary)) could not be fenced (\(why)), so nobody may take over: it is tried again every "
                + "\(FailoverMachine.fenceAgain.brief).",
            flip: "the end of every process that works in its folder")
    }

    func isPromoted(_ heir: Int, _ timeline: UInt32, _ fork: WALPosition?, _ total: Duration?) -> DecisionRecord {
        let took = total.map { ", \($0.brief) after the primary was found dead or told to stop" } ?? ""
        let rest = record.toRewind.sorted().map(name).joined(separator: ", ")
        return record(
            .failover, heir, raw: name(heir), outcome: "primary",
            "\(name(heir)) is primary on timeline \(timeline)\(took)\(rest.isEmpty ? "" : "; \(rest) must be rewound to follow it").",
            flip: "nothing; it is done", inputs: [.init("fork", fork?.description ?? "unknown")])
    }

    func notPromoted(_ heir: Int, _ why: String) -> DecisionRecord {
        record(
            .failover, heir, raw: "promote", outcome: "asked again",
            "\(name(heir)) was not promoted (\(why)): it is asked again, and nobody else is, because it may have become primary unseen.",
            flip: "its answer")
    }

    func leads(_ number: Int, isBack: Bool) -> DecisionRecord {
        record(
            .store, number, raw: name(number), outcome: "primary",
            isBack
                ? "\(name(number)) serves again as primary, with its own data."
                : "\(name(number)) serves as the first primary of \(settings.name).",
            flip: "the store's record")
    }

    func secondPrimary(_ number: Int) -> DecisionRecord {
        record(
            .fence, number, raw: "ended", outcome: "ended",
            "\(name(number)) says that it is primary while \(name(record.primary)) leads: it is ended and rewound.",
            flip: "nobody who promotes nodes by hand; 'muster postgres promote' does it with a fence")
    }

    func relaxed(_ isRelaxed: Bool) -> DecisionRecord {
        let relax = settings.relax?.brief ?? ""
        return record(
            .relax, record.primary, raw: isRelaxed ? "wait" : "acknowledge alone",
            outcome: isRelaxed ? "acknowledges alone" : "waits for a standby",
            isRelaxed
                ? "no standby of \(settings.name) has streamed for \(relax): \(name(record.primary)) acknowledges writes that only it has, "
                    + "until one streams. They are lost if it is."
                : "a standby of \(settings.name) streams again: \(name(record.primary)) waits for one before it acknowledges a write.",
            flip: isRelaxed ? "relax: never" : "no standby that streams")
    }

    func mustRejoin(_ number: Int, _ why: String) -> DecisionRecord {
        record(
            .store, number, raw: "follow", outcome: "rewound", "\(name(number)) is stopped and rewound: \(why).",
            flip: "a log that the primary's continues")
    }

    func needsCopy(_ number: Int, _ why: String) -> DecisionRecord {
        record(
            .store, number, raw: "follow", outcome: "cloned",
            "\(name(number)) gets a new copy of \(name(record.primary)), and its folder is set aside: \(why).",
            flip: "a log that the primary's continues")
    }

    func fit(_ number: Int, _ outcome: Rejoining) -> DecisionRecord {
        let how = outcome == .cloned ? "has a new copy of \(name(record.primary))" : "is rewound to \(name(record.primary))"
        return record(
            .store, number, raw: "rejoin", outcome: outcome == .cloned ? "cloned" : "rewound", "\(name(number)) \(how) and follows it.",
            flip: "nothing; it is done")
    }

    func unfit(_ number: Int, _ why: String) -> DecisionRecord {
        record(
            .store, number, raw: "rejoin", outcome: "tried again", "\(name(number)) cannot follow \(name(record.primary)): \(why).",
            flip: "what the message names")
    }

    func lost(_ number: Int, _ commits: Int?) -> DecisionRecord {
        let fork = record.fork?.description ?? "the fork"
        let said =
            switch commits {
            case nil: "how many commits it had beyond \(fork) could not be counted"
            case 0?: "it had no commit beyond \(fork): nothing was lost"
            case 1?: "1 commit that it had beyond \(fork) is lost, acknowledged or not"
            case let count?: "\(count) commits that it had beyond \(fork) are lost, acknowledged or not"
            }
        return record(
            .failover, number, raw: "count", outcome: commits.map { "\($0) lost" } ?? "not counted",
            "\(name(number)) is taken back: \(said).",
            flip: "acknowledge: replica, by which a write that is acknowledged is on a standby too", inputs: [.init("fork", fork)])
    }

    func switchoverBegins(_ heir: Int) -> DecisionRecord {
        record(
            .failover, record.primary, raw: name(heir), outcome: "switchover",
            "\(name(heir)) is to lead in place of \(name(record.primary)), as somebody asked for: a checkpoint, a stop in order, and then "
                + "the promotion.",
            flip: "nothing; somebody asked")
    }

    func forced(_ heir: Int) -> DecisionRecord {
        record(
            .failover, record.primary, raw: name(heir), outcome: "\(name(heir)) takes over",
            "\(name(heir)) is to lead although \(name(record.primary)) does not run, as somebody asked for: what it lacks is lost.",
            flip: "nothing; somebody asked")
    }

    func switchoverGivenUp(_ heir: Int, _ taken: WALPosition, _ end: WALPosition) -> DecisionRecord {
        record(
            .failover, record.primary, raw: name(heir), outcome: "given up",
            "\(name(heir)) has received up to \(taken), and \(name(record.primary)) stopped with a checkpoint at \(end): it leads again.",
            flip: "a standby that receives the end of the log")
    }
}
