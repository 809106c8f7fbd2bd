import Basics
import Glibc
import LoadPlanning

/// Why a load test could not begin: what is short, and what to do.
public struct LoadFailure: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable { case descriptors, ports }
    public let code: Code
    public let description: String
}

/// What the machine must give for so many connections.
enum LoadRoom {
    /// Raises the soft limit of open files to what is needed, as far as the hard one goes.
    static func prepare(_ scenario: Scenario) throws(LoadFailure) {
        try openFiles(scenario.peakConnections)
        try ports(scenario)
    }

    // For the loop's own descriptors, the terminal and whatever else the process has open.
    private static let spare = 64

    private static func openFiles(_ connections: Int) throws(LoadFailure) {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0 else { return }
        let needed = UInt(connections + spare)
        if limit.rlim_cur >= needed { return }
        guard limit.rlim_max >= needed else {
            throw LoadFailure(
                code: .descriptors,
                description:
                    "\(connections) connections need \(needed) open files, and this process may have \(limit.rlim_max) (ulimit -Hn): "
                    + "fewer users or connections, or a higher limit")
        }
        limit.rlim_cur = needed
        guard setrlimit(resource, &limit) == 0 else {
            let why = SystemError("setrlimit")
            throw LoadFailure(
                code: .descriptors, description: "the limit of open files could not be raised to \(needed): \(why); try ulimit -n \(needed)"
            )
        }
    }

    /// From one address to one place there are as many connections as ports for outgoing ones. Open phases do not need all of theirs.
    private static func ports(_ scenario: Scenario) throws(LoadFailure) {
        let range = (Files.text("/proc/sys/net/ipv4/ip_local_port_range") ?? "").split { $0 == " " || $0 == "\t" || $0 == "\n" }.compactMap
        { Int($0) }
        guard range.count == 2 else { return }
        let most = range[1] - range[0] + 1
        let users = scenario.phases.filter { $0.unit == .users }.map { Int(clamped: max($0.from, $0.to)) }.max() ?? 0
        if users > most {
            throw LoadFailure(
                code: .ports,
                description:
                    "\(users) users need a connection each, and this machine has \(most) ports for connections to one place "
                    + "(net.ipv4.ip_local_port_range): "
                    + "fewer users, a wider range, or an open model (rate:), whose connections are shared")
        }
    }
}
