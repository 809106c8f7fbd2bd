import Basics

/// How a pool of connections is held: for each database, user and node.
public struct PoolSettings: Sendable, Equatable {
    /// Connections that are kept: 10.
    public let size: Int
    /// Further ones while they are needed, closed when they come back: 20.
    public let overflow: Int
    /// How long one waits for a connection: 30 s.
    public let wait: Duration
    /// The age at which a connection is closed instead of kept: 3,600 s, for each one 10 % more or less, so that they do not all go at
    /// once.
    public let recycle: Duration
    /// A connection that was idle for longer is looked at before it is given out: 1 s.
    public let check: Duration
    /// So many may wait: 1,000.
    public let line: Int

    public init(
        size: Int = 10, overflow: Int = 20, wait: Duration = .seconds(30), recycle: Duration = .seconds(3600),
        check: Duration = .seconds(1),
        line: Int = 1000
    ) {
        self.size = min(max(size, 1), 10_000)
        self.overflow = min(max(overflow, 0), 10_000)
        self.wait = max(wait, .zero)
        self.recycle = max(recycle, .seconds(1))
        self.check = max(check, .zero)
        self.line = max(line, 0)
    }

    public var most: Int { size + overflow }
}

/// Decides who gets which connection of a pool: a pure machine. It opens, closes and asks nothing by itself; what is to be done comes
/// back as actions, and what became of it is told.
///
/// A connection is *opening* until `opened` or `openingFailed`; *idle* until it is given out, closed for its age, or overflowing;
/// *checking* until `checked`; *held* until `release`. Who asks gets a connection at once, or waits in a line of first come, first
/// served, for a limited time. The line is bounded; beyond its bound who asks is refused at once.
///
/// - Complexity: O(1) for each event, but for `tick` and errors, which look at all connections or all that wait.
public struct ConnectionPool: Sendable {
    /// A connection, and whoever asks for one: numbers that the machine and its user give.
    public typealias Connection = Int
    public typealias Asker = UInt64

    public enum Action: Sendable, Equatable {
        /// The asker has this connection.
        case give(Connection, to: Asker)
        /// Ask the server on this connection whether it is still there, and tell `checked`.
        case check(Connection)
        /// Open one, and tell `opened` or `openingFailed`.
        case open(Connection)
        case close(Connection)
        /// The asker gets an error.
        case refuse(Asker, PoolFailure)
    }

    private struct Held: Sendable {
        var asker: Asker
        var label: String
        var since: MonotonicTime
    }

    private struct Waiting: Sendable {
        var asker: Asker
        var label: String
        var since: MonotonicTime
    }

    public let settings: PoolSettings
    /// For errors: `app@shop on main/2`.
    public let name: String

    private var deadlines: [Connection: MonotonicTime] = [:]
    /// The last that came back is given out first.
    private var idle: [(connection: Connection, since: MonotonicTime)] = []
    private var held: [Connection: Held] = [:]
    /// For whom a connection is opened or checked.
    private var pending: [Connection: Waiting] = [:]
    private var line: [Waiting] = []
    private var lineStart = 0
    private var nextConnection = 0
    private var random: SeededRandom

    public init(_ settings: PoolSettings, name: String, seed: UInt64) {
        self.settings = settings
        self.name = name
        random = SeededRandom(seed: seed)
    }

    /// All connections: idle, held, and those that are opened or looked at.
    public var count: Int { idle.count + held.count + pending.count }
    public var inUse: Int { held.count + pending.count }
    public var idleCount: Int { idle.count }
    public var waiting: Int { line.count - lineStart }

    // MARK: events

    /// Somebody asks for a connection. `label` says who, in errors of others: a route or a service, nothing secret.
    public mutating func ask(_ asker: Asker, label: String, now: MonotonicTime) -> [Action] {
        let one = Waiting(asker: asker, label: label, since: now)
        if waiting == 0, let actions = serve(one, now) { return actions }
        guard waiting < settings.line else { return [.refuse(asker, failure(.lineFull, .zero, now))] }
        line.append(one)
        return []
    }

    /// An idle connection or a new one; nil: there is none.
    private mutating func serve(_ one: Waiting, _ now: MonotonicTime) -> [Action]? {
        var actions: [Action] = []
        while let (connection, since) = idle.popLast() {
            if isOld(connection, now) {
                actions.append(close(connection))
            } else if now - since > settings.check {
                pending[connection] = one
                return actions + [.check(connection)]
            } else {
                held[connection] = Held(asker: one.asker, label: one.label, since: now)
                return actions + [.give(connection, to: one.asker)]
            }
        }
        // What was closed above leaves room.
        guard count < settings.most else { return nil }
        nextConnection += 1
        pending[nextConnection] = one
        return actions + [.open(nextConnection)]
    }

    private func isOld(_ connection: Connection, _ now: MonotonicTime) -> Bool { deadlines[connection].map { now >= $0 } ?? true }

    private mutating func close(_ connection: Connection) -> Action {
        deadlines[connection] = nil
        return .close(connection)
    }

    /// A connection that was asked for is there. Its asker may have gone: then the next one has it.
    public mutating func opened(_ connection: Connection, now: MonotonicTime) -> [Action] {
        guard let one = pending.removeValue(forKey: connection) else { return [.close(connection)] }
        let spread = Double.random(in: 0.9...1.1, using: &random)
        deadlines[connection] = now + settings.recycle.multipliedClamped(by: spread)
        return handed(connection, one, now)
    }

