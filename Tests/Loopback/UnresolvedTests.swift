import Basics
import Gateway
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import EventLoops

/// Whether a replica is well is not known while nobody says where it is: that is on no replica's account.
@Suite(.serialized) struct UnresolvedTests {
    /// What the resolver does with names of these tests; all others are looked up as ever.
    private enum Way: Sendable { case silent, unanswered, unknown }
    private static let over = Atomic<Bool>(false)

    private func withNames(_ way: Way, _ body: () async throws -> Void) async throws {
        Self.over.store(false, ordering: .relaxed)
        let before = Resolver.shared.lookUp.withLock { $0 }
        Resolver.shared.lookUp.withLock {
            $0 = { name in
                guard name.hasSuffix(".unresolved.test") else { return before(name) }
                while way == .silent, !Self.over.load(ordering: .relaxed) { usleep(10_000) }
                return .failure(Resolver.Failure("\(name): no answer", isUnanswered: way != .unknown))
            }
        }
        let result: Result<Void, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        Self.over.store(true, ordering: .relaxed)
        Resolver.shared.lookUp.withLock { $0 = before }
        try result.get()
    }

    private func route(_ way: Way, _ more: String) -> String {
        "{ path: /, timeout: { connect: 200ms }, retry: { attempts: 1 }, eject: { failures: 1 }, breaker: { failures: 1 }, \(more), "
            + "backends: [\(way).unresolved.test:80] }"
    }

    @Test func aNameThatIsNotResolvedIsOnNobodysAccount() async throws {
        for (way, status) in [(Way.silent, 504), (.unanswered, 502)] {
            try await withNames(way) {
                try await withLive(route(way, "balance: round-robin")) { gateway in
                    let statuses = try await gateway.statuses(4)
                    #expect(statuses == [status, status, status, status], "\(way)")
                    #expect(gateway.states == ["ready"] && gateway.records(.eject).isEmpty && gateway.records(.breaker).isEmpty, "\(way)")
                    #expect(gateway.inFlight == 0)
                }
            }
        }
    }

    /// An answer that there is no such name is an answer: nobody is there.
    @Test func aNameThatIsNotThereIsTheReplicas() async throws {
        try await withNames(.unknown) {
            try await withLive(route(.unknown, "balance: round-robin")) { gateway in
                _ = try await gateway.send()
                #expect(gateway.records(.breaker).count == 1)
            }
        }
    }

    @Test func aProbeThatCannotAskDoesNotCount() async throws {
        for way in [Way.silent, .unanswered] {
            for path in ["path: /health, ", ""] {
                try await withNames(way) {
                    let probe = "probe: { \(path)interval: 20ms, timeout: 100ms, fall: 1 }"
                    try await withLive(route(way, probe)) { gateway in
                        gateway.prober.follow()
                        try await Task.sleep(for: .milliseconds(500))
                        #expect(gateway.states == ["ready"], "\(way) \(path)")
                    }
                }
            }
        }
        try await withNames(.unknown) {
            try await withLive(route(.unknown, "probe: { interval: 20ms, timeout: 100ms, fall: 1 }")) { gateway in
                gateway.prober.follow()
                let isDown = await eventually { gateway.states == ["down"] }
                #expect(isDown)
            }
        }
    }
}
