import Basics
import EventLoops

/// One connection that receives what is published. Lives on its loop, and ends with its connection.
final class PushListener {
    private let connection: RedisConnection
    private let endpoint: Endpoint
    private var ping: LoopTimer?
    private let loop: EventLoop
    var onSubscribed: () -> Void = {}
    var onMessage: (_ channel: String, _ payload: [UInt8]) -> Void = { _, _ in }
    var onEnd: (RedisError) -> Void = { _ in }

    /// Interval of pings: a dead peer sends nothing; a live one answers.
    private static let pingInterval = Duration.seconds(1)

    init(loop: EventLoop, settings: RedisConnection.Settings, endpoint: Endpoint) {
        self.endpoint = endpoint
        self.loop = loop
        connection = RedisConnection(loop: loop, settings: settings, place: endpoint.description)
    }

    private func pingLater() {
        if ping == nil {
            // A reply that does not come in time ends the connection.
            ping = LoopTimer(loop: loop) { [weak self] in
                guard let self else { return }
                if connection.isReady {
                    connection.send(RedisCommand("PING")) { [weak self] reply in if case .success = reply { self?.pingLater() } }
                }
            }
        }
        ping?.schedule(after: PushListener.pingInterval)
    }

    func open(_ names: [String], kind: RedisSubscription.Kind) {
        connection.onReady = { [weak self] in
            guard let self else { return }
            var command = RedisCommand(kind.command)
            for name in names { command.add(name) }
            connection.sendUnanswered(command)
            pingLater()
        }
        var missing = names.count
        connection.onPush = { [weak self] parts in
            guard let self else { return }
            switch parts.first?.string {
            case "message", "smessage":
                if parts.count == 3, let channel = parts[1].string, let payload = parts[2].bytes { onMessage(channel, payload) }
            case "pmessage":
                if parts.count == 4, let channel = parts[2].string, let payload = parts[3].bytes { onMessage(channel, payload) }
            case "subscribe", "psubscribe", "ssubscribe":
                missing -= 1
                if missing == 0 { onSubscribed() }
            case "sunsubscribe", "unsubscribe", "punsubscribe":
                // The slot has gone elsewhere.
                connection.close()
            default: break
            }
        }
        connection.onClosed = { [weak self] error in
            guard let self else { return }
            ping?.cancel()
            onEnd(error)
        }
        connection.open(endpoint)
    }

    func close() {
        onEnd = { _ in }
        connection.close()
    }
}

extension RedisSubscription.Kind {
    var command: String {
        switch self {
        case .channels: "SUBSCRIBE"
        case .patterns: "PSUBSCRIBE"
        case .shardChannels: "SSUBSCRIBE"
        }
    }
}
