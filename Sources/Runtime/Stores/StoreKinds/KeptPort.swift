import Basics
import EventLoops

/// The port of a node, which is chosen once and kept in its folder: clients and other nodes know the node by it.
public enum KeptPort {
    /// The port that the folder remembers; nil: none, or nothing that is one. Throws when it cannot be read: another one would be unknown to
    /// the clients and the other nodes.
    public static func known(in folder: String) throws(SystemError) -> UInt16? {
        try Files.firstLine(folder + "/port").flatMap { UInt16($0) }
    }

    public static func keep(_ port: UInt16, in folder: String) throws(SystemError) {
        try Files.replace(folder + "/port", with: Array("\(port)\n".utf8))
    }

    /// A free port that is not among `taken`, and, with `above`, has a free port so far above it.
    ///
    /// Below the ports that the kernel gives to outgoing connections (from 32768 on): an outgoing connection could have it at the next start.
    public static func choose(besides taken: [UInt16] = [], above: UInt16? = nil) throws(SystemError) -> UInt16 {
        for _ in 0..<200 {
            let port = UInt16.random(in: 11_000...20_000)
            if taken.contains(port) { continue }
            guard try isFreePort(port) else { continue }
            guard let above else { return port }
            if try isFreePort(port + above) { return port }
        }
        throw SystemError("there is no free port" + (above.map { " that leaves room for a bus port \($0) above it" } ?? ""), 0)
    }
}
