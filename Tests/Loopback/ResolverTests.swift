import Basics
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import EventLoops

/// The table of names has its bound, and a place for each new name.
@Suite struct ResolverTests {
    private func ask(_ resolver: Resolver, _ name: String, on loop: EventLoop) async -> Result<[SocketAddress], Resolver.Failure> {
        await withUnsafeContinuation { continuation in resolver.resolve(name, port: 80, on: loop) { continuation.resume(returning: $0) } }
    }

    @Test func oldNamesMakeRoomForNewOnes() async throws {
        let asked = Mutex<[String]>([])
        let resolver = Resolver { name in
            asked.withLock { $0.append(name) }
            return .success([.loopback(port: 0)])
        }
        try await withLoop { loop in
            for i in 0..<Resolver.capacity + 200 {
                let result = await ask(resolver, "pod-\(i)", on: loop)
                #expect((try? result.get()) == [.loopback(port: 80)])
                // One is in use all the time.
                if i % 100 == 0 { _ = await ask(resolver, "kept", on: loop) }
            }
            #expect(resolver.count == Resolver.capacity)
            let before = asked.withLock { $0.count }
            _ = await ask(resolver, "pod-\(Resolver.capacity + 199)", on: loop)
            #expect(asked.withLock { $0.count } == before)
            // Asked for again only because what was found has grown old, never because it was forgotten.
            #expect(asked.withLock { all in all.count { $0 == "kept" } } <= 4)
        }
    }

    /// What this process lacks is not the name's fault.
    @Test func wantsAreToldApart() async throws {
        try await withLoop { loop in
            let poor = Resolver { Resolver.lookUpFails($0, isOwnWant: true) },
                unknown = Resolver { Resolver.lookUpFails($0, isOwnWant: false) }
            for (resolver, isOwnWant) in [(poor, true), (unknown, false)] {
                guard case .failure(let failure) = await ask(resolver, "a", on: loop) else {
                    Issue.record("an address out of nothing")
                    continue
                }
                #expect(failure.isOwnWant == isOwnWant)
            }
        }
    }

    /// A name server that says nothing takes nobody's address away: the last one goes on being used, for those who wait as for those who come.
    @Test func theLastAddressIsUsedWhileTheQuestionIsOut() async throws {
        let isSilent = Atomic<Bool>(false), asked = Atomic<Int>(0), second = Atomic<Bool>(false)
        let resolver = Resolver(memory: .milliseconds(50)) { _ in
            asked.add(1, ordering: .relaxed)
            while isSilent.load(ordering: .relaxed) { usleep(5_000) }
            return .success([.ipv4(second.load(ordering: .relaxed) ? 0x7F00_0002 : 0x7F00_0001, port: 0)])
        }
        let old = SocketAddress.ipv4(0x7F00_0001, port: 80), new = SocketAddress.ipv4(0x7F00_0002, port: 80)
        try await withLoop { loop in
            func address() async throws -> SocketAddress? { try await ask(resolver, "a", on: loop).get().first }
            #expect(try await address() == old)
            isSilent.store(true, ordering: .relaxed)
            second.store(true, ordering: .relaxed)
            try await Task.sleep(for: .milliseconds(80))
            async let waited = [address(), address(), address()]
            #expect(try await waited == [old, old, old])
            // From now on nobody waits, and nobody asks a second time.
            for _ in 0..<5 { #expect(try await address() == old) }
            #expect(asked.load(ordering: .relaxed) == 2)
            isSilent.store(false, ordering: .relaxed)
            let isFound = try await eventually { try await address() == new }
            #expect(isFound)
        }
    }

    /// A name of which nothing is known has no address to go on with: who asks waits for the answer.
    @Test func theFirstAnswerIsWaitedFor() async throws {
        let resolver = Resolver { _ in
            usleep(400_000)
            return .success([.loopback(port: 0)])
        }
        try await withLoop { loop in
            let found = try await ask(resolver, "a", on: loop).get()
            #expect(found == [.loopback(port: 80)])
        }
    }
}

extension Resolver {
    fileprivate static func lookUpFails(_ name: String, isOwnWant: Bool) -> Result<[SocketAddress], Failure> {
        .failure(Failure("\(name): nothing", isOwnWant: isOwnWant))
    }
}
