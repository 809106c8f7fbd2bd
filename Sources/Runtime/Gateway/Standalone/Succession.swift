import Basics
import CLinux
import EventLoops
import Glibc

/// How a gateway process hands its listening sockets to the next one: as descriptors 3, 4, …, named in `MUSTER_SOCKETS` in their order
/// (`listen=127.0.0.1:8010 admin=127.0.0.1:8404`). Both share them for a moment; no connection waits in a queue that nobody reads.
enum Succession {
    struct Socket {
        let name: String
        let address: String
        let descriptor: Int32
    }

    private static let socketsName = "MUSTER_SOCKETS"
    /// Under this name a descriptor stands among them from which the keys of tickets are read: they are in no variable and no file.
    private static let keysName = "tickets"
    private static let keysLimit = 4096
    private static let predecessorName = "MUSTER_PREDECESSOR"

    /// What a predecessor has left to us, as far as it is `wanted` (names and addresses); each is ours from now on. The others are closed:
    /// on an address that is no longer listened on, nobody may wait for an answer. Descriptors that do not listen are not taken.
    static func inherited(for wanted: [String: [String]]) -> [Socket] {
        guard let text = environmentValue(socketsName), text.utf8.count <= 4096, predecessor() != nil else { return [] }
        var out: [Socket] = []
        for (i, entry) in text.split(separator: " ").enumerated() {
            let parts = entry.split(separator: "=", maxSplits: 1), descriptor = Int32(3 + i)
            var listens: Int32 = 0
            var length = socklen_t(4)
            guard parts.count == 2, getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0, listens == 1 else {
                continue
            }
            guard wanted[String(parts[0])]?.contains(String(parts[1])) == true else {
                close(descriptor)
                continue
            }
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            out.append(Socket(name: String(parts[0]), address: String(parts[1]), descriptor: descriptor))
        }
        return out
    }

    /// The keys of tickets that a predecessor has left to us. Call it before `inherited`, which closes what it does not know.
    static func inheritedKeys() -> [UInt8]? {
        guard let text = environmentValue(socketsName), text.utf8.count <= 4096, predecessor() != nil,
            let place = text.split(separator: " ").firstIndex(where: { $0.hasPrefix(keysName + "=") })
        else { return nil }
        let number = text.split(separator: " ").distance(from: text.split(separator: " ").startIndex, to: place)
        let descriptor = Int32(3 + number)
        defer { close(descriptor) }
        var out: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: keysLimit)
        while out.count <= keysLimit {
            let got = read(descriptor, &chunk, chunk.count)
            if got <= 0 { break }
            out += chunk[..<got]
        }
        return out.isEmpty ? nil : out
    }

    /// A pipe with the keys in it; the caller closes it.
    private static func pipe(of keys: [UInt8]) throws -> Int32 {
        var ends: [Int32] = [-1, -1]
        guard Glibc.pipe(&ends) == 0 else { throw SystemError("pipe") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        // A pipe holds 4 KiB at least, so nobody waits for a reader.
        let written = keys.count <= keysLimit ? write(ends[1], keys, keys.count) : -1
        close(ends[1])
        guard written == keys.count else {
            close(ends[0])
            throw SystemError("write to a pipe")
        }
        return ends[0]
    }

    /// Our parent, if it is the one that started us as its successor.
    private static func predecessor() -> Int32? {
        guard let pid = environmentValue(predecessorName).flatMap({ Int32($0) }), pid > 1, getppid() == pid else { return nil }
        return pid
    }

    /// We serve: the predecessor may go.
    static func tellPredecessor() {
        guard let pid = predecessor() else { return }
        unsetenv(predecessorName)
        unsetenv(socketsName)
        kill(pid, SIGQUIT)
    }

    /// Starts this program again, from the path by which it was started, with the sockets. Its output is ours.
    /// `keys`: those of tickets.
    static func start(_ arguments: [String], _ sockets: [Socket], keys: [UInt8]? = nil) throws -> Int32 {
        var sockets = sockets
        if let keys { sockets.append(Socket(name: keysName, address: "keys", descriptor: try pipe(of: keys))) }
        defer { if keys != nil, let last = sockets.last { close(last.descriptor) } }
        // The path, not the file that runs: a new version may stand there.
        let program = CommandLine.arguments[0].contains("/") ? CommandLine.arguments[0] : Files.absolute("/proc/self/exe")
        var copies: [Int32] = []
        defer { for copy in copies { close(copy) } }
        for socket in sockets {
            // Above all numbers that they get in the child.
            let copy = fcntl(socket.descriptor, F_DUPFD_CLOEXEC, 64)
            if copy < 0 { throw SystemError("dup") }
            copies.append(copy)
        }
        var variables: [String] = []
        var entry = environ
        while let pointer = entry.pointee {
            let text = String(cString: pointer)
            if !text.hasPrefix(socketsName + "="), !text.hasPrefix(predecessorName + "=") { variables.append(text) }
            entry += 1
        }
        variables.append("\(socketsName)=\(sockets.map { "\($0.name)=\($0.address)" }.joined(separator: " "))")
        variables.append("\(predecessorName)=\(getpid())")
        let words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
        let settings: [UnsafeMutablePointer<CChar>?] = variables.map { strdup($0) } + [nil]
        defer { for pointer in words + settings { free(pointer) } }
        var pid: Int32 = 0
        let result = muster_spawn(&pid, program, words, settings, 0, 1, 2, true, nil, copies, Int32(copies.count))
        if result != 0 { throw SystemError("start \(program)", result) }
        return pid
    }
}
