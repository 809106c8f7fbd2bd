import Basics
import TestSupport
import Testing

/// The benchmark of routing at its smallest, and what a known text allocates. Times are not judged here.
@Suite struct RoutingBenchmarkTests {
    @Test func itRunsAtTinySize() async throws {
        let result = try await run(
            try systemProgram("bash"), ["\(projectFolder)/Benchmarks/postgres-routing", "--tiny"],
            environment: ["ROUTING_BENCH": builtProgram("routing-bench")], folder: projectFolder, limit: .seconds(60))
        #expect(result.status == 0, "\(result.output)")
        for figure in ["mode=cached texts=20", "routed=200 replicas=220 hits=200", "mode=read routed=10 misses=10"] {
            #expect(result.output.contains(figure), "\(figure) is missing: \(result.output)")
        }
    }

    /// A thousand more texts that are known: nothing is allocated for them. A build for tests makes one allocation for each, which an
    /// optimised one does not (`Benchmarks/postgres-routing` under the same library shows 0): a copy of the text or of a profile would be
    /// another.
    @Test func aKnownTextIsFoundWithoutACopy() async throws {
        try await withFolder { folder in
            let library = folder + "/allocations.so"
            let made = try await run(
                try systemProgram("gcc"), ["-O2", "-shared", "-fPIC", "-o", library, "\(projectFolder)/Benchmarks/allocations.c"],
                folder: folder)
            try #require(made.status == 0, "\(made.output)")
            func allocations(rounds: Int) async throws -> Int {
                let count = folder + "/count\(rounds)"
                let result = try await run(
                    builtProgram("routing-bench"), ["cached", "20", "\(rounds)"],
                    environment: ["LD_PRELOAD": library, "ALLOCATIONS": count],
                    folder: folder)
                try #require(result.status == 0, "\(result.output)")
                return try Files.read(count).reversed().reduce(0) { $0 << 8 | Int($1) }
            }
            let few = try await allocations(rounds: 10), many = try await allocations(rounds: 60)
            #expect(few > 0 && many - few <= 1010, "\(many - few) allocations for 1000 texts")
        }
    }
}
