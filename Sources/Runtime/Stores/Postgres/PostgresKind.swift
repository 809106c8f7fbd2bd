import Basics
import Postgres
import StackModel
import StoreKinds

/// The kind `postgres`: a primary with standbys of our own, or a server that somebody else runs.
public struct PostgresKind: StoreKind {
    public let name = StoreKindName.postgres

    public init() {}

    public func fixedPorts(_ spec: StoreSpec) -> [UInt16] {
        guard case .run(.postgres(let settings)) = spec.form, let first = settings.port else { return [] }
        return (0..<settings.nodes).compactMap { UInt16(exactly: Int(first) + $0) }
    }

    public func open(_ plan: StorePlan) throws(StoreFailure) -> any Store {
        switch plan.spec.form {
        case .run(.postgres(let settings)): try PostgresStore(plan, settings)
        case .external(let external): try ExternalPostgres(plan, external)
        case .run: throw StoreFailure("\(plan.spec.key): these are no settings of a PostgreSQL")
        }
    }
}

/// A PostgreSQL that somebody else runs.
final class ExternalPostgres: Store {
    let nodes: [NodePlan] = []
    let place: String
    let keeper: (any StoreKeeper)? = nil
    private let url: PostgresURL
    /// As it was given: the service reads it as its own client does.
    private let text: Secret
    private unowned let host: any StoreHost

    init(_ plan: StorePlan, _ external: ExternalStore) throws(StoreFailure) {
        do throws(PostgresURL.Failure) { url = try PostgresURL(external.url.reveal) } catch {
            throw StoreFailure("\(external.place): \(external.key): \(error.reason)")
        }
        text = external.url
        host = plan.host
        place = url.hosts.map(\.description).joined(separator: ",")
    }

    func probe(_ node: NodePlan?) -> any NodeProbe { ExternalPostgresProbe(url, host.loop) }
    func environment(for use: StoreUse) -> [(name: String, value: Secret)] { [(use.variable, text)] }
    func gauge(_ length: MetricOrigin.Length) -> StoreGauge? { nil }
    func close() {}
}
