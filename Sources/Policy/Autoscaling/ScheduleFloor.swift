import Basics

/// A least number of replicas at certain hours, whatever the metrics say.
public struct ScheduleFloor: Sendable, Equatable {
    /// The days of the week; 0 is Monday.
    public let days: Set<Int>
    /// The beginning and the end in minutes of the day; the end is not part of the floor. A floor that ends before it begins goes over
    /// midnight and belongs to the day it begins on.
    public let from: Int
    public let to: Int
    public let replicas: Int

    public init(days: Set<Int>, from: Int, to: Int, replicas: Int) {
        self.days = days
        self.from = from
        self.to = to
        self.replicas = replicas
    }

    /// A floor that applies now.
    public struct Standing: Sendable, Equatable {
        public let replicas: Int
        /// `Mon-Fri 08:00-18:00`.
        public let text: String

        public init(replicas: Int, text: String) {
            self.replicas = replicas
            self.text = text
        }
    }

    public func applies(weekday: Int, minute: Int) -> Bool {
        if from <= to { return days.contains(weekday) && (from..<to).contains(minute) }
        return (days.contains(weekday) && minute >= from) || (days.contains((weekday + 6) % 7) && minute < to)
    }

    /// The highest of the floors that apply at a moment of the wall clock, `offset` ahead of UTC.
    public static func standing(_ floors: [ScheduleFloor], at time: WallTime, offset: Duration = .zero) -> Standing? {
        let minutes = Int((time + offset).milliseconds.quotient(flooredBy: 60_000))
        // The first of January 1970 was a Thursday.
        let weekday = (minutes.quotient(flooredBy: 1440) + 3).remainder(flooredBy: 7), minute = minutes.remainder(flooredBy: 1440)
        return floors.filter { $0.applies(weekday: weekday, minute: minute) }.max { $0.replicas < $1.replicas }.map {
            Standing(replicas: $0.replicas, text: $0.text)
        }
    }

    static let dayNames = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]

    /// The floor as it is written in a stack file: `Mon-Fri 08:00-18:00`.
    public var text: String {
        func clock(_ minute: Int) -> String { "\(minute / 60 < 10 ? "0" : "")\(minute / 60):\(minute % 60 < 10 ? "0" : "")\(minute % 60)" }
        let sorted = days.sorted()
        let isRun = sorted.count > 2 && sorted.last! - sorted.first! == sorted.count - 1
        let names =
            isRun
            ? "\(Self.dayNames[sorted.first!])-\(Self.dayNames[sorted.last!])" : sorted.map { Self.dayNames[$0] }.joined(separator: ",")
        return "\(names) \(clock(from))-\(clock(to))"
    }

    /// Reads `Mon-Fri 08:00-18:00`, `Sat,Sun 10:00-16:00`, `22:00-06:00` (every day). nil for anything else.
    public init?(text: String, replicas: Int) {
        let words = text.split(separator: " ")
        guard words.count == 1 || words.count == 2, let hours = words.last?.split(separator: "-"), hours.count == 2,
            let from = Self.minute(hours[0]), let to = Self.minute(hours[1]), from != to
        else { return nil }
        var days = Set(0..<7)
        if words.count == 2 {
            days = []
            for part in words[0].split(separator: ",", omittingEmptySubsequences: false) {
                let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { name in
                    Self.dayNames.firstIndex { $0 == name }
                }
                switch (ends.count, ends.first ?? nil, ends.last ?? nil) {
                case (1, let day?, _): days.insert(day)
                case (2, let first?, let last?): for step in 0...(last - first + 7) % 7 { days.insert((first + step) % 7) }
                default: return nil
                }
            }
        }
        self.init(days: days, from: from, to: to, replicas: replicas)
    }

    /// `08:30`; `24:00` is the end of the day.
    private static func minute(_ text: Substring) -> Int? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ $0.utf8.count == 2 && $0.utf8.allSatisfy { (48...57).contains($0) } }),
            let hour = Int(parts[0]),
            let minute = Int(parts[1]), minute < 60, hour < 24 || (hour == 24 && minute == 0)
        else { return nil }
        return hour * 60 + minute
    }
}

extension BinaryInteger where Self: SignedInteger {
    func quotient(flooredBy other: Self) -> Self {
        let (quotient, remainder) = quotientAndRemainder(dividingBy: other)
        return remainder != 0 && (remainder < 0) != (other < 0) ? quotient - 1 : quotient
    }

    func remainder(flooredBy other: Self) -> Self { self - quotient(flooredBy: other) * other }
}
