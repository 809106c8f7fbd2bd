import Basics

/// Decides how long to wait before a process that ended is started again, and when to call it a crash loop.
///
/// A process that served and lived `settled` is forgiven its past; one that never served is not, however long it took. The first restart is immediate: most deaths are single. Then 200 ms, doubling
/// to 10 s (jitter is not needed: one machine, one supervisor). From the fifth death in a row on it is told as a crash loop; it goes
/// on being tried, because what it waits for may come.
public struct CrashLoop: Sendable {
    public static let settled = Duration.seconds(10)
    public static let loopsAt = 5
    static let first = Duration.milliseconds(200)
    static let longest = Duration.seconds(10)

    public private(set) var deaths = 0

    public init() {}

    public var isLooping: Bool { deaths >= CrashLoop.loopsAt }

    public mutating func died(after life: Duration, served: Bool, how: String, subject: String) -> Decision<Duration> {
        if served, life >= CrashLoop.settled { deaths = 0 }
        deaths += 1
        let wait: Duration =
            deaths == 1
            ? .zero : .nanoseconds(min(CrashLoop.first.nanoseconds << min(deaths - 2, 20), CrashLoop.longest.nanoseconds))
        let record = DecisionRecord(
            .restart, subject: subject,
            inputs: [.init("ended", how), .init("lived", life.brief), .init("deaths_in_a_row", deaths)],
            raw: "restart at once",
            constraints: wait == .zero
                ? [] : [.init("backoff", before: "0s", after: wait.brief, reason: "death number \(deaths) within \(CrashLoop.settled.brief) of its start")],
            outcome: wait == .zero ? "restarted at once" : "restart in \(wait.brief)",
            sentence: "\(subject) ended (\(how)) after \(life.brief) and is started again \(wait == .zero ? "at once" : "in \(wait.brief)")"
                + (isLooping ? "; it is in a crash loop, read its log." : "."),
            flip: "a life of \(CrashLoop.settled.brief) or more before it ends")
        return Decision(wait, because: record)
    }
}
