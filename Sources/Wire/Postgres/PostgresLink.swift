import Basics
import EventLoops

/// One connection to a server, on its loop: logs in, sends statements in the order they came, many at a time, and matches answers by their
/// order.
///
/// States: `connecting` → (`askingTLS` → `shakingHands`) → `loggingIn` → `ready` → `gone`. Statements are sent in `ready` only.
final class PostgresLink: Stream {
    struct Settings: Sendable {
        var login: PostgresLogin
        var encryption = PostgresURL.Encryption.disable
        /// The context for TLS; nil: without TLS.
        var tls: TLSContext?
        /// Time limit for the connection, its TLS and the login together.
        var connectTime = Duration.seconds(5)
        var limits = PostgresLimits()
    }

    enum State { case connecting, askingTLS, shakingHands, loggingIn, ready, gone }

    let settings: Settings
    let endpoint: Endpoint
    var place: String { endpoint.description }
    var limits: PostgresLimits { settings.limits }
    var state = State.connecting
    var login: LoginMachine?
    var input = ByteBuffer()
    private var writer = MessageWriter()
    var line: BoundedQueue<PostgresOperation>
    var flight: BoundedQueue<PostgresOperation>
    var prepared: PreparedStatements
    var queued = 0
    var timer: LoopTimer?
    /// Why the connection ends, where that is known better than the socket tells.
    var failure: PostgresError?
    /// The server's last word, when it ends the session.
    var ending: ServerMessage?
    /// A cancellation on its way: nothing is sent until it has arrived, because it would hit what runs then.
    var cancelling: CancelLink?
    /// Whether it is closed here as soon as nothing is under way.
    var isEnding = false
    /// Operations that were cancelled before they came here.
    var earlyCancels: Set<UInt64> = []
    var onGone: () -> Void = {}
    /// Whether reading waits for whoever takes COPY's data.
    var isHeldBack = false

    var parameters = ServerParameters()
    var transaction = BackendMessage.TransactionStatus.idle
    var process: Int32 = 0
    var secret: Int32 = 0
    var onReady: () -> Void = {}
    /// Called once, last, with the reason; nil: it was closed here.
    var onClosed: (PostgresError?) -> Void = { _ in }
    var onNotification: (PostgresNotification) -> Void = { _ in }
    var onNotice: (ServerMessage) -> Void = { _ in }

    init(loop: EventLoop, _ endpoint: Endpoint, _ settings: Settings) {
        self.endpoint = endpoint
        self.settings = settings
        line = BoundedQueue(capacity: max(1, settings.limits.waiting))
        flight = BoundedQueue(capacity: max(1, settings.limits.underWay))
        prepared = PreparedStatements(capacity: settings.limits.preparedStatements)
        super.init(loop: loop)
    }

    var isReady: Bool { state == .ready }
    /// Statements without an answer.
    var depth: Int { line.count + flight.count }

    func open() {
        timer = LoopTimer(loop: loop) { [unowned self] in timePassed() }
        timer?.schedule(after: settings.connectTime)
        connectBy = timer?.deadline
        connect(to: endpoint)
    }

    // MARK: what the stream tells

    override func received(_ bytes: UnsafeRawBufferPointer) {
        if state == .askingTLS { return tlsAnswer(bytes) }
        if input.isEmpty, !isHeldBack {
            let used = take(bytes)
            if isOpen, used < bytes.count { input.append(bytes.part(used, bytes.count - used)) }
        } else {
            input.append(bytes)
            takeInput()
        }
    }

    func takeInput() {
        guard !isHeldBack else { return }
        let used = take(input.bytes)
        guard isOpen else { return }
        input.consume(used)
        if input.isEmpty { input.clear(keeping: 65_536) }
    }

    override func drained() { if case .copyIn(_, let feed) = flight.first?.work { feed.drained() } }

    override func closed(_ reason: CloseReason) { ended(reason) }

    // MARK: login

    override func connected() {
        if state == .connecting, settings.tls != nil {
            state = .askingTLS
            put(OpeningMessage.tlsRequest.encoded)
        } else {
            beginLogin()
        }
    }

    func put(_ bytes: [UInt8]) {
        queued += bytes.count
        bytes.withUnsafeBytes { queue($0) }
    }

    func putCopyData(_ bytes: UnsafeRawBufferPointer) {
        writer.begin(100)
        writer.put(bytes)
        writer.end()
        queued += writer.count
        write(writer.bytes)
        writer.clear()
    }

    private func beginLogin() {
        state = .loggingIn
        let channel = LoginMachine.Channel(isEncrypted: tls != nil, serverEndPoint: tls?.serverEndPoint)
        let machine = LoginMachine(settings.login, channel)
        login = machine
        put(machine.opening)
    }

    /// The single byte that answers the question for TLS. Bytes behind it came without TLS and would be taken for encrypted ones
    /// (CVE-2021-23222).
    func tlsAnswer(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count == 1 || bytes[0] == 69 else {
            return refuse(.malformed, "bytes came behind the server's answer to the question for TLS: somebody is between")
        }
        switch bytes[0] {
        case 83:
            guard let context = settings.tls else { return }
            state = .shakingHands
            let (host, port) =
                switch endpoint {
                case .name(let host, let port): (host, port)
                case .address(let address): (address.host, address.port ?? 0)
                }
            beginTLS(context.session(to: host, port: port))
        case 78 where settings.encryption == .prefer: beginLogin()
        case 78: refuse(.unavailable, "the server has no TLS, and sslmode=\(settings.encryption.rawValue) wants it")
        default: refuse(.malformed, "the server answered the question for TLS neither with yes nor with no: is it PostgreSQL?")
        }
    }

