import Basics
import EventLoops
import Sharding

/// Listens to what is published, on whatever node serves at the time, until it is closed.
///
/// Redis keeps nothing for a listener that is away: between `interrupted` and the next `subscribed`, messages may have been missed, and
/// whoever needs them must look for what has changed.
public final class RedisSubscription: Sendable {
    public enum Kind: Sendable {
        /// Known to every node of a cluster: each message goes to all of them.
        case channels
        case patterns
        /// Channels that belong to a slot, like keys (Redis 7): messages stay with its master and replicas. All of one subscription lie in
        /// one slot.
        case shardChannels
    }

    public enum Event: Sendable, Equatable {
        case subscribed
        case message(channel: String, payload: [UInt8])
        case interrupted(String)
    }

    private let core: LoopBound<Core>
    private let loop: EventLoop

    /// `onEvent` is called on the loop. Throws `crossSlot` for shard channels of several slots.
    public init(_ client: RedisClient, to names: [String], kind: Kind = .channels, onEvent: @escaping @Sendable (Event) -> Void)
        throws(RedisError)
    {
        loop = client.loop
        let slot = names.first.map { HashSlot.of($0) } ?? 0
        if kind == .shardChannels, let other = names.first(where: { HashSlot.of($0) != slot }) {
            let message =
                "shard channels '\(names[0])' and '\(other)' are in different slots: give them one hash tag, or a subscription each"
            throw RedisError(.crossSlot, .notExecuted, place: "redis", message: message)
        }
        core = LoopBound(Core(client, names, kind, slot: kind == .shardChannels ? slot : nil, onEvent), on: client.loop)
        let core = core
        loop.execute { core.value.open() }
    }

    public func close() {
        let core = core
        loop.execute { core.value.close() }
    }

    private final class Core {
        private let client: RedisClient
        private let names: [String]
        private let kind: Kind
        private let slot: Int?
        private let onEvent: @Sendable (Event) -> Void
        private var listener: PushListener?
        private var retry: LoopTimer?
        private var backoff = Backoff(initial: .milliseconds(50), limit: .seconds(1))
        private var random = SeededRandom(seed: UInt64(MonotonicTime.now.nanoseconds))
        private var isClosed = false

        init(_ client: RedisClient, _ names: [String], _ kind: Kind, slot: Int?, _ onEvent: @escaping @Sendable (Event) -> Void) {
            self.client = client
            self.names = names
            self.kind = kind
            self.slot = slot
            self.onEvent = onEvent
        }

        func open() {
            if isClosed { return }
            let router = client.router.value
            guard let endpoint = router.endpoint(slot: slot) else { return again() }
            let listener = PushListener(loop: client.loop, settings: router.settings, endpoint: endpoint)
            self.listener = listener
            listener.onSubscribed = { [unowned self] in
                backoff.reset()
                onEvent(.subscribed)
            }
            listener.onMessage = { [unowned self] channel, payload in onEvent(.message(channel: channel, payload: payload)) }
            listener.onEnd = { [weak self] error in
                guard let self, !isClosed else { return }
                // Whoever serves now is found out by asking; a command that goes astray does that.
                client.submit(RedisCommand("PING")) { _ in }
                onEvent(.interrupted(error.description))
                again()
            }
            listener.open(names, kind: kind)
        }

        private func again() {
            retry = LoopTimer(loop: client.loop) { [weak self] in self?.open() }
            retry?.schedule(after: backoff.next(using: &random))
        }

        func close() {
            isClosed = true
            retry?.cancel()
            listener?.close()
        }
    }
}
