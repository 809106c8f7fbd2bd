import TestSupport
import Testing

/// The benchmark at its smallest: every row and every figure, beside nginx, without a failed request. What it measures is not judged here.
@Suite struct GatewayBenchmarkTests {
    @Test func everyRowRunsAtTinySize() async throws {
        let result = try await run(
            try systemProgram("python3"), ["\(projectFolder)/Benchmarks/gateway", "--tiny"],
            environment: ["MUSTER_BIN": builtProgram("muster")], folder: projectFolder, limit: .seconds(180))
        #expect(result.status == 0, "\(result.output)")
        for row in [
            "GET, 100 B", "backends at Unix sockets", "Ports and Unix sockets", "GET, 10 kB", "GET, 1 MB", "POST, 4 kB", "WebSocket",
            "idle connections", "SIGHUP", "SIGUSR2",
        ] {
            #expect(result.output.contains(row), "\(row) is missing: \(result.output)")
        }
    }
}
