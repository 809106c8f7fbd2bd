import Testing

@testable import StackFile
@testable import StackModel

/// What a route holds, by itself or as it says.
@Suite struct HoldReaderTests {
    private func hold(_ route: String, start: String = "start: 45s, ") throws -> HoldSpec? {
        let scale = "replicas: 0..3, scale: { idle: 10m, metrics: { concurrency: 10 } }"
        let text = """
            services:
              web: { command: web, http: {}, \(start)\(scale) }
              plain: { command: plain, http: {}, start: 20s }
            gateway:
              listen: 8080
              routes:
                - { path: /needed, service: web }
                - { path: /, \(route) }
            """
        return try Stack.read(Array(text.utf8), path: "s.yaml").gateway?.routes[1].hold
    }

    /// As long as a replica may take to start.
    @Test func aServiceThatMayEndIsWaitedFor() throws {
        #expect(try hold("service: web") == HoldSpec(most: 100, time: .seconds(45)))
        #expect(try hold("service: web", start: "") == HoldSpec(most: 100, time: .seconds(30)))
        #expect(try hold("service: web", start: "start: 1h, ") == HoldSpec(most: 100, time: .seconds(600)))
        #expect(try hold("service: plain, canary: { service: web, share: 10% }") == HoldSpec(most: 100, time: .seconds(45)))
    }

    /// Also where the metrics, and not a time without requests, let it end.
    @Test func aServiceThatMayBeAtZeroIsWaitedFor() throws {
        let text = """
            services:
              web:
                { command: web, http: {}, replicas: 0..3, scale: { metrics: { metric: jobs, from: "http://h:1/m", total: 5 } } }
            gateway: { listen: 8080, routes: [{ path: /, service: web }] }
            """
        #expect(try Stack.read(Array(text.utf8), path: "s.yaml").gateway?.routes[0].hold == HoldSpec(most: 100, time: .seconds(30)))
    }

    @Test func othersAreWaitedForWhenTheRouteSaysSo() throws {
        #expect(try hold("service: plain") == nil)
        #expect(try hold("service: plain, hold: {}") == HoldSpec(most: 100, time: .seconds(20)))
        #expect(try hold("service: plain, hold: { most: 7, for: 250ms }") == HoldSpec(most: 7, time: .milliseconds(250)))
        #expect(try hold("backends: [127.0.0.1:1]") == nil)
    }

    @Test func zeroTurnsItOff() throws { #expect(try hold("service: web, hold: { most: 0 }") == nil) }
}
