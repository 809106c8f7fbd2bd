import Basics
import PostgresRouting
import Testing

/// The pool of connections as a machine, and the sum of all pools against `max_connections`.
@Suite struct PostgresPoolTests {
    private let start = MonotonicTime(nanoseconds: 1_000_000_000_000)

    private func pool(_ settings: PoolSettings = PoolSettings(size: 2, overflow: 1, line: 3)) -> ConnectionPool {
        ConnectionPool(settings, name: "app@shop on main/1", seed: 1)
    }

    /// Asks, and opens what is to be opened.
    private func hold(_ pool: inout ConnectionPool, _ asker: UInt64, at now: MonotonicTime) -> [ConnectionPool.Action] {
        pool.ask(asker, label: "GET /\(asker)", now: now).flatMap { action in
            if case .open(let connection) = action { pool.opened(connection, now: now) } else { [action] }
        }
    }

    @Test func connectionsAreOpenedKeptAndOverflow() {
        var pool = pool()
        #expect(hold(&pool, 1, at: start) == [.give(1, to: 1)] && hold(&pool, 2, at: start) == [.give(2, to: 2)])
        #expect(hold(&pool, 3, at: start) == [.give(3, to: 3)] && pool.ask(4, label: "", now: start) == [] && pool.waiting == 1)
        // Handed over at once, without a look: it was just used.
        #expect(pool.release(2, isUsable: true, now: start + .seconds(5)) == [.give(2, to: 4)])
        #expect(pool.release(1, isUsable: true, now: start + .seconds(5)) == [.close(1)], "the overflow is closed")
        #expect(
            pool.release(3, isUsable: true, now: start + .seconds(5)) == []
                && pool.release(2, isUsable: true, now: start + .seconds(5)) == [])
        #expect(pool.idleCount == 2 && pool.count == 2 && pool.inUse == 0)
        #expect(pool.release(2, isUsable: true, now: start) == [], "nobody holds it")
        // The last that came back is given out first.
        #expect(pool.ask(5, label: "", now: start + .seconds(6)) == [.give(2, to: 5)])
    }

    @Test func whatWasIdleIsLookedAt() {
        var pool = pool()
        _ = hold(&pool, 1, at: start)
        _ = pool.release(1, isUsable: true, now: start)
        #expect(pool.ask(2, label: "", now: start + .seconds(1)) == [.give(1, to: 2)], "a second is not longer than a second")
        _ = pool.release(1, isUsable: true, now: start)
        #expect(pool.ask(3, label: "", now: start + .milliseconds(1001)) == [.check(1)])
        #expect(pool.checked(1, isAlive: true, now: start + .milliseconds(1002)) == [.give(1, to: 3)])
        _ = pool.release(1, isUsable: true, now: start + .seconds(2))
        #expect(pool.ask(4, label: "", now: start + .seconds(9)) == [.check(1)])
        #expect(pool.checked(1, isAlive: false, now: start + .seconds(9)) == [.close(1), .open(2)])
        #expect(pool.opened(2, now: start + .seconds(9)) == [.give(2, to: 4)])
    }

    @Test func connectionsAreRecycledAtDifferentAges() {
        var ages: Set<Int64> = []
        for seed in 0..<20 {
            var pool = ConnectionPool(PoolSettings(), name: "p", seed: UInt64(seed))
            _ = hold(&pool, 1, at: start)
            _ = pool.release(1, isUsable: true, now: start)
            let deadline = pool.nextDeadline!
            #expect(deadline - start >= .seconds(3240) && deadline - start <= .seconds(3960))
            ages.insert((deadline - start).nanoseconds)
            let before = MonotonicTime(nanoseconds: deadline.nanoseconds - 1)
            #expect(pool.tick(now: before) == [] && pool.tick(now: deadline) == [.close(1)] && pool.count == 0)
        }
        #expect(ages.count == 20)
        var pool = pool()
        _ = hold(&pool, 1, at: start)
        #expect(pool.release(1, isUsable: true, now: start + .seconds(3961)) == [.close(1)], "held beyond its age")
        _ = hold(&pool, 2, at: start)
        _ = pool.release(2, isUsable: true, now: start)
        #expect(pool.ask(3, label: "", now: start + .seconds(4000)) == [.close(2), .open(3)])
    }

    @Test func theLineIsInOrderBoundedAndEnds() {
        var pool = pool()
        for asker in 1...3 { _ = hold(&pool, UInt64(asker), at: start + .seconds(asker)) }
        for asker in 4...6 { #expect(pool.ask(UInt64(asker), label: "", now: start + .seconds(asker)) == []) }
        guard case .refuse(7, let full)? = pool.ask(7, label: "", now: start + .seconds(10)).first else {
            return #expect(Bool(false), "a full line")
        }
        #expect(full.cause == .lineFull && full.waiting == 3 && full.inUse == 3)
        #expect(pool.nextDeadline == start + .seconds(34))
        #expect(pool.tick(now: start + .milliseconds(33_999)) == [])
        let actions = pool.tick(now: start + .seconds(35))
        #expect(actions.count == 2 && pool.waiting == 1)
        guard case .refuse(4, let late)? = actions.first else { return #expect(Bool(false), "the first in line") }
        #expect(
            "\(late)" == "no connection of app@shop on main/1 came free within 31s: 3 of 2 and 1 more are in use, one for 34s by GET /1. "
                + "Hold connections for a shorter time, or declare a larger pool")
        #expect(pool.release(3, isUsable: false, now: start + .seconds(35)) == [.close(3), .open(4)], "the last in line gets a new one")
        #expect(pool.opened(4, now: start + .seconds(35)) == [.give(4, to: 6)] && pool.nextDeadline == nil)
    }

    @Test func whoLeavesGetsNothing() {
        var pool = pool()
        #expect(pool.ask(1, label: "", now: start) == [.open(1)])
        pool.cancel(1)
        #expect(pool.opened(1, now: start) == [] && pool.idleCount == 1, "the connection is kept for another")
        for asker in 2...4 { _ = hold(&pool, UInt64(asker), at: start) }
        _ = pool.ask(5, label: "", now: start)
        _ = pool.ask(6, label: "", now: start)
        pool.cancel(5)
        #expect(pool.waiting == 1 && pool.release(1, isUsable: true, now: start) == [.give(1, to: 6)])
        #expect(pool.opened(99, now: start) == [.close(99)], "nobody asked for it")
        // A check whose asker left: the connection goes to the next, a dead one is closed.
        var other = self.pool()
        _ = hold(&other, 1, at: start)
        _ = other.release(1, isUsable: true, now: start)
        #expect(other.ask(2, label: "", now: start + .seconds(5)) == [.check(1)])
        other.cancel(2)
        #expect(other.checked(1, isAlive: false, now: start + .seconds(5)) == [.close(1)] && other.count == 0)
    }

    @Test func aServerThatIsAwayIsSaid() {
        var pool = pool(PoolSettings(size: 1, overflow: 0, line: 3))
        #expect(pool.ask(1, label: "", now: start) == [.open(1)] && pool.ask(2, label: "", now: start) == [])
        let actions = pool.openingFailed(1, "connection refused", now: start)
        guard case .refuse(1, let failure)? = actions.first else { return #expect(Bool(false), "the first gets the error") }
        #expect("\(failure)" == "no connection of app@shop on main/1 could be opened: connection refused")
        #expect(actions.dropFirst() == [.open(2)] && pool.openingFailed(2, "again", now: start).count == 1 && pool.count == 0)
        // One whose opening takes too long is refused, and its connection is another's.
        #expect(pool.ask(3, label: "", now: start) == [.open(3)] && pool.tick(now: start + .seconds(30)).count == 1)
        #expect(pool.opened(3, now: start + .seconds(31)) == [] && pool.idleCount == 1)
    }

    /// Anything in any order: never more connections than declared, nobody gets two, and what is handed out is not closed.
    @Test func anyHistoryKeepsTheBounds() {
        var random = SeededRandom(seed: 42)
        for round in 0..<60 {
            let settings = PoolSettings(
                size: Int.random(in: 1...3, using: &random), overflow: Int.random(in: 0...2, using: &random), wait: .seconds(3),
                recycle: .seconds(20), line: 4)
            var pool = ConnectionPool(settings, name: "p", seed: UInt64(round)), now = start, asker: UInt64 = 0
            var held: [Int: UInt64] = [:], opening: Set<Int> = [], checking: Set<Int> = [], open: Set<Int> = [], asked: Set<UInt64> = []
            for _ in 0..<300 {
                var actions: [ConnectionPool.Action] = []
                switch Int.random(in: 0...6, using: &random) {
                case 0, 1:
                    asker += 1
                    asked.insert(asker)
                    actions = pool.ask(asker, label: "x", now: now)
                case 2:
                    guard let one = opening.randomElement(using: &random) else { continue }
                    opening.remove(one)
                    let works = Bool.random(using: &random)
                    if works { open.insert(one) }
                    actions = works ? pool.opened(one, now: now) : pool.openingFailed(one, "no", now: now)
                case 3:
                    guard let one = checking.randomElement(using: &random) else { continue }
                    checking.remove(one)
                    actions = pool.checked(one, isAlive: Bool.random(using: &random), now: now)
                case 4:
                    guard let one = held.keys.randomElement(using: &random) else { continue }
                    held[one] = nil
                    actions = pool.release(one, isUsable: Int.random(in: 0...4, using: &random) > 0, now: now)
                case 5:
                    guard let one = asked.randomElement(using: &random), !held.values.contains(one) else { continue }
                    asked.remove(one)
                    pool.cancel(one)
                default:
                    now = now + .milliseconds(Int.random(in: 0...1500, using: &random))
                    actions = pool.tick(now: now)
                }
                for action in actions {
                    switch action {
                    case .give(let connection, let to):
                        #expect(asked.contains(to) && !held.values.contains(to) && held[connection] == nil && open.contains(connection))
                        held[connection] = to
                    case .check(let connection): checking.insert(connection)
                    case .open(let connection): opening.insert(connection)
                    case .close(let connection): #expect(held[connection] == nil && open.remove(connection) != nil)
                    case .refuse(let who, let failure):
                        #expect(asked.remove(who) != nil && !"\(failure)".isEmpty)
                    }
                }
                #expect(pool.count <= settings.most && pool.waiting <= settings.line && open.count + opening.count <= settings.most)
                #expect(pool.inUse == held.count + opening.count + checking.count)
            }
        }
    }

    // MARK: the sum

    private func judge(_ users: [(Int, Int)], _ most: Int, size: Int = 10, overflow: Int = 20) -> Decision<ConnectionBudget.Result> {
        ConnectionBudget.judge(
            users.enumerated().map { index, range in
                .init(service: "s\(index)", fewest: range.0, most: range.1, pool: PoolSettings(size: size, overflow: overflow))
            }, maxConnections: most, store: "main")
    }

    @Test func allPoolsTogetherAreHeldAgainstTheServer() {
        #expect(judge([(3, 3)], 98).result == .fits && judge([(3, 3)], 97).result == .error)
        #expect(judge([(3, 20)], 608).result == .fits)
        // Document 003's 150 forgets the overflow and the autoscaler's 20 replicas: 20 x 30 = 600.
        let decision = judge([(3, 20)], 200)
        #expect(decision.result == .warning(ceilings: ["s0": 6]) && decision.record.sentence.contains("608"))
        #expect(judge([(6, 20)], 188).result == .warning(ceilings: ["s0": 6]) && judge([(7, 20)], 188).result == .error)
        #expect(judge([], 8).result == .fits && judge([], 7).result == .error)
    }

    @Test func ceilingsOfSeveralServicesFitTogether() {
        var random = SeededRandom(seed: 5)
        for _ in 0..<500 {
            let users = (0..<Int.random(in: 1...4, using: &random)).map { _ in
                let fewest = Int.random(in: 0...5, using: &random)
                return (fewest, fewest + Int.random(in: 0...20, using: &random))
            }
            let most = Int.random(in: 0...1500, using: &random)
            guard case .warning(let ceilings) = judge(users, most).result else { continue }
            let sum = users.enumerated().reduce(8) { $0 + (ceilings["s\($1.offset)"] ?? $1.element.1) * 30 }
            #expect(sum <= most && !ceilings.isEmpty)
            for (index, user) in users.enumerated() { #expect((ceilings["s\(index)"] ?? user.1) >= user.0) }
        }
        #expect(judge([(.max, .max), (.max, .max)], .max).result == .fits, "counts are held to a million")
        #expect(judge([(-5, .max)], 100).result != .error)
    }
}
