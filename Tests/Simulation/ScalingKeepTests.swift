import Autoscaling
import Basics
import EventLoops
import Observability
import StackFile
import StackModel
import StoreKinds
import TestSupport
import Testing

@testable import Supervision

/// What the autoscalers have learned goes to the disk, and the control loop does not wait for the disk.
@Suite struct ScalingKeepTests {
    private final class Host: ScalingHost {
        let loop: EventLoop
        var told: [String] = []
        var jobs: [@Sendable () -> Void] = []

        init(_ loop: EventLoop) { self.loop = loop }

        func size(of service: String) -> (desired: Int, surge: Int?)? { nil }
        func runners(of service: String) -> [ReplicaRunner] { [] }
        func gauge(_ store: String, _ length: MetricOrigin.Length) -> StoreGauge? { nil }
        func autoscale(_ service: String, to count: Int, work: [Int: Int], because record: DecisionRecord) -> Bool { false }
        func decided(_ record: DecisionRecord) {}
        func passed(_ line: ScalingLine) {}
        func inBackground(_ work: @escaping @Sendable () -> Void) { jobs.append(work) }
        var tell: (String) -> Void { { [unowned self] in told.append($0) } }

        func work() {
            let all = jobs
            jobs = []
            for job in all { job() }
        }
    }

    @Test func theControlLoopWritesNothing() async throws {
        let text =
            "services: { web: { command: x, replicas: 1..8, resources: { cpu: 1, memory: 1Mi }, scale: { metrics: [{ cpu: 50% }] } } }"
        let service = try #require(try Stack.read(Array(text.utf8), path: "s.yaml").service("web"))
        try await withFolder { folder in
            let place = folder + "/scaling", path = place + "/web.demand"
            var history = DemandHistory()
            history.observe(3, at: WallTime(milliseconds: 1_764_547_200_000))
            try ScalingStore(folder: place).keep(history, of: "web")
            try await withLoop { loop in
                let host = try await loop.run { LoopBound(Host(loop), on: loop) }
                let seen = try await loop.run { () -> [Bool] in
                    let host = host.value
                    let scaling = ScalingLoop(
                        [service], host: host, gateway: nil, metrics: MetricsRegistry(), folder: place, recorded: nil)
                    Files.remove(path)
                    scaling.stop()
                    let before = Files.exists(path)
                    host.work()
                    let after = Files.exists(path)
                    // Where it cannot be written, that is told once.
                    Files.remove(place)
                    try Files.replace(place, with: [])
                    for _ in 0..<2 {
                        scaling.stop()
                        host.work()
                    }
                    return [before, after, host.told.isEmpty]
                }
                #expect(seen == [false, true, true])
                // What the work said has come to the loop by now.
                let told = try await loop.run { host.value.told }
                #expect(told.count == 1 && told[0].contains("what was learned cannot be written"), "\(told)")
            }
        }
    }
}
