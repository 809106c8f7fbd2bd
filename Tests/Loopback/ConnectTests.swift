import Basics
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import EventLoops

/// Names with several addresses, of which some do not answer; and timers that are never to fire.
@Suite(.serialized) struct ConnectTests {
    /// A connection to one of several addresses. Tells once where it came to, or why it did not.
    private final class Attempt: Stream {
        private var done: ((Result<SocketAddress, SystemError>) -> Void)?

        func begin(_ addresses: [SocketAddress], within time: Duration?, _ done: @escaping (Result<SocketAddress, SystemError>) -> Void) {
            self.done = done
            connectBy = time.map { loop.now + $0 }
            connect(toOneOf: addresses)
        }

        override func connected() {
            if let peerAddress { done?(.success(peerAddress)) }
            done = nil
            close()
        }

        override func closed(_ reason: CloseReason) {
            if case .system(let error) = reason { done?(.failure(error)) }
            done = nil
        }
    }

    private func connect(_ addresses: [SocketAddress], within time: Duration?) async throws -> Result<SocketAddress, SystemError> {
        try await withLoop { loop in
            await withUnsafeContinuation { continuation in
                loop.execute { Attempt(loop: loop).begin(addresses, within: time) { continuation.resume(returning: $0) } }
            }
        }
    }

    /// An address whose queue is full: it answers no further connection, as if it were switched off.
    private func withSilent(_ body: (SocketAddress) async throws -> Void) async throws {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        defer { close(fd) }
        let place = SocketAddress.ipv4(0x7F00_0007, port: 0)
        #expect(place.withSockaddr { bind(fd, $0, $1) } == 0)
        #expect(listen(fd, 0) == 0)
        var storage = sockaddr_storage(), length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        _ = withUnsafeMutablePointer(to: &storage) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(fd, $0, &length) } }
        let address = try #require(SocketAddress(storage))
        var fillers: [Int32] = []
        defer { for filler in fillers { close(filler) } }
        for _ in 0..<4 {
            let filler = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
            _ = address.withSockaddr { Glibc.connect(filler, $0, $1) }
            fillers.append(filler)
        }
        usleep(100_000)
        try await body(address)
    }

    /// One that is silent has its part of the time, and what is left goes to the others.
    @Test func aSilentAddressIsFollowedByTheNext() async throws {
        try await withRaw({ _, _ in }) { backend in
            let good = SocketAddress.loopback(port: backend.port)
            try await withSilent { silent in
                for (addresses, time, least, most) in [
                    ([silent, good], Duration.seconds(2), Duration.milliseconds(900), Duration.milliseconds(1900)),
                    ([silent, silent, good], .seconds(3), .milliseconds(1900), .milliseconds(2900)),
                    ([silent, good], nil, .milliseconds(1400), .seconds(5)),
                ] as [([SocketAddress], Duration?, Duration, Duration)] {
                    let began = MonotonicTime.now
                    let result = try await connect(addresses, within: time)
                    let took = MonotonicTime.now - began
                    #expect(try result.get() == good && took >= least && took < most, "\(addresses): \(took)")
                }
            }
        }
    }

    /// The last one that fails is named, with why.
    @Test func whenNoneAnswersTheLastIsNamed() async throws {
        let refusing = SocketAddress.ipv4(0x7F00_0001, port: TestPorts.server())
        try await withSilent { silent in
            let result = try await connect([silent, refusing], within: .seconds(1))
            guard case .failure(let error) = result else { return #expect(Bool(false), "\(result)") }
            #expect(error.code == ECONNREFUSED && !error.isOwnWant)
        }
    }

    /// Times that are far off do not pile up: neither those of timers that are gone, nor those that were made earlier since.
    @Test func theHeapOfTimersHoldsWhatIsInUse() async throws {
        try await withLoop { loop in
            let counts = try await loop.run {
                for _ in 0..<10_000 {
                    let timer = LoopTimer(loop: loop) {}
                    timer.schedule(after: .seconds(9_998))
                    timer.cancel()
                }
                let afterGone = loop.timerCount
                let kept = (0..<50).map { _ in LoopTimer(loop: loop) {} }
                for round in 0..<1000 {
                    for timer in kept { timer.schedule(after: .seconds(9_998 - round)) }
                }
                defer { for timer in kept { timer.cancel() } }
                return [afterGone, loop.timerCount]
            }
            #expect(counts.allSatisfy { $0 <= 256 }, "\(counts)")
            // Those that are armed fire, in their order, whatever was taken out around them.
            let fired = Fired()
            try await loop.run {
                let begin = MonotonicTime.now
                for i in (1...400).reversed() {
                    let timer = LoopTimer(loop: loop) { fired.add(i) }
                    timer.schedule(at: begin + .seconds(5_000))
                    timer.schedule(at: begin + .milliseconds(i))
                }
            }
            let areFired = await eventually { fired.all.count == 400 }
            #expect(areFired && fired.all == Array(1...400), "\(fired.all.count)")
        }
    }

    private final class Fired: Sendable {
        private let numbers = Mutex<[Int]>([])
        func add(_ number: Int) { numbers.withLock { $0.append(number) } }
        var all: [Int] { numbers.withLock { $0 } }
    }

    /// An alias is a part of the answer: what it points to may change when it is over.
    @Test func theShortestTimeToLiveIsThatOfAllRecords() async throws {
        for (alias, own, expected) in [(7, 200, 7), (200, 9, 9)] as [(UInt8, UInt8, Int)] {
            let server = try NameServer(["app.test": [.alias(ttl: alias), .a("127.0.0.1")]], ttl: own)
            defer { server.stop() }
            let answer = try await NameQuery.ask("app.test", srv: false, port: 1, server: "127.0.0.1:\(server.port)").get()
            #expect(answer.lifetime == .seconds(expected))
        }
    }
}
