import Basics
import CLinux
import Glibc

/// Cuts one local node off from its peers, and lets clients through: packets between it and the others' ports and buses are dropped, in both
/// directions, by rules in a chain of their own.
///
/// It tells nodes apart by the address that their own connections come from (`bind-source-addr`), which `muster redis create` and the supervisor give
/// each node. Clients come from other addresses.
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
        do throws(ProvisioningFailure) {
            try Partition.iptables(["-N", chain])
            for rule in Partition.rules(node, others) { try Partition.iptables(["-A", chain] + rule + ["-j", "DROP"]) }
            try Partition.iptables(["-I", "INPUT", "-i", "lo", "-j", chain])
        } catch {
            heal()
            throw error
        }
    }

    /// Everything that the node sends to its peers' ports or gets from them, and all that its peers send to its ports or get from them.
    static func rules(_ node: Node, _ others: [Node]) -> [[String]] {
        var rules: [[String]] = []
        for other in others {
            let ports = "\(other.port),\(other.bus)"
            rules.append(["-p", "tcp", "-s", node.source, "-m", "multiport", "--dports", ports])
            rules.append(["-p", "tcp", "-d", node.source, "-m", "multiport", "--sports", ports])
            rules.append(["-p", "tcp", "-s", other.source, "-m", "multiport", "--dports", "\(node.port),\(node.bus)"])
            rules.append(["-p", "tcp", "-d", other.source, "-m", "multiport", "--sports", "\(node.port),\(node.bus)"])
        }
        return rules
    }

    func heal() { Partition.remove(chain) }

    private static func remove(_ chain: String) {
        _ = try? iptables(["-D", "INPUT", "-i", "lo", "-j", chain])
        _ = try? iptables(["-F", chain])
        _ = try? iptables(["-X", chain])
    }

    private static func removeLeftOvers() {
        guard let listed = try? iptables(["-S"]) else { return }
        for line in listed.split(whereSeparator: \.isNewline) where line.hasPrefix("-N " + prefix) {
            let chain = String(line.dropFirst(3))
            if let pid = Int32(chain.dropFirst(prefix.count)), NodeProcess.startTime(pid) == nil { remove(chain) }
        }
    }

    /// nil when partitions cannot be made here; else why.
    static func obstacle() -> String? {
        do throws(ProvisioningFailure) {
            try iptables(["-S", "INPUT"])
            return nil
        } catch { return error.message }
    }

    @discardableResult
    private static func iptables(_ arguments: [String]) throws(ProvisioningFailure) -> String {
        let folders = ["/usr/sbin", "/sbin", "/usr/bin"]
        guard let program = folders.map({ "\($0)/iptables" }).first(where: { access($0, X_OK) == 0 }) else {
            throw ProvisioningFailure(.local, "a partition needs iptables, which is not installed: apt-get install iptables")
        }
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw ProvisioningFailure(.local, "\(SystemError("pipe"))") }
        defer { close(ends[0]) }
        let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
        defer { close(null) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let line: [String] = [program, "-w", "5"] + arguments
        let words = line.map { strdup($0) } + [nil], none: [UnsafeMutablePointer<CChar>?] = [nil]
        defer { for word in words { free(word) } }
        var pid: Int32 = 0
        let result = muster_spawn(&pid, program, words, none, null, ends[1], ends[1], false, "/", nil, 0)
        close(ends[1])
        guard result == 0 else { throw ProvisioningFailure(.local, "\(SystemError("start \(program)", result))") }
        var output: [UInt8] = [], chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let got = read(ends[0], &chunk, chunk.count)
            if got <= 0 { break }
            output += chunk[..<got]
        }
        var code: Int32 = 0
        while muster_reap(pid, &code) == 0 { usleep(1000) }
        let text = String(decoding: output.prefix(65_536), as: UTF8.self)
        guard code == 0 else {
            throw ProvisioningFailure(.local, "iptables \(arguments.joined(separator: " ")): \(text.split(whereSeparator: \.isNewline).first ?? "status \(code)")")
        }
        return text
    }
}
