import Basics
import Provisioning
import Redis
import StackModel
import StoreKinds

/// The kind `redis`: one server or a cluster of our own, or what somebody else runs.
public struct RedisKind: StoreKind {
    public let name = StoreKindName.redis

    public init() {}

    /// The mark beside it says that there was data once.
    public func isUnknown(_ folder: String) -> Bool { Files.isAbsent(folder) && Files.isAbsent(FormedMark.path(beside: folder)) }

    public func discard(_ folder: String) {
        Files.remove(folder)
        Files.remove(FormedMark.path(beside: folder))
    }

    public func open(_ plan: StorePlan) throws(StoreFailure) -> any Store {
        switch plan.spec.form {
        case .run(.redis(let settings)): try RedisStore(plan, settings)
        case .external(let external): try ExternalRedis(plan, external)
        case .run: throw StoreFailure("\(plan.spec.key): these are no settings of a Redis")
        }
    }
}

/// A Redis that somebody else runs: one server, a cluster, or what sentinels know.
final class ExternalRedis: Store {
    let nodes: [NodePlan] = []
    let place: String
    let keeper: (any StoreKeeper)? = nil
    private let url: RedisURL
    /// As it was given: the service reads it as its own client does.
    private let text: Secret
    private let gauges: RedisGauges
    private unowned let host: any StoreHost

    init(_ plan: StorePlan, _ external: ExternalStore) throws(StoreFailure) {
        do throws(RedisURL.Failure) { url = try RedisURL(external.url.reveal) } catch {
            throw StoreFailure("\(external.place): \(external.key): \(error.reason)")
        }
        text = external.url
        host = plan.host
        place =
            switch url.topology {
            case .single(let endpoint): endpoint.description
            case .cluster(let all), .sentinel(let all, _): all.map(\.description).joined(separator: ",")
            }
        gauges = RedisGauges(url, loop: plan.host.loop)
    }

    func probe(_ node: NodePlan?) -> any NodeProbe { RedisProbe(url, loop: host.loop) }
    func environment(for use: StoreUse) -> [(name: String, value: Secret)] { [(use.variable, text)] }
    func gauge(_ length: MetricOrigin.Length) -> StoreGauge? { gauges.gauge(length) }
    func close() { gauges.close() }
}
