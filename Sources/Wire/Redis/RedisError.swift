/// Why a command has no answer, and whether it may have been carried out all the same.
public struct RedisError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// No connection stands and none is being made right now.
        case unavailable
        case timeout
        /// The connection ended under the command.
        case lost
        /// Redis answered with an error; its first word is in `serverCode`.
        case server
        case authentication
        case malformed
        /// More commands wait than are allowed to.
        case overloaded
        /// Its keys lie in different slots: never sent.
        case crossSlot
        /// Carried out by the master, and not confirmed by as many replicas as were asked for.
        case notReplicated
    }

    public enum Execution: String, Sendable {
        case notExecuted
        case maybeExecuted
        /// Redis answered: it was not carried out, or only as far as the error says.
        case answered
    }

    public let code: Code
    public let execution: Execution
    public let serverCode: String
    public let place: String
    public let message: String
    /// Whether this process lacked something of its own for the connection (see `SystemError.isOwnWant`): then the server has no part in it.
    public let isOwnWant: Bool

    public init(_ code: Code, _ execution: Execution, place: String, message: String, isOwnWant: Bool = false) {
        self.code = code
        self.execution = execution
        self.place = place
        self.message = message
        self.isOwnWant = isOwnWant
        serverCode = code == .server ? String(message.prefix { $0 != " " }) : ""
    }

    /// What servers answer while nobody, or somebody else, is master of a slot, or a server is none yet: the same command may succeed later.
    static let changing: Set<String> = ["CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN"]

    /// Whether no master answered for itself: it is away, or the servers have none for this command.
    public var isOfMissingMaster: Bool {
        switch code {
        case .unavailable, .timeout, .lost: true
        case .server: RedisError.changing.contains(serverCode)
        case .authentication, .malformed, .overloaded, .crossSlot, .notReplicated: false
        }
    }

    public var description: String { "\(place): \(code.rawValue) (\(execution.rawValue)): \(message)" }
}
