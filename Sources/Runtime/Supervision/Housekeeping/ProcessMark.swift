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

    /// Processes of one life of a replica, or with `replica` nil of the whole stack, that have not ended. Only those of this user are seen (all, for
    /// root). Reads /proc of the whole machine: some ten milliseconds, so not on the control loop.
    func processes(of replica: Life? = nil) -> [Int32] {
        let entry = Array("\(ProcessMark.variable)=\(replica.map(value) ?? stack + " ")".utf8)
        return ProcessMark.pids { replica == nil ? $0.starts(with: entry) : $0.elementsEqual(entry) }
    }

    /// Processes with an entry of their environment that satisfies `test`, this one left out.
    static func pids(where test: (ArraySlice<UInt8>) -> Bool) -> [Int32] {
        let own = getpid()
        return Files.list("/proc").compactMap { Int32($0) }.filter { pid in
            // Who cannot be read is another user's, or gone.
            guard pid != own, let environment = try? Files.read("/proc/\(pid)/environ") else { return false }
            return environment.split(separator: 0).contains(where: test) && ProcessIdentity.startTime(pid) != nil
        }
    }

    /// Sends SIGKILL to all processes of a replica, or of the stack, until none is left: one may start others while it is being ended.
    /// Returns how many were ended, and those that are still there after `limit` (they wait for a disk, say).
    func end(_ replica: Life? = nil, within limit: Duration = .seconds(2)) -> (ended: Int, left: [Int32]) {
        let deadline = MonotonicTime.now + limit
        var seen: Set<Int32> = []
        while true {
            let here = processes(of: replica)
            if here.isEmpty || MonotonicTime.now > deadline { return (seen.subtracting(here).count, here) }
            seen.formUnion(here)
            for pid in here { kill(pid, SIGKILL) }
            usleep(5000)
        }
    }
}

/// Descendants that lost their parent become children of this process, because it asked for them (`muster_become_subreaper`).
enum Orphans {
    /// Children of this process, and whether each is a zombie.
    static func children() -> [(pid: Int32, isZombie: Bool)] {
        let own = getpid()
        return Files.list("/proc").compactMap { Int32($0) }.compactMap { pid in
            guard let text = Files.text("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return nil }
            let fields = text[text.index(after: end)...].split(separator: " ")
            guard fields.count > 1, Int32(fields[1]) == own else { return nil }
            return (pid, fields[0] == "Z")
        }
    }

    /// Children that have not ended, and when each was started: a pid alone is used again.
    static func identified() -> [Int32: UInt64] {
        var out: [Int32: UInt64] = [:]
        for child in children() { out[child.pid] = ProcessIdentity.startTime(child.pid) }
        return out
    }

    /// At the very end: SIGKILL to every child that is left and to what they leave in turn, and all are reaped. Returns how many there were.
    /// `strangers` are left alone.
    static func endAll(sparing strangers: [Int32: UInt64] = [:], within limit: Duration = .seconds(2)) -> Int {
        let deadline = MonotonicTime.now + limit
        var ended = 0
        while MonotonicTime.now < deadline {
            let here = children().filter { strangers[$0.pid] == nil || strangers[$0.pid] != ProcessIdentity.startTime($0.pid) }
            if here.isEmpty { break }
            for child in here where !child.isZombie { kill(child.pid, SIGKILL) }
            usleep(2000)
            var code: Int32 = 0
            for child in here where muster_reap(child.pid, &code) == 1 { if !child.isZombie { ended += 1 } }
        }
        return ended
    }
}
