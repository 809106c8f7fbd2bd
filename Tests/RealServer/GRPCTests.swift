import Basics
import Glibc
import TestSupport
import Testing

/// gRPC through the gateway, with the published client and server on its two sides.
@Suite struct GRPCTests {
    @Test func callsOfEveryKindPass() async throws {
        try await withFolder { folder in
            let backend = TestPorts.server(), port = TestPorts.server(), script = "\(projectFolder)/Tests/Python/grpc_calls.py"
            let text = """
                gateway:
                  listen: 127.0.0.1:\(port)
                  routes:
                    - { path: /muster.Echo, backends: ['h2c://127.0.0.1:\(backend)'], body: 1Gi }
                """
            try Files.replace(folder + "/gateway.yaml", with: Array(text.utf8))
            let server = try Child(
                try systemProgram("python3"), [script, "server", "\(backend)"],
                environment: ["PYTHONPATH": "\(projectFolder)/.build/python"], log: folder + "/server.log")
            let gateway = try Child(
                builtProgram("muster"), ["gateway", folder + "/gateway.yaml"], environment: [:], log: folder + "/gateway.log")
            let isThere = await eventually(.seconds(20)) {
                (try? RawSocket(port: backend)) != nil && (try? RawSocket(port: port)) != nil
            }
            #expect(isThere)
            let (status, output) = try await python("grpc_calls.py", ["client", "127.0.0.1:\(port)"])
            let wanted = """
                unary hello 1 2
                fail FAILED_PRECONDITION as asked asked-for
                large 3000000
                out 1000
                in 300
                both 20 19
                deadline DEADLINE_EXCEEDED
                unknown UNIMPLEMENTED
                elsewhere UNIMPLEMENTED
                many 124750

                """
            #expect(status == 0 && output == wanted)
            for child in [gateway, server] {
                child.send(SIGTERM)
                if await child.end() == nil { await child.destroy() }
            }
        }
    }
}
