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
    private let lease: FaultLease
    private static let prefix = "MUSTER-DRILL-"

    /// Begins at once. What an earlier drill left behind, because it was killed, is removed first.
    init(_ node: Node, from others: [Node]) throws(ProvisioningFailure) {
        chain = Partition.prefix + String(getpid())
        Partition.removeLeftOvers()
        lease = try FaultLease(
            mend: "printf '%s\\n' '*filter' \(Partition.removal(chain).map(FaultLease.quoted).joined(separator: " ")) COMMIT "
                + "| iptables-restore -w 5 --noflush")
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

    /// Rules that cannot be removed are told: traffic stays cut.
    func heal() throws(ProvisioningFailure) {
        try Partition.change(Partition.removal(chain))
        lease.end()
    }

    private static func removal(_ chain: String) -> [String] { ["-D INPUT -i lo -j \(chain)", "-F \(chain)", "-X \(chain)"] }

    /// All at once or nothing.
    private static func change(_ lines: [String]) throws(ProvisioningFailure) {
        _ = try Command.run(
            "iptables-restore", ["-w", "5", "--noflush"], input: (["*filter"] + lines + ["COMMIT", ""]).joined(separator: "\n"))
    }

    private static func removeLeftOvers() {
        guard let listed = try? Command.run("iptables", ["-w", "5", "-S"]) else { return }
        for line in listed.split(whereSeparator: \.isNewline) where line.hasPrefix("-N " + prefix) {
            let chain = String(line.dropFirst(3))
            // A drill that cannot be looked at is not over.
            guard let pid = Int32(chain.dropFirst(prefix.count)) else { continue }
            do throws(SystemError) { if try ProcessIdentity.startTime(pid) != nil { continue } } catch { continue }
            try? change(removal(chain))
        }
    }

    /// nil when partitions cannot be made here; else why.
    static func obstacle() -> String? {
        do throws(ProvisioningFailure) {
            _ = try Command.run("iptables", ["-w", "5", "-S", "INPUT"])
            return nil
        } catch { return error.message }
    }
}
