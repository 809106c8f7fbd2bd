import Basics
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
}

extension Resolver {
    fileprivate static func lookUpFails(_ name: String, isOwnWant: Bool) -> Result<[SocketAddress], Failure> {
        .failure(Failure("\(name): nothing", isOwnWant: isOwnWant))
    }
}
