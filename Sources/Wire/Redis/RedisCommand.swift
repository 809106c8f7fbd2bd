import Basics
import COpenSSL

/// A command ready to be sent: its arguments in RESP, and whatever else a client of several servers must know of it.
public struct RedisCommand: Sendable {
    public let name: String
    private(set) var count: Int
    private(set) var body: [UInt8]
    private var extras: Extras?

    /// Properties that are rarely set, kept apart because a command is copied often.
    private struct Extras: Sendable {
        var key: String?
        var isRepeatable: Bool?
        var confirmation: Confirmation?
        var staleness: Duration?
        var isImpatient = false
    }

    /// A write is answered when this many replicas have it (`WAIT`). Replication is asynchronous: without it, what a master acknowledged
    /// just before it died may be lost.
    public struct Confirmation: Sendable, Equatable {
        public let replicas: Int
        public let within: Duration
    }

    public init(_ name: String, _ arguments: String...) {
        self.name = name
        count = 0
        body = []
        body.reserveCapacity(64)
        if name.utf8.contains(32) { for part in name.split(separator: " ") { add(String(part)) } } else { add(name) }
        for argument in arguments { add(argument) }
    }

    public mutating func add(_ argument: String) {
        var argument = argument
        argument.withUTF8 { add(UnsafeRawBufferPointer($0)) }
    }
    public mutating func add(_ argument: Int) { add(String(argument)) }
    public mutating func add(_ argument: [UInt8]) { argument.withUnsafeBytes { add($0) } }

    public mutating func add(_ bytes: UnsafeRawBufferPointer) {
        count += 1
        body.append(36)
        append(decimal: bytes.count)
        body.append(13)
        body.append(10)
        body.append(contentsOf: bytes)
        body.append(13)
        body.append(10)
    }

    private mutating func append(decimal value: Int) {
        if value < 10 {
            body.append(48 + UInt8(value))
        } else {
            append(decimal: value / 10)
            body.append(48 + UInt8(value % 10))
        }
    }

    /// `*<count>`, which goes before the body.
    var prefix: [UInt8] { count < RedisCommand.prefixes.count ? RedisCommand.prefixes[count] : Array("*\(count)\r\n".utf8) }
    private static let prefixes: [[UInt8]] = (0..<64).map { Array("*\($0)\r\n".utf8) }

    // MARK: where it goes, and what becomes of it

    /// The same command, sent to the node that has `key`: for those that name no key, such as INFO.
    public func routed(by key: String) -> RedisCommand { with { $0.key = key } }

    /// The same command, and whether it may be sent a second time although the first may have been carried out. Reads may by themselves.
    public func repeatable(_ isRepeatable: Bool = true) -> RedisCommand { with { $0.isRepeatable = isRepeatable } }

    /// The same write, answered when `replicas` have it. Fewer within that time: `notReplicated`, which is to say that it was carried out
    /// and a failover may undo it.
    public func confirmed(by replicas: Int, within: Duration = .seconds(1)) -> RedisCommand {
        with { $0.confirmation = replicas > 0 ? Confirmation(replicas: replicas, within: within) : nil }
    }

    /// The same read, from a replica if one is known to be at most so far behind its master, else from the master.
    public func fromReplica(atMost staleness: Duration) -> RedisCommand { with { $0.staleness = staleness } }

    /// The same command, which fails at once where its master is away: for work that comes again by itself, and must not hold up other work.
    public func impatient(_ isImpatient: Bool = true) -> RedisCommand { with { $0.isImpatient = isImpatient } }

    private func with(_ change: (inout Extras) -> Void) -> RedisCommand {
        var copy = self
        var extras = self.extras ?? Extras()
        change(&extras)
        copy.extras = extras
        return copy
    }

    var routingKey: String? { extras?.key }
    var confirmation: Confirmation? { extras?.confirmation }
    var staleness: Duration? { extras?.staleness }
    var isImpatient: Bool { extras?.isImpatient ?? false }
    var isRepeatable: Bool { extras?.isRepeatable ?? CommandTable.isRead(self) }

    /// The arguments, the name's words first.
    func forEachArgument(_ body: (Int, Span<UInt8>) -> Bool) {
        let bytes = self.body.span
        var at = 0
        for i in 0..<count {
            at += 1
            var length = 0
            while bytes[at] != 13 {
                length = length * 10 + Int(bytes[at] - 48)
                at += 1
            }
            at += 2
            if !body(i, bytes.extracting(at..<at + length)) { return }
            at += length + 2
        }
    }

    mutating func append(rest: ArraySlice<UInt8>, count more: Int) {
        body.append(contentsOf: rest)
        count += more
    }

    /// The same arguments from the third on behind `verb` and `first`.
    func replacingHead(_ verb: String, _ first: String, skipping bytes: Int) -> RedisCommand {
        var command = RedisCommand(verb)
        command.add(first)
        command.append(rest: body.dropFirst(bytes), count: count - 2)
        command.extras = extras
        return command
    }
}

/// A Lua script, run by its digest; Redis is told the text when it does not know it yet.
public struct RedisScript: Sendable {
    public let source: String
    public let digest: String

    public init(_ source: String) {
        self.source = source
        var hash = [UInt8](repeating: 0, count: 20)
        let bytes = Array(source.utf8)
        _ = SHA1(bytes, bytes.count, &hash)
        digest = hash.withUnsafeBytes { hexText($0) }
    }

    /// `EVALSHA digest n keys…`; append the arguments.
    public func call(keys: [String]) -> RedisCommand {
        var command = RedisCommand("EVALSHA")
        command.add(digest)
        command.add(keys.count)
        for key in keys { command.add(key) }
        return command
    }

    /// The same call with the text in place of the digest.
    func withSource(_ command: RedisCommand) -> RedisCommand {
        // Both forms differ in their first two arguments only.
        command.replacingHead("EVAL", source, skipping: argumentLength("EVALSHA") + argumentLength(digest))
    }

    private func argumentLength(_ text: String) -> Int { text.utf8.count + String(text.utf8.count).utf8.count + 5 }
}
