import Basics
import Drawing

/// A made-up week of one service's load, the same for the same seed: two humps a working day, a flatter weekend, a campaign on Wednesday
/// noon that doubles the load within two minutes, and ten minutes on Thursday night of which nothing was recorded.
public struct ExampleWeek: Sendable {
    public let service: String
    public let start: WallTime
    public let step: Duration
    private let seed: UInt64

    /// A week that begins on a Monday, 2026-11-16.
    public init(
        service: String = "correlation-engine", start: WallTime = WallTime(milliseconds: 1_794_787_200_000), step: Duration = .seconds(15),
        seed: UInt64 = 7
    ) {
        self.service = service
        self.start = start
        self.step = step
        self.seed = seed
    }

    public var count: Int { Int(7 * 86_400_000_000_000 / step.nanoseconds) }

    /// The cores that were used, at every step; NaN where nothing was recorded.
    public var cores: [Double] {
        var random = SeededRandom(seed: seed), drift = 0.0
        return (0..<count).map { index in
            let minutes = Double(index) * step.secondsAsDouble / 60
            let day = Int(clamped: minutes / 1440), hour = minutes.truncatingRemainder(dividingBy: 1440) / 60
            // Noise that remembers: a tenth of it is new at each step.
            drift += (Double.random(in: -1...1, using: &random) - drift) * 0.1
            let jitter = Double.random(in: -0.04...0.04, using: &random)
            let humps = ExampleWeek.hump(hour, 11, 5) + 0.8 * ExampleWeek.hump(hour, 19.5, 4.5)
            let level = day < 5 ? 0.35 + 2.6 * humps : 0.35 + 1.1 * ExampleWeek.hump(hour, 15, 8)
            let campaign = day == 2 ? 1 + 1.4 * min(max(0, (hour - 12) * 30), 1) * min(max(0, (12.75 - hour) * 4), 1) : 1
            let value = level * campaign * (1 + 0.12 * drift + jitter)
            return day == 3 && hour >= 3 && hour < 3 + 1.0 / 6 ? .nan : value
        }
    }

    public var trace: LoadTrace { LoadTrace(service: service, start: start, step: step, series: [LoadTrace.Series("cpu", cores)]) }

    /// 1 at `centre`, 0 from `width` away on, smooth in between.
    private static func hump(_ hour: Double, _ centre: Double, _ width: Double) -> Double {
        let x = (hour - centre) / width, y = max(0, 1 - x * x)
        return y * y
    }

    /// The week as a recording in CSV: a header, and a row for each step that has a figure.
    public var csv: [UInt8] {
        var out = Array("time,service,metric,value\n".utf8)
        for (index, value) in cores.enumerated() where !value.isNaN {
            let time = CalendarTime.render(start + step.multipliedClamped(by: index))
            out.append(contentsOf: "\(time.prefix(19))Z,\(service),cpu,\(Figures.fixed(value, 3))\n".utf8)
        }
        return out
    }
}
