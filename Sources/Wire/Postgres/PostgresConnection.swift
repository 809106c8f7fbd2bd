import Basics
import EventLoops
import Glibc
import Synchronization

/// A connection to one PostgreSQL server. May be used from any task; statements are carried out in the order in which they are given, and
/// many may be under way at a time (pipelining): each has an answer of its own.
///
/// A session of SQL belongs to one user at a time: two tasks that share a connection share its transaction. `close` ends it; a connection
/// that nobody holds any more is closed too.
public final class PostgresConnection: Sendable {
    public let loop: EventLoop
    /// The server, as it was connected to.
    public let host: PostgresURL.Host
    let link: LoopOwned<PostgresLink>
    /// Numbers its operations, so that one can be cancelled from anywhere.
    private let number = Atomic<UInt64>(0)

    private init(_ link: PostgresLink, _ host: PostgresURL.Host) {
        loop = link.loop
        self.host = host
        self.link = LoopOwned(link, on: link.loop)
    }

    deinit {
        let link = link
        loop.execute { link.value.endSession() }
    }

    // MARK: connecting

    /// Connects to the first of the URL's hosts that answers and is of the wanted kind. Hosts are tried in their order, each for
    /// `connectTime`; one that refuses the login ends the search, as in libpq, one that is starting up or shutting down does not.
    public static func connect(
        _ url: PostgresURL, on loop: EventLoop, limits: PostgresLimits = PostgresLimits()
    ) async throws(PostgresError) -> PostgresConnection {
        let login = try PostgresConnection.login(url)
        let tls = try PostgresConnection.tls(url)
        var failures: [PostgresError] = []
        // prefer-standby: first only standbys, then any.
        let passes: [PostgresURL.Target] = url.target == .preferStandby ? [.standby, .any] : [url.target]
        for target in passes {
            failures = []
            for host in url.hosts {
                let settings = PostgresLink.Settings(
                    login: login, encryption: url.encryption, tls: host.isSocket ? nil : tls, connectTime: url.connectTime, limits: limits)
                do throws(PostgresError) {
                    let connection = try await open(host, settings, on: loop)
                    if let unfit = try await connection.unfitness(target) {
                        await connection.close()
                        failures.append(unfit)
                    } else {
                        return connection
                    }
                } catch {
                    if error.code == .authentication { throw error }
                    failures.append(error)
                }
            }
        }
        if failures.count == 1 { throw failures[0] }
        let code: PostgresError.Code = failures.contains { $0.code == .unsuitable } ? .unsuitable : failures[0].code
        throw PostgresError(
            code, .notSent, place: url.hosts.map(\.description).joined(separator: ","),
            message: failures.map(\.description).joined(separator: "; "), isOwnWant: failures.allSatisfy(\.isOwnWant))
    }

    private static func login(_ url: PostgresURL) throws(PostgresError) -> PostgresLogin {
        guard let user = url.user ?? PostgresConnection.processUser else {
            throw PostgresError(
                .misuse, .notSent, place: "\(url.hosts[0])", message: "the URL names no user, and this process's has no name")
        }
        return PostgresLogin(
            user: user, database: url.database ?? user, password: url.password, applicationName: url.applicationName, options: url.options,
            channelBinding: url.channelBinding)
    }

    private static func tls(_ url: PostgresURL) throws(PostgresError) -> TLSContext? {
        guard url.encryption != .disable, url.hosts.contains(where: { !$0.isSocket }) else { return nil }
        let proof: TLSContext.Proof =
            switch url.encryption {
            case .verifyFull: .name
            case .verifyCA: .authority
            case .require: url.authorities == nil ? .none : .authority
            case .prefer, .disable: .none
            }
        do throws(TLSFailure) {
            return try TLSContext(
                authorities: proof == .none ? nil : url.authorities, certificate: url.certificate, key: url.key, proof: proof)
        } catch {
            throw PostgresError(.misuse, .notSent, place: "\(url.hosts[0])", message: "\(error)")
        }
    }

