import Basics
import CLinux
import Glibc

/// The mark by which all processes of a stack are found again, wherever they went: the variable `MUSTER_REPLICA` in their environment,
/// `<folder's identity> <unit>/<number>/<life>`. Children inherit it, also in sessions of their own and after their parent has ended; only one that
/// starts with another environment is without it.
struct ProcessMark: Sendable {
    static let variable = "MUSTER_REPLICA"

    /// See `StackFolder.identity`.
    let stack: String

    /// One process that a supervisor has started. `life` tells it from every other one of that supervisor's.
    struct Life: Sendable {
        let unit: String
        let number: Int
        let life: Int
    }

    func value(_ replica: Life) -> String { "\(stack) \(replica.unit)/\(replica.number)/\(replica.life)" }

    /// Processes of one life of a replica, or with `replica` nil of the whole stack, that have not ended. Only those of this user are seen
    /// (all, for root). Throws when not all processes could be looked at. Reads /proc of the whole machine: some ten milliseconds, so not on
    /// the control loop.
    func processes(of replica: Life? = nil) throws(SystemError) -> [Int32] {
        let entry = Array("\(ProcessMark.variable)=\(replica.map(value) ?? stack + " ")".utf8)
        return try ProcessMark.pids { replica == nil ? $0.starts(with: entry) : $0.elementsEqual(entry) }
    }

    /// Processes with an entry of their environment that satisfies `test`, this one left out.
    static func pids(where test: (ArraySlice<UInt8>) -> Bool) throws(SystemError) -> [Int32] {
        let own = getpid()
        var found: [Int32] = []
        for pid in try ProcessList.all() where pid != own {
            guard let environment = try ProcessList.read(pid, "environ"), environment.split(separator: 0).contains(where: test) else {
                continue
            }
            if try ProcessIdentity.startTime(pid) != nil { found.append(pid) }
        }
        return found
    }

    /// What `end` has found.
    struct Ended {
        /// How many processes have ended.
        var ended = 0
        /// Those that are still there after the time (they wait for a disk, say).
        var left: [Int32] = []
        /// Why the processes could not be looked at until the time was over; then there may be more of them.
        var unseen: SystemError?

        /// What a user should know of those that may still run; nil when all have ended.
        func trouble(of whose: String) -> String? {
            if let unseen { return "whether \(whose) has left processes cannot be seen: \(unseen)" }
            return left.isEmpty ? nil : "\(whose) has left processes that do not end: \(left)"
        }
    }

    /// Sends SIGKILL to all processes of a replica, or of the stack, until none is left: one may start others while it is being ended.
    func end(_ replica: Life? = nil, within limit: Duration = .seconds(2)) -> Ended {
        let deadline = MonotonicTime.now + limit
        var seen: Set<Int32> = []
        while true {
            do throws(SystemError) {
                let here = try processes(of: replica)
                if here.isEmpty || MonotonicTime.now > deadline { return Ended(ended: seen.subtracting(here).count, left: here) }
                seen.formUnion(here)
                for pid in here { kill(pid, SIGKILL) }
            } catch {
                // Descriptors come back: the others of this process give theirs back.
                if MonotonicTime.now > deadline { return Ended(ended: 0, left: Array(seen), unseen: error) }
            }
            usleep(5000)
        }
    }
}

/// Descendants that lost their parent become children of this process, because it asked for them (`muster_become_subreaper`).
enum Orphans {
    /// Children of this process, and whether each is a zombie. Throws when not all processes could be looked at.
    static func children() throws(SystemError) -> [(pid: Int32, isZombie: Bool)] {
        let own = getpid()
        var found: [(pid: Int32, isZombie: Bool)] = []
        for pid in try ProcessList.all() {
            guard let fields = try ProcessList.status(pid), fields.count > 1, Int32(fields[1]) == own else { continue }
            found.append((pid, fields[0] == "Z"))
        }
        return found
    }

    /// Children that have not ended, and when each was started: a pid alone is used again.
    static func identified() throws(SystemError) -> [Int32: UInt64] {
        var out: [Int32: UInt64] = [:]
        for child in try children() { out[child.pid] = try ProcessIdentity.startTime(child.pid) }
        return out
    }

    /// At the very end: SIGKILL to every child that is left and to what they leave in turn, and all are reaped. Returns how many there were.
    /// `strangers` are left alone.
    static func endAll(sparing strangers: [Int32: UInt64] = [:], within limit: Duration = .seconds(2)) -> Int {
        let deadline = MonotonicTime.now + limit
        var ended = 0
        while MonotonicTime.now < deadline {
            // What cannot be seen now, for a want of descriptors say, is looked for again.
            guard let here = try? theirs(besides: strangers) else {
                usleep(2000)
                continue
            }
            if here.isEmpty { break }
            for child in here where !child.isZombie { kill(child.pid, SIGKILL) }
            usleep(2000)
            var code: Int32 = 0
            for child in here where muster_reap(child.pid, &code) == 1 { if !child.isZombie { ended += 1 } }
        }
        return ended
    }

    private static func theirs(besides strangers: [Int32: UInt64]) throws(SystemError) -> [(pid: Int32, isZombie: Bool)] {
        var found: [(pid: Int32, isZombie: Bool)] = []
        for child in try children() {
            if let known = strangers[child.pid], try ProcessIdentity.startTime(child.pid) == known { continue }
            found.append(child)
        }
        return found
    }
}
