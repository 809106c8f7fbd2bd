import EventLoops

/// Why a statement has no result, or why there is no connection; and whether the statement may have been carried out all the same.
///
/// Never has a password in it, nor the values of parameters of its own accord (the server may quote a value in its detail).
public struct PostgresError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// No connection stands and none could be made.
        case unavailable
        case timeout
        /// The connection ended under the statement.
        case lost
        /// The server answered with an error; `server` has all of it.
        case server
        /// The server does not take our proof, or has not shown that it knows the password.
        case authentication
        /// A host answers and is not of the wanted kind (`target_session_attrs`).
        case unsuitable
        /// The server broke the protocol; the connection is closed.
        case malformed
        /// More statements wait than are allowed to.
        case overloaded
        /// An answer, or a message of one, larger than its bound.
        case tooLarge
        /// The caller cancelled it.
        case cancelled
        /// A statement before it in the same batch failed, so the server did not begin it.
        case skipped
        /// What was asked for cannot be sent: too many parameters, COPY where no COPY was asked for, a closed connection.
        case misuse
    }

    public enum Outcome: String, Sendable {
        /// It did not leave this machine, or the server surely never began it: it may be sent again.
        case notSent
        /// It was sent and no answer tells its fate. A lost COMMIT is of this kind.
        case mayHaveRun
        /// The server said no. What the statement did in its transaction is undone.
        case refused
    }

    public let code: Code
    public let outcome: Outcome
    /// The server's own words.
    public let server: ServerMessage?
    /// The host that it happened with.
    public let place: String
    public let message: String
    /// Whether this process lacked something of its own for the connection (see `SystemError.isOwnWant`): then the server has no part in it.
    public let isOwnWant: Bool

    public init(_ code: Code, _ outcome: Outcome, place: String, message: String, isOwnWant: Bool = false) {
        self.code = code
        self.outcome = outcome
        self.place = place
        self.message = message
        self.isOwnWant = isOwnWant
        server = nil
    }

    public init(_ code: Code = .server, _ outcome: Outcome = .refused, place: String, _ server: ServerMessage) {
        self.code = code
        self.outcome = outcome
        self.server = server
        self.place = place
        message = server.description
        isOwnWant = false
    }

    /// SQLSTATE of the server's error; empty where it was none of the server's.
    public var state: String { server?.state ?? "" }

    public var description: String { "\(place): \(code.rawValue) (\(outcome.rawValue)): \(message)" }
}
