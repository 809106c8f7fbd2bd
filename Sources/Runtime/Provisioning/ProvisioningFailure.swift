import Redis
import Sharding

/// Why an operation on a cluster was refused or did not succeed.
public struct ProvisioningFailure: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// It would do harm, or cannot hold; nothing was changed.
        case refused
        case unreachable
        case authentication
        /// What was begun did not come about in time; running the same again goes on from there.
        case unfinished
        /// A node answered with an error.
        case server
        /// This machine: a file, a process.
        case local
    }

    public let code: Code
    public let node: NodeAddress?
    public let message: String

    public init(_ code: Code, _ message: String, node: NodeAddress? = nil) {
        self.code = code
        self.node = node
        self.message = message
    }

    init(_ error: RedisError, node: NodeAddress) {
        let code: Code =
            switch error.code {
            case .authentication: .authentication
            case .server, .malformed, .crossSlot, .notReplicated: .server
            case .unavailable, .timeout, .lost, .overloaded: .unreachable
            }
        self.init(code, error.message, node: node)
    }

    /// Whether the node answers that it loads its data: it will serve, and serves nothing yet.
    var isLoading: Bool { code == .server && message.hasPrefix("LOADING") }

    /// Whether the server is too old for what it was asked, or has it under no name.
    var isUnknownCommand: Bool {
        code == .server && (message.lowercased().contains("unknown command") || message.lowercased().contains("unknown subcommand"))
    }

    /// Whether whoever is logged in may not ask this.
    var isForbidden: Bool { code == .server && message.hasPrefix("NOPERM") }

    public var description: String { node.map { "\($0): \(message)" } ?? message }
}
