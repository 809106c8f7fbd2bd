import Basics
import EventLoops
import HTTP
import JSONCoding
import TestSupport
import Testing

/// The admin page's timelines in a real browser, against a stack that scales and against one that does not.
@Suite(.serialized) struct ScalingPageTests {
    /// The page as it is after some seconds, without its script.
    private func page(_ stack: StackFixture) async throws -> String {
        let (status, dom) = try await run(
            try systemProgram("chromium"),
            [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=\(stack.folder)/chromium",
                "--virtual-time-budget=6000", "--window-size=1200,1600", "--dump-dom", "http://127.0.0.1:\(stack.admin)/",
            ])
        #expect(status == 0)
        return dom.split(separator: "<script>", maxSplits: 1).first.map(String.init) ?? ""
    }

    @Test func theTimelineShowsWhatWasDecided() async throws {
        try await withStack(up: false) { stack in
            try stack.write(
                replicas: "1..4", level: "warn",
                keys: """
                    resources: { cpu: 1000m, memory: 512Mi }
                        scale: { metrics: [{ cpu: 95% }, { requests: 500/s }], every: 1s, down: { pods: 4, every: 1s, stabilization: 1s } }
                    """)
            let (status, output) = try await stack.muster("up", "-d", stack.file)
            #expect(status == 0, "\(output)")
            let held = try await stack.muster("scale", "correlation-engine=2", stack.file)
            #expect(held.status == 0, "\(held.output)")
            // Some passes, held: without a wish and without figures.
            try await Task.sleep(for: .seconds(5))
            let freed = try await stack.muster("scale", "correlation-engine=auto", stack.file)
            #expect(freed.status == 0, "\(freed.output)")
            let shrunk = try await eventually(.seconds(40)) { try await stack.engines().count == 1 }
            #expect(shrunk)
            // The page shows the last pass, and the one that made the service smaller may have been the last so far.
            let isSeen = try await eventually {
                let answer = try await stack.client.send("GET", "/api/scaling", to: .address(.loopback(port: stack.admin)))
                let last = answer.text.split(separator: "\"at\":").last ?? ""
                return answer.text.contains("correlation-engine stays at 1 replica") && last.contains("\"replicas\":1,\"serving\":1,")
            }
            #expect(isSeen)
            let dom = try await page(stack)
            #expect(dom.contains("<section id=\"scaling\" aria-labelledby=\"scales\"><h2"), "the section is hidden")
            // The store is beside the replicas.
            let isListed = dom.contains("aria-labelledby=\"rest\"><h2") && dom.contains(">state/1</button>") && dom.contains("<td>redis")
            #expect(isListed, "the store is not on the page")
            for part in ["1 to 4 allowed", "target 95 %", "target 500/s", "correlation-engine stays at 1 replica", "role=\"slider\""] {
                #expect(dom.contains(part), "\(part)")
            }
            // What a hand did and what the autoscaler did are marks, told one by one or together.
            #expect(dom.contains("class=\"mark\"") && dom.contains("Decisions that changed the size of correlation-engine"))
            #expect(dom.contains("aria-valuetext=\"") && dom.contains("1 replica, 1 serving, "))
            let timeline = dom.split(separator: "<section id=\"scaling\"", maxSplits: 1).last ?? ""
            let drawn = timeline.ranges(of: "class=\"line\" d=\"M").count
            #expect(drawn == 3, "\(drawn) lines are drawn, of replicas and two metrics")
            for bad in ["NaN", "undefined", "Infinity"] {
                #expect(!dom.contains("d=\"M\(bad)") && !dom.contains(">\(bad)") && !dom.contains(" \(bad)\""), "\(bad)")
            }
        }
    }

    @Test func nothingIsShownWhereNothingScales() async throws {
        try await withStack(replicas: "1") { stack in
            let list = try await stack.client.send("GET", "/api/scaling", to: .address(.loopback(port: stack.admin)))
            #expect(list.status == 200 && list.text == "[]")
            let dom = try await page(stack)
            #expect(dom.contains("<section id=\"scaling\" aria-labelledby=\"scales\" hidden=\"\">"))
            #expect(dom.contains("correlation-engine/1") && !dom.contains("No answer since"))
        }
    }
}
