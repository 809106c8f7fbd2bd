import Basics

/// Decides how long to wait before a process that ended is started again, and when to call it a crash loop.
///
/// A process that had served for `useful` is started again at once, every time: it works, and something killed it. After any other death
/// there is a wait: none after the first (most deaths are single), then 200 ms, doubling to 10 s (jitter is not needed: one machine, one
/// supervisor).
///
/// A process that has served for `settled` is forgiven its earlier deaths. From the fifth death in a row without such a life the deaths are
/// reported as a crash loop; the process goes on being started, because what it waits for may come. A process that never served has settled
/// nothing, however long it lived.
public struct CrashLoop: Sendable {
    public static let settled = Duration.seconds(10)
    public static let useful = Duration.seconds(1)
    public static let loopsAt = 5
    static let first = Duration.milliseconds(200)
    static let longest = Duration.seconds(10)

    public private(set) var deaths = 0
    /// Deaths in a row of processes that were of no use.
    private var useless = 0

    private let useful: Duration

    /// `useful` is how long a process must have served to be started again at once.
    public init(useful: Duration = CrashLoop.useful) { self.useful = useful }

    public var isLooping: Bool { deaths >= CrashLoop.loopsAt }

    public mutating func died(after life: Duration, served: Bool, how: String, subject: String) -> Decision<Duration> {
        if served, life >= CrashLoop.settled { deaths = 0 }
        deaths += 1
        useless = served && life >= useful ? 0 : useless + 1
        let wait: Duration =
            useless <= 1
            ? .zero : .nanoseconds(min(CrashLoop.first.nanoseconds << min(useless - 2, 20), CrashLoop.longest.nanoseconds))
        let record = DecisionRecord(
            .restart, subject: subject,
            inputs: [.init("ended", how), .init("lived", life.brief), .init("deaths_in_a_row", deaths)],
            raw: "restart at once",
            constraints: wait == .zero
                ? []
                : [
                    .init(
                        "backoff", before: "0s", after: wait.brief,
                        reason: "death number \(useless) in a row before it had served for \(useful.brief)")
                ],
            outcome: wait == .zero ? "restarted at once" : "restart in \(wait.brief)",
            sentence: "\(subject) ended (\(how)) after \(life.brief) and is started again \(wait == .zero ? "at once" : "in \(wait.brief)")"
                + (isLooping ? "; it is in a crash loop, read its log." : "."),
            flip: "a life of \(CrashLoop.settled.brief) or more before it ends")
        return Decision(wait, because: record)
    }
}
