import Basics
import Glibc
import Synchronization

/// Turns names into addresses on a thread of its own (the C library's resolver blocks).
///
/// An answer is kept for `memory` and then asked for again, so that a service that moved is found. While the resolver fails, or says
/// nothing for `patience`, the last good answer goes on being used; a failure is told only if there never was a good answer.
public final class Resolver: Sendable {
    /// The C library hides the records' TTL; 5 s is short enough for a container that moved and long enough
    /// that a busy gateway asks rarely.
    public static let memory = Duration.seconds(5)
    /// How long a name server that has answered before is waited for until its last answer is used again: far longer than one takes that is
    /// well (in the same network a few milliseconds), and far shorter than what connections have to be made.
    public static let patience = Duration.milliseconds(100)
    /// Most names that are remembered. For one more, the name that nobody has asked for the longest is forgotten; only while all of them
    /// are being asked for at this moment is a further one refused.
    public static let capacity = 1024

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
        /// Whether this process lacked something (a thread, memory, descriptors): then the failure says nothing about the name.
        public let isOwnWant: Bool
        /// Whether nobody has answered what the name stands for: then nothing is known of who has the name. False when the answer is that
        /// there is no such name, or no address of it.
        public let isUnanswered: Bool
        init(_ description: String, isOwnWant: Bool = false, isUnanswered: Bool = false) {
            self.description = description
            self.isOwnWant = isOwnWant
            self.isUnanswered = isUnanswered
        }
    }

    private typealias Waiter = @Sendable (Result<[SocketAddress], Failure>) -> Void
    typealias LookUp = @Sendable (String) -> Result<[SocketAddress], Failure>

    private struct Known {
        var addresses: [SocketAddress] = []
        var until = MonotonicTime(nanoseconds: 0)
        /// When somebody last asked for the name here.
        var used = MonotonicTime(nanoseconds: 0)
        /// When the question that is out was asked; nil: none is out.
        var asked: MonotonicTime?
        var waiting: [Waiter] = []
    }

    private let state = Mutex<[String: Known]>([:])
    /// How a name is looked up, which may block. Tests put another way here.
    let lookUp: Mutex<LookUp>
    private let memory: Duration
    public static let shared = Resolver()

    private init() {
        lookUp = Mutex(Resolver.lookUp)
        memory = Resolver.memory
    }

    /// A resolver with another way to look a name up, which may block: for tests.
    init(memory: Duration = Resolver.memory, lookUp: @escaping LookUp) {
        self.lookUp = Mutex(lookUp)
        self.memory = memory
    }

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
        enum Next { case answer([SocketAddress]), ask(hasOld: Bool), wait(hasOld: Bool), refuse }
        let next: Next = state.withLock { state in
            let now = MonotonicTime.now
            if state.count >= Resolver.capacity, state[host] == nil, !Resolver.forgetOne(&state) { return .refuse }
            var known = state[host] ?? Known()
            defer { state[host] = known }
            known.used = now
            if known.until > now { return .answer(known.addresses) }
            let hasOld = !known.addresses.isEmpty
            if hasOld, let asked = known.asked, now - asked >= Resolver.patience { return .answer(known.addresses) }
            known.waiting.append(deliver)
            if known.asked != nil { return .wait(hasOld: hasOld) }
            known.asked = now
            return .ask(hasOld: hasOld)
        }
        switch next {
        case .answer(let addresses): deliver(.success(addresses))
        case .refuse:
            deliver(.failure(Failure("\(host): more than \(Resolver.capacity) names are being asked for at once", isOwnWant: true)))
        case .wait(let hasOld): if hasOld { useOldSoon(host, loop) }
        case .ask(let hasOld):
            ask(host)
            if hasOld { useOldSoon(host, loop) }
        }
    }

    private final class Patience { var timer: LoopTimer? }

    /// Gives those who wait the last good answer, unless a new one comes within `patience`.
    private func useOldSoon(_ host: String, _ loop: EventLoop) {
        loop.execute { [self] in
            let patience = Patience()
            patience.timer = LoopTimer(loop: loop) { [self] in
                patience.timer = nil
                useOld(host)
            }
            patience.timer?.schedule(after: Resolver.patience)
        }
    }

    private func useOld(_ host: String) {
        let (waiting, addresses): ([Waiter], [SocketAddress]) = state.withLock { state in
            guard var known = state[host], known.asked != nil, !known.addresses.isEmpty else { return ([], []) }
            defer { state[host] = known }
            let waiting = known.waiting
            known.waiting = []
            return (waiting, known.addresses)
        }
        for deliver in waiting { deliver(.success(addresses)) }
    }

    /// Makes room for a name; false when each of the remembered names is being asked for.
    private static func forgetOne(_ state: inout [String: Known]) -> Bool {
        guard let oldest = state.lazy.filter({ $0.value.asked == nil }).min(by: { $0.value.used < $1.value.used })?.key else {
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
                let lookUp = question.resolver.lookUp.withLock { $0 }
                question.resolver.answer(question.host, lookUp(question.host))
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
            // There as long as it is being asked for.
            var known = state[host] ?? Known()
            let waiting = known.waiting
            known.waiting = []
            known.asked = nil
            var outcome = result
            switch result {
            case .success(let addresses):
                known.addresses = addresses
                known.until = .now + memory
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

    /// `EAI_NODATA`, which the C library's header keeps from all but its own kind: the name is there, and has no address.
    private static let noData: Int32 = -5

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
            let isAnswered = code == EAI_NONAME || code == Resolver.noData
            return .failure(Failure("\(host): \(why)", isOwnWant: isOwnWant, isUnanswered: !isAnswered))
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
