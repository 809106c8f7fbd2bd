import Basics
import Lag
import Testing

/// Between nothing and something: KEDA's activation, cooldown, idle count and fallback.
@Suite struct ActivationTests {
    private static func at(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: Int64(seconds * 1e9)) }
    private static let active = Activation.Poll(isActive: true)
    private static let idle = Activation.Poll(isActive: false)
    private static let failed = Activation.Poll(isActive: false, hasFailed: true)

    private static func machine(_ settings: ActivationSettings) -> Activation { Activation(settings, subject: "detector", created: at(0)) }

    @Test func workWakesIt() throws {
        var none = Self.machine(try ActivationSettings()), two = Self.machine(try ActivationSettings(least: 2))
        #expect(none.polled(Self.active, replicas: 0, now: Self.at(1))?.result == 1)
        #expect(two.polled(Self.active, replicas: 0, now: Self.at(1))?.result == 2)
        #expect(none.polled(Self.active, replicas: 1, now: Self.at(1)) == nil)
        #expect(two.polled(Self.active, replicas: 1, now: Self.at(1)) == nil, "the autoscaler's minimum does that")
    }

    @Test func itGoesToZeroAfterTheCooldown() throws {
        var machine = Self.machine(try ActivationSettings())
        #expect(machine.polled(Self.active, replicas: 4, now: Self.at(100)) == nil)
        #expect(machine.polled(Self.idle, replicas: 4, now: Self.at(400)) == nil, "at 300 s it is not yet over")
        let decision = machine.polled(Self.idle, replicas: 4, now: Self.at(401))
        #expect(decision?.result == 0)
        #expect(decision?.record.sentence == "detector had nothing to do for 301s (more than 5m): from 4 to 0 replicas")
        #expect(machine.polled(Self.idle, replicas: 0, now: Self.at(402)) == nil)
    }

    @Test func neverActiveHasItsOwnCooldown() throws {
        var machine = Self.machine(try ActivationSettings(initialCooldown: .seconds(60)))
        #expect(machine.polled(Self.idle, replicas: 1, now: Self.at(60)) == nil)
        #expect(machine.polled(Self.idle, replicas: 1, now: Self.at(61))?.result == 0)
        var usual = Self.machine(try ActivationSettings())
        #expect(usual.polled(Self.idle, replicas: 1, now: Self.at(0.001))?.result == 0)
    }

    @Test func anIdleCountIsKept() throws {
        var machine = Self.machine(try ActivationSettings(least: 5, idle: 2))
        #expect(machine.polled(Self.active, replicas: 2, now: Self.at(0))?.result == 5)
        #expect(machine.polled(Self.idle, replicas: 9, now: Self.at(301))?.result == 2)
        #expect(machine.polled(Self.idle, replicas: 2, now: Self.at(302)) == nil)
        #expect(machine.polled(Self.idle, replicas: 1, now: Self.at(303)) == nil)
    }

    @Test func aMinimumIsKept() throws {
        var machine = Self.machine(try ActivationSettings(least: 3))
        #expect(machine.polled(Self.idle, replicas: 1, now: Self.at(1))?.result == 3)
        #expect(machine.polled(Self.idle, replicas: 3, now: Self.at(9999)) == nil)
        #expect(machine.settings.autoscalerLeast == 3)
        #expect(try ActivationSettings().autoscalerLeast == 1)
    }

    @Test func withoutAnAnswerNothingIsTakenAway() throws {
        var bare = Self.machine(try ActivationSettings()), safe = Self.machine(try ActivationSettings(fallback: 3))
        #expect(
            bare.polled(Self.failed, replicas: 4, now: Self.at(9999)) == nil
                && bare.polled(Self.failed, replicas: 0, now: Self.at(9999)) == nil)
        #expect(safe.polled(Self.failed, replicas: 8, now: Self.at(9999)) == nil)
        #expect(safe.polled(Self.failed, replicas: 0, now: Self.at(9999))?.result == 3)
        let both = Activation.Poll(isActive: true, hasFailed: true)
        #expect(bare.polled(both, replicas: 0, now: Self.at(9999))?.result == 1)
    }

    @Test func settingsThatCannotBeAreRefused() {
        #expect(throws: LagSettings.Refusal.self) { try ActivationSettings(least: -1) }
        #expect(throws: LagSettings.Refusal.self) { try ActivationSettings(least: 5, most: 4) }
        #expect(throws: LagSettings.Refusal.self) { try ActivationSettings(most: 0) }
        #expect(throws: LagSettings.Refusal.self) { try ActivationSettings(least: 2, idle: 2) }
        #expect(throws: LagSettings.Refusal.self) { try ActivationSettings(idle: 0) }
        #expect(throws: LagSettings.Refusal.self) { try ActivationSettings(fallback: -1) }
        #expect(throws: LagSettings.Refusal.self) { try ActivationSettings(cooldown: .seconds(-1)) }
        #expect(throws: LagSettings.Refusal.self) { try ActivationSettings(polling: .zero) }
    }

    /// Random polls, with a clock that jumps both ways: never to zero within the cooldown of an active poll, never up without a reason.
    @Test(arguments: 1...40) func replicasStayWithinTheRules(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        let least = Int.random(in: 0...3, using: &random)
        let settings = try ActivationSettings(
            least: least, idle: least > 0 && Bool.random(using: &random) ? Int.random(in: 0..<least, using: &random) : nil,
            fallback: Bool.random(using: &random) ? Int.random(in: 0...4, using: &random) : nil)
        var machine = Self.machine(settings)
        var now = 0.0, replicas = Int.random(in: 0...5, using: &random), latestActive: Double?
        for _ in 0..<200 {
            now += Double.random(in: Int.random(in: 0..<20, using: &random) == 0 ? -1000...1000 : 0...200, using: &random)
            let poll = Activation.Poll(
                isActive: Int.random(in: 0..<4, using: &random) == 0, hasFailed: Int.random(in: 0..<5, using: &random) == 0)
            if poll.isActive { latestActive = max(latestActive ?? now, now) }
            let decision = machine.polled(poll, replicas: replicas, now: Self.at(now))
            if let decision {
                #expect(decision.result != replicas && decision.result >= 0)
                if decision.result < replicas {
                    #expect(!poll.isActive && !poll.hasFailed && decision.result == settings.idle ?? 0)
                    if let latestActive { #expect(now - latestActive > 299.99, "seed \(seed)") }
                }
            } else if poll.isActive {
                #expect(replicas > 0)
            }
            replicas = decision?.result ?? Int.random(in: 0...5, using: &random)
        }
    }
}
