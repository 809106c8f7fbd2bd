import Basics
import EventLoops
import Foundation
import Synchronization

/// Ports for servers of tests. All of them lie below those that the kernel gives to outgoing connections, so that no connection of anybody's
/// takes one between a look and the server's start, or while the server is down; and apart from those that Muster chooses for the stores of its
/// stacks (`KeptPort`, from 11,000 to 20,000), which are down for a moment when a test kills them.
///
/// Test processes that run side by side take from parts of their own (`MUSTER_TEST_PLACE`, "place/places", set by Tests/run-lanes). No port
/// comes twice in one process while there are others. Benchmarks/lib/processes.py has the same ranges.
public enum TestPorts {
    /// A browser refuses some ports below.
    private static let servers = 7_000..<10_000
    /// The bus of a cluster's node is at its port + 10,000.
    private static let nodes = 20_001..<22_760

    private static let given = Mutex<Set<UInt16>>([])

    /// For one server.
    public static func server() -> UInt16 { take(1, servers, besides: []) { isFree($0) } }

    /// The first of `count` ports in a row for nodes of a Redis cluster, none of them in `taken`, whose buses are free too.
    public static func cluster(of count: Int = 1, besides taken: [UInt16] = []) -> UInt16 {
        take(count, nodes, besides: taken) { isFree($0) && isFree($0 + 10_000) }
    }

    private static func take(_ count: Int, _ all: Range<Int>, besides taken: [UInt16], _ isFit: (UInt16) -> Bool) -> UInt16 {
        var range = all
        let place = (ProcessInfo.processInfo.environment["MUSTER_TEST_PLACE"] ?? "").split(separator: "/").compactMap { Int($0) }
        if place.count == 2, (0..<place[1]).contains(place[0]) {
            let width = all.count / place[1]
            range = all.lowerBound + place[0] * width..<all.lowerBound + (place[0] + 1) * width
        }
        for attempt in 0... {
            let first = UInt16(Int.random(in: range.lowerBound...range.upperBound - count))
            let ports = first..<first + UInt16(count)
            let isNew = given.withLock { given in
                // Nearly all were given: begin anew.
                if attempt % 10_000 == 9999 { given = [] }
                return given.isDisjoint(with: ports)
            }
            if isNew, ports.allSatisfy({ !taken.contains($0) && isFit($0) }) {
                given.withLock { $0.formUnion(ports) }
                return first
            }
        }
        return 0
    }

    /// Whether nobody is bound to it, listening or not.
    private static func isFree(_ port: UInt16) -> Bool { (try? isFreePort(port)) == true }
}
