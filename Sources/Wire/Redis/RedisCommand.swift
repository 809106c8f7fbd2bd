import Basics
import COpenSSL

/// A command ready to be sent: its arguments in RESP.
public struct RedisCommand: Sendable {
    public let name: String
    private(set) var count: Int
    private(set) var body: [UInt8]

    public init(_ name: String, _ arguments: String...) {
        self.name = name
        count = 0
        body = []
        body.reserveCapacity(64)
        for part in name.split(separator: " ") { add(String(part)) }
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
        body.append(contentsOf: String(bytes.count).utf8)
        body.append(13)
        body.append(10)
        body.append(contentsOf: bytes)
        body.append(13)
        body.append(10)
    }

    /// `*<count>`, which goes before the body.
    var prefix: [UInt8] { Array("*\(count)\r\n".utf8) }
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
    public func call(keys: [String]) -> RedisCommand { command("EVALSHA", digest, keys) }

    /// The same call with the text in place of the digest.
    func withSource(_ command: RedisCommand) -> RedisCommand {
        // Both forms differ in their first two arguments only.
        let skip = argumentLength("EVALSHA") + argumentLength(digest)
        var full = RedisCommand("EVAL")
        full.add(source)
        full.append(rest: command.body.dropFirst(skip), count: command.count - 2)
        return full
    }

    private func command(_ verb: String, _ first: String, _ keys: [String]) -> RedisCommand {
        var command = RedisCommand(verb)
        command.add(first)
        command.add(keys.count)
        for key in keys { command.add(key) }
        return command
    }

    private func argumentLength(_ text: String) -> Int { text.utf8.count + String(text.utf8.count).utf8.count + 5 }
}

extension RedisCommand {
    mutating func append(rest: ArraySlice<UInt8>, count more: Int) {
        body.append(contentsOf: rest)
        count += more
    }
}
