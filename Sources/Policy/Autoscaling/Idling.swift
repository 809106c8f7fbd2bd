import Basics

/// Decides, by demand alone, when the last replica of a service may end and when the first one is started again.
public enum Idling {
    public enum Outcome: Sendable, Equatable {
        case stay
        /// The last replicas may go.
        case sleep
        /// A request waits: start one replica.
        case wake
    }

    /// The demand for a service, as the gateway knows it.
    public struct Demand: Sendable, Equatable {
        /// The number of requests that wait for a replica.
        public var waiting: Int
        /// The number of requests under way.
        public var underWay: Int
        /// The time since the latest request; nil: there was none since the gateway began.
        public var quiet: Duration?

        public init(waiting: Int, underWay: Int, quiet: Duration?) {
            self.waiting = waiting
            self.underWay = underWay
            self.quiet = quiet
        }
    }

    /// Decides for one service. `up` is how long the service has had its present replicas; before `idle` has passed nothing sleeps (`>=`),
    /// whatever was before.
    public static func decide(_ service: String, current: Int, demand: Demand, up: Duration, idle: Duration) -> Decision<Outcome> {
        let inputs = [
            DecisionRecord.Input("replicas", current), .init("waiting", demand.waiting), .init("under way", demand.underWay),
            .init("quiet for", demand.quiet.map(ScalingWords.whole) ?? "ever"),
        ]
        func answer(_ outcome: Outcome, _ count: Int, _ sentence: String, _ flip: String) -> Decision<Outcome> {
            Decision(
                outcome,
                because: DecisionRecord(
                    .scale, subject: service, inputs: inputs, raw: String(count), outcome: String(count), sentence: sentence, flip: flip))
        }
        if current == 0 {
            if demand.waiting > 0 {
                let who = demand.waiting == 1 ? "1 request waits" : "\(demand.waiting) requests wait"
                return answer(.wake, 1, "\(service) goes from 0 to 1 replica: \(who) for it at the gateway.", "no request")
            }
            return answer(.stay, 0, "\(service) stays at 0 replicas: nobody asks for it.", "a request")
        }
        let quiet = min(demand.quiet ?? up, up)
        guard demand.waiting == 0, demand.underWay == 0, quiet >= idle else {
            return answer(
                .stay, current, "\(service) does not sleep: its last request is not \(idle.brief) ago.", "\(idle.brief) without a request")
        }
        return answer(
            .sleep, 0,
            "\(service) goes from \(current) to 0 replicas: no request has come for \(idle.brief), and the next one will wait at the "
                + "gateway until it is up again.",
            "a request")
    }
}
