/// The words of a command: its program and the program's arguments.
///
/// Written as one line, it is split into words as a POSIX shell splits it (quotes, backslashes, variables), and no shell is started:
/// nothing is a pipe, a pattern or a second command, and what only a shell could do is refused. Variables are filled in when the file is
/// read, except those that each process gets a value of its own for, such as PORT: these are filled in when the process is started.
public struct CommandLine: Sendable, Equatable {
    /// A part of a word.
    public enum Piece: Sendable, Equatable {
        /// Belongs to one word, also where it is empty or has blanks.
        case text(String)
        /// The value of a variable outside of quotes: blanks in it end a word, and an empty one makes none.
        case split(String)
        /// A variable that is known when the process is started; in quotes (`isWhole`) its value is not split.
        case given(String, isWhole: Bool)
    }

    /// The pieces of each word.
    public let pieces: [[Piece]]

    /// Words of which some are known only when the process is started.
    public init(pieces: [[Piece]]) { self.pieces = pieces }

    /// The program and its arguments. `given` answers for the variables that belong to the process.
    public func words(_ given: (String) -> String?) -> [String] {
        var words: [String] = []
        for word in pieces {
            var current: String?
            for piece in word {
                switch piece {
                case .text(let text): current = (current ?? "") + text
                case .given(let name, true): current = (current ?? "") + (given(name) ?? "")
                case .given(let name, false): CommandLine.append(given(name) ?? "", &current, &words)
                case .split(let value): CommandLine.append(value, &current, &words)
                }
            }
            if let current { words.append(current) }
        }
        return words
    }

    private static func append(_ value: String, _ current: inout String?, _ words: inout [String]) {
        for character in value.unicodeScalars {
            if isBlank(character) {
                if let word = current { words.append(word) }
                current = nil
            } else {
                current = (current ?? "") + String(character)
            }
        }
    }

    /// The program, as it is written: no variable of the process may stand in it.
    public var program: String { words { _ in nil }.first ?? "" }

    /// What separates words.
    public static func isBlank(_ character: Unicode.Scalar) -> Bool {
        character == " " || character == "\t" || character == "\n" || character == "\r"
    }

    /// A list of words, each taken as it is.
    public init(words: [String]) { pieces = words.map { [.text($0)] } }
}
