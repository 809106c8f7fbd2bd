import Basics
import Foundation

/// Ports for the nodes of a Redis cluster. A node's bus is at its port + 10000, so both must be free, and both lie below the ports that the
/// kernel gives to outgoing connections.
public enum ClusterPorts {
    /// The first of `count` free ports in a row, none of them in `taken`. Test processes that run side by side take from ranges of their own
    /// (`MUSTER_TEST_PLACE`, "place/places", set by Tests/run-lanes), so none takes a port that another has just found free.
    public static func first(of count: Int = 1, besides taken: [UInt16] = []) -> UInt16 {
        var range = 11_000..<20_000
        let place = (ProcessInfo.processInfo.environment["MUSTER_TEST_PLACE"] ?? "").split(separator: "/").compactMap { Int($0) }
        if place.count == 2, (0..<place[1]).contains(place[0]) {
            let width = range.count / place[1]
            range = range.lowerBound + place[0] * width..<range.lowerBound + (place[0] + 1) * width
        }
        while true {
            let first = UInt16(Int.random(in: range.lowerBound...range.upperBound - count))
            let ports = first..<first + UInt16(count)
            if ports.allSatisfy({ !taken.contains($0) && isFree($0) && isFree($0 + 10_000) }) { return first }
        }
    }

    private static func isFree(_ port: UInt16) -> Bool { (try? RawSocket(port: port)) == nil }
}
