import Basics

/// The number of replicas that history expects soon.
public struct Forecast: Sendable, Equatable {
    public enum Basis: Sendable, Equatable {
        /// Based on the same time of day, on so many days before.
        case days(Int)
        /// Based on the same time of the week, in so many weeks before.
        case weeks(Int)
    }

    public let replicas: Int
    public let basis: Basis
    /// How far ahead the forecast looks.
    public let ahead: Duration

    public init(replicas: Int, basis: Basis, ahead: Duration) {
        self.replicas = replicas
        self.basis = basis
        self.ahead = ahead
    }
}

/// How many replicas were wanted at each time of the day and of the week: a decaying average for each five minutes.
///
/// It may only be used to grow earlier: a forecast above what the metrics ask for raises the number of replicas asked for, a forecast below
/// it changes nothing. It takes 2,304 slots of 12 bytes, however much it has seen.
public struct DemandHistory: Sendable, Equatable {
    /// The length of a slot in minutes.
    public static let slot = 5
    /// So much of an average is the latest day; halves what is older in two.
    private static let dailyWeight: Float = 0.3
    private static let weeklyWeight: Float = 0.5
    /// The fewest days that give a forecast: fewer tell habit from chance no better than a coin.
    public static let daysNeeded = 3
    public static let weeksNeeded = 2

    private struct Slot: Sendable, Equatable {
        /// The average of the periods before the latest one; 0 when there was none.
        var before: Float = 0
        /// The highest number of the latest period. It counts once however often the period is looked at.
        var peak: Float = 0
        /// Periods that have been seen, and the number of the latest one.
        var seen: UInt16 = 0
        var latest: UInt16 = 0

        /// `weight` is the latest period's share.
        func average(_ weight: Float) -> Float { seen <= 1 ? peak : before + weight * (peak - before) }
    }

    private var days = [Slot](repeating: Slot(), count: 1440 / slot)
    private var weeks = [Slot](repeating: Slot(), count: 7 * 1440 / slot)

    public init() {}

    /// Takes the number of replicas that the metrics asked for at a moment, before anything held it. Within a slot the highest number of a
    /// day counts.
    public mutating func observe(_ wanted: Int, at time: WallTime) {
        let slot = DemandHistory.slotNumber(time)
        DemandHistory.add(
            Float(wanted), to: &days[slot.remainder(flooredBy: days.count)], period: slot.quotient(flooredBy: days.count),
            weight: DemandHistory.dailyWeight)
        DemandHistory.add(
            Float(wanted), to: &weeks[slot.remainder(flooredBy: weeks.count)], period: slot.quotient(flooredBy: weeks.count),
            weight: DemandHistory.weeklyWeight)
    }

    private static func slotNumber(_ time: WallTime) -> Int { Int(time.milliseconds.quotient(flooredBy: 60_000)).quotient(flooredBy: slot) }

    private static func add(_ wanted: Float, to slot: inout Slot, period: Int, weight: Float) {
        let period = UInt16(truncatingIfNeeded: period)
        if slot.seen > 0, slot.latest == period {
            slot.peak = max(slot.peak, wanted)
            return
        }
        slot.before = slot.average(weight)
        slot.peak = wanted
        slot.seen = min(slot.seen, .max - 1) + 1
        slot.latest = period
    }

    private static let heading = "muster demand history 2"
    /// Version 1 had one average with the latest period in it, which is as good as both.
    private static let oldHeading = "muster demand history 1"

    /// The history as the text of a file: a line for each slot that has seen anything.
    public var text: String {
        var lines = [DemandHistory.heading]
        for (kind, slots) in [("d", days), ("w", weeks)] {
            for (index, slot) in slots.enumerated() where slot.seen > 0 {
                lines.append("\(kind) \(index) \(slot.before) \(slot.peak) \(slot.seen) \(slot.latest)")
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// Reads what `text` has written, in this version or the one before; nil when the text is something else, or was changed into values
    /// that cannot be.
    public init?(text: String) {
        var lines = text.utf8.split(separator: 10)[...]
        let first = lines.popFirst().flatMap { String($0) }
        let isOld = first == DemandHistory.oldHeading
        guard isOld || first == DemandHistory.heading, lines.count <= days.count + weeks.count else { return nil }
        for line in lines {
            var words = line.split(separator: 32).map { String($0) ?? "" }
            if isOld, words.count == 5 { words.insert(words[2], at: 2) }
            guard words.count == 6, let index = Int(words[1]), let before = Float(words[2]), let peak = Float(words[3]),
                let seen = UInt16(words[4]), let latest = UInt16(words[5]), seen > 0,
                [before, peak].allSatisfy({ $0.isFinite && $0 >= 0 && $0 <= 1e6 })
            else { return nil }
            let slot = Slot(before: before, peak: peak, seen: seen, latest: latest)
            switch words[0] {
            case "d" where days.indices.contains(index): days[index] = slot
            case "w" where weeks.indices.contains(index): weeks[index] = slot
            default: return nil
            }
        }
    }

    /// The highest number of replicas that is expected from `time` to `ahead` later. nil while too few days are known.
    public func forecast(at time: WallTime, ahead: Duration) -> Forecast? {
        let first = DemandHistory.slotNumber(time),
            last = DemandHistory.slotNumber(time + ahead)
        var best: Forecast?
        for slot in first...max(first, min(last, first + weeks.count)) {
            let week = weeks[slot.remainder(flooredBy: weeks.count)], day = days[slot.remainder(flooredBy: days.count)]
            let expected: Forecast?
            if Int(week.seen) >= DemandHistory.weeksNeeded {
                let average = week.average(DemandHistory.weeklyWeight)
                expected = Forecast(replicas: DemandHistory.count(average), basis: .weeks(Int(week.seen)), ahead: ahead)
            } else if Int(day.seen) >= DemandHistory.daysNeeded {
                let average = day.average(DemandHistory.dailyWeight)
                expected = Forecast(replicas: DemandHistory.count(average), basis: .days(Int(day.seen)), ahead: ahead)
            } else {
                expected = nil
            }
            if let expected, expected.replicas > best?.replicas ?? 0 { best = expected }
        }
        return best
    }

    /// Rounded up, but not for a trace of an earlier day.
    private static func count(_ average: Float) -> Int { Int(clamped: Double(average - 0.1).rounded(.up)) }
}
