import Autoscaling
import Basics
import Testing

@testable import StackFile
@testable import StackModel

/// What `scale` in a stack file means; what is wrong with it is told in Golden/Wrong.
@Suite struct ScalingReaderTests {
    private func scaling(_ scale: String, replicas: String = "3..20") throws -> ScalingSpec {
        let text = """
            services:
              api:
                command: api
                replicas: \(replicas)
                http: { metrics: /metrics }
                resources: { cpu: 500m, memory: 512Mi }
                scale: \(scale)
            stores:
              state: { redis: { role: state } }
            gateway:
              listen: 8080
              routes: [{ path: /, service: api }]
            """
        return try #require(try Stack.read(Array(text.utf8), path: "s.yaml").service("api")?.scaling)
    }

    @Test func nothingSaidIsWhatKubernetesDoes() throws {
        let spec = try scaling("{}")
        #expect(spec.policy == ScalingPolicy(minimum: 3, maximum: 20, metrics: [ScalingMetric("cpu", .resource(.cpu), .utilization(80))]))
        #expect(spec.origins == [.cpu])
        #expect(spec.period == .seconds(15))
    }

    @Test func everyMetric() throws {
        let spec = try scaling(
            """
            { metrics: [{ cpu: 70% }, { cpu: 400m }, { memory: 80% }, { memory: 400Mi }, { requests: 100/s }, { concurrency: 2.5 }, { latency: 150ms },
              { metric: queue_depth, average: 800 }, { metric: queue_depth, total: 800 }, { metric: jobs, from: "http://h:1/m", total: 5 },
              { redis: state, list: waiting, average: 10 }, { redis: state, stream: s, group: g, average: 10 },
              { kafka: events, group: g, lag: 50, from: "http://h:1/m" }] }
            """)
        #expect(
            spec.policy.metrics.map(\.target) == [
                .utilization(70), .average(400), .utilization(80), .average(400 * 1_048_576 * 1000), .average(100_000), .average(2500),
                .value(150_000),
                .average(800_000), .value(800_000), .value(5000), .average(10_000), .average(10_000), .average(50_000),
            ])
        #expect(
            spec.origins == [
                .cpu, .cpu, .memory, .memory, .gateway(.requests), .gateway(.concurrency), .gateway(.latency),
                .replicaPage(selector: "queue_depth"),
                .replicaPage(selector: "queue_depth"), .page(url: "http://h:1/m", selector: "jobs"),
                .length(store: "state", .list("waiting")),
                .length(store: "state", .stream("s", group: "g")),
                .lag(topic: "events", group: "g", page: "http://h:1/m", threshold: 50_000),
            ])
    }

    /// Document 001: upwards by 50 % or 2, whichever is larger, in 60 s; downwards by 10 % or 1, whichever is smaller, in 5 minutes.
    @Test func documentOnesPace() throws {
        let spec = try scaling(
            "{ up: { percent: 50, pods: 2, every: 60s }, down: { percent: 10, pods: 1, every: 5m, select: min, stabilization: 5m } }")
        let behavior = try #require(spec.policy.behavior)
        #expect(
            behavior.up
                == ScalingRules(
                    stabilization: .zero, policies: [.init(.pods, 2, per: .seconds(60)), .init(.percent, 50, per: .seconds(60))]))
        #expect(
            behavior.down
                == ScalingRules(
                    stabilization: .seconds(300), selection: .min,
                    policies: [.init(.pods, 1, per: .seconds(300)), .init(.percent, 10, per: .seconds(300))]))
    }

    @Test func oneDirectionLeavesTheOtherAsKubernetesHasIt() throws {
        let behavior = try #require(try scaling("{ up: { pods: 1 } }").policy.behavior)
        #expect(behavior.down == .down)
    }

    @Test func ceilingsFloorsAndTheRest() throws {
        let spec = try scaling(
            """
            { warm-up: 20s, tolerance: 5%, forecast: 10m, offset: 1h, floors: [{ at: "Mon-Fri 08:00-18:00", replicas: 6 }],
              ceilings: { connections: [{ of: postgres, limit: 200, each: 30, reserved: 10 }], partitions: { topic: t, count: 6 }, memory: 4Gi, licences: 12,
                cost: { replica: 0.12, hour: 2.40 } } }
            """)
        #expect(spec.policy.ceilings.map(\.most) == [6, 6, 8, 12, 20])
        #expect(
            spec.policy.ceilings[0].sentence
                == "more replicas will not help because postgres accepts 200 connections, 10 of them kept for others, and each replica takes 30: 6 replicas fit"
        )
        #expect(spec.floors == [ScheduleFloor(days: [0, 1, 2, 3, 4], from: 480, to: 1080, replicas: 6)])
        #expect(spec.policy.groups.warmUp == .seconds(20) && spec.policy.tolerance == Tolerance(down: 0.05, up: 0.05))
        #expect(spec.forecast == .seconds(600) && spec.offset == .seconds(3600))
    }

    @Test func zeroNeedsAWayBack() throws {
        #expect(try scaling("{ idle: 10m }", replicas: "0..3").idle == .seconds(600))
        // What the replicas tell, or the gateway counts of them, says nothing at 0.
        for metrics in [
            "{ cpu: 70% }", "{ memory: 80% }", "{ requests: 10/s }", "{ concurrency: 2 }", "{ latency: 200ms }",
            "{ metric: depth, average: 5 }", "{ metric: depth, total: 5 }",
        ] {
            #expect(throws: Problems.self, "\(metrics)") { try scaling("{ metrics: [\(metrics)] }", replicas: "0..3") }
            #expect(try scaling("{ idle: 10m, metrics: [\(metrics)] }", replicas: "0..3").policy.metrics[0].isReadableAtZero == false)
        }
        #expect(throws: Problems.self) { try scaling("{}", replicas: "0..3") }
        for metrics in [
            "{ metric: jobs, from: \"http://h:1/m\", total: 5 }", "{ metric: jobs, from: \"http://h:1/m\", average: 5 }",
            "{ redis: state, list: waiting, average: 10 }", "{ kafka: events, group: g, lag: 50, from: \"http://h:1/m\" }",
        ] {
            #expect(try scaling("{ metrics: [{ latency: 1s }, \(metrics)] }", replicas: "0..3").policy.metrics[1].isReadableAtZero)
        }
    }
}
