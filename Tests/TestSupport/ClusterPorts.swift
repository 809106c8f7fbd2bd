import Basics
import EventLoops
import Foundation
import Synchronization

/// Ports for servers of tests: below those that the kernel gives to outgoing connections, so that no connection of anybody's takes one between
/// a look and the server's start, or while the server is down. The bus of a Redis cluster's node is at its port + 10000, so both must be free.
public enum ClusterPorts {
    private static let given = Mutex<Set<UInt16>>([])

    /// The first of `count` free ports in a row, none of them in `taken`; no port twice in one process while there are others. Test processes
    /// that run side by side take from ranges of their own (`MUSTER_TEST_PLACE`, "place/places", set by Tests/run-lanes), so none takes a port
    /// that another has just found free.
    public static func first(of count: Int = 1, besides taken: [UInt16] = []) -> UInt16 {
        var range = 11_000..<20_000
        let place = (ProcessInfo.processInfo.environment["MUSTER_TEST_PLACE"] ?? "").split(separator: "/").compactMap { Int($0) }
        if place.count == 2, (0..<place[1]).contains(place[0]) {
            let width = range.count / place[1]
            range = range.lowerBound + place[0] * width..<range.lowerBound + (place[0] + 1) * width
        }
        for attempt in 0... {
            let first = UInt16(Int.random(in: range.lowerBound...range.upperBound - count))
            let ports = first..<first + UInt16(count)
            let isNew = given.withLock { given in
                // Nearly all were given: begin anew.
                if attempt % 10_000 == 9999 { given = [] }
                return given.isDisjoint(with: ports)
            }
            if isNew, ports.allSatisfy({ !taken.contains($0) && isFree($0) && isFree($0 + 10_000) }) {
                given.withLock { $0.formUnion(ports) }
                return first
            }
        }
        return 0
    }

    /// Whether nobody is bound to it, listening or not.
    private static func isFree(_ port: UInt16) -> Bool { (try? isFreePort(port)) == true }
}
