import Basics

/// How long a cluster may take to replace a dead master, as a function of `cluster-node-timeout`, and back.
///
/// Worst case: 2 x node-timeout + 1 s. A node is pinged at least every half timeout and suspected a whole timeout after a ping without
/// answer: 1.5 timeouts. A majority of masters must hear of the suspicion by gossip: up to half a timeout more. Then the replica waits
/// 500 ms and up to 500 ms at random before it asks for votes. From the kill to the promotion on a busy machine with two processors,
/// longest of six: 500 ms: 1.84 s, 1 s: 3.00 s, 2 s: 4.48 s, 5 s: 9.79 s. A client needs a round trip or two more to find the new master.
public enum FailoverTime {
    /// The shortest node-timeout. Below it a busy machine's own pauses look like deaths.
    public static let shortestTimeout = Duration.milliseconds(500)
    /// The longest node-timeout: Redis' default. A longer one only makes the outage longer.
    public static let longestTimeout = Duration.milliseconds(15_000)
    private static let votes = Duration.seconds(1)

    public struct Refusal: Error, Equatable, CustomStringConvertible {
        public let description: String
    }

    public static func worst(nodeTimeout: Duration) -> Duration { nodeTimeout * 2 + votes }

    /// The worst case as arithmetic: `2 x 2s + 1s = 5s`.
    public static func arithmetic(nodeTimeout: Duration) -> String {
        "2 x \(nodeTimeout.brief) + \(votes.brief) = \(worst(nodeTimeout: nodeTimeout).brief)"
    }

    /// The longest node-timeout that keeps the promise. The longer it is, the fewer pauses are taken for deaths.
    public static func nodeTimeout(promise: Duration, subject: String = "cluster") throws(Refusal) -> Decision<Duration> {
        let raw = Duration.milliseconds(((promise - votes) / 2).nanoseconds / 1_000_000)
        guard raw >= shortestTimeout else {
            throw Refusal(
                description:
                    "a failover within \(promise.brief) cannot be promised: with the shortest node timeout it takes up to "
                    + "\(arithmetic(nodeTimeout: shortestTimeout)) until a replica has taken over"
            )
        }
        let chosen = min(raw, longestTimeout)
        var constraints: [DecisionRecord.Constraint] = []
        if chosen < raw {
            constraints.append(
                .init(
                    "longest", before: raw.brief, after: chosen.brief,
                    reason: "it is Redis' default; a longer one only makes the outage longer"))
        }
        return Decision(
            chosen,
            because: DecisionRecord(
                .failover, subject: subject, inputs: [.init("promise", promise.brief)], raw: raw.brief, constraints: constraints,
                outcome: chosen.brief,
                sentence:
                    "node timeout \(chosen.brief): a dead master is replaced within \(arithmetic(nodeTimeout: chosen)), and "
                    + "\(promise.brief) is promised",
                flip: "another promise: a shorter one needs a shorter timeout, at least \(shortestTimeout.brief)"))
    }

    /// Checks a node-timeout that was given, with or without a promise.
    public static func check(nodeTimeout: Duration, promise: Duration?) throws(Refusal) {
        guard nodeTimeout >= shortestTimeout else {
            throw Refusal(
                description:
                    "a node timeout of \(nodeTimeout.brief) is too short: below \(shortestTimeout.brief) a busy machine's own pauses look "
                    + "like deaths"
            )
        }
        guard let promise, worst(nodeTimeout: nodeTimeout) > promise else { return }
        let longest = (try? FailoverTime.nodeTimeout(promise: promise))?.result
        let way = longest.map { "; with \($0.brief) it can" } ?? ""
        throw Refusal(
            description:
                "a failover within \(promise.brief) cannot be promised with a node timeout of \(nodeTimeout.brief): it takes up to "
                + "\(arithmetic(nodeTimeout: nodeTimeout))\(way)"
        )
    }
}
