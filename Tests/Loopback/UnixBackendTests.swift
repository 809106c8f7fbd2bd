import Basics
import Gateway
import Glibc
import TestSupport
import Testing

@testable import EventLoops

/// Backends at Unix sockets, where no connection is made: that is the backend's fault, as it is on a port.
@Suite(.serialized) struct UnixBackendTests {
    /// `full`: as many connections wait as may wait. `deaf`: nobody listens. `gone`: there is no socket.
    private func withSocket(_ kind: String, _ body: (String) async throws -> Void) async throws {
        try await withFolder { folder in
            let path = folder + "/s", address = SocketAddress.unix(path)
            let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            var fillers: [Int32] = []
            defer { for one in fillers + [fd] { close(one) } }
            // Not within #expect: there, the compiler takes two such closures of one function for the same.
            let bound = kind == "gone" ? 0 : address.withSockaddr { bind(fd, $0, $1) }
            #expect(bound == 0)
            if kind == "full" {
                #expect(listen(fd, 0) == 0)
                var last: Int32 = 0
                while last == 0, fillers.count < 8 {
                    let filler = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
                    last = address.withSockaddr { connect(filler, $0, $1) } == 0 ? 0 : errno
                    fillers.append(filler)
                }
                #expect(last == EAGAIN)
            }
            try await body(path)
        }
    }

    /// Another one is asked, whatever the method, because nothing was sent; and the one that takes no connection is ejected.
    @Test(arguments: ["full", "deaf", "gone"]) func anotherOneIsAskedAndItIsBlamed(kind: String) async throws {
        try await withSocket(kind) { path in
            try await withNamed("good") { port in
                try await withLive("{ path: /, eject: { failures: 2, for: 60s }, backends: ['unix:\(path)', 127.0.0.1:\(port)] }") {
                    gateway in
                    let statuses = try await gateway.statuses(12, "POST")
                    #expect(statuses == Array(repeating: 200, count: 12))
                    #expect(gateway.replicas[0].failures.current >= 2 && gateway.replicas[1].failures.current == 0)
                    #expect(gateway.states == ["ejected", "ready"])
                }
            }
        }
    }
}