    private static func open(_ host: PostgresURL.Host, _ settings: PostgresLink.Settings, on loop: EventLoop) async throws(PostgresError)
        -> PostgresConnection
    {
        let result: Result<PostgresConnection, PostgresError> = await withUnsafeContinuation { continuation in
            loop.execute {
                let link = PostgresLink(loop: loop, host.endpoint, settings)
                let bound = LoopBound(link, on: loop)
                link.onReady = {
                    bound.value.onClosed = { _ in }
                    bound.value.onReady = {}
                    continuation.resume(returning: .success(PostgresConnection(bound.value, host)))
                }
                link.onClosed = { error in
                    continuation.resume(
                        returning: .failure(
                            error ?? PostgresError(.unavailable, .notSent, place: "\(host)", message: "closed while it was being made")))
                }
                link.open()
            }
        }
        return try result.get()
    }

    /// Why the server is not of the wanted kind; nil when it is.
    private func unfitness(_ target: PostgresURL.Target) async throws(PostgresError) -> PostgresError? {
        if target == .any { return nil }
        let state = try await serverState()
        let isFit =
            switch target {
            case .any, .preferStandby: true
            case .primary: !state.isStandby
            case .standby: state.isStandby
            case .readWrite: !state.isStandby && !state.isReadOnly
            case .readOnly: state.isStandby || state.isReadOnly
            }
        if isFit { return nil }
        let word = state.isStandby ? "a standby" : state.isReadOnly ? "a primary whose transactions are read-only by default" : "a primary"
        return PostgresError(
            .unsuitable, .notSent, place: "\(host)", message: "it is \(word), and target_session_attrs=\(target.rawValue) is wanted")
    }

    /// Servers from 14 on report both; older ones are asked.
    private func serverState() async throws(PostgresError) -> (isStandby: Bool, isReadOnly: Bool) {
        let known = await parameters
        if let standby = known["in_hot_standby"], let readOnly = known["default_transaction_read_only"] {
            return (standby == "on", readOnly == "on")
        }
        let answer = try await simple("SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only')")
        let row = answer.last?.first
        return (row?.text(0) == "t", row?.text(1) == "on")
    }

