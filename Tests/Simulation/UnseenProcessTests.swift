import Basics
import Glibc
import TestSupport
import Testing

@testable import Supervision

/// A process that cannot be looked at, because this one has no descriptor left, is not known to be gone.
struct UnseenProcessTests {
    @Test func whatCannotBeLookedAtIsNotGone() async {
        await #expect(processExitsWith: .success) {
            let own = getpid(), mark = ProcessMark(stack: "none"), folder = "/tmp/muster-test-\(own)-unseen"
            guard let started = try? ProcessIdentity.startTime(own), (try? ProcessWork.sample(group: getpgrp())) != nil else { exit(2) }
            guard (try? Files.makeFolder(folder)) != nil, mark.end().unseen == nil, (try? Orphans.children()) != nil else { exit(3) }
            let listed = "boot \(ProcessIdentity.boot)\nweb 1 \(own) \(started) service 0\n"
            guard (try? Files.replace(folder + "/processes", with: Array(listed.utf8))) != nil,
                let table = try? ProcessTable(file: folder + "/processes", identity: nil), (try? table.alive().count) == 1
            else { exit(4) }
            var limit = rlimit(rlim_cur: 64, rlim_max: 64)
            guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { exit(5) }
            while open("/dev/null", O_RDONLY) >= 0 {}
            func isUnseen(_ look: () throws(SystemError) -> Void) -> Bool {
                do { try look() } catch { return error.isOwnWant }
                return false
            }
            guard isUnseen({ () throws(SystemError) in _ = try ProcessIdentity.startTime(own) }) else { exit(6) }
            guard isUnseen({ () throws(SystemError) in _ = try ProcessWork.sample(group: getpgrp()) }) else { exit(7) }
            guard isUnseen({ () throws(SystemError) in _ = try Orphans.children() }) else { exit(8) }
            // The table names this very process: it is neither ended, nor is it said that nothing was left.
            guard isUnseen({ () throws(SystemError) in _ = try table.endAll(mark) }) else { exit(9) }
            guard isUnseen({ () throws(SystemError) in _ = try ProcessTable(file: folder + "/processes", identity: nil) }) else { exit(10) }
            let outcome = mark.end(within: .milliseconds(20))
            guard outcome.ended == 0, outcome.trouble(of: "web")?.contains("whether web has left processes cannot be seen: ") == true else {
                exit(11)
            }
            let troubles = LogRotation.rotate(folder)
            guard troubles.count == 1, troubles[0].contains("Too many open files") else { exit(12) }
            // One is enough to see.
            close(63)
            guard (try? ProcessIdentity.isRunning(own, since: started)) == true, (try? Orphans.children()) != nil else { exit(13) }
            for descriptor in 3..<63 { close(Int32(descriptor)) }
            guard (try? ProcessIdentity.isRunning(own, since: started)) == true, mark.end().unseen == nil else { exit(14) }
            Files.remove(folder)
            exit(0)
        }
    }
}
