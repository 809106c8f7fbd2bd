/// The key by which hash balancing chooses a replica.
public enum HashSource: Sendable, Equatable {
    /// The trace id that the request carries.
    case trace
    /// The path, without its query.
    case path
    /// The client's whole address (`BalanceMethod.ipHash` goes by its network).
    case clientAddress
    /// The value of this header. The name is in lower case, as reading it from text makes it.
    case header(String)
    /// The value of this cookie. Cookie names keep their case (RFC 6265).
    case cookie(String)
}

/// The ways to balance that a route may name, and their words in the stack file.
///
/// A word is read strictly: blanks and other letter cases are not accepted. Anything else is nil.
public enum BalanceMethod: Sendable, Equatable, RawRepresentable {
    case roundRobin
    case weighted
    /// Chooses by the fewest requests under way. Weights count here too, so `weighted-least-connections` is read as this.
    case leastConnections
    case twoChoices
    /// Hashes the client's network, as nginx's `ip_hash` does (`ClientAddressKey`).
    case ipHash
    case hash(HashSource)

    /// The method that hashes the trace id: `hash(trace)`.
    public static var hashTrace: BalanceMethod { .hash(.trace) }

    /// The longest name of a header or a cookie: names have 1 to 64 bytes. RFC 9110 sets no limit; this one is ours, and no known header
    /// comes near it.
    public static let longestName = 64

    /// Reads a word of the stack file. Header names become lower case.
    public init?(rawValue: String) {
        switch rawValue {
        case "round-robin": self = .roundRobin
        case "weighted": self = .weighted
        case "least-connections", "weighted-least-connections": self = .leastConnections
        case "two-choices": self = .twoChoices
        case "ip-hash": self = .ipHash
        case "hash(trace)": self = .hash(.trace)
        case "hash(path)": self = .hash(.path)
        case "hash(client-ip)": self = .hash(.clientAddress)
        default:
            if let name = BalanceMethod.name(in: rawValue, after: "hash(header:") {
                self = .hash(.header(name.lowercased()))
            } else if let name = BalanceMethod.name(in: rawValue, after: "hash(cookie:") {
                self = .hash(.cookie(name))
            } else {
                return nil
            }
        }
    }

    /// The word for the method. Reading it gives an equal method. It may allocate: for records and pages, not for each request.
    public var rawValue: String {
        switch self {
        case .roundRobin: "round-robin"
        case .weighted: "weighted"
        case .leastConnections: "least-connections"
        case .twoChoices: "two-choices"
        case .ipHash: "ip-hash"
        case .hash(.trace): "hash(trace)"
        case .hash(.path): "hash(path)"
        case .hash(.clientAddress): "hash(client-ip)"
        case .hash(.header(let name)): "hash(header:\(name))"
        case .hash(.cookie(let name)): "hash(cookie:\(name))"
        }
    }

    /// Compares the cases. The standard library's `==` for `RawRepresentable` would make two words of them first.
    public static func == (a: BalanceMethod, b: BalanceMethod) -> Bool {
        switch (a, b) {
        case (.roundRobin, .roundRobin), (.weighted, .weighted), (.leastConnections, .leastConnections), (.twoChoices, .twoChoices),
            (.ipHash, .ipHash):
            true
        case (.hash(let one), .hash(let other)): one == other
        default: false
        }
    }

    /// Whether a weight of 0 keeps a candidate from being chosen. In turn is in turn, whatever the weights.
    var heedsWeight: Bool { self != .roundRobin }

    private static func name(in text: String, after opening: String) -> String? {
        guard text.hasPrefix(opening), text.utf8.last == UInt8(ascii: ")") else { return nil }
        let name = text.utf8.dropFirst(opening.utf8.count).dropLast()
        guard (1...longestName).contains(name.count), name.allSatisfy(isToken) else { return nil }
        return String(name)
    }

    /// RFC 9110, section 5.6.2: tchar.
    private static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: "!"), UInt8(ascii: "#"), UInt8(ascii: "$"), UInt8(ascii: "%"), UInt8(ascii: "&"), UInt8(ascii: "'"),
            UInt8(ascii: "*"), UInt8(ascii: "+"):
            true
        case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "^"), UInt8(ascii: "_"), UInt8(ascii: "`"), UInt8(ascii: "|"),
            UInt8(ascii: "~"):
            true
        default: false
        }
    }
}
