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
    /// More names than this at once are refused rather than queued without a bound.
    public static let capacity = 1024

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    private struct Known {
        var addresses: [SocketAddress] = []
        var until = MonotonicTime(nanoseconds: 0)
        var waiting: [@Sendable (Result<[SocketAddress], Failure>) -> Void] = []
    }

    private let state = Mutex<[String: Known]>([:])
    public static let shared = Resolver()

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
            if state.count >= Resolver.capacity, state[host] == nil { return .refuse }
            var known = state[host] ?? Known()
            defer { state[host] = known }
            if known.until > .now { return .answer(known.addresses) }
            known.waiting.append(deliver)
            return known.waiting.count == 1 ? .ask : .wait
        }
        switch next {
        case .answer(let addresses): deliver(.success(addresses))
        case .refuse: deliver(.failure(Failure(description: "\(host): more than \(Resolver.capacity) names are in use")))
        case .wait: break
        case .ask: ask(host)
        }
    }

    private func ask(_ host: String) {
        let context = Unmanaged.passRetained(Question(host: host, resolver: self))
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { raw in
                let question = Unmanaged<Question>.fromOpaque(raw!).takeRetainedValue()
                question.resolver.answer(question.host, Resolver.lookUp(question.host))
                return nil
            }, context.toOpaque())
        if result == 0 {
            pthread_detach(thread)
        } else {
            context.release()
            answer(host, .failure(Failure(description: "\(host): no thread for the resolver: \(errorText(result))")))
        }
    }

    private func answer(_ host: String, _ result: Result<[SocketAddress], Failure>) {
        let (waiting, outcome) = state.withLock { state in
            var known = state[host]!
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
        guard code == 0 else { return .failure(Failure(description: "\(host): \(String(cString: gai_strerror(code)))")) }
        defer { freeaddrinfo(list) }
        var out: [SocketAddress] = []
        var entry = list
        while let current = entry {
            var storage = sockaddr_storage()
            memcpy(&storage, current.pointee.ai_addr, Int(current.pointee.ai_addrlen))
            if let address = SocketAddress(storage), !out.contains(address) { out.append(address) }
            entry = current.pointee.ai_next
        }
        return out.isEmpty ? .failure(Failure(description: "\(host): no address")) : .success(out)
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
