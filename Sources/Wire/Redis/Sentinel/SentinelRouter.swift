import Basics
import EventLoops

/// Brings every command to the master that the sentinels know by its name.
///
/// The sentinels are asked for the master when something fails, and tell it by `+switch-master` without being asked. A server that was
/// named is believed only when it says of itself (`ROLE`) that it is master: a sentinel that was cut off may name the old one.
final class SentinelRouter: FailoverRouter {
    private let name: String
    private let sentinels: [Endpoint]
    private let sentinelSettings: RedisConnection.Settings
    private var pools: [Endpoint: RedisNode] = [:]
    private var master: RedisNode?
    private var listener: PushListener?
    private var failures = 0

    private static let questionTime = Duration.milliseconds(500)

    init(
        url: RedisURL, sentinels: [Endpoint], master: String, loop: EventLoop, settings: RedisConnection.Settings,
        options: RedisClient.Options
    ) {
        name = master
        self.sentinels = sentinels
        var own = settings
        own.user = url.sentinelUser
        own.password = url.sentinelPassword
        own.database = 0
        own.connectTime = SentinelRouter.questionTime
        own.commandTime = SentinelRouter.questionTime
        sentinelSettings = own
        super.init(loop: loop, settings: settings, options: options)
    }

    override func locate(_ attempt: Attempt) -> Place { master.map(Place.node) ?? .nowhere("no master '\(name)' is known yet") }
    override func endpoint(slot: Int?) -> Endpoint? { master?.endpoint }
    override var isSettled: Bool { super.isSettled && master != nil }

    override func start() {
        super.start()
        listen(0)
    }

    /// Listens to one sentinel; when it goes, to the next.
    private func listen(_ turn: Int) {
        if isClosed { return }
        let listener = PushListener(loop: loop, settings: sentinelSettings, endpoint: sentinels[turn % sentinels.count])
        self.listener = listener
        listener.onMessage = { [unowned self, tie] channel, payload in
            guard tie.holds else { return }
            // `<name> <old host> <old port> <new host> <new port>`
            let words = String(decoding: payload, as: UTF8.self).split(separator: " ")
            if words.count == 5, words[0] == name { doubt() }
        }
        listener.onEnd = { [unowned self, tie] _ in
            guard tie.holds, !isClosed else { return }
            retry = LoopTimer(loop: loop) { [unowned self, tie] in if tie.holds { listen(turn + 1) } }
            retry?.schedule(after: .milliseconds(500))
        }
        listener.open(["+switch-master"], kind: .channels)
    }

    private var retry: LoopTimer?

    override func ask(_ done: @escaping (RedisError?) -> Void) {
        ask(sentinels.shuffled()[...], RedisError(.unavailable, .notExecuted, place: place, message: "no sentinel"), done)
    }

    private func unavailable(_ place: Endpoint, _ message: String) -> RedisError {
        RedisError(.unavailable, .notExecuted, place: place.description, message: message)
    }

    private func ask(_ left: ArraySlice<Endpoint>, _ failure: RedisError, _ done: @escaping (RedisError?) -> Void) {
        guard let sentinel = left.first else { return done(failure) }
        let pool =
            pools[sentinel]
            ?? RedisNode(sentinel, loop: loop, settings: sentinelSettings, maxConnections: 1, backoffLimit: .milliseconds(500))
        pools[sentinel] = pool
        if pool.isAway { pool.connectNext() }
        pool.submit(RedisCommand("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)) { [unowned self, tie] reply in
            guard tie.holds else { return }
            guard case .success(let value) = reply, let parts = value.array, parts.count == 2, let host = parts[0].string,
                let port = parts[1].string,
                let endpoint = Endpoint(host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)")
            else {
                let reason =
                    if case .failure(let error) = reply { error } else {
                        unavailable(sentinel, "sentinel \(sentinel) knows no master '\(name)'")
                    }
                return ask(left.dropFirst(), reason, done)
            }
            confirm(endpoint) { failure in
                if let failure { self.ask(left.dropFirst(), failure, done) } else { done(nil) }
            }
        }
    }

    private func confirm(_ endpoint: Endpoint, _ done: @escaping (RedisError?) -> Void) {
        let node = node(endpoint)
        if node.isAway { node.connectNext() }
        var isOver = false
        func end(_ failure: RedisError?) {
            if isOver { return }
            isOver = true
            done(failure)
        }
        let silent = unavailable(endpoint, "it is named as master '\(name)' and does not answer")
        let limit = LoopTimer(loop: loop) { end(silent) }
        limit.schedule(after: SentinelRouter.questionTime)
        node.submit(RedisCommand("ROLE")) { [unowned self, tie] reply in
            limit.cancel()
            guard tie.holds, !isOver else { return }
            switch reply {
            case .success(let value) where value.array?.first?.string == "master":
                if master !== node {
                    master = node
                    statistics.changes += 1
                }
                keep(masters: [endpoint], members: [endpoint])
                set(.connected)
                end(nil)
            case .success: end(unavailable(endpoint, "it is named as master '\(name)' and says that it is none"))
            case .failure(let error): end(error)
            }
        }
    }

    override func close() {
        super.close()
        retry?.cancel()
        listener?.close()
        for pool in pools.values { pool.close() }
    }
}
