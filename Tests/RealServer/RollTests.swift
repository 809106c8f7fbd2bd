import Basics
import Glibc
import TestSupport
import Testing

/// Definitions of a service that follow each other faster than they can be rolled.
@Suite(.serialized) struct RollTests {
    private func put(_ stack: SmallStack, _ who: String, status: Int = 200) throws {
        try stack.put(
            "s.yaml",
            "stack: s\nservices:\n"
                + (try stack.service(environment: "WHO: '\(who)', STATUS: '\(status)'", "start: 4s", "replicas: 1")) + stack.gateway())
    }

    /// Applies a broken definition, another one before the first has failed, and returns what both callers were told.
    private func overtake(_ stack: SmallStack, _ first: String, by second: String, status: Int) async throws -> (
        first: String, second: Int32
    ) {
        try put(stack, first, status: 500)
        let broken = try Child(builtProgram("muster"), ["up", "s.yaml"], log: "\(stack.folder)/\(first).out", folder: stack.folder)
        let hasBegun = try await eventually(.seconds(10)) { try await stack.rows().count == 2 }
        #expect(hasBegun)
        try put(stack, second, status: status)
        let result = try await stack.muster("up", "s.yaml")
        #expect(await broken.end() ?? 0 != 0, "\(broken.output)")
        return (broken.output, result.status)
    }

    /// A mended definition is rolled when the broken one before it has failed. Of two broken ones neither is kept: what is started from then
    /// on is what runs.
    @Test func theLastDefinitionThatWorksIsWhatRuns() async throws {
        try await withSmallStack { stack in
            try put(stack, "v1")
            try await stack.up()
            let mended = try await overtake(stack, "v2", by: "v3", status: 200)
            #expect(mended.second == 0)
            #expect(mended.first.contains("another definition of web has come meanwhile"), "\(mended.first)")
            #expect(try await stack.get().text == "v3")
            let broken = try await overtake(stack, "v4", by: "v5", status: 501)
            #expect(broken.second != 0)
            #expect(try await stack.get().text == "v3")
            let row = try required(try await stack.rows().first)
            kill(row.pid, SIGKILL)
            let isBack = try await eventually(.seconds(10)) {
                let now = try await stack.rows()
                return now.count == 1 && now[0].pid != row.pid && now[0].state == "ready"
            }
            #expect(isBack)
            #expect(try await stack.get().text == "v3")
        }
    }
}