    /// The name of the user that this process runs as.
    private static var processUser: String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 4096) { buffer in
            var entry = passwd(), found: UnsafeMutablePointer<passwd>?
            guard getpwuid_r(geteuid(), &entry, buffer.baseAddress!, buffer.count, &found) == 0, found != nil else { return nil }
            return String(cString: entry.pw_name)
        }
    }

    // MARK: statements

    /// Sends a text by the simple protocol: one or more statements, without parameters, as one transaction unless the text says otherwise.
    /// A result for each statement.
    public func simple(_ text: String, within: Duration? = nil) async throws(PostgresError) -> [PostgresResult] {
        let results = await run(.simple(text), within)
        var all: [PostgresResult] = []
        for result in results { all.append(try result.get()) }
        return all
    }

    /// Sends one statement by the extended protocol, prepared once and then only with its values.
    public func query(_ statement: PostgresStatement) async throws(PostgresError) -> PostgresResult {
        try await run(.extended([statement]), statement.within)[0].get()
    }

    /// The same of a text and its values: `query("SELECT $1::int4 + 1", 41)`.
    public func query(_ text: String, _ values: any PostgresEncodable...) async throws(PostgresError) -> PostgresResult {
        try await query(PostgresStatement(text, values: values.map(\.postgresValue)))
    }

    /// Sends statements at once, with one Sync behind them: outside of a transaction they are one. A failure ends those behind it and undoes
    /// those before it (`skipped`); results stand where their statements stood.
    public func batch(_ statements: [PostgresStatement], within: Duration? = nil) async -> [Result<PostgresResult, PostgresError>] {
        if statements.isEmpty { return [] }
        return await run(.extended(statements), within)
    }

    /// Sends statements at once, each with a Sync of its own: a failure is that statement's alone. Results stand where their statements stood.
    public func pipeline(_ statements: [PostgresStatement]) async -> [Result<PostgresResult, PostgresError>] {
        if statements.isEmpty { return [] }
        return await withUnsafeContinuation { continuation in
            onLoop { link in
                let gathering = Gathering(statements.count) { continuation.resume(returning: $0) }
                for (i, statement) in statements.enumerated() {
                    link.submit(
                        PostgresOperation(.extended([statement]), id: 0, within: statement.within, link.settings.limits) {
                            gathering.finish(i, $0[0])
                        })
                }
            }
        }
    }

    private final class Gathering {
        private var results: [Result<PostgresResult, PostgresError>?]
        private var missing: Int
        private let done: ([Result<PostgresResult, PostgresError>]) -> Void

        init(_ count: Int, _ done: @escaping ([Result<PostgresResult, PostgresError>]) -> Void) {
            results = Array(repeating: nil, count: count)
            missing = count
            self.done = done
        }

        func finish(_ place: Int, _ result: Result<PostgresResult, PostgresError>) {
            results[place] = result
            missing -= 1
            if missing == 0 { done(results.compactMap { $0 }) }
        }
    }

    /// Submits a statement without a task: call it on the loop; `done` is called on the loop.
    public func submit(_ statement: PostgresStatement, _ done: @escaping (Result<PostgresResult, PostgresError>) -> Void) {
        let link = link.value
        link.submit(PostgresOperation(.extended([statement]), id: 0, within: statement.within, link.settings.limits) { done($0[0]) })
    }

    private func onLoop(_ body: @escaping @Sendable (PostgresLink) -> Void) {
        if loop.isCurrent { return body(link.value) }
        let link = link
        loop.execute { body(link.value) }
    }

    /// Runs it, and asks the server to cancel it when the task is cancelled.
    private func run(_ request: Request, _ within: Duration?) async -> [Result<PostgresResult, PostgresError>] {
        let id = number.add(1, ordering: .relaxed).newValue
        return await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                onLoop { link in
                    let work: PostgresOperation.Work =
                        switch request {
                        case .simple(let text): .simple(text)
                        case .extended(let statements): .extended(statements)
                        }
                    link.submit(
                        PostgresOperation(work, id: id, within: within, link.settings.limits) { continuation.resume(returning: $0) })
                }
            }
        } onCancel: {
            onLoop { $0.cancel(id) }
        }
    }

    private enum Request: Sendable {
        case simple(String)
        case extended([PostgresStatement])
    }

    // MARK: COPY

    /// Sends data to `COPY … FROM STDIN`. `feed` writes it, and waits where the network is slower. When `feed` throws, nothing of the data is
    /// kept, and its error is thrown on. The statement's time limit counts from one progress to the next. How many rows were taken.
    @discardableResult
    public func copyIn(_ text: String, within: Duration? = nil, _ feed: (PostgresCopyWriter) async throws -> Void) async throws -> Int {
        let id = number.add(1, ordering: .relaxed).newValue
        let copy = LoopOwned(CopyFeed(), on: loop)
        return try await withTaskCancellationHandler {
            let begun: Bool = await withUnsafeContinuation { continuation in
                onLoop { link in
                    let feed = copy.value
                    feed.whenBegun { continuation.resume(returning: $0) }
                    link.submit(
                        PostgresOperation(.copyIn(text, feed), id: id, within: within, link.settings.limits) { feed.settle($0[0]) })
                }
            }
            var thrown: (any Error)?
            if begun {
                do { try await feed(PostgresCopyWriter(copy, loop)) } catch { thrown = error }
                let reason = thrown.map { "\($0)" }
                onLoop { _ in copy.value.finish(reason) }
            }
            let result: Result<PostgresResult, PostgresError> = await withUnsafeContinuation { continuation in
                onLoop { _ in copy.value.whenSettled { continuation.resume(returning: $0) } }
            }
            if let thrown, !(thrown is PostgresCopyWriter.Ended) { throw thrown }
            let done = try result.get()
            guard begun else { throw noCopy("FROM STDIN") }
            return done.affected ?? 0
        } onCancel: {
            onLoop { $0.cancel(id) }
        }
    }

    /// Takes the data of `COPY … TO STDOUT`: `take` gets it in pieces, which end anywhere. The server is held back while `take` works, so that
    /// no more than about half a mebibyte waits here. When `take` throws, the statement is cancelled and the error is thrown on. How many rows
    /// were sent.
    @discardableResult
    public func copyOut(_ text: String, within: Duration? = nil, _ take: ([UInt8]) async throws -> Void) async throws -> Int {
        let id = number.add(1, ordering: .relaxed).newValue
        let copy = LoopOwned(CopyTap(), on: loop)
        return try await withTaskCancellationHandler {
            onLoop { link in
                let tap = copy.value
                link.submit(PostgresOperation(.copyOut(text, tap), id: id, within: within, link.settings.limits) { tap.settle($0[0]) })
            }
            var thrown: (any Error)?
            while thrown == nil, let bytes = await next(copy) {
                do { try await take(bytes) } catch {
                    thrown = error
                    onLoop { link in
                        copy.value.abandon()
                        link.cancel(id)
                    }
                }
            }
            let result: (Result<PostgresResult, PostgresError>, Bool) = await withUnsafeContinuation { continuation in
                onLoop { _ in copy.value.whenSettled { continuation.resume(returning: ($0, $1)) } }
            }
            if let thrown { throw thrown }
            let done = try result.0.get()
            guard result.1 else { throw noCopy("TO STDOUT") }
            return done.affected ?? 0
        } onCancel: {
            onLoop { $0.cancel(id) }
        }
    }

    private func next(_ copy: LoopOwned<CopyTap>) async -> [UInt8]? {
        await withUnsafeContinuation { continuation in onLoop { _ in copy.value.next { continuation.resume(returning: $0) } } }
    }

    private func noCopy(_ what: String) -> PostgresError {
        PostgresError(.misuse, .mayHaveRun, place: "\(host)", message: "the statement is no COPY … \(what); it was carried out as it is")
    }

    // MARK: the session

    /// Settings that the server reports.
    public var parameters: ServerParameters { get async { await ask { $0.parameters } } }

    /// Whether the session is in a transaction, as of the last answer.
    public var transaction: BackendMessage.TransactionStatus { get async { await ask { $0.transaction } } }

    /// Whether statements can still be given to it.
    public var isOpen: Bool { get async { await ask { $0.isReady } } }

    /// The server's process that serves this session.
    public var process: Int32 { get async { await ask { $0.process } } }

    private func ask<T: Sendable>(_ body: @escaping @Sendable (PostgresLink) -> T) async -> T {
        await withUnsafeContinuation { continuation in onLoop { continuation.resume(returning: body($0)) } }
    }

    /// Listens to a channel; `take` is called on the loop for each notification of every channel of this session. Notifications that came
    /// while no connection stood are lost: after connecting anew, look at what was notified of.
    public func listen(_ channel: String, _ take: @escaping @Sendable (PostgresNotification) -> Void) async throws(PostgresError) {
        onLoop { $0.onNotification = take }
        _ = try await simple("LISTEN \(PostgresConnection.quoted(channel))")
    }

    /// Calls `take` on the loop with every notice and warning of the server.
    public func onNotice(_ take: @escaping @Sendable (ServerMessage) -> Void) { onLoop { $0.onNotice = take } }

    /// Calls `body` on the loop, once, when the connection has ended, with the reason; nil: it was closed here.
    public func onClose(_ body: @escaping @Sendable (PostgresError?) -> Void) {
        let host = host
        onLoop { link in
            if link.isReady {
                link.onClosed = body
            } else {
                body(link.failure ?? PostgresError(.lost, .notSent, place: "\(host)", message: "the connection is closed"))
            }
        }
    }

    /// Ends the session in good order, after what is under way. Statements that come later fail (`lost`, not sent). Returns when the
    /// connection has ended.
    public func close() async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            onLoop { link in
                link.whenGone { continuation.resume() }
                link.endSession()
            }
        }
    }

    /// A name as SQL quotes it: `"a ""name"""`.
    public static func quoted(_ name: String) -> String {
        var out = "\""
        for letter in name.unicodeScalars {
            if letter == "\"" { out.unicodeScalars.append(letter) }
            out.unicodeScalars.append(letter)
        }
        return out + "\""
    }
}

/// Where the feeder of `copyIn` writes.
public struct PostgresCopyWriter: Sendable {
    /// The server ended the COPY; `copyIn` throws its reason.
    struct Ended: Error {}

    private let feed: LoopOwned<CopyFeed>
    private let loop: EventLoop

    init(_ feed: LoopOwned<CopyFeed>, _ loop: EventLoop) {
        self.feed = feed
        self.loop = loop
    }

    /// Writes data, whose pieces may end anywhere; returns when more may be written. Throws when the server has ended the COPY: let the error
    /// pass, `copyIn` then throws the server's reason.
    public func write(_ bytes: [UInt8]) async throws {
        let feed = feed
        let isTaken: Bool = await withUnsafeContinuation { continuation in
            let body: @Sendable () -> Void = { feed.value.send(bytes) { continuation.resume(returning: $0) } }
            if loop.isCurrent { body() } else { loop.execute(body) }
        }
        if !isTaken { throw Ended() }
    }

    public func write(_ text: String) async throws { try await write(Array(text.utf8)) }
}
