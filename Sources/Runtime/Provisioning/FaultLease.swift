import Basics
import CLinux
import Glibc

/// Mends a fault that was put in on purpose, if whoever put it in dies before mending it: however it dies, also by SIGKILL.
///
/// A small shell of a session of its own (so that a closing terminal does not end it) reads from a pipe that only this process holds. The
/// word `done` ends it; the pipe's end without that word has it mend. It is started before the fault is.
final class FaultLease {
    private var entry: Int32
    private let pid: Int32

    /// `mend`: commands of the shell, which must do no harm where nothing is broken any more. `secret`: lines that they find in `$secret`;
    /// those stand in no argument and no file.
    init(mend: String, secret: String = "") throws(ProvisioningFailure) {
        let script = """
            secret=
            while IFS= read -r line; do
              [ "$line" = done ] && exit 0
              secret="$secret$line
            "
            done
            \(mend)
            """
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw ProvisioningFailure(.local, "\(SystemError("pipe"))") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let null = open("/dev/null", O_WRONLY | O_CLOEXEC)
        defer {
            close(ends[0])
            close(null)
        }
        let arguments: [String] = ["/bin/sh", "-c", script]
        let settings: [String] = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        let words = arguments.map { strdup($0) } + [nil], variables = settings.map { strdup($0) } + [nil]
        defer { for pointer in words + variables { free(pointer) } }
        var pid: Int32 = 0
        let result = muster_spawn(&pid, "/bin/sh", words, variables, ends[0], null, null, true, "/", nil, 0)
        guard result == 0 else {
            close(ends[1])
            throw ProvisioningFailure(.local, "\(SystemError("start /bin/sh", result))")
        }
        entry = ends[1]
        self.pid = pid
        // Far below a pipe's 64 KiB.
        _ = secret.withCString { write(entry, $0, strlen($0)) }
    }

    /// The fault is mended: nothing is left to do.
    func end() {
        if entry < 0 { return }
        _ = write(entry, "done\n", 5)
        letGo()
    }

    private func letGo() {
        close(entry)
        entry = -1
        var code: Int32 = 0
        while muster_reap(pid, &code) == 0 { usleep(1000) }
    }

    /// Without `end`: it is mended now, and this waits for it.
    deinit { if entry >= 0 { letGo() } }

    /// For a word of the shell.
    static func quoted(_ text: String) -> String { "'" + text.map { $0 == "'" ? "'\\''" : String($0) }.joined() + "'" }
}
