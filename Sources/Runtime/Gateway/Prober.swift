import Balancing
import Basics
import EventLoops
import HTTP
import Observability
import Synchronization
import Topology

/// Active checks of declared backends: each is asked on its own schedule, with jitter, one question at a time. (Services that
/// Muster runs itself are probed by their supervisor.)
public final class Prober: Sendable {
    private let gateway: Gateway
    private let loop: EventLoop
    private let client: HTTPClient
    private let probed = Mutex<Set<ObjectIdentifier>>([])

    public init(gateway: Gateway, loop: EventLoop) {
        self.gateway = gateway
        self.loop = loop
        client = HTTPClient(loop: loop, responseLimit: 65_536)
    }

    /// Begins to probe what is not probed yet. Call again after the routes have changed; replicas that are gone stop by themselves.
    public func follow() {
        for route in gateway.routes {
            guard let probe = route.spec.probe, case .backends = route.spec.target else { continue }
            for replica in route.replicas where probed.withLock({ $0.insert(ObjectIdentifier(replica)).inserted }) {
                // Ends when the replica has left the routes.
                Task(executorPreference: loop) { await self.watch(replica, probe) }
            }
        }
    }

    private func isWanted(_ replica: Replica) -> Bool { gateway.routes.contains { $0.replicas.contains { $0 === replica } } }

    private func watch(_ replica: Replica, _ probe: ProbeSpec) async {
        var health = ActiveHealth(.init(rise: probe.rise, fall: probe.fall))
        var random = SystemRandomNumberGenerator()
        while isWanted(replica) {
            let (success, detail) = await ask(replica, probe)
            if let decision = health.probed(success, subject: replica.name, detail: detail) {
                if decision.result {
                    replica.remove(.down)
                    replica.seenServing()
                } else {
                    replica.add(.down)
                }
                gateway.journal.append(decision.record)
                gateway.replicasChanged()
            }
            // ±10 %, so that many gateways do not ask together.
            let interval = probe.interval.nanoseconds
            await loop.sleep(.nanoseconds(interval * 9 / 10 + Int64.random(in: 0...max(interval / 5, 1), using: &random)))
        }
        probed.withLock { _ = $0.remove(ObjectIdentifier(replica)) }
    }

    private func ask(_ replica: Replica, _ probe: ProbeSpec) async -> (Bool, String) {
        do throws(HTTPClientError) {
            let response = try await client.send("GET", probe.path ?? "/", to: replica.endpoint, timeout: probe.timeout)
            // Without a path any answer shows that it listens.
            let fine = probe.path == nil || (200..<300).contains(response.status)
            return (fine, "status \(response.status)")
        } catch {
            return (probe.path == nil && error.code != .connect && error.code != .timeout, error.description)
        }
    }
}