    func takeLogin(_ kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        let message = try BackendMessage(kind: kind, body)
        guard var machine = login else { return }
        do throws(LoginMachine.Refusal) {
            let step = try machine.received(message)
            login = machine
            switch step {
            case .nothing: break
            case .send(let bytes): put(bytes)
            case .ready(let status):
                state = .ready
                transaction = status
                parameters = machine.parameters
                (process, secret) = (machine.process, machine.secret)
                login = nil
                timer?.cancel()
                for notice in machine.notices { onNotice(notice) }
                onReady()
                sendMore()
            }
        } catch {
            failure =
                if let server = error.server {
                    PostgresError(error.code, .notSent, place: place, server)
                } else {
                    PostgresError(error.code, .notSent, place: place, message: error.reason)
                }
            close()
        }
    }

    func refuse(_ code: PostgresError.Code, _ message: String) {
        guard isOpen else { return }
        failure = PostgresError(code, .notSent, place: place, message: message)
        close()
    }

    // MARK: sending

    /// Ends the session in good order, after what is under way.
    func endSession() {
        isEnding = true
        guard flight.isEmpty, line.isEmpty || state != .ready else { return }
        if state == .ready {
            let bytes = FrontendMessage.terminate.encoded
            queued += bytes.count
            bytes.withUnsafeBytes { write($0) }
        }
        close()
    }

    func whenGone(_ body: @escaping () -> Void) {
        if state == .gone { return body() }
        let before = onGone
        onGone = {
            before()
            body()
        }
    }

    func submit(_ operation: PostgresOperation) {
        if earlyCancels.remove(operation.id) != nil {
            return operation.fail(PostgresError(.cancelled, .notSent, place: place, message: "cancelled before it was sent"))
        }
        if state == .gone || isEnding {
            return operation.fail(
                failure?.with(.notSent) ?? PostgresError(.lost, .notSent, place: place, message: "the connection is closed"))
        }
        if let complaint = operation.complaint(limits) {
            return operation.fail(PostgresError(.misuse, .notSent, place: place, message: complaint))
        }
        if let limit = operation.limit { operation.deadline = max(loop.now, .now) + limit }
        if line.isEmpty, maySend(operation) {
            send(operation)
        } else if !line.append(operation) {
            let message = "\(line.count) statements wait already (\(flight.count) more are under way)"
            return operation.fail(PostgresError(.overloaded, .notSent, place: place, message: message))
        }
        watch(operation)
    }

    /// Lets the timer run no later than the operation's time.
    func watch(_ operation: PostgresOperation) {
        guard state == .ready, !operation.isOver, let time = operation.giveUp ?? operation.deadline else { return }
        if let armed = timer?.deadline, armed <= time { return }
        timer?.schedule(at: time)
    }

    private func maySend(_ operation: PostgresOperation) -> Bool {
        guard state == .ready, cancelling == nil, flight.count < flight.capacity else { return false }
        if operation.isExclusive { return flight.isEmpty }
        return flight.first?.isExclusive != true
    }

    func sendMore() {
        while let next = line.first {
            if next.isOver {
                _ = line.removeFirst()
                continue
            }
            guard maySend(next) else { return }
            _ = line.removeFirst()
            send(next)
            watch(next)
        }
    }

    func send(_ operation: PostgresOperation) {
        operation.isSent = true
        operation.start = queued
        switch operation.work {
        case .simple(let text), .copyIn(let text, _), .copyOut(let text, _):
            operation.answer = AnswerMachine(simple: limits)
            writer.begin(81)
            writer.put(text: text)
            writer.end()
            operation.runs = queued + writer.count
        case .extended(let statements):
            var parts: [AnswerMachine.Part] = []
            parts.reserveCapacity(statements.count)
            for statement in statements { parts.append(write(statement)) }
            operation.answer = AnswerMachine(parts: parts, limits)
            operation.runs = queued + writer.count
            writer.begin(83)
            writer.end()
        }
        queued += writer.count
        queue(writer.bytes)
        writer.clear()
        _ = flight.append(operation)
    }

    private func write(_ statement: PostgresStatement) -> AnswerMachine.Part {
        var kept: PreparedStatements.Kept?, isNew = true, closes: String?
        if statement.isKept { (kept, isNew, closes) = prepared.use(statement.text, statement.values.map(\.type)) }
        let name = kept?.name ?? ""
        if let closes {
            writer.begin(67)
            writer.put(UInt8(83))
            writer.put(text: closes)
            writer.end()
        }
        if isNew {
            writer.begin(80)
            writer.put(text: name)
            writer.put(text: statement.text)
            writer.put(count: statement.values.count)
            for value in statement.values { writer.put(oid: value.type) }
            writer.end()
        }
        writer.begin(66)
        writer.put(UInt8(0))
        writer.put(text: name)
        writer.put(count: statement.values.count)
        for value in statement.values { writer.put(value.format) }
        writer.put(count: statement.values.count)
        for value in statement.values { writer.put(value: value.bytes) }
        writer.put(count: 1)
        writer.put(statement.resultFormat.rawValue)
        writer.end()
        let isDescribed = kept?.columns == nil
        if isDescribed {
            writer.begin(68)
            writer.put(UInt8(80))
            writer.put(UInt8(0))
            writer.end()
        }
        writer.begin(69)
        writer.put(UInt8(0))
        writer.put(Int32(0))
        writer.end()
        return AnswerMachine.Part(
            kept: kept, closesOne: closes != nil, isNew: isNew, isDescribed: isDescribed, format: statement.resultFormat.rawValue)
    }
}
