import Basics

/// Who logs in, and with what.
struct PostgresLogin: Sendable {
    var user: String
    var database: String
    var password: Secret?
    var applicationName: String
    var options: String?
    /// Whether a login without binding to the TLS channel is refused, or never bound.
    var channelBinding = PostgresURL.ChannelBinding.prefer
}

/// From the startup message to the first ReadyForQuery: messages in, bytes to be sent out. No socket, no clock.
///
/// States: `asked` (the startup message is out) → `proving` (SCRAM's first word is out) → `proved` (the server's own proof is awaited or was
/// right) → `accepted` (AuthenticationOk) → done. A server that asks for no proof goes from `asked` to `accepted`. An error of the server
/// ends it in each state.
struct LoginMachine {
    enum Step {
        case nothing
        case send([UInt8])
        case ready(BackendMessage.TransactionStatus)
    }

    /// What ends a login. `code` is `authentication`, `server`, `malformed` or `unavailable`.
    struct Refusal: Error {
        let code: PostgresError.Code
        let reason: String
        var server: ServerMessage?
    }

    /// The channel under the login.
    struct Channel {
        var isEncrypted = false
        /// The hash of the server's certificate for tls-server-end-point; nil where there is none.
        var serverEndPoint: [UInt8]?
    }

    private enum State { case asked, proving(SCRAM), proved(SCRAM), accepted }

    private let login: PostgresLogin
    private let channel: Channel
    private var state = State.asked
    private var count = 0
    private(set) var process: Int32 = 0
    private(set) var secret: Int32 = 0
    private(set) var parameters = ServerParameters()
    private(set) var notices: [ServerMessage] = []
    /// Whether the server has proved by SCRAM that it knows the password's verifier.
    private(set) var serverIsProved = false

    /// Messages of one login: a server sends some 30.
    static let messageLimit = 1000

    init(_ login: PostgresLogin, _ channel: Channel) {
        self.login = login
        self.channel = channel
    }

    var opening: [UInt8] {
        typealias Parameter = OpeningMessage.Startup.Parameter
        var parameters = [
            Parameter(name: "user", value: WireText(login.user)), Parameter(name: "database", value: WireText(login.database)),
            Parameter(name: "client_encoding", value: "UTF8"),
            Parameter(name: "application_name", value: WireText(login.applicationName)),
        ]
        if let options = login.options { parameters.append(Parameter(name: "options", value: WireText(options))) }
        return OpeningMessage.startup(OpeningMessage.Startup(parameters: parameters)).encoded
    }

    mutating func received(_ message: BackendMessage) throws(Refusal) -> Step {
        count += 1
        guard count <= LoginMachine.messageLimit else {
            throw Refusal(code: .malformed, reason: "more than \(LoginMachine.messageLimit) messages before the server was ready")
        }
        switch message {
        case .authentication(let question): return try asked(question)
        case .errorResponse(let error): throw refused(error)
        case .noticeResponse(let notice): if notices.count < 16 { notices.append(notice) }
        case .negotiateProtocolVersion: break
        case .parameterStatus(let name, let value):
            guard case .accepted = state else { throw unexpected("a parameter before the login was accepted") }
            parameters.set(name.string, value.string)
        case .backendKeyData(let process, let secret):
            guard case .accepted = state else { throw unexpected("a key before the login was accepted") }
            (self.process, self.secret) = (process, secret)
        case .readyForQuery(let status):
            guard case .accepted = state else { throw unexpected("it is ready before the login was accepted") }
            return .ready(status)
        default: throw unexpected("a message \(MessageFrame.name(message.kind)) during the login")
        }
        return .nothing
    }

    private func unexpected(_ what: String) -> Refusal { Refusal(code: .malformed, reason: what) }

    private func refused(_ error: ServerMessage) -> Refusal {
        // Class 28: invalid authorization.
        let isProof = error.state.hasPrefix("28")
        return Refusal(code: isProof ? .authentication : .server, reason: error.description, server: error)
    }

    private func proofless(_ reason: String) -> Refusal { Refusal(code: .authentication, reason: reason) }

