import Basics
import CLinux
import Glibc

/// The processes a supervisor has started, on disk, so that the next one finds what a killed one left.
///
/// A process is known by its pid and its start time in clock ticks (field 22 of /proc/<pid>/stat): pids are reused, the pair is not.
struct ProcessTable {
    struct Entry: Equatable {
        let unit: String
        let number: Int
        let pid: Int32
        let started: UInt64
    }

    private let file: String
    private(set) var entries: [Entry] = []

    init(file: String) {
        self.file = file
        // A table of another boot names processes that are gone, and numbers that others have now.
        guard let text = Files.text(file), text.hasPrefix("boot \(ProcessIdentity.boot)\n") else { return }
        for line in text.split(separator: "\n").dropFirst() {
            let parts = line.split(separator: " ")
            guard parts.count == 4, let number = Int(parts[1]), let pid = Int32(parts[2]), let started = UInt64(parts[3]) else { continue }
            entries.append(Entry(unit: String(parts[0]), number: number, pid: pid, started: started))
        }
    }

    mutating func add(unit: String, number: Int, pid: Int32) {
        entries.append(Entry(unit: unit, number: number, pid: pid, started: ProcessIdentity.startTime(pid) ?? 0))
        save()
    }

    mutating func remove(pid: Int32) {
        entries.removeAll { $0.pid == pid }
        save()
    }

    private func save() {
        let text = "boot \(ProcessIdentity.boot)\n" + entries.map { "\($0.unit) \($0.number) \($0.pid) \($0.started)\n" }.joined()
        // A table that cannot be written costs only the clean-up after a kill -9 of this process.
        try? Files.replace(file, with: Array(text.utf8))
    }

    /// Those of the table that still run.
    var alive: [Entry] { entries.filter { ProcessIdentity.startTime($0.pid) == $0.started } }

    /// Ends everything that is left: SIGTERM to each group, SIGKILL to what remains after `grace`. Services before stores, so that
    /// they can still write. Returns how many were ended.
    mutating func endAll(grace: Duration, stores: Set<String>) -> Int {
        let left = alive
        let all = entries
        for group in [left.filter { !stores.contains($0.unit) }, left.filter { stores.contains($0.unit) }] where !group.isEmpty {
            for entry in group { kill(-entry.pid, SIGTERM) }
            let deadline = MonotonicTime.now + grace
            while group.contains(where: { ProcessIdentity.startTime($0.pid) == $0.started }), .now < deadline { usleep(20_000) }
            // The whole groups, also where the leader has ended and left its children.
            for entry in group { kill(-entry.pid, SIGKILL) }
            let killed = MonotonicTime.now + .seconds(2)
            while group.contains(where: { ProcessIdentity.startTime($0.pid) == $0.started }), .now < killed { usleep(20_000) }
        }
        // A group outlives its leader, and its number is not given to another process while it does.
        for entry in all where !left.contains(entry) && ProcessIdentity.startTime(entry.pid) == nil { kill(-entry.pid, SIGKILL) }
        entries = []
        if !all.isEmpty { save() }
        return left.count
    }
}
