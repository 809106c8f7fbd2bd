/// What a client was told after a write, so that it reads that write afterwards: `1.<store>.<timeline>.<position>`, the position in
/// hexadecimal. Tokens of several stores are joined by `~`, and go around as a header or a cookie: what comes back may be forged.
public struct ConsistencyToken: Hashable, Sendable, CustomStringConvertible {
    /// A store's name has at most so many bytes: small letters, digits, `-` and `_`.
    public static let longestStore = 63
    /// A header or cookie has at most so many bytes, and so many tokens are read of it.
    public static let longestText = 1024
    public static let mostTokens = 16

    public let store: String
    public let timeline: UInt32
    public let position: LogPosition

    /// Nil: the store's name cannot stand in a token, or the timeline is 0.
    public init?(store: String, timeline: UInt32, position: LogPosition) {
        let isName =
            (1...ConsistencyToken.longestStore).contains(store.utf8.count)
            && store.utf8.allSatisfy { $0 &- 97 < 26 || $0 &- 48 < 10 || $0 == 45 || $0 == 95 }
        guard isName, timeline > 0 else { return nil }
        self.store = store
        self.timeline = timeline
        self.position = position
    }

    /// One token; nil: it is none.
    public init?(text: some StringProtocol) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4, parts[0] == "1", (1...10).contains(parts[2].utf8.count), parts[2].utf8.allSatisfy({ $0 &- 48 < 10 }),
            let timeline = UInt32(parts[2]), let bytes = LogPosition.hex(parts[3], digits: 16)
        else { return nil }
        self.init(store: String(parts[1]), timeline: timeline, position: LogPosition(bytes))
    }

    public var description: String { "1.\(store).\(timeline).\(String(position.bytes, radix: 16))" }

    /// The later of two tokens of a store: the newer timeline, then the larger position.
    func isAfter(_ other: ConsistencyToken) -> Bool { (timeline, position) > (other.timeline, other.position) }
}

/// The tokens of one client, one for each store.
public struct ConsistencyTokens: Equatable, Sendable, CustomStringConvertible {
    /// By store.
    private var tokens: [String: ConsistencyToken] = [:]
    /// Parts of the text that were no tokens, or too many.
    public private(set) var refused = 0

    public init() {}

    /// Reads tokens joined by `~`. What is no token is left out and counted; a text that is too long is left out whole.
    public init(text: some StringProtocol) {
        guard text.utf8.count <= ConsistencyToken.longestText else {
            refused = 1
            return
        }
        if text.isEmpty { return }
        for (index, part) in text.split(separator: "~", omittingEmptySubsequences: false).enumerated() {
            guard index < ConsistencyToken.mostTokens, let token = ConsistencyToken(text: part) else {
                refused += 1
                continue
            }
            note(token)
        }
    }

    /// Adds a token; the largest of a store stays. A client that has as many stores as a text may have gets no further one.
    public mutating func note(_ token: ConsistencyToken) {
        if let known = tokens[token.store] {
            if token.isAfter(known) { tokens[token.store] = token }
        } else if tokens.count < ConsistencyToken.mostTokens {
            tokens[token.store] = token
        } else {
            refused += 1
        }
    }

    public mutating func drop(_ store: String) { tokens[store] = nil }
    public subscript(_ store: String) -> ConsistencyToken? { tokens[store] }
    public var isEmpty: Bool { tokens.isEmpty }

    /// In the order of the stores' names, joined by `~`.
    public var description: String { tokens.values.map(\.description).sorted().joined(separator: "~") }
}

/// Where a store's primary is in its log, and where its earlier timelines ended.
public struct TimelinePlace: Sendable, Equatable {
    public let timeline: UInt32
    /// What the primary has flushed: `pg_current_wal_flush_lsn()`. An unflushed hint bit behind a commit makes
    /// `pg_current_wal_insert_lsn` wait for seconds on an idle primary.
    public let flushed: LogPosition
    /// The timelines before this one, and where each ended: `<timeline>.history`.
    public let forks: [UInt32: LogPosition]

    public init(timeline: UInt32, flushed: LogPosition, forks: [UInt32: LogPosition] = [:]) {
        self.timeline = timeline
        self.flushed = flushed
        self.forks = forks
    }

    /// What a token asks of a read.
    public enum Floor: Sendable, Equatable {
        /// A replica that has replayed up to there will do.
        case replayed(LogPosition)
        /// The primary, and the token is dropped, for this reason.
        case primaryAndDropped(String)
        /// The token is dropped and counted, for this reason, and asks for nothing.
        case invalid(String)
        /// The primary; the token stays.
        case primary(String)
    }

    /// A token's place is compared with what is known of the log; whoever forged it gets no more than a read of the primary.
    public func floor(of token: ConsistencyToken) -> Floor {
        if token.timeline == timeline {
            return token.position <= flushed
                ? .replayed(token.position) : .invalid("it is \(token.position), and the primary is at \(flushed)")
        }
        // A failover that is not known here yet: the primary that is found there decides.
        if token.timeline > timeline { return .primary("its timeline \(token.timeline) is newer than \(timeline), which is known here") }
        guard let fork = forks[token.timeline] else {
            return .primaryAndDropped(
                "its timeline \(token.timeline) is not one that timeline \(timeline) came from: the write may be lost")
        }
        return token.position <= fork
            ? .replayed(token.position)
            : .primaryAndDropped("timeline \(token.timeline) ended at \(fork), before \(token.position): the write may be lost")
    }
}
