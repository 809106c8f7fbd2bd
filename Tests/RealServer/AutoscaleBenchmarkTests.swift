import TestSupport
import Testing

/// The benchmark of the arithmetic of scaling at its smallest: every figure is there. What it measures is not judged here.
@Suite struct AutoscaleBenchmarkTests {
    @Test func theRecommenderRunsAtTinySize() async throws {
        let result = try await run(
            try systemProgram("bash"), ["\(projectFolder)/Benchmarks/autoscaling", "--tiny"],
            environment: ["AUTOSCALE_BENCH": builtProgram("autoscale-bench")], folder: projectFolder, limit: .seconds(60))
        #expect(result.status == 0, "\(result.output)")
        for figure in ["containers=10", "days=1", "samples=28800", "ns_per_sample=", "us_per_recommendation=", "bytes_per_container="] {
            #expect(result.output.contains(figure), "\(figure) is missing: \(result.output)")
        }
    }

    @Test func anUnknownModeIsSaidToBe() async throws {
        let result = try await run(builtProgram("autoscale-bench"), ["nothing"], folder: projectFolder, limit: .seconds(10))
        #expect(result.status == 2)
    }
}