    private mutating func asked(_ question: BackendMessage.Authentication) throws(Refusal) -> Step {
        switch (question, state) {
        case (.ok, .asked), (.ok, .proved):
            if login.channelBinding == .require, !isBound {
                throw proofless("channel_binding=require, and the server let us in without SCRAM-SHA-256-PLUS")
            }
            if case .proved = state, !serverIsProved { throw proofless("the server accepted us without its own proof (SCRAM)") }
            state = .accepted
            return .nothing
        case (.cleartextPassword, .asked):
            guard let password = login.password else { throw proofless("the server asks for a password and there is none in the URL") }
            guard login.channelBinding != .require else {
                throw proofless("channel_binding=require, and the server asks for the password itself")
            }
            return .send(FrontendMessage.proof(Array(password.reveal.utf8) + [0]).encoded)
        case (.sasl(let mechanisms), .asked): return try begin(mechanisms.map(\.string))
        case (.saslContinue(let challenge), .proving(var scram)):
            let proof = try unwrap { () throws(SCRAM.Failure) in try scram.prove(challenge) }
            state = .proved(scram)
            return .send(FrontendMessage.proof(proof).encoded)
        case (.saslFinal(let words), .proved(let scram)):
            try unwrap { () throws(SCRAM.Failure) in try scram.finish(words) }
            serverIsProved = true
            return .nothing
        case (.md5Password, .asked):
            throw proofless(
                "the server asks for an MD5 password, which is not sent because MD5 is broken: set password_encryption = 'scram-sha-256', give "
                    + "the role its password anew and say scram-sha-256 in pg_hba.conf")
        case (.gss, .asked), (.sspi, .asked), (.kerberosV5, .asked), (.gssContinue, .asked):
            throw proofless("the server asks for GSSAPI, SSPI or Kerberos, which are not known: say scram-sha-256 or peer in pg_hba.conf")
        case (.other(let code, _), .asked):
            throw proofless("the server asks for a way to log in that is not known (\(code)): say scram-sha-256 or peer in pg_hba.conf")
        default: throw unexpected("a question for a proof out of its order")
        }
    }

    private var isBound: Bool {
        if case .proved(let scram) = state { scram.isBound } else { false }
    }

    private mutating func begin(_ offered: [String]) throws(Refusal) -> Step {
        guard let password = login.password else { throw proofless("the server asks for a password and there is none in the URL") }
        let canBind = channel.serverEndPoint != nil && login.channelBinding != .disable
        let binding: SCRAM.Binding
        if canBind, offered.contains("SCRAM-SHA-256-PLUS"), let hash = channel.serverEndPoint {
            binding = .serverEndPoint(hash)
        } else if offered.contains("SCRAM-SHA-256") {
            guard login.channelBinding != .require else {
                throw proofless(
                    channel.isEncrypted
                        ? "channel_binding=require, and the server offers no SCRAM-SHA-256-PLUS" : "channel_binding=require needs TLS")
            }
            binding = canBind ? .notOffered : .none
        } else {
            let names = offered.prefix(8).map { $0.prefix(40) }.joined(separator: ", ")
            throw proofless("the server offers \(names.isEmpty ? "no way" : names) to log in; SCRAM-SHA-256 is known")
        }
        let scram = try unwrap { () throws(SCRAM.Failure) in try SCRAM(password: password.reveal, binding: binding) }
        state = .proving(scram)
        let first = FrontendMessage.SASLFirst(mechanism: WireText(scram.mechanism), data: scram.first)
        return .send(FrontendMessage.proof(first.proof).encoded)
    }

    private func unwrap<T>(_ body: () throws(SCRAM.Failure) -> T) throws(Refusal) -> T {
        do throws(SCRAM.Failure) { return try body() } catch { throw proofless(error.reason) }
    }
}

/// Settings that the server reports of itself: `server_version`, `in_hot_standby`, `TimeZone`.
public struct ServerParameters: Sendable, Equatable {
    private var values: [String: String] = [:]

    /// PostgreSQL reports 14; extensions may mark more. What comes beyond this is not kept.
    static let limit = 256

    init() {}

    public subscript(name: String) -> String? { values[name] }
    public var names: [String] { values.keys.sorted() }

    mutating func set(_ name: String, _ value: String) {
        if values[name] == nil, values.count >= ServerParameters.limit { return }
        values[name] = value
    }

    /// The server's major version; 0 where it has not said.
    public var version: Int { self["server_version"].flatMap { Int($0.prefix { $0.isNumber }) } ?? 0 }
}
