/// Adds up the CPU time of a group of processes whose members come and go, as a counter that only grows.
///
/// The plain sum of all members falls when a member ends that nobody of the group has waited for, and a rate over it would take that for a
/// counter that began anew: all the time since the start in one interval. So each look counts the time that the members used since the look
/// before: for those that stayed their increase, for new ones all their time, and for those that were waited for the time that their parent
/// has of them.
public struct ProcessGroupTime: Sendable {
    /// One process of a group at one look.
    public struct Member: Sendable, Equatable {
        public let pid: Int32
        /// The start time, field 22 of its stat, in clock ticks since boot: with the pid it names the process for good.
        public let started: UInt64
        /// The process' own user and system time, in clock ticks.
        public let own: UInt64
        /// The time of those of its children that it has waited for, in clock ticks.
        public let waited: UInt64

        /// The figures as they stand in /proc/<pid>/stat.
        public init(pid: Int32, started: UInt64, own: UInt64, waited: UInt64) {
            self.pid = pid
            self.started = started
            self.own = own
            self.waited = waited
        }
    }

    private var members: [Int32: Member] = [:]
    private var lookedAt: UInt64?
    /// Of those who left at the last look: what nobody's `waited` had yet.
    private var owed: UInt64 = 0
    /// All the time that was counted, in clock ticks.
    public private(set) var total: UInt64 = 0

    /// A counter with nothing counted yet.
    public init() {}

    /// Takes a look at `ticks` since boot. Counting begins at the first look: time that was used before is not counted.
    public mutating func look(_ now: [Member], at ticks: UInt64) {
        defer {
            members = Dictionary(now.map { ($0.pid, $0) }) { first, _ in first }
            lookedAt = ticks
        }
        guard let before = lookedAt else { return }
        var own: UInt64 = 0, waited: UInt64 = 0, stayed = Set<Int32>()
        for member in now {
            if let old = members[member.pid], old.started == member.started {
                stayed.insert(member.pid)
                own &+= grown(old.own, member.own)
                waited &+= grown(old.waited, member.waited)
            } else if member.started >= before {
                own &+= member.own
                waited &+= member.waited
            }
        }
        // What those who left had used was counted at earlier looks; their parents' `waited` has it again, if they waited for them: now, or
        // at the next look, when the one ended while the look was being taken.
        var left: UInt64 = 0
        for old in members.values where !stayed.contains(old.pid) { left &+= old.own &+ old.waited }
        let counted = left &+ owed
        total &+= own &+ (waited > counted ? waited - counted : 0)
        owed = min(left, counted > waited ? counted - waited : 0)
    }

    private func grown(_ before: UInt64, _ now: UInt64) -> UInt64 { now > before ? now - before : 0 }
}
