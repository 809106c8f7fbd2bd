import Basics

/// The bounds of fetching once for many.
public enum CoalescingLimits {
    /// Fetches that may fail one after the other before all who wait fail.
    public static let leaders = 3
    /// How long a request waits for another one's fetch before it asks by itself.
    public static let patience = Duration.seconds(5)
    /// Requests that wait at once, over all addresses.
    public static let followers = 10_000
    /// How long an address is remembered whose answers are not for sharing.
    public static let memory = Duration.seconds(10)
}

/// Decides who asks the origin and who waits, for one address and variant, from the first fetch to the end of the last one.
///
/// One request leads: its fetch belongs to the cache and goes on without it. Others that come meanwhile follow. When the head of the answer
/// says that it is not for sharing, each follower asks by itself, all at once. When a fetch fails before its head, its leader's client gets
/// the failure and the next follower leads; after `CoalescingLimits.leaders` fetches have failed, all fail.
public struct Coalescing: Sendable, Equatable {
    public enum Phase: Sendable, CaseIterable {
        /// A fetch is under way, and its head has not come. Left by `headCame` and `fetchFailed`.
        case asking
        /// The head has come and may be shared. Left by `ended`.
        case sharing
        /// Nobody may join any more. Never left.
        case over
    }

    public enum Arrival: Sendable, Equatable {
        /// Wait for the fetch that is under way.
        case follow
        /// Ask by itself, beside it: the answer is not for sharing, or too many wait already.
        case alone
    }

    public enum Failure: Sendable, Equatable {
        /// Nobody waits.
        case nobodyLeft
        /// The first of those who wait asks now; the others wait for it.
        case nextLeads
        /// Everybody who waits gets the failure.
        case allFail
    }

    public private(set) var phase = Phase.asking
    /// Fetches that were begun, the one under way included.
    public private(set) var leaders: Int

    /// `leaders`: fetches that were begun for those who wait, this one included.
    public init(leaders: Int = 1) { self.leaders = leaders }

    /// A request for the same address comes. `waiting`: how many wait at this moment, over all addresses.
    public func arrival(waiting: Int) -> Arrival { phase != .over && waiting < CoalescingLimits.followers ? .follow : .alone }

    /// The head has come. False: not for sharing, and each follower asks by itself.
    public mutating func headCame(isShared: Bool) -> Bool {
        guard phase == .asking else { return false }
        phase = isShared ? .sharing : .over
        return isShared
    }

    /// The fetch has failed before its head. `followers`: those who wait, without the leader.
    public mutating func fetchFailed(followers: Int) -> Failure {
        guard phase == .asking, followers > 0 else {
            phase = .over
            return followers > 0 ? .allFail : .nobodyLeft
        }
        guard leaders < CoalescingLimits.leaders else {
            phase = .over
            return .allFail
        }
        leaders += 1
        return .nextLeads
    }

    /// The fetch is over, or what it brings is for nobody else any more (a purge): whoever comes now asks anew.
    public mutating func ended() { phase = .over }
}

/// Remembers, for a while, addresses whose answers are not for sharing: nobody waits for them in vain. Bounded: beyond `most` addresses new
/// ones are not remembered until old ones are over.
public struct SharingMemory: Sendable {
    private var until: [UInt64: MonotonicTime] = [:]
    private let most: Int

    public init(most: Int) { self.most = most }

    public mutating func note(_ hash: UInt64, now: MonotonicTime) {
        if until.count >= most { forget(now) }
        if until.count < most || until[hash] != nil { until[hash] = now + CoalescingLimits.memory }
    }

    public mutating func clear(_ hash: UInt64) { until[hash] = nil }

    public func isUnshared(_ hash: UInt64, now: MonotonicTime) -> Bool { until[hash].map { now < $0 } ?? false }

    /// Forgets what is over. O(addresses).
    public mutating func forget(_ now: MonotonicTime) {
        if !until.isEmpty { until = until.filter { now < $0.value } }
    }

    public var count: Int { until.count }
}
