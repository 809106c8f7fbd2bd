import Basics
import Observability
import Resilience

/// Condenses the failed tries of one loop for the journal: one record when a kind of failure on a replica begins, and one when it is over,
/// with how often it occurred. Under an outage there are thousands of failed tries a second, and a record for each would push every
/// decision out of the journal.
///
/// Bounds: `limit` kinds at once; further kinds are not journaled (the metrics count them).
final class RetryNotes {
    private struct Key: Hashable {
        let replica: ObjectIdentifier
        let failure: TryFailure
        let verdict: RetryPolicy.Verdict
    }

    private struct Note {
        let name: String
        var edge = EdgeCount()
    }

    private let journal: Journal
    private var notes: [Key: Note] = [:]
    private static let limit = 1024

    init(journal: Journal) { self.journal = journal }

    /// Notes one failed try. `record` is called for the first of its kind only.
    func note(_ replica: Replica, _ failure: TryFailure, _ verdict: RetryPolicy.Verdict, _ now: MonotonicTime, record: () -> DecisionRecord)
    {
        let key = Key(replica: ObjectIdentifier(replica), failure: failure, verdict: verdict)
        if notes[key] == nil {
            guard notes.count < RetryNotes.limit else { return }
            notes[key] = Note(name: replica.name)
        }
        if notes[key]?.edge.happened(now) == true { journal.append(record()) }
    }

    /// Journals the kinds of failure that are over, and forgets them.
    func timePassed(_ now: MonotonicTime) {
        if notes.isEmpty { return }
        for (key, note) in notes {
            var edge = note.edge
            guard let end = edge.ended(now) else { continue }
            notes[key] = nil
            if end.count > 1 { journal.append(record(key, note.name, end, edge.quiet)) }
        }
    }

    private func record(_ key: Key, _ name: String, _ end: EdgeCount.End, _ quiet: Duration) -> DecisionRecord {
        let became = key.verdict == .retry ? "were tried on another replica" : "were not tried again (\(key.verdict.rawValue))"
        return DecisionRecord(
            .retry, subject: name,
            inputs: [
                .init("failure", key.failure.rawValue), .init("verdict", key.verdict.rawValue), .init("count", end.count),
                .init("lasted", end.lasted.brief),
            ],
            raw: key.verdict.rawValue, outcome: "ended",
            sentence:
                "\(end.count) requests failed on \(name) (\(key.failure.rawValue)) within \(end.lasted.brief) and \(became); for "
                + "\(quiet.brief) there was none.",
            flip: "another such failure")
    }
}
