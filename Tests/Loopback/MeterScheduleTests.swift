import Basics
import EventLoops
import Measurement
import Metering
import Observability
import Synchronization
import TestSupport
import Testing

@Suite struct MeterScheduleTests {
    private func key(_ number: Int, _ metric: String = "m") -> MeterKey { MeterKey(service: "s", replica: number, metric: metric) }

    private func settings(_ period: Duration, _ concurrency: Int = 32) -> MeterSchedule.Settings {
        var settings = MeterSchedule.Settings()
        settings.period = period
        settings.concurrency = concurrency
        return settings
    }

    private func figure(_ value: Double) -> Result<MeterFigure, MeterFault> { .success(MeterFigure(value, .count, takenAt: .now)) }

    /// A schedule that runs for the length of `body`.
    private func running(_ schedule: MeterSchedule, _ loop: EventLoop, _ body: () async throws -> Void) async throws {
        // Ends when it is cancelled, below.
        let task = Task(executorPreference: loop) { await schedule.run() }
        let result: Result<Void, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        task.cancel()
        await task.value
        try result.get()
    }

    private func line(_ registry: MetricsRegistry, _ name: String) -> Double {
        for line in registry.render().split(separator: "\n") where line.hasPrefix(name + " ") {
            return Double(line.dropFirst(name.count + 1)) ?? -1
        }
        return -1
    }

    @Test func figuresFaultsAndAgesAreTold() async throws {
        try await withLoop { loop in
            let registry = MetricsRegistry(), asked = Tally()
            let schedule = MeterSchedule(loop: loop, settings: settings(.milliseconds(100)), metrics: registry)
            let key = key(1), missing = self.key(1, "missing")
            let source = MeterSource(id: "a", kind: .page, keys: [key, missing]) {
                asked.add()
                let isFirst = asked.count == 1
                let answer: Result<MeterFigure, MeterFault> =
                    isFirst ? .success(MeterFigure(5, .count, takenAt: .now)) : .failure(MeterFault(.refused, "no more"))
                return [key: answer]
            }
            schedule.follow([source])
            #expect(schedule.readings(of: "s").map(\.fault?.kind) == [.pending, .pending])
            try await running(schedule, loop) { #expect(await eventually { asked.count >= 4 }) }
            let readings = schedule.readings(of: "s")
            #expect(readings.map(\.key) == [key, missing])
            #expect(readings[0].figure?.value == 5 && readings[0].fault == MeterFault(.refused, "no more"))
            #expect(try #require(readings[0].age) > .milliseconds(100))
            #expect(readings[1].figure == nil && readings[1].fault?.kind == .absent)
            #expect(schedule.readings(of: "other").isEmpty)
            #expect(line(registry, "muster_meter_faults_total{kind=\"refused\"}") >= 3)
            #expect(line(registry, "muster_meter_read_seconds_count{source=\"page\"}") >= 4)
            #expect(line(registry, "muster_meter_sources") == 1)
        }
    }

    /// Sources that take longer than a period, and more of them than places: never two at once of one, never more than allowed.
    @Test func nothingPilesUp() async throws {
        struct Seen {
            var underWay: [Int: Int] = [:]
            var most = 0
            var asked = 0
            var isWrong = false
        }
        final class Watch: Sendable { let seen = Mutex(Seen()) }
        try await withLoop { loop in
            let registry = MetricsRegistry(), watch = Watch()
            let schedule = MeterSchedule(loop: loop, settings: settings(.milliseconds(20), 4), metrics: registry)
            let sources = (0..<12).map { number in
                let key = key(number)
                return MeterSource(id: "s\(number)", kind: .store, keys: [key]) {
                    watch.seen.withLock {
                        $0.underWay[number, default: 0] += 1
                        $0.asked += 1
                        if $0.underWay[number]! > 1 { $0.isWrong = true }
                        $0.most = max($0.most, $0.underWay.values.reduce(0, +))
                    }
                    await loop.sleep(.milliseconds(70))
                    watch.seen.withLock { $0.underWay[number]! -= 1 }
                    return [key: .success(MeterFigure(1, .count, takenAt: .now))]
                }
            }
            schedule.follow(sources)
            try await running(schedule, loop) { #expect(await eventually(.seconds(20)) { watch.seen.withLock { $0.asked } >= 36 }) }
            let seen = watch.seen.withLock { $0 }
            #expect(!seen.isWrong && seen.most <= 4)
            #expect(line(registry, "muster_meter_turns_skipped_total{source=\"store\"}") > 0)
            #expect(schedule.readings().allSatisfy { $0.figure != nil })
        }
    }

    @Test func aSourceThatHangsHoldsUpNoOther() async throws {
        try await withLoop { loop in
            let schedule = MeterSchedule(loop: loop, settings: settings(.milliseconds(50)), metrics: MetricsRegistry()), well = Tally()
            let hung = key(1), good = key(2), release = Tally()
            schedule.follow([
                MeterSource(id: "hung", kind: .page, keys: [hung]) {
                    while release.count == 0 { await loop.sleep(.milliseconds(20)) }
                    return [hung: .success(MeterFigure(1, .count, takenAt: .now))]
                },
                MeterSource(id: "good", kind: .page, keys: [good]) {
                    well.add()
                    return [good: .success(MeterFigure(2, .count, takenAt: .now))]
                },
            ])
            try await running(schedule, loop) {
                #expect(await eventually { well.count >= 10 })
                let readings = schedule.readings()
                #expect(readings[0].fault?.kind == .pending && readings[0].skippedRounds > 0)
                #expect(readings[1].figure?.value == 2)
                release.add()
                #expect(await eventually { schedule.readings()[0].figure?.value == 1 })
            }
        }
    }

    @Test func whoIsNoLongerFollowedIsForgottenAndAnOutlierIsNoted() async throws {
        try await withLoop { loop in
            let schedule = MeterSchedule(loop: loop, settings: settings(.seconds(60)), metrics: MetricsRegistry())
            let sources = [3.0, 4, 5_000_000].enumerated().map { number, value in
                let key = key(number)
                return MeterSource(id: "s\(number)", kind: .page, keys: [key]) {
                    [key: .success(MeterFigure(value, .count, takenAt: .now))]
                }
            }
            schedule.follow(sources)
            try await running(schedule, loop) {
                #expect(await eventually { schedule.readings().allSatisfy { $0.fault?.kind != .pending } })
                #expect(schedule.readings().map(\.figure?.value) == [3, 4, 5_000_000])
                #expect(schedule.readings()[2].figure?.note == "it is 5000000.0, where the median of its siblings is 3.5")
                schedule.follow([sources[1]])
                #expect(schedule.readings().map(\.figure?.value) == [4])
                // The same key from another source begins anew.
                schedule.follow([MeterSource(id: "new", kind: .page, keys: [key(1)]) { [:] }])
                #expect(schedule.readings()[0].figure == nil)
            }
        }
    }
}
