/// A fault in a file: what is wrong, where, and what to do. Rendered `file:line:column: message`.
public struct Problem: Error, Sendable, Equatable, CustomStringConvertible {
    public let file: String
    /// The line, from 1; 0 when the whole file is meant.
    public let line: Int
    public let column: Int
    public let message: String

    public init(file: String, line: Int, column: Int, message: String) {
        self.file = file
        self.line = line
        self.column = column
        self.message = message
    }

    public var description: String { line == 0 ? "\(file): \(message)" : "\(file):\(line):\(column): \(message)" }
}

/// All faults of a file.
public struct Problems: Error, Sendable, Equatable, CustomStringConvertible {
    public let list: [Problem]
    public var description: String { list.map(\.description).joined(separator: "\n") }
}
