import Basics
import EventLoops

/// One connection: commands leave in the order they came, all of one turn of the loop in one write, and replies are
/// matched by their order.
///
/// States: `connecting` (its TLS included) → `greeting` (HELLO, AUTH, SELECT, READONLY) → `ready` → gone. Commands are taken in `ready`
/// only.
final class RedisConnection: Stream {
    struct Settings: Sendable {
        var user: String?
        var password: String?
        var database = 0
        var name = "muster"
        var commandTime = Duration.seconds(2)
        /// Time limit for the connection, its TLS and the greeting together.
        var connectTime = Duration.seconds(2)
        /// Whether the connection reads from a cluster's replica: without it a replica sends all reads to its master.
        var readsReplica = false
        /// The context for TLS; nil: without TLS.
        var tls: TLSContext?
        /// The name that the server's certificate must have; nil: the host that is connected to.
        var serverName: String?

        var logsIn: Bool { user != nil || password != nil }
    }

    /// A command that waits for a reply. `done` is called exactly once.
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
    private var lateFor = ""
    private var failure: RedisError?

    /// Writes that wait for a WAIT which is not sent yet, grouped by how it is to be asked; the first group is next.
    private var unconfirmed: [Confirming] = []
    /// Whether a WAIT is out.
    private var isConfirming = false

    private final class Confirming {
        let rule: RedisCommand.Confirmation
        var waiting: [(RESPValue, (Result<RESPValue, RedisError>) -> Void)] = []
        init(_ rule: RedisCommand.Confirmation) { self.rule = rule }
    }

    var onReady: () -> Void = {}
    var onClosed: (RedisError) -> Void = { _ in }
    var onPush: ([RESPValue]) -> Void = { _ in }

    init(loop: EventLoop, settings: Settings, place: String) {
        self.settings = settings
        self.place = place
        super.init(loop: loop)
    }

    var isReady: Bool { state == .ready }
    /// Commands without a reply.
    var depth: Int { pending.count }
    /// How long the oldest command has waited for its reply.
    var age: Duration { pending.first.map { loop.now - $0.deadline + settings.commandTime } ?? .zero }

    func open(_ endpoint: Endpoint) {
        deadline = LoopTimer(loop: loop) { [unowned self] in timePassed() }
        deadline?.schedule(after: settings.connectTime)
        if let context = settings.tls {
            let (host, port) =
                switch endpoint {
                case .name(let host, let port): (host, port)
                case .address(let address): (address.host, address.port ?? 0)
                }
            tls = context.session(to: settings.serverName ?? host, port: port)
        }
        connectBy = deadline?.deadline
        connect(to: endpoint)
    }

    /// `asking`: ASKING goes right before the command, the only one that ASKING is for. Such a command is confirmed as any other is.
    func send(_ command: RedisCommand, asking: Bool = false, _ done: @escaping (Result<RESPValue, RedisError>) -> Void) {
        if asking { put(RedisCommand("ASKING"), settings.commandTime) { _ in } }
        guard let rule = command.confirmation else { return put(command, settings.commandTime, done) }
        let group: Confirming
        if let open = unconfirmed.last, open.rule == rule {
            group = open
        } else {
            group = Confirming(rule)
            unconfirmed.append(group)
            let bound = LoopBound(self, on: loop)
            // After what else this turn sends: one WAIT is for all of it.
            if !isConfirming { loop.execute { bound.value.confirm() } }
        }
        put(command, settings.commandTime) { result in
            if case .success(let value) = result { group.waiting.append((value, done)) } else { done(result) }
        }
    }

    /// Sends a command that is answered by pushes alone.
    func sendUnanswered(_ command: RedisCommand) { bytes(of: command) }

    private func put(_ command: RedisCommand, _ time: Duration, _ done: @escaping (Result<RESPValue, RedisError>) -> Void) {
        let limit = loop.now + time
        guard pending.append(Pending(start: queued, deadline: limit, done: done)) else {
            return done(.failure(RedisError(.overloaded, .notExecuted, place: place, message: "too many commands wait")))
        }
        bytes(of: command)
        if deadline?.isArmed == false { deadline?.schedule(at: limit) }
    }

    private func bytes(of command: RedisCommand) {
        let prefix = command.prefix
        queued += prefix.count + command.body.count
        prefix.withUnsafeBytes { queue($0) }
        command.body.withUnsafeBytes { queue($0) }
    }

