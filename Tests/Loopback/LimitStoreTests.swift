import Basics
import EventLoops
import Gateway
import Glibc
import TestSupport
import Testing

/// A store of shared limits that answers what no script of ours can have said: a wrong server, another script, a proxy in between.
@Suite struct LimitStoreTests {
    /// Takes commands of RESP and answers the script with `numbers`.
    private static func store(_ numbers: [String], after wait: UInt32 = 0) -> @Sendable (RawPeer, Int) -> Void {
        { peer, _ in
            while true {
                guard let count = number(peer, "*") else { return }
                var words: [String] = []
                for _ in 0..<count {
                    guard let length = number(peer, "$") else { return }
                    words.append(String(peer.text(length + 2).dropLast()))
                }
                if words.first?.uppercased().hasPrefix("EVAL") == true {
                    usleep(wait)
                    peer.send("*\(numbers.count)\r\n" + numbers.map { $0 + "\r\n" }.joined())
                } else if words.first?.uppercased().hasPrefix("HELLO") == true {
                    peer.send("-ERR unknown command\r\n")
                } else {
                    peer.send("+OK\r\n")
                }
            }
        }
    }

    private static func number(_ peer: RawPeer, _ sign: Character) -> Int? {
        var text = ""
        while !text.hasSuffix("\r\n") {
            let next = peer.text(1)
            if next.isEmpty { return nil }
            text += next
            if text.count > 64 { return nil }
        }
        return text.first == sign ? Int(text.dropFirst().prefix { $0.isNumber }) : nil
    }

    @Test(arguments: [
        [":1", ":0", ":9223372036854775807"], [":1", ":0", ":-9223372036854775808"], [":1", ":0", ":-5"], [":1", ":1", ":60001"],
        [":9223372036854775807", ":1", ":1"], [":-9223372036854775808", ":1", ":1"], [":0", ":1", ":1"], [":1", ":2", ":1"],
        [":1", ":-1", ":1"], [":1", "+many", ":1"], [":1", ":1"], [":1", ":1", ":1", ":1"],
    ])
    func whatCannotBeSaidCountsAsNoAnswer(numbers: [String]) async throws {
        try await withRaw(Self.store(numbers)) { store in
            try await withNamed("a") { a in
                let limit = "limit: [{ rate: 100/s, burst: 5, shared: true }]"
                try await withLive(
                    "{ path: /, \(limit), backends: [127.0.0.1:\(a)] }", more: ["limit-store: redis://127.0.0.1:\(store.port)"]
                ) { gateway in
                    let told = try await eventually {
                        let status = try await gateway.send().status
                        #expect(status == 200)
                        return gateway.records(.limit).contains {
                            $0.subject == "limit-store" && $0.sentence.contains("an answer of another form")
                        }
                    }
                    #expect(told, "\(gateway.records(.limit).map(\.sentence))")
                }
            }
        }
    }

    /// Each call has its answer in time, but a question that waits for the call before it would wait for two: no request is held for longer
    /// than the patience with one call.
    @Test func aQuestionWaitsNoLongerThanACall() async throws {
        // 85 ms a call, of the 100 that a request is held for at most.
        try await withRaw(Self.store([":1", ":1", ":1000"], after: 85_000)) { store in
            try await withNamed("a") { a in
                let limit = "limit: [{ rate: 1000/s, burst: 1000, shared: true }]"
                try await withLive(
                    "{ path: /, \(limit), backends: [127.0.0.1:\(a)] }", more: ["limit-store: redis://127.0.0.1:\(store.port)"]
                ) { gateway in
                    func count(_ name: String) -> Double { gateway.metric(name) ?? 0 }
                    // The connection stands, and the script is known.
                    let isCounted = try await eventually {
                        let before = count("gateway_limit_local_total")
                        return try await gateway.send().status == 200 && count("gateway_limit_local_total") == before
                    }
                    var shortest = Duration.seconds(60)
                    for _ in 0..<5 {
                        let before = count("gateway_limit_local_total")
                        let began = MonotonicTime.now
                        async let first = gateway.send()
                        try await Task.sleep(for: .milliseconds(15))
                        let second = try await gateway.send()
                        let took = MonotonicTime.now - began
                        #expect(try await first.status == 200 && second.status == 200)
                        // The second was counted here, because the first one's call was under way.
                        #expect(count("gateway_limit_local_total") > before)
                        shortest = min(shortest, took)
                        try await Task.sleep(for: .milliseconds(1200))
                    }
                    #expect(isCounted && shortest < .milliseconds(165), "\(shortest)")
                }
            }
        }
    }

    /// A limit that several gateways count does not delay, as the reference says.
    @Test func sharedLimitsDoNotDelay() async throws {
        // Each request finds four others before it: at 1 a second, its turn would come in four seconds.
        try await withRaw(Self.store([":1", ":1", ":5000000"])) { store in
            try await withNamed("a") { a in
                let limit = "limit: [{ rate: 1/s, burst: 5, shared: true, delay: true }]"
                try await withLive(
                    "{ path: /, \(limit), backends: [127.0.0.1:\(a)] }", more: ["limit-store: redis://127.0.0.1:\(store.port)"]
                ) { gateway in
                    let counted = try await eventually { try await gateway.send().header("ratelimit-reset") == "5" }
                    let began = MonotonicTime.now
                    let answer = try await gateway.send()
                    #expect(counted && answer.status == 200 && MonotonicTime.now - began < .seconds(2))
                }
            }
        }
    }
}
