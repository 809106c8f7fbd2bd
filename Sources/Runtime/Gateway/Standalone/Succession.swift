import Basics
import CLinux
import EventLoops
import Glibc

/// How a gateway process hands its listening sockets to the next one: as descriptors 3, 4, …, named in `MUSTER_SOCKETS` in their order
/// (`listen=127.0.0.1:8010 admin=127.0.0.1:8404`). Both share them for a moment; no connection waits in a queue that nobody reads.
///
/// With many threads and addresses that text would grow beyond what a variable may have. Then sockets of one address that follow each other
/// are named once, with their number (`listen*8=127.0.0.1:8010`). Otherwise it is as programs before this form read it.
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
        guard let text = environmentValue(socketsName), predecessor() != nil else { return [] }
        var out: [Socket] = []
        for socket in read(text) {
            let descriptor = socket.descriptor
            var listens: Int32 = 0
            var length = socklen_t(4)
            guard getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0, listens == 1 else { continue }
            guard wanted[socket.name]?.contains(socket.address) == true else {
                close(descriptor)
                continue
            }
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            out.append(socket)
        }
        return out
    }

    /// Programs before the form with numbers take no longer text.
    private static let plainLimit = 4096
    /// The system's bound of one variable is 128 KiB (`MAX_ARG_STRLEN`), its name included.
    private static let textLimit = 128 * 1024 - 64
    /// More descriptors than a process may have here, and than any file asks for.
    private static let socketLimit = 1 << 16

    /// The sockets as the variable names them; nil when there are more than it can name.
    static func text(of sockets: [Socket]) -> String? {
        let plain = sockets.map { "\($0.name)=\($0.address)" }
        let text = plain.joined(separator: " ")
        if text.utf8.count <= plainLimit { return text }
        var groups: [(socket: Socket, count: Int)] = []
        for socket in sockets {
            if let last = groups.last?.socket, last.name == socket.name, last.address == socket.address {
                groups[groups.count - 1].count += 1
            } else {
                groups.append((socket, 1))
            }
        }
        let short = groups.map { "\($0.socket.name)*\($0.count)=\($0.socket.address)" }.joined(separator: " ")
        return short.utf8.count <= textLimit && sockets.count <= socketLimit ? short : nil
    }

    /// What the variable names, with the descriptors in their order. An entry in no form of ours stands for one descriptor that nobody takes.
    static func read(_ text: String) -> [Socket] {
        guard text.utf8.count <= textLimit else { return [] }
        var out: [Socket] = [], next = 3
        for entry in text.split(separator: " ") {
            let parts = entry.split(separator: "=", maxSplits: 1)
            let words = parts.first?.split(separator: "*", maxSplits: 1, omittingEmptySubsequences: false) ?? []
            let count = words.count == 2 ? Int(words[1]) ?? 0 : 1
            // Whose descriptors follow a number that cannot be read, nobody can tell.
            guard count > 0, count <= socketLimit - out.count else { return out }
            if parts.count == 2, let name = words.first {
                for i in 0..<count { out.append(Socket(name: String(name), address: String(parts[1]), descriptor: Int32(next + i))) }
            }
            next += count
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
            let got = Glibc.read(descriptor, &chunk, chunk.count)
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
        guard let names = text(of: sockets) else { throw SystemError("hand over \(sockets.count) sockets", E2BIG) }
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
        variables.append("\(socketsName)=\(names)")
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
