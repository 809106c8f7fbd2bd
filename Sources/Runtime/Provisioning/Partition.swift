import Basics
import CLinux
import Glibc

/// Cuts one local node off from its peers, and lets clients through: packets between it and the others' ports and buses are dropped, in
/// both directions, by rules in a chain of their own.
///
/// It tells nodes apart by the address that their own connections come from (`bind-source-addr`), which `muster redis create` and the
/// supervisor give each node. Clients come from other addresses.
struct Partition {
    struct Node {
        let source: String
        let port: UInt16
        let bus: UInt16
    }

    private let chain: String
    private static let prefix = "MUSTER-DRILL-"

    /// Begins at once. What an earlier drill left behind, because it was killed, is removed first.
    init(_ node: Node, from others: [Node]) throws(ProvisioningFailure) {
        chain = Partition.prefix + String(getpid())
        Partition.removeLeftOvers()
        var lines = [":\(chain) - [0:0]"]
        for rule in Partition.rules(node, others) { lines.append("-A \(chain) \(rule) -j DROP") }
        lines.append("-I INPUT -i lo -j \(chain)")
        try Partition.change(lines)
    }

    /// Everything that the node sends to its peers' ports or gets from them, and all that its peers send to its ports or get from them.
    static func rules(_ node: Node, _ others: [Node]) -> [String] {
        let own = "\(node.port),\(node.bus)"
        return others.flatMap { other -> [String] in
            let ports = "\(other.port),\(other.bus)"
            return [
                "-p tcp -s \(node.source) -m multiport --dports \(ports)", "-p tcp -d \(node.source) -m multiport --sports \(ports)",
                "-p tcp -s \(other.source) -m multiport --dports \(own)", "-p tcp -d \(other.source) -m multiport --sports \(own)",
            ]
        }
    }

    func heal() { Partition.remove(chain) }

    private static func remove(_ chain: String) { try? change(["-D INPUT -i lo -j \(chain)", "-F \(chain)", "-X \(chain)"]) }

    /// All at once or nothing.
    private static func change(_ lines: [String]) throws(ProvisioningFailure) {
        _ = try run("iptables-restore", ["-w", "5", "--noflush"], input: (["*filter"] + lines + ["COMMIT", ""]).joined(separator: "\n"))
    }

    private static func removeLeftOvers() {
        guard let listed = try? run("iptables", ["-w", "5", "-S"]) else { return }
        for line in listed.split(whereSeparator: \.isNewline) where line.hasPrefix("-N " + prefix) {
            let chain = String(line.dropFirst(3))
            if let pid = Int32(chain.dropFirst(prefix.count)), ProcessIdentity.startTime(pid) == nil { remove(chain) }
        }
    }

    /// nil when partitions cannot be made here; else why.
    static func obstacle() -> String? {
        do throws(ProvisioningFailure) {
            _ = try run("iptables", ["-w", "5", "-S", "INPUT"])
            return nil
        } catch { return error.message }
    }

    private static func run(_ name: String, _ arguments: [String], input: String = "") throws(ProvisioningFailure) -> String {
        let places: [String] = ["/usr/sbin/", "/sbin/", "/usr/bin/"].map { $0 + name }
        guard let program = places.first(where: { access($0, X_OK) == 0 }) else {
            throw ProvisioningFailure(.local, "a partition needs iptables, which is not installed: apt-get install iptables")
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
        while true {
            let got = read(output[0], &chunk, chunk.count)
            if got <= 0 { break }
            text += chunk[..<got]
        }
        var code: Int32 = 0
        while muster_reap(pid, &code) == 0 { usleep(1000) }
        let said = String(decoding: text.prefix(65_536), as: UTF8.self)
        guard code == 0 else {
            throw ProvisioningFailure(.local, "\(name): \(said.split(whereSeparator: \.isNewline).first ?? "status \(code)")")
        }
        return said
    }
}
