import Basics
import EventLoops
import Redis
import Sharding

/// Where keys are restored to: a whole cluster of any size, or one server.
struct RestoreTarget: Sendable {
    struct Master: Sendable {
        let name: String
        let client: RedisClient
    }

    /// Brings each key to its master.
    let client: RedisClient
    let masters: [Master]
    let isCluster: Bool
    let version: String
    /// Bytes that the masters may still take; nil: at least one has no limit of its own.
    let room: Int?
    /// Of one server: a client of another of its databases.
    let another: (@Sendable (Int) -> RedisClient)?

    /// The same server with another database; a cluster has only one.
    func database(_ number: Int) -> RestoreTarget? {
        guard let client = another?(number) else { return nil }
        client.start()
        return RestoreTarget(
            client: client, masters: [Master(name: "\(masters[0].name), database \(number)", client: client)], isCluster: false,
            version: version, room: room, another: nil)
    }

    /// Written first and removed last, so that a restore which was cut off is known again: its value names the backup.
    static let marker = "muster:restore"

    static func open(_ session: ClusterSession) async throws(ProvisioningFailure) -> RestoreTarget {
        var options = RedisClient.Options()
        // More than one connection would not bring more: the server has one thread.
        options.maxConnections = 1
        // A large key is taken in a second; a failover of a target is waited for.
        options.commandTime = .seconds(20)
        options.patience = .seconds(30)
        options.name = "muster-restore"
        let first = session.seeds[0]
        let info = ClusterSession.fields(try await session.client(first).ask("INFO"))
        do {
            guard info["cluster_enabled"] == "1" else {
                guard info["role"] == "master" else {
                    throw ProvisioningFailure(.refused, "is a replica; restore into its master", node: first)
                }
                let url = try session.credentials.url(first.description), loop = session.loop
                let chosen = options
                let another = { @Sendable number in RedisClient(url: url.with(database: number), loop: loop, options: chosen) }
                let client = RedisClient(url: url, loop: loop, options: options)
                client.start()
                let limit = info["maxmemory"].flatMap { Int($0) } ?? 0
                let room = limit > 0 ? limit.subtractingClamped(info["used_memory"].flatMap { Int($0) } ?? 0) : nil
                return RestoreTarget(
                    client: client, masters: [Master(name: first.description, client: client)], isCluster: false,
                    version: info["redis_version"] ?? "0", room: room, another: another)
            }
            let reading = try await session.read()
            if let reason = session.shortcomings(reading).first
                ?? reading.view.members.first(where: { !$0.open.isEmpty }).map({ "\($0.address) has a slot on its way" })
            {
                throw ProvisioningFailure(.refused, "the target is not whole: \(reason)")
            }
            let owners = reading.view.masters.filter { !$0.slots.isEmpty }
            let endpoints = owners.compactMap { Endpoint($0.address.description) }
            let url = try session.credentials.url(first.description)
            let masters = zip(owners, endpoints).map {
                Master(name: $0.address.description, client: RedisClient(url: url.with(.single($1)), loop: session.loop, options: options))
            }
            let client = RedisClient(url: url.with(.cluster(seeds: endpoints)), loop: session.loop, options: options)
            for one in [client] + masters.map(\.client) { one.start() }
            let reports = owners.compactMap { reading.report($0.id) }
            let hasLimits = reports.allSatisfy { $0.number("maxmemory") > 0 }
            return RestoreTarget(
                client: client, masters: masters, isCluster: true, version: info["redis_version"] ?? "0",
                room: hasLimits
                    ? reports.map { $0.number("maxmemory").subtractingClamped($0.number("used_memory")) }.sumClamped() : nil,
                another: nil)
        } catch let failure as ProvisioningFailure { throw failure } catch { throw ProvisioningFailure(.refused, "\(error)", node: first) }
    }

    /// A private server, for a drill.
    static func open(_ server: ScratchServer) -> RestoreTarget {
        RestoreTarget(
            client: server.client, masters: [Master(name: "the drill's server", client: server.client)], isCluster: false, version: "7.0",
            room: nil, another: { server.database($0).client })
    }

    func close() {
        client.close()
        for master in masters { master.client.close() }
    }

    func ask(_ command: RedisCommand) async throws(ProvisioningFailure) -> RESPValue {
        do { return try await client.send(command) } catch { throw RestoreTarget.failure(error) }
    }

    func ask(all commands: [RedisCommand]) async throws(ProvisioningFailure) -> [RESPValue] {
        var values: [RESPValue] = []
        values.reserveCapacity(commands.count)
        for result in await client.pipeline(commands) {
            do { values.append(try result.get()) } catch { throw RestoreTarget.failure(error) }
        }
        return values
    }

    /// To each master.
    func askMasters(_ command: RedisCommand) async throws(ProvisioningFailure) -> [RESPValue] {
        var values: [RESPValue] = []
        for master in masters {
            do { values.append(try await master.client.send(command)) } catch { throw RestoreTarget.failure(error) }
        }
        return values
    }

    static func failure(_ error: RedisError) -> ProvisioningFailure {
        let hint =
            switch error.serverCode {
            case "OOM": "; the target is full: give it more memory or masters, and run the same again"
            case "ERR" where error.message.contains("payload version") || error.message.contains("Bad data format"):
                "; the target is older than the redis-server of this machine, and cannot read what it writes"
            default: ""
            }
        let node = NodeAddress(error.place)
        let failure = node.map { ProvisioningFailure(error, node: $0) } ?? ProvisioningFailure(.server, error.message)
        return ProvisioningFailure(failure.code, failure.message + hint, node: node)
    }

    /// Keys of all masters, in all databases.
    func keys() async throws(ProvisioningFailure) -> Int {
        try await askMasters(RedisCommand("INFO", "keyspace")).flatMap { ClusterSession.databases($0) }.map(\.keys).sumClamped()
    }

    /// Whether it compresses what DUMP writes; as the default has it where CONFIG is not allowed.
    func compresses() async -> Bool {
        let answer = try? await masters[0].client.send(RedisCommand("CONFIG GET", "rdbcompression")).array
        return answer?.last?.string != "no"
    }
}
