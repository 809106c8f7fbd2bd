/// Why there is nothing to replay: what is wrong, where, and what to do about it.
public struct ReplayFailure: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable {
        /// The recording cannot be read as what it claims to be.
        case malformed
        /// The recording has more than is taken.
        case tooLarge
        /// The recording can be read, and says nothing about what is to be replayed.
        case nothingToReplay
        /// The recording says something that cannot be turned into a load without another figure.
        case unknownUnit
        /// The server that was asked refused.
        case refused
    }

    public let code: Code
    /// The line of the recording, from 1; nil where the failure is about no one line.
    public let line: Int?
    public let message: String

    public init(_ code: Code, line: Int? = nil, _ message: String) {
        self.code = code
        self.line = line
        self.message = message
    }

    public var description: String { line.map { "line \($0): \(message)" } ?? message }
}
