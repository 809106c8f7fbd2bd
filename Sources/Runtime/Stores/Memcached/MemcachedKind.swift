import Basics
import EventLoops
import Glibc
import StackModel
import StoreKinds

/// The kind `memcached`: one server that keeps its items in memory, or servers that somebody else runs.
public struct MemcachedKind: StoreKind {
    public let name = StoreKindName.memcached

    public init() {}

    public func open(_ plan: StorePlan) throws(StoreFailure) -> any Store {
        switch plan.spec.form {
        case .run(.memcached(let settings)): try MemcachedStore(plan, settings)
        case .external(let external): try MemcachedStore(plan, external)
        case .run: throw StoreFailure("\(plan.spec.key): these are no settings of a memcached")
        }
    }
}

/// One memcached of ours, or the servers of an external one.
///
/// It has no data on the disk, so its folder holds the port only, nothing is refused for what lies there, and no keeper is needed: a node that
/// died starts again, empty, as a cache may.
final class MemcachedStore: Store {
    let nodes: [NodePlan]
    let place: String
    let keeper: (any StoreKeeper)? = nil
    private let servers: [Endpoint]
    private let loop: EventLoop

    /// Most servers that one URL may name.
    private static let serverLimit = 64

    init(_ plan: StorePlan, _ settings: MemcachedSettings) throws(StoreFailure) {
        let spec = plan.spec
        guard let program = plan.host.program("memcached") else {
            throw StoreFailure("store \(spec.name) needs memcached, which is not installed: apt-get install memcached")
        }
        loop = plan.host.loop
        let port: UInt16
        do throws(SystemError) {
            try Files.makeFolder(plan.folder, mode: 0o700)
            let known = try KeptPort.known(in: plan.folder)
            if let fixed = settings.port {
                port = fixed
            } else if let known, try isFreePort(known) {
                port = known
            } else {
                port = try KeptPort.choose()
            }
            try KeptPort.keep(port, in: plan.folder)
        } catch { throw StoreFailure("store \(spec.name): \(error)") }
        // Loopback only, and no UDP. The memory is in MiB.
        var arguments = ["-l", "127.0.0.1", "-p", String(port), "-U", "0", "-m", String(settings.memory >> 20)]
        arguments += ["-c", String(settings.connections)]
        // It refuses to run as root, which it need not be for anything here.
        if geteuid() == 0 { arguments += ["-u", getpwnam("memcache") == nil ? "nobody" : "memcache"] }
        nodes = [NodePlan(number: 1, program: program, arguments: arguments, folder: plan.folder, port: port)]
        servers = [.address(.loopback(port: port))]
        place = ""
    }

    /// `memcached://host[:port],host[:port]`
    init(_ plan: StorePlan, _ external: ExternalStore) throws(StoreFailure) {
        loop = plan.host.loop
        nodes = []
        let text = external.url.reveal.dropFirst("memcached://".count)
        let parts = text.split(separator: ",", omittingEmptySubsequences: false)
        guard !text.contains("@"), !text.contains("/") else {
            throw StoreFailure(
                "\(external.place): \(external.key): memcached://HOST:PORT,HOST:PORT has neither a password nor a path; a memcached with SASL "
                    + "is not known here")
        }
        let known = parts.map { Endpoint(String($0), defaultPort: 11211) }
        guard parts.count <= MemcachedStore.serverLimit, let all = known as? [Endpoint] else {
            throw StoreFailure(
                "\(external.place): \(external.key): expected memcached://HOST:PORT,HOST:PORT with 1 to \(MemcachedStore.serverLimit) servers; "
                    + "the port may be left out (11211)")
        }
        servers = all
        place = all.map(\.description).joined(separator: ",")
    }

    func probe(_ node: NodePlan?) -> any NodeProbe { MemcachedProbe(servers, loop: loop) }

    /// Host and port of each server, with commas between, as clients of memcached take them.
    func environment(for use: StoreUse) -> [(name: String, value: Secret)] {
        [(use.variable, Secret(servers.map(\.description).joined(separator: ",")))]
    }

    func gauge(_ length: MetricOrigin.Length) -> StoreGauge? { nil }
    func close() {}
}
