import Basics
import EventLoops

/// One connection: commands leave in the order they came, all of one turn of the loop in one write, and replies are
/// matched by their order.
///
/// States: `connecting` → `greeting` (HELLO, AUTH, SELECT) → `ready` → gone. Commands are taken in `ready` only.
final class RedisConnection: Stream {
    struct Settings: Sendable {
        let user: String?
        let password: String?
        let database: Int
        let name: String
        let commandTime: Duration
        let connectTime: Duration
    }

    /// What waits for a reply. `done` is called exactly once.
    struct Pending {
        let start: Int
        let deadline: MonotonicTime
        let done: (Result<RESPValue, RedisError>) -> Void
    }

    private enum State { case connecting, greeting, ready, gone }

    private let settings: Settings
    private let place: String
    private var state = State.connecting
    private var input = ByteBuffer()
    private var pending = BoundedQueue<Pending>(capacity: 1 << 20)
    private var queued = 0
    private var deadline: LoopTimer?
    private var timedOut = false
    private var failure: RedisError?

    var onReady: () -> Void = {}
    var onClosed: (RedisError) -> Void = { _ in }

    init(loop: EventLoop, settings: Settings, place: String) {
        self.settings = settings
        self.place = place
        super.init(loop: loop)
    }

    var isReady: Bool { state == .ready }
    /// Commands without a reply.
    var depth: Int { pending.count }

    func open(_ endpoint: Endpoint) {
        deadline = LoopTimer(loop: loop) { [unowned self] in timePassed() }
        deadline?.schedule(after: settings.connectTime)
        connect(to: endpoint)
    }

    func send(_ command: RedisCommand, _ done: @escaping (Result<RESPValue, RedisError>) -> Void) {
        let limit = loop.now + settings.commandTime
        guard pending.append(Pending(start: queued, deadline: limit, done: done)) else {
            return done(.failure(RedisError(.overloaded, .notExecuted, place: place, message: "too many commands wait")))
        }
        let prefix = command.prefix
        queued += prefix.count + command.body.count
        prefix.withUnsafeBytes { queue($0) }
        command.body.withUnsafeBytes { queue($0) }
        if deadline?.isArmed == false { deadline?.schedule(at: limit) }
    }

    // MARK: greeting

    override func connected() {
        state = .greeting
        var hello = RedisCommand("HELLO")
        hello.add("3")
        if let password = settings.password {
            hello.add("AUTH")
            hello.add(settings.user ?? "default")
            hello.add(password)
        }
        hello.add("SETNAME")
        hello.add(settings.name)
        send(hello) { [unowned self] result in greeted(result) }
    }

    private func greeted(_ result: Result<RESPValue, RedisError>) {
        switch result {
        case .success: select()
        case .failure(let error) where error.code == .server && error.serverCode != "WRONGPASS" && error.serverCode != "NOAUTH":
            // A server before 6.0, or a proxy: RESP2 and AUTH in its old form.
            guard let password = settings.password else { return select() }
            var auth = RedisCommand("AUTH")
            if let user = settings.user { auth.add(user) }
            auth.add(password)
            send(auth) { [unowned self] result in authenticated(result) }
        case .failure(let error): refuse(error)
        }
    }

    private func authenticated(_ result: Result<RESPValue, RedisError>) {
        switch result {
        case .success: select()
        case .failure(let error): refuse(error)
        }
    }

    private func select() {
        if settings.database == 0 { return ready() }
        send(RedisCommand("SELECT", String(settings.database))) { [unowned self] result in
            switch result {
            case .success: ready()
            case .failure(let error): refuse(error)
            }
        }
    }

    private func ready() {
        guard isOpen else { return }
        state = .ready
        deadline?.cancel()
        onReady()
    }

    private func refuse(_ error: RedisError) {
        guard isOpen else { return }
        failure = error.code == .server ? RedisError(.authentication, .notExecuted, place: place, message: error.message) : error
        close()
    }

    // MARK: replies

    override func received(_ bytes: UnsafeRawBufferPointer) {
        if input.isEmpty {
            let used = takeReplies(bytes)
            if isOpen, used < bytes.count { input.append(bytes.part(used, bytes.count - used)) }
        } else {
            input.append(bytes)
            let used = takeReplies(input.bytes)
            if isOpen { input.consume(used) }
            if input.isEmpty { input.clear(keeping: 65536) }
        }
    }

    private func takeReplies(_ bytes: UnsafeRawBufferPointer) -> Int {
        var used = 0
        do throws(RESPFailure) {
            while isOpen, used < bytes.count,
                let (value, count) = try RESPParser.parse(bytes.part(used, bytes.count - used))
            {
                used += count
                deliver(value)
            }
        } catch {
            failure = RedisError(.malformed, .maybeExecuted, place: place, message: error.reason)
            close()
        }
        return used
    }

    private func deliver(_ value: RESPValue) {
        if case .push = value { return }
        guard let first = pending.removeFirst() else {
            failure = RedisError(.malformed, .answered, place: place, message: "a reply that nobody asked for")
            return close()
        }
        if let next = pending.first { deadline?.schedule(at: next.deadline) } else { deadline?.cancel() }
        if case .error(let message) = value {
            // These refuse a command before it runs.
            let refused = ["LOADING", "MASTERDOWN", "READONLY", "OOM", "BUSY", "NOSCRIPT", "NOAUTH"].contains { message.hasPrefix($0) }
            first.done(.failure(RedisError(.server, refused ? .notExecuted : .answered, place: place, message: message)))
        } else {
            first.done(.success(value))
        }
    }

    private func timePassed() {
        timedOut = true
        // Replies are matched by order: after one that is late, nothing on this connection can be trusted to be in time.
        close()
    }

    override func closed(_ reason: CloseReason) {
        let wasReady = state == .ready
        state = .gone
        deadline?.cancel()
        deadline = nil
        let code: RedisError.Code = timedOut ? .timeout : wasReady ? .lost : .unavailable
        let message = timedOut ? "no reply within \(settings.commandTime.brief)" : reason.description
        let sent = queued - unsentAtClose
        while let waiting = pending.removeFirst() {
            let execution: RedisError.Execution = waiting.start < sent ? .maybeExecuted : .notExecuted
            waiting.done(.failure(failure ?? RedisError(code, execution, place: place, message: message)))
        }
        onClosed(failure ?? RedisError(code, .notExecuted, place: place, message: message))
    }
}
