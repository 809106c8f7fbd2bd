import Balancing
import Basics
import Resilience
import Testing

/// What is remembered is bounded, and so is the work that it makes, however much comes.
@Suite struct BoundsTests {
    private func at(_ milliseconds: Int64) -> MonotonicTime { MonotonicTime(nanoseconds: milliseconds * 1_000_000) }

    // MARK: edges

    @Test func anEdgeIsToldOnceAndCounted() {
        var edge = EdgeCount(quiet: .seconds(10))
        let nothing = edge.ended(at(0))
        #expect(nothing == nil && !edge.isOn)
        let first = edge.happened(at(1000)), second = edge.happened(at(2000)), more = edge.happened(at(3000), times: 5)
        #expect(first && !second && !more && edge.isOn)
        let soon = edge.ended(at(12_999))
        #expect(soon == nil)
        let end = edge.ended(at(13_000)), none = edge.ended(at(13_000))
        #expect(end?.count == 7 && end?.lasted == .seconds(2) && none == nil)
        let again = edge.happened(at(14_000))
        #expect(again)
    }

    // MARK: connections that are kept

    @Test func asManyConnectionsAsWereUsedAreKept() {
        var allowance = IdleAllowance(ceiling: 1000)
        for _ in 0..<512 { allowance.lent(at(1)) }
        var idle = 0
        for _ in 0..<512 {
            allowance.returned()
            if allowance.mayKeep(idle: idle, at(2)) { idle += 1 }
        }
        #expect(idle == 512)
        // In the next window the last one's load still counts, in the one after it no longer.
        allowance.lent(at(10_500))
        allowance.returned()
        let keeps = allowance.mayKeep(idle: 500, at(10_600))
        #expect(keeps)
        allowance.lent(at(20_600))
        allowance.returned()
        let second = allowance.mayKeep(idle: 1, at(20_700)), first = allowance.mayKeep(idle: 0, at(20_700))
        #expect(!second && first)
        // After a long silence nothing of the past counts.
        for _ in 0..<100 { allowance.lent(at(30_000)) }
        for _ in 0..<100 { allowance.returned() }
        let late = allowance.mayKeep(idle: 0, at(90_000))
        #expect(!late)
    }

    @Test func theCeilingHolds() {
        var allowance = IdleAllowance(ceiling: 8)
        for _ in 0..<20 { allowance.lent(at(1)) }
        var idle = 0
        for _ in 0..<20 {
            allowance.returned()
            if allowance.mayKeep(idle: idle, at(2)) { idle += 1 }
        }
        #expect(idle == 8 && allowance.inUse == 0)
    }

    // MARK: failures while nothing may be ejected

    /// A million failures in a window: the time for each does not grow with them, and what must be told is told once.
    @Test func failuresThatMayNotEjectAreForgotten() {
        var health = PassiveHealth(.init(failures: 3, window: .seconds(30)))
        var told = 0
        let began = MonotonicTime.now
        for i in 0..<300_000 {
            if health.requestFailed(MonotonicTime(nanoseconds: Int64(i) * 1000), subject: "a", cause: "c", mayEject: { false }) != nil {
                told += 1
            }
        }
        // The old way took 300,000² / 2 steps: minutes.
        #expect(told == 1 && MonotonicTime.now - began < .seconds(5))
        // After a success it is news again; and it goes when it may.
        health.requestSucceeded()
        for i in 0..<3 { if health.requestFailed(at(Int64(1000 + i)), subject: "a", cause: "c", mayEject: { false }) != nil { told += 1 } }
        #expect(told == 2)
        _ = health.requestFailed(at(1010), subject: "a", cause: "c")
        #expect(health.isEjected)
    }

    /// Ten years, doubled twenty times, is no time in the past.
    @Test func aLongEjectionDoesNotWrap() {
        var health = PassiveHealth(.init(failures: 1, ejection: .seconds(300_000_000), longest: .seconds(300_000_000)))
        var now: Int64 = 0
        for _ in 0..<6 {
            _ = health.requestFailed(at(now), subject: "a", cause: "c")
            #expect(health.isEjected)
            let soon = health.timePassed(at(now + 1000))
            #expect(!soon)
            now += 300_000_001_000
            _ = health.timePassed(at(now))
        }
    }

    // MARK: trials of a half-open breaker

    @Test func aTrialIsGivenBackByWhomItBelongsTo() {
        var breaker = Breaker(subject: "r", failures: 1, recovery: .seconds(1))
        _ = breaker.failure(at(0), reason: "x")
        let first = breaker.allows(at(1000)), number = breaker.trial
        #expect(first)
        // It is handed on: another one may try, and what the first one gives back later is not the second one's.
        breaker.untried(number)
        let second = breaker.allows(at(1001))
        #expect(second && breaker.trial != number)
        breaker.untried(number)
        let third = breaker.allows(at(1002))
        #expect(!third)
    }

    // MARK: a long line

    /// A hundred thousand who wait and leave, from the front, from the back and from the middle.
    @Test(arguments: [0, 1, 2]) func aLongLineIsLeftQuickly(order: Int) {
        var line = WaitingLine<Int>()
        let began = MonotonicTime.now
        var numbers = (0..<100_000).map { line.join($0, until: at(Int64(100_000 - $0))) }
        #expect(line.count == 100_000 && line.earliest == at(1))
        if order == 1 { numbers.reverse() }
        if order == 2 {
            var random = SeededRandom(seed: 7)
            numbers.shuffle(using: &random)
        }
        for (i, number) in numbers.enumerated() {
            let left = line.leave(number)
            #expect(left)
            if i % 1000 == 0 { #expect(line.first(after: 0)?.number == line.places.first?.number) }
        }
        #expect(line.isEmpty && line.earliest == nil && line.first(after: 0) == nil)
        // By places in an array it took a minute and more.
        #expect(MonotonicTime.now - began < .seconds(20))
    }

    /// Against a plain list.
    @Test func theLineIsWhatAListWouldBe() {
        var random = SeededRandom(seed: 11)
        var line = WaitingLine<Int>(), list: [(number: Int, deadline: MonotonicTime)] = []
        for step in 0..<3000 {
            if Int.random(in: 0..<5, using: &random) < 2 || list.isEmpty {
                let deadline = at(Int64.random(in: 0..<1000, using: &random))
                list.append((line.join(step, until: deadline), deadline))
            } else {
                let place = Int.random(in: 0..<list.count, using: &random)
                let left = line.leave(list.remove(at: place).number)
                #expect(left)
            }
            #expect(line.places.map(\.number) == list.map(\.number) && line.earliest == list.map(\.deadline).min())
            let now = at(Int64.random(in: 0..<1000, using: &random))
            #expect(line.overdue(now).map(\.number) == list.filter { $0.deadline <= now }.map(\.number))
            let after = Int.random(in: 0...(step + 1), using: &random)
            #expect(line.first(after: after)?.number == list.first { $0.number > after }?.number)
        }
    }
}
