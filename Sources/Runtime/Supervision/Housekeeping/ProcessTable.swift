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
        /// A store goes after the services that write to it.
        let isStore: Bool
        /// From SIGTERM to SIGKILL, as the stack file says.
        let grace: Duration

        func isRunning() throws(SystemError) -> Bool { try ProcessIdentity.isRunning(pid, since: started) }
    }

    private(set) var entries: [Entry] = []
    /// Of the folder, see `StackFolder.identity`: a copy of the folder has none of these processes.
    private let identity: String?

    init(identity: String?) { self.identity = identity }

    /// Reads what a supervisor before this one has written. Versions before this one wrote no identity, and neither kind nor grace of an
    /// entry: those are services with 10 s. Empty where there is no file; throws where it cannot be read.
    init(file: String, identity: String?) throws(SystemError) {
        self.identity = identity
        let bytes: [UInt8]
        do { bytes = try Files.read(file) } catch {
            if error.code == ENOENT { return }
            throw error
        }
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
        guard let head = lines.first?.split(separator: " ") else { return }
        // A table of another boot names processes that are gone, and numbers that others have now.
        guard head.count >= 2, head[0] == "boot", head[1] == ProcessIdentity.boot, head.count == 2 || String(head[2]) == identity else {
            return
        }
        for line in lines.dropFirst() {
            let parts = line.split(separator: " ")
            guard parts.count >= 4, let number = Int(parts[1]), let pid = Int32(parts[2]), pid > 1, let started = UInt64(parts[3]) else {
                continue
            }
            let grace = parts.count > 5 ? Int64(parts[5]) ?? 10_000 : 10_000
            entries.append(
                Entry(
                    unit: String(parts[0]), number: number, pid: pid, started: started, isStore: parts.count > 4 && parts[4] == "store",
                    grace: .milliseconds(min(max(grace, 0), 86_400_000))))
        }
    }

    mutating func add(unit: String, number: Int, pid: Int32, isStore: Bool, grace: Duration) {
        // Without a start time, which our own want alone can cause, it is found again by its mark only.
        let started = (try? ProcessIdentity.startTime(pid)) ?? 0
        entries.append(Entry(unit: unit, number: number, pid: pid, started: started, isStore: isStore, grace: grace))
    }

    mutating func remove(pid: Int32) { entries.removeAll { $0.pid == pid } }

    /// What stands in the file.
    var text: String {
        "boot \(ProcessIdentity.boot)\(identity.map { " " + $0 } ?? "")\n"
            + entries.map {
                "\($0.unit) \($0.number) \($0.pid) \($0.started) \($0.isStore ? "store" : "service") \($0.grace.nanoseconds / 1_000_000)\n"
            }.joined()
    }

    /// Those of the table that still run. Throws when one of them could not be looked at.
    func alive() throws(SystemError) -> [Entry] {
        var alive: [Entry] = []
        for entry in entries where try entry.isRunning() { alive.append(entry) }
        return alive
    }

    /// Ends everything that a supervisor has left: SIGTERM to each group, SIGKILL to what remains after its grace. Services before stores,
    /// so that they can still write. Then whatever else bears the stack's `mark`. Returns how many were ended, and what could not be. Throws
    /// before anything is done when it cannot be seen what runs.
    func endAll(_ mark: ProcessMark?) throws(SystemError) -> ProcessMark.Ended {
        let left = try alive()
        for group in [left.filter { !$0.isStore }, left.filter(\.isStore)] where !group.isEmpty {
            for entry in group { kill(-entry.pid, SIGTERM) }
            ProcessTable.await(group, until: .now + (group.map(\.grace).max() ?? .zero))
            // The whole groups, also where the leader has ended and left its children.
            for entry in group { kill(-entry.pid, SIGKILL) }
            ProcessTable.await(group, until: .now + .seconds(2))
        }
        // A group outlives its leader, and its number is not given to another process while it does.
        var unseen: SystemError?
        for entry in entries where !left.contains(entry) {
            do throws(SystemError) { if try ProcessIdentity.startTime(entry.pid) == nil { kill(-entry.pid, SIGKILL) } } catch {
                unseen = error
            }
        }
        var outcome = mark?.end() ?? ProcessMark.Ended()
        outcome.unseen = outcome.unseen ?? unseen
        outcome.ended += left.count
        return outcome
    }

    /// Waits until none of them runs. One that cannot be looked at is waited for.
    private static func await(_ group: [Entry], until deadline: MonotonicTime) {
        while group.contains(where: { (try? $0.isRunning()) ?? true }), .now < deadline { usleep(20_000) }
    }
}
