import Basics
import Measurement
import Rightsizing

/// What each replica of each service was seen to use, for the vertical recommender. No I/O and no clock.
///
/// A replica is asked for a sample as soon as there is a figure of it, and then once an interval; the sample is the figure that its meter
/// has then, over the meter's own window. Figures of one replica number go on when another process takes the number over.
///
/// - Complexity: some 4 kB a replica number that was ever there within 8 days; a sample allocates nothing.
struct ResourceRecorder {
    /// The names under which the meters are asked, so that they never meet those of a metric that the service scales by.
    static let cpu = "usage cpu", memory = "usage memory"
    /// Upstream's: a sample counts as a minute.
    static let minute = Duration.seconds(60)

    private struct Watched {
        var usage: ContainerUsage
        /// When the figures were read that were taken last; a figure is taken once.
        var cpuAt: MonotonicTime?
        var memoryAt: MonotonicTime?
    }

    private let interval: Duration
    private var services: [String: [Int: Watched]] = [:]
    /// How far the wall clock was ahead of the monotonic one, at most, since it was last set back: milliseconds.
    private var lead: Int64?

    /// `interval`: from one sample of a replica to the next at least (`>=`).
    init(interval: Duration = minute) { self.interval = interval }

    /// The services that there are. Those that are new begin with what `stored` has of them; those that are gone are forgotten.
    mutating func follow(_ names: [String], stored: (String) -> [Int: ContainerUsage]) {
        var kept: [String: [Int: Watched]] = [:]
        for name in names { kept[name] = services[name] ?? stored(name).mapValues { Watched(usage: $0) } }
        services = kept
    }

    /// Adds what was stored of a service and could not be read when it began to be followed.
    mutating func adopt(_ stored: [Int: ContainerUsage], of service: String) {
        guard services[service] != nil else { return }
        for (number, usage) in stored {
            var late = usage
            if services[service]![number]?.usage.merge(&late) == nil { services[service]![number] = Watched(usage: usage) }
        }
    }

    /// Compares both clocks; to be called before `take`. Where the wall clock was set back by more than `SampleGate.lead`, all that was
    /// recorded moves with it: samples that seem to come before the last one would not count for the length of the step. What is to be
    /// told; nil while the clock goes on.
    mutating func look(now: MonotonicTime, wall: WallTime) -> DecisionRecord? {
        let ahead = wall.milliseconds.subtractingClamped(now.nanoseconds / 1_000_000), before = lead ?? ahead
        let back = before.subtractingClamped(ahead)
        guard back > SampleGate.lead else {
            lead = max(before, ahead)
            return nil
        }
        lead = ahead
        let step = Duration.milliseconds(back)
        for (name, watched) in services {
            services[name] = watched.mapValues {
                var one = $0
                one.usage.clockWentBack(by: step)
                return one
            }
        }
        return DecisionRecord(
            .resources, subject: "clock", inputs: [.init("set back by", step.brief)], raw: step.brief, outcome: step.brief,
            sentence: "the clock was set back by \(step.brief): what services were seen to use moves with it, and recording goes on.",
            flip: "a clock that is not set back")
    }

    /// Takes what the meters know of a service's replicas now, if it is their turn. A figure older than an interval is none; what cannot be
    /// (`SampleGate`) changes nothing.
    mutating func take(_ readings: [MeterReading], of service: String, now: MonotonicTime, wall: WallTime) {
        guard services[service] != nil else { return }
        for reading in readings {
            guard let number = reading.key.replica, let figure = reading.figure, now - figure.takenAt <= max(interval, .seconds(30)) else {
                continue
            }
            let at = wall + (figure.takenAt - now)
            switch reading.key.metric {
            case ResourceRecorder.cpu:
                guard isDue(services[service]![number]?.cpuAt, figure) else { continue }
                services[service]![number, default: Watched(usage: ContainerUsage(created: wall))].cpuAt = figure.takenAt
                try? services[service]![number]!.usage.addCPU(Amount.whole(figure.value.rounded()), at: at, now: wall)
            case ResourceRecorder.memory:
                guard isDue(services[service]![number]?.memoryAt, figure) else { continue }
                services[service]![number, default: Watched(usage: ContainerUsage(created: wall))].memoryAt = figure.takenAt
                try? services[service]![number]!.usage.addMemory(Amount.whole(figure.value), at: at, now: wall)
            default: continue
            }
        }
    }

    /// A replica has run out of memory, by the kernel's word, while it had `declared` bytes. Counts as having needed a fifth more than it had
    /// or was seen to use, and 100 MiB more at least (`SampleGate`). What is to be told; nil when it changes nothing.
    mutating func outOfMemory(_ service: String, _ number: Int, declared: Int?, wall: WallTime) -> DecisionRecord? {
        guard services[service] != nil else { return nil }
        let before = services[service]![number]?.usage.memory.percentile(1) ?? 0
        do throws(SampleGate.Dropped) {
            try services[service]![number, default: Watched(usage: ContainerUsage(created: wall))].usage.addOutOfMemory(
                request: declared ?? 0, at: wall, now: wall)
        } catch { return nil }
        let most = Amount.whole(services[service]![number]!.usage.memory.percentile(1))
        let had = declared.map { "\(Resource.memory.text($0)) declared" } ?? "no memory declared"
        return DecisionRecord(
            .resources, subject: "\(service)/memory",
            inputs: [
                .init("replica", number), .init("declared", declared.map(Resource.memory.text) ?? "none"),
                .init("evidence", "SIGKILL from outside, and oom_kill in /proc/vmstat has grown"),
            ], raw: Resource.memory.text(Amount.whole(before)), outcome: Resource.memory.text(most),
            sentence: "\(service)/\(number) ran out of memory and the kernel ended it, with \(had): it is taken to have needed "
                + "\(Resource.memory.text(most)), and what is recommended for its memory follows (muster why \(service) --resources).",
            flip: "an end by SIGKILL that the kernel does not count as one for want of memory")
    }

    private func isDue(_ last: MonotonicTime?, _ figure: MeterFigure) -> Bool {
        last.map { figure.takenAt > $0 && figure.takenAt - $0 >= interval } ?? true
    }

    /// Drops what has had no sample for 8 days.
    mutating func forget(_ wall: WallTime) {
        for (name, watched) in services { services[name] = watched.filter { !$0.value.usage.isExpired(wall) } }
    }

    /// By replica number, for keeping.
    func usage(of service: String) -> [Int: ContainerUsage] { (services[service] ?? [:]).mapValues(\.usage) }

    /// Of all replicas together, as if one container had been seen so often; nil: the service is not followed.
    func whole(of service: String, wall: WallTime) -> ContainerUsage? {
        guard let watched = services[service] else { return nil }
        var sum = ContainerUsage(created: wall)
        for number in watched.keys.sorted() {
            var one = watched[number]!.usage
            sum.merge(&one)
        }
        return sum
    }
}
