import Basics

/// Reads a rate as people write it: `200/s`, `0.5/s`, `30/min`, `100/h`. nil for anything else, for 0 and below, and above `mostArrivals`.
public func arrivalRate(_ text: some StringProtocol) -> Double? {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, let count = plainNumber(parts[0]) else { return nil }
    let seconds: [String: Double] = ["s": 1, "min": 60, "h": 3600]
    guard let unit = seconds[String(parts[1])] else { return nil }
    let rate = count / unit
    return rate > 0 && rate <= mostArrivals ? rate : nil
}

/// The most arrivals a second: about what one loop can send when it does nothing else.
public let mostArrivals = 100_000.0

/// The most users at once.
public let mostUsers = 50_000

/// Digits with at most one point: no sign, no exponent, no `inf`.
func plainNumber(_ text: some StringProtocol) -> Double? {
    guard !text.isEmpty, text.utf8.count <= 18, text.utf8.allSatisfy({ $0 &- 48 < 10 || $0 == 46 }) else { return nil }
    return Double(String(text))
}

/// Writes a rate as `200/s`, `30/min` or `100/h`: in the shortest unit in which it is a whole number. Where there is none, the rate is
/// written an hour, rounded to whole ones from 100 on. `0/s` is for 0 alone.
public func rateText(_ rate: Double) -> String {
    for (unit, seconds) in [("s", 1.0), ("min", 60.0)] {
        let count = rate * seconds
        if (count - count.rounded()).magnitude < 1e-6, rate == 0 || count >= 0.5 { return "\(Int(clamped: count.rounded()))/\(unit)" }
    }
    let hourly = rate * 3600
    if hourly >= 100 || (hourly - hourly.rounded()).magnitude < 1e-6 && hourly >= 0.5 { return "\(Int(clamped: hourly.rounded()))/h" }
    return "\(hourly)/h"
}
