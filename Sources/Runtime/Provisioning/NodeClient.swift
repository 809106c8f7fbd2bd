import EventLoops
import Redis
import Sharding
import Synchronization

/// The way to one node of a cluster: one connection, asked one thing after the other.
public struct NodeClient: Sendable {
    public let address: NodeAddress
    private let client: RedisClient

    /// `commandTime`: a node that does not answer within it counts as silent.
    init(_ address: NodeAddress, _ credentials: RedisCredentials, on loop: EventLoop, commandTime: Duration) throws(ProvisioningFailure) {
        self.address = address
        var options = RedisClient.Options()
        options.maxConnections = 1
        options.commandTime = commandTime
        // One that hangs takes connections and greets nobody: that counts as well.
        options.connectTime = min(commandTime, options.connectTime)
        options.name = "muster-redis"
        do { client = RedisClient(url: try credentials.url(address.description), loop: loop, options: options) } catch {
            throw ProvisioningFailure(.refused, "no address of a node", node: address)
        }
        client.start()
    }

    func close() { client.close() }

    public func ask(_ command: RedisCommand) async throws(ProvisioningFailure) -> RESPValue { try await ask(all: [command])[0] }

    public func ask(_ name: String, _ arguments: String...) async throws(ProvisioningFailure) -> RESPValue {
        var command = RedisCommand(name)
        for argument in arguments { command.add(argument) }
        return try await ask(command)
    }

    /// All at once; an error among the answers is thrown.
    public func ask(all commands: [RedisCommand]) async throws(ProvisioningFailure) -> [RESPValue] {
        var values: [RESPValue] = []
        values.reserveCapacity(commands.count)
        for result in await results(commands) {
            do { values.append(try result.get()) } catch { throw ProvisioningFailure(error, node: address) }
        }
        return values
    }

    /// All at once; each answer by itself.
    func results(_ commands: [RedisCommand]) async -> [Result<RESPValue, RedisError>] {
        // A client that was made in this turn begins to connect in the next.
        let loop = client.loop
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in loop.execute { continuation.resume() } }
        return await client.pipeline(commands)
    }

    func text(_ command: RedisCommand) async throws(ProvisioningFailure) -> String { try await ask(command).string ?? "" }

    func nodes() async throws(ProvisioningFailure) -> ClusterNodes {
        do { return try ClusterNodes(try await text(RedisCommand("CLUSTER NODES"))) } catch let failure as ProvisioningFailure {
            throw failure
        } catch {
            throw ProvisioningFailure(.server, "\(error)", node: address)
        }
    }
}

/// The nodes of one cluster as an operation sees them: who logs in, where to begin, and a client for each, made when it is first asked.
public final class ClusterSession: Sendable {
    public let seeds: [NodeAddress]
    public let credentials: RedisCredentials
    public let loop: EventLoop
    private let clients = Mutex<[NodeAddress: NodeClient]>([:])
    private let commandTime: Duration

    /// `commandTime`: 3 s is long enough for a node under load, and short enough that a dead one does not hold up a status.
    public init(seeds: [NodeAddress], credentials: RedisCredentials, loop: EventLoop, commandTime: Duration = .seconds(3)) {
        self.commandTime = commandTime
        self.seeds = seeds
        self.credentials = credentials
        self.loop = loop
    }

    public func client(_ address: NodeAddress) throws(ProvisioningFailure) -> NodeClient {
        let known = clients.withLock { $0[address] }
        if let known { return known }
        let client = try NodeClient(address, credentials, on: loop, commandTime: commandTime)
        return clients.withLock { clients in
            if let other = clients[address] {
                client.close()
                return other
            }
            clients[address] = client
            return client
        }
    }

    public func close() {
        let all = clients.withLock { clients in
            defer { clients = [:] }
            return Array(clients.values)
        }
        for client in all { client.close() }
    }

    /// Asks `condition` until it holds, with a pause between; false when `limit` has passed.
    public func eventually(
        _ limit: Duration, every pause: Duration = .milliseconds(50), _ condition: () async throws(ProvisioningFailure) -> Bool
    )
        async throws(ProvisioningFailure) -> Bool
    {
        let deadline = ContinuousClock.now + limit
        while true {
            if try await condition() { return true }
            if ContinuousClock.now >= deadline { return false }
            await loop.sleep(pause)
        }
    }
}
