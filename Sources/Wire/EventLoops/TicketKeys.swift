import Basics
import COpenSSL
import CTLS
import Glibc
import Synchronization

/// The keys that seal session tickets: one seals, the two before it still open. All loops and all servers of a process share them.
///
/// A ticket is all that is kept of a session, and whoever has the key can read what the ticket's connection was encrypted with (TLS 1.2) or
/// resume it. So a key lives for three times `rotation` at most, is wiped when it goes, and stands in no message, log or variable.
/// Time comes in as `now`.
public final class TicketKeys: Sendable {
    /// nginx's and RFC 5077's form: a name by which a ticket says which key sealed it, and the two keys.
    static let nameLength = 16
    static let cipherLength = 32
    static let macLength = 32
    static let keyLength = nameLength + cipherLength + macLength
    /// Keys that are known at once.
    static let most = 3
    /// How long tickets are sealed with one key.
    public static let defaultRotation = Duration.seconds(12 * 3600)
    private static let heading = "muster ticket keys 1"

    public let rotation: Duration
    private let state: Mutex<State>

    private struct State: Sendable {
        /// The newest first.
        var keys: [Key]
        var since: MonotonicTime
    }

    /// One key. Its bytes are wiped when nobody uses it any more.
    private final class Key: Sendable {
        private let bytes: TLSAddress

        init(_ given: UnsafeRawBufferPointer) {
            let memory = UnsafeMutableRawPointer.allocate(byteCount: TicketKeys.keyLength, alignment: 16)
            memory.copyMemory(from: given.baseAddress!, byteCount: TicketKeys.keyLength)
            bytes = TLSAddress(OpaquePointer(memory))
        }

        deinit {
            let memory = UnsafeMutableRawPointer(bytes.pointer)
            OPENSSL_cleanse(memory, TicketKeys.keyLength)
            memory.deallocate()
        }

        var name: UnsafeRawBufferPointer { all.part(0, TicketKeys.nameLength) }
        var cipher: UnsafeRawPointer { all.baseAddress! + TicketKeys.nameLength }
        var mac: UnsafeRawPointer { all.baseAddress! + TicketKeys.nameLength + TicketKeys.cipherLength }
        var all: UnsafeRawBufferPointer {
            UnsafeRawBufferPointer(start: UnsafeRawPointer(bytes.pointer), count: TicketKeys.keyLength)
        }

        static func random() -> Key {
            withUnsafeTemporaryAllocation(byteCount: TicketKeys.keyLength, alignment: 16) { buffer in
                // Without random bytes no connection could be made either.
                precondition(RAND_bytes(buffer.bindMemory(to: UInt8.self).baseAddress, Int32(buffer.count)) == 1, "no random bytes")
                defer { OPENSSL_cleanse(buffer.baseAddress, buffer.count) }
                return Key(UnsafeRawBufferPointer(buffer))
            }
        }
    }

    /// Makes a first key.
    public init(rotation: Duration = TicketKeys.defaultRotation, now: MonotonicTime = .now) {
        self.rotation = rotation
        state = Mutex(State(keys: [.random()], since: now))
    }

    /// Makes a new key when the time of the one that seals is over. Returns whether it did.
    @discardableResult
    public func timePassed(_ now: MonotonicTime) -> Bool {
        state.withLock { state in
            guard now - state.since >= rotation else { return false }
            state.keys = Array(([.random()] + state.keys).prefix(TicketKeys.most))
            state.since = now
            return true
        }
    }

    /// How old the key is that seals.
    public func age(_ now: MonotonicTime) -> Duration { state.withLock { now - $0.since } }

    // MARK: passing them on

    /// The keys as text, for a file that only its owner can read, or a successor's descriptor.
    public func text() -> [UInt8] {
        let keys = state.withLock { $0.keys }
        var out = Array((TicketKeys.heading + "\n").utf8)
        for key in keys { out += Array(hexText(key.all).utf8) + [10] }
        return out
    }

    /// Takes keys that `text` wrote, the newest first, in place of those that are there. `age`: for how long the newest has been sealing.
    /// False: the text is none of ours, and nothing has changed.
    public func take(_ text: [UInt8], age: Duration, now: MonotonicTime) -> Bool {
        let lines = text.split(separator: 10)
        guard let first = lines.first, first.elementsEqual(TicketKeys.heading.utf8), (2...TicketKeys.most + 1).contains(lines.count) else {
            return false
        }
        var keys: [Key] = []
        for line in lines.dropFirst() {
            guard var bytes = Array(line).withUnsafeBytes({ decodeHex($0) }), bytes.count == TicketKeys.keyLength else { return false }
            keys.append(bytes.withUnsafeBytes { Key($0) })
            bytes.withUnsafeMutableBytes { OPENSSL_cleanse($0.baseAddress, $0.count) }
        }
        let taken = keys
        state.withLock { $0 = State(keys: taken, since: now + (.zero - max(.zero, min(age, rotation)))) }
        return true
    }

    // MARK: what OpenSSL asks

    /// Prepares for sealing: gives the key's name and a new vector.
    func seal(_ name: UnsafeMutablePointer<UInt8>, _ vector: UnsafeMutablePointer<UInt8>, _ cipher: OpaquePointer?, _ mac: OpaquePointer?)
        -> Bool
    {
        guard let key = state.withLock({ $0.keys.first }), RAND_bytes(vector, 16) == 1 else { return false }
        UnsafeMutableRawPointer(name).copyMemory(from: key.name.baseAddress!, byteCount: TicketKeys.nameLength)
        return withExtendedLifetime(key) { muster_ticket_start(cipher, mac, key.cipher, key.mac, vector, 1) == 1 }
    }

    enum Opening { case unknownKey, current, old, failed }

    /// Prepares for opening a ticket that says which key sealed it.
    func open(_ name: UnsafePointer<UInt8>, _ vector: UnsafePointer<UInt8>, _ cipher: OpaquePointer?, _ mac: OpaquePointer?) -> Opening {
        let wanted = UnsafeRawBufferPointer(start: name, count: TicketKeys.nameLength)
        let keys = state.withLock { $0.keys }
        guard let place = keys.firstIndex(where: { $0.name.elementsEqual(wanted) }) else { return .unknownKey }
        let key = keys[place]
        let isReady = withExtendedLifetime(key) { muster_ticket_start(cipher, mac, key.cipher, key.mac, vector, 0) == 1 }
        return isReady ? (place == 0 ? .current : .old) : .failed
    }
}
