import Basics
import CLinux
import Glibc

/// A program of the system that is run for what it does or says, and waited for.
public enum Command {
    /// Its output and errors together, at most 64 KiB of them. A status other than 0 is thrown with the first line that it said. With
    /// `limit`, it is killed when it has not ended by then.
    public static func run(
        _ name: String, _ arguments: [String], input: String = "", within limit: Duration? = nil
    ) throws(ProvisioningFailure) -> String {
        let places: [String] = name.hasPrefix("/") ? [name] : ["/usr/sbin/", "/sbin/", "/usr/bin/"].map { $0 + name }
        guard let program = places.first(where: { access($0, X_OK) == 0 }) else {
            throw ProvisioningFailure(.local, "\(name) is needed, and is not installed: apt-get install \(name.prefix { $0 != "-" })")
        }
        var output: [Int32] = [0, 0], entry: [Int32] = [0, 0]
        guard pipe(&output) == 0, pipe(&entry) == 0 else { throw ProvisioningFailure(.local, "\(SystemError("pipe"))") }
        for end in output + entry { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var words: [UnsafeMutablePointer<CChar>?] = []
        for word in [program] + arguments { words.append(strdup(word)) }
        words.append(nil)
        let none: [UnsafeMutablePointer<CChar>?] = [nil]
        defer {
            for word in words { free(word) }
            close(output[0])
        }
        var pid: Int32 = 0
        let result = muster_spawn(&pid, program, words, none, entry[0], output[1], output[1], false, "/", nil, 0)
        close(output[1])
        close(entry[0])
        // A hundred nodes' rules are 40 KB, below a pipe's 64.
        _ = Array(input.utf8.prefix(65_536)).withUnsafeBytes { write(entry[1], $0.baseAddress, $0.count) }
        close(entry[1])
        guard result == 0 else { throw ProvisioningFailure(.local, "\(SystemError("start \(program)", result))") }
        var text: [UInt8] = [], chunk = [UInt8](repeating: 0, count: 4096)
        let deadline = limit.map { MonotonicTime.now + $0 }
        while true {
            if let deadline {
                let left = max((deadline - MonotonicTime.now).nanoseconds / 1_000_000, 0)
                var question = pollfd(fd: output[0], events: Int16(POLLIN), revents: 0)
                // It is killed below.
                if poll(&question, 1, Int32(clamping: left)) == 0 { break }
            }
            let got = read(output[0], &chunk, chunk.count)
            if got <= 0 { break }
            text += chunk[..<got]
        }
        var code: Int32 = 0
        while muster_reap(pid, &code) == 0 {
            if let deadline, .now >= deadline { kill(pid, SIGKILL) }
            usleep(1000)
        }
        let said = String(decoding: text.prefix(65_536), as: UTF8.self)
        guard code == 0 else {
            throw ProvisioningFailure(.local, "\(name): \(said.split(whereSeparator: \.isNewline).first ?? "status \(code)")")
        }
        return said
    }
}
