import EventLoops
import Redis
import StackModel
import StoreKinds

/// What the autoscaler counts in a Redis, over one connection that is made when it is first wanted. On the control loop.
final class RedisGauges {
    private let url: RedisURL
    private let loop: EventLoop
    private var client: RedisClient?

    init(_ url: RedisURL, loop: EventLoop) {
        self.url = url
        self.loop = loop
    }

    func gauge(_ length: MetricOrigin.Length) -> StoreGauge {
        let meter =
            switch length {
            case .list(let key): RedisMeter(connected, key: key, kind: .list)
            case .sortedSet(let key): RedisMeter(connected, key: key, kind: .sortedSet)
            case .stream(let key, let group): RedisMeter(connected, key: key, kind: group.map { .group($0) } ?? .stream)
            }
        return StoreGauge("\(length)") { await meter.read() }
    }

    func close() {
        client?.close()
        client = nil
    }

    private var connected: RedisClient {
        if let client { return client }
        var options = RedisClient.Options()
        options.maxConnections = 1
        options.name = "muster-autoscaler"
        let new = RedisClient(url: url, loop: loop, options: options)
        new.start()
        client = new
        return new
    }
}