    /// What `check` found. A dead connection is closed, and its asker gets another one.
    public mutating func checked(_ connection: Connection, isAlive: Bool, now: MonotonicTime) -> [Action] {
        guard let one = pending.removeValue(forKey: connection) else { return [] }
        if isAlive { return handed(connection, one, now) }
        var actions = [close(connection)]
        guard one.asker != ConnectionPool.nobody else { return actions + serveLine(now) }
        if let more = serve(one, now) { actions += more } else { line.insert(one, at: lineStart) }
        return actions
    }

    /// The server could not be reached: its asker gets the error, and the next one's connection is tried.
    public mutating func openingFailed(_ connection: Connection, _ reason: String, now: MonotonicTime) -> [Action] {
        guard let one = pending.removeValue(forKey: connection) else { return [] }
        let refusal: [Action] =
            one.asker == ConnectionPool.nobody ? [] : [.refuse(one.asker, failure(.cannotOpen(reason), now - one.since, now))]
        return refusal + serveLine(now)
    }

    /// The asker that stands for a connection whose asker has gone.
    private static let nobody = Asker.max

    private mutating func handed(_ connection: Connection, _ one: Waiting, _ now: MonotonicTime) -> [Action] {
        if one.asker == ConnectionPool.nobody { return free(connection, now) }
        held[connection] = Held(asker: one.asker, label: one.label, since: now)
        return [.give(connection, to: one.asker)]
    }

    /// A connection comes back. `isUsable` false: it is broken, or its session left something that could not be cleaned.
    public mutating func release(_ connection: Connection, isUsable: Bool, now: MonotonicTime) -> [Action] {
        guard held.removeValue(forKey: connection) != nil else { return [] }
        guard isUsable, !isOld(connection, now) else {
            let closing = close(connection)
            return [closing] + serveLine(now)
        }
        return free(connection, now)
    }

    /// A good connection: for the first in line, kept, or too many.
    private mutating func free(_ connection: Connection, _ now: MonotonicTime) -> [Action] {
        if let one = popLine() {
            held[connection] = Held(asker: one.asker, label: one.label, since: now)
            return [.give(connection, to: one.asker)]
        }
        if count >= settings.size { return [close(connection)] }
        idle.append((connection, now))
        return []
    }

    private mutating func serveLine(_ now: MonotonicTime) -> [Action] {
        guard let one = popLine() else { return [] }
        if let actions = serve(one, now) { return actions }
        lineStart -= 1
        line[lineStart] = one
        return []
    }

    private mutating func popLine() -> Waiting? {
        guard lineStart < line.count else { return nil }
        defer {
            lineStart += 1
            // What is behind the start is let go now and then.
            if lineStart > 64, lineStart > line.count / 2 {
                line.removeFirst(lineStart)
                lineStart = 0
            }
        }
        return line[lineStart]
    }

    /// Whoever asked goes away: out of the line, or its connection, when it comes, is another's. One that it holds is released as usual.
    public mutating func cancel(_ asker: Asker) {
        if let place = line[lineStart...].firstIndex(where: { $0.asker == asker }) { line.remove(at: place) }
        for (connection, one) in pending where one.asker == asker { pending[connection]?.asker = ConnectionPool.nobody }
    }

    /// What time brings: those who waited too long are refused, idle connections above their age are closed.
    public mutating func tick(now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        while lineStart < line.count, now - line[lineStart].since >= settings.wait, let one = popLine() {
            actions.append(.refuse(one.asker, failure(.waitedTooLong, now - one.since, now)))
        }
        for (connection, one) in pending where one.asker != ConnectionPool.nobody && now - one.since >= settings.wait {
            pending[connection]?.asker = ConnectionPool.nobody
            actions.append(.refuse(one.asker, failure(.waitedTooLong, now - one.since, now)))
        }
        let old = idle.filter { isOld($0.connection, now) }.map(\.connection)
        if !old.isEmpty {
            idle.removeAll { old.contains($0.connection) }
            for connection in old { actions.append(close(connection)) }
        }
        return actions
    }

    /// When `tick` has something to do next; nil: not before another event.
    public var nextDeadline: MonotonicTime? {
        var next = lineStart < line.count ? line[lineStart].since + settings.wait : nil
        for one in pending.values where one.asker != ConnectionPool.nobody {
            next = min(next ?? one.since + settings.wait, one.since + settings.wait)
        }
        for one in idle { if let deadline = deadlines[one.connection] { next = min(next ?? deadline, deadline) } }
        return next
    }

    private func failure(_ cause: PoolFailure.Cause, _ waited: Duration, _ now: MonotonicTime) -> PoolFailure {
        let longest = held.values.min { $0.since < $1.since }
        return PoolFailure(
            cause: cause, pool: name, waited: waited, size: settings.size, overflow: settings.overflow, inUse: inUse, waiting: waiting,
            longestHolder: longest?.label, longestHeld: longest.map { now - $0.since })
    }
}

/// Why there is no connection.
public struct PoolFailure: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Cause: Sendable, Equatable {
        case waitedTooLong
        case lineFull
        case cannotOpen(String)
    }

    public let cause: Cause
    public let pool: String
    public let waited: Duration
    public let size: Int
    public let overflow: Int
    public let inUse: Int
    public let waiting: Int
    public let longestHolder: String?
    public let longestHeld: Duration?

    public var description: String {
        var text: String
        switch cause {
        case .waitedTooLong: text = "no connection of \(pool) came free within \(waited.brief)"
        case .lineFull: text = "\(waiting) wait for a connection of \(pool) already, and no more may"
        case .cannotOpen(let reason): return "no connection of \(pool) could be opened: \(reason)"
        }
        text += ": \(inUse) of \(size) and \(overflow) more are in use"
        if let longestHolder, let longestHeld { text += ", one for \(longestHeld.brief) by \(longestHolder)" }
        return text + ". Hold connections for a shorter time, or declare a larger pool"
    }
}