    /// Asks, by WAIT, for the confirmation of the writes since the last time. Redis answers nothing else on this connection until it has
    /// the confirmation, so one WAIT is out at a time: were there more, each would hold up what is behind it for its whole time when a
    /// replica is away. Writes that come meanwhile are confirmed together by the next.
    private func confirm() {
        guard !isConfirming, !unconfirmed.isEmpty, isOpen else { return }
        let group = unconfirmed.removeFirst()
        isConfirming = true
        let time = group.rule.within
        put(RedisCommand("WAIT", String(group.rule.replicas), String(max(1, time.nanoseconds / 1_000_000))), time + settings.commandTime) {
            [unowned self] result in
            isConfirming = false
            let waiting = group.waiting
            group.waiting = []
            defer { confirm() }
            switch result {
            case .success(let count) where count.int ?? 0 >= group.rule.replicas: for (value, done) in waiting { done(.success(value)) }
            case .success(let count):
                let message = "\(count.int ?? 0) of \(group.rule.replicas) replicas confirmed it within \(time.brief)"
                for (_, done) in waiting { done(.failure(RedisError(.notReplicated, .maybeExecuted, place: place, message: message))) }
            case .failure(let error):
                let failure = RedisError(error.code, .maybeExecuted, place: place, message: error.message)
                for (_, done) in waiting { done(.failure(failure)) }
            }
        }
    }

    // MARK: greeting

    override func connected() {
        state = .greeting
        var hello = RedisCommand("HELLO")
        hello.add("3")
        if settings.logsIn {
            // A user without a password takes any, also none.
            hello.add("AUTH")
            hello.add(settings.user ?? "default")
            hello.add(settings.password ?? "")
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
            guard settings.logsIn else { return select() }
            var auth = RedisCommand("AUTH")
            if let user = settings.user { auth.add(user) }
            auth.add(settings.password ?? "")
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
        if settings.database == 0 { return readReplica() }
        send(RedisCommand("SELECT", String(settings.database))) { [unowned self] result in
            switch result {
            case .success: readReplica()
            case .failure(let error): refuse(error)
            }
        }
    }

    private func readReplica() {
        guard settings.readsReplica, isOpen else { return ready() }
        send(RedisCommand("READONLY")) { [unowned self] result in
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
        if case .push(let parts) = value { return onPush(parts) }
        guard let first = pending.removeFirst() else {
            failure = RedisError(.malformed, .answered, place: place, message: "a reply that nobody asked for")
            return close()
        }
        // Until the greeting is over its time limit stands, which is for all of its steps together.
        if state == .ready { if let next = pending.first { deadline?.schedule(at: next.deadline) } else { deadline?.cancel() } }
        if case .error(let message) = value {
            let error = RedisError(.server, .answered, place: place, message: message)
            first.done(
                .failure(
                    RedisConnection.refusals.contains(error.serverCode)
                        ? RedisError(.server, .notExecuted, place: place, message: message) : error))
        } else {
            first.done(.success(value))
        }
    }

    /// First words of errors that refuse a command before it runs.
    private static let refusals: Set = [
        "ASK", "BUSY", "CLUSTERDOWN", "CROSSSLOT", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOAUTH", "NOPERM", "NOREPLICAS",
        "NOSCRIPT", "OOM", "READONLY",
        "TRYAGAIN",
    ]

    private func timePassed() {
        timedOut = true
        lateFor =
            switch state {
            case .connecting where tls?.hasBegun == true: "no TLS handshake within \(settings.connectTime.brief): is it a port with TLS?"
            case .connecting: "no connection within \(settings.connectTime.brief)"
            case .greeting: "no greeting within \(settings.connectTime.brief)"
            case .ready, .gone: "no reply within \(settings.commandTime.brief)"
            }
        // Replies are matched by order: after one that is late, nothing on this connection can be trusted to be in time.
        close()
    }

    override func closed(_ reason: CloseReason) {
        let wasReady = state == .ready
        state = .gone
        deadline?.cancel()
        deadline = nil
        let code: RedisError.Code = timedOut ? .timeout : wasReady ? .lost : .unavailable
        let message = timedOut ? lateFor : reason.description, isOwnWant = !timedOut && reason.isOwnWant
        let sent = queued - unsentAtClose
        while let waiting = pending.removeFirst() {
            let execution: RedisError.Execution = waiting.start < sent ? .maybeExecuted : .notExecuted
            waiting.done(.failure(failure ?? RedisError(code, execution, place: place, message: message, isOwnWant: isOwnWant)))
        }
        // Writes that were answered, and whose WAIT was never sent.
        let groups = unconfirmed
        unconfirmed = []
        for group in groups {
            for (_, done) in group.waiting { done(.failure(RedisError(code, .maybeExecuted, place: place, message: message))) }
        }
        onClosed(failure ?? RedisError(code, .notExecuted, place: place, message: message, isOwnWant: isOwnWant))
    }
}
