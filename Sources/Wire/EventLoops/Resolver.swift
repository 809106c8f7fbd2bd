import Basics
import Glibc
import Synchronization

/// Turns names into addresses on a thread of its own (the C library's resolver blocks).
///
/// An answer is kept for `memory` and then asked for again, so that a service that moved is found; while the
/// resolver fails, the last good answer goes on being used, and the failure is told only if there never was one.
public final class Resolver: Sendable {
    /// The C library hides the records' TTL; 5 s is short enough for a container that moved and long enough
    /// that a busy gateway asks rarely.
    public static let memory = Duration.seconds(5)
    /// Most names that are remembered. For one more, the name that nobody has asked for the longest is forgotten; only while all of them
    /// are being asked for at this moment is a further one refused.
    public static let capacity = 1024

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
        /// Whether this process lacked something (a thread, memory, descriptors): then the failure says nothing about the name.
        public let isOwnWant: Bool
        init(_ description: String, isOwnWant: Bool = false) {
            self.description = description
            self.isOwnWant = isOwnWant
        }
    }

    private struct Known {
        var addresses: [SocketAddress] = []
        var until = MonotonicTime(nanoseconds: 0)
        /// When somebody last asked for the name here.
        var used = MonotonicTime(nanoseconds: 0)
        var waiting: [@Sendable (Result<[SocketAddress], Failure>) -> Void] = []
    }

    private let state = Mutex<[String: Known]>([:])
    private let lookUp: @Sendable (String) -> Result<[SocketAddress], Failure>
    public static let shared = Resolver()

    private init() { lookUp = Resolver.lookUp }

    /// A resolver with another way to look a name up, which may block: for tests.
    init(lookUp: @escaping @Sendable (String) -> Result<[SocketAddress], Failure>) { self.lookUp = lookUp }

    /// How many names are remembered.
    var count: Int { state.withLock { $0.count } }

    /// Calls `done` on `loop` with at least one address, all with `port`.
    public func resolve(
        _ host: String, port: UInt16, on loop: EventLoop,
        _ done: @escaping @Sendable (Result<[SocketAddress], Failure>) -> Void
    ) {
        let deliver: @Sendable (Result<[SocketAddress], Failure>) -> Void = { result in
            loop.execute { done(result.map { $0.map { $0.with(port: port) } }) }
        }
        enum Next { case answer([SocketAddress]), ask, wait, refuse }
        let next: Next = state.withLock { state in
            let now = MonotonicTime.now
            if state.count >= Resolver.capacity, state[host] == nil, !Resolver.forgetOne(&state) { return .refuse }
            var known = state[host] ?? Known()
            defer { state[host] = known }
            known.used = now
            if known.until > now { return .answer(known.addresses) }
            known.waiting.append(deliver)
            return known.waiting.count == 1 ? .ask : .wait
        }
        switch next {
        case .answer(let addresses): deliver(.success(addresses))
        case .refuse:
            deliver(.failure(Failure("\(host): more than \(Resolver.capacity) names are being asked for at once", isOwnWant: true)))
        case .wait: break
        case .ask: ask(host)
        }
    }

    /// Makes room for a name; false when each of the remembered names is waited for.
    private static func forgetOne(_ state: inout [String: Known]) -> Bool {
        guard let oldest = state.lazy.filter({ $0.value.waiting.isEmpty }).min(by: { $0.value.used < $1.value.used })?.key else {
            return false
        }
        state[oldest] = nil
        return true
    }

    private func ask(_ host: String) {
        let context = Unmanaged.passRetained(Question(host: host, resolver: self))
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { raw in
                let question = Unmanaged<Question>.fromOpaque(raw!).takeRetainedValue()
                question.resolver.answer(question.host, question.resolver.lookUp(question.host))
                return nil
            }, context.toOpaque())
        if result == 0 {
            pthread_detach(thread)
        } else {
            context.release()
            answer(host, .failure(Failure("\(host): no thread for the resolver: \(errorText(result))", isOwnWant: true)))
        }
    }

    private func answer(_ host: String, _ result: Result<[SocketAddress], Failure>) {
        let (waiting, outcome) = state.withLock { state in
            // There as long as somebody waits for it.
            var known = state[host] ?? Known()
            let waiting = known.waiting
            known.waiting = []
            var outcome = result
            switch result {
            case .success(let addresses):
                known.addresses = addresses
                known.until = .now + Resolver.memory
            case .failure where !known.addresses.isEmpty:
                outcome = .success(known.addresses)
                known.until = .now + .seconds(1)
            case .failure:
                break
            }
            state[host] = known.addresses.isEmpty ? nil : known
            return (waiting, outcome)
        }
        for deliver in waiting { deliver(outcome) }
    }

    private static func lookUp(_ host: String) -> Result<[SocketAddress], Failure> {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_ADDRCONFIG
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(host, nil, &hints, &list)
        let want = errno
        guard code == 0 else {
            let isOwnWant = code == EAI_MEMORY || code == EAI_SYSTEM && SystemError("getaddrinfo", want).isOwnWant
            let why = code == EAI_SYSTEM ? errorText(want) : String(cString: gai_strerror(code))
            return .failure(Failure("\(host): \(why)", isOwnWant: isOwnWant))
        }
        defer { freeaddrinfo(list) }
        var out: [SocketAddress] = []
        var entry = list
        while let current = entry {
            var storage = sockaddr_storage()
            memcpy(&storage, current.pointee.ai_addr, Int(current.pointee.ai_addrlen))
            if let address = SocketAddress(storage), !out.contains(address) { out.append(address) }
            entry = current.pointee.ai_next
        }
        return out.isEmpty ? .failure(Failure("\(host): no address")) : .success(out)
    }

    private final class Question {
        let host: String
        let resolver: Resolver
        init(host: String, resolver: Resolver) {
            self.host = host
            self.resolver = resolver
        }
    }
}

extension SocketAddress {
    func with(port: UInt16) -> SocketAddress {
        switch self {
        case .ipv4(let value, _): .ipv4(value, port: port)
        case .ipv6(let high, let low, _): .ipv6(high, low, port: port)
        case .unix: self
        }
    }
}
