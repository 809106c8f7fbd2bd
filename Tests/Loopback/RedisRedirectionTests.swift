import Basics
import EventLoops
import Redis
import Synchronization
import TestSupport
import Testing

/// The client of a cluster against made-up nodes.
@Suite struct RedisRedirectionTests {
    /// A node that greets, and answers all else with what `answer` says; it keeps the order in which it was asked.
    private static func serve(_ heard: Heard, _ answer: @escaping @Sendable ([String]) -> String) -> @Sendable (RawPeer, Int) -> Void {
        { peer, _ in
            while true {
                let words = peer.redisCommand()
                if words.isEmpty { return }
                heard.add(words.joined(separator: " "))
                peer.send(words[0] == "HELLO" ? "%1\r\n+server\r\n+redis\r\n" : answer(words))
            }
        }
    }

    private static func slots(_ port: UInt16) -> String {
        "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:\(port)\r\n$40\r\n\(String(repeating: "a", count: 40))\r\n"
    }

    /// Many servers that take connections and say nothing: who waits is told when its time is over, and not when all have been asked.
    @Test(arguments: ["redis+cluster://PLACES", "redis+sentinel://PLACES/m"]) func patienceEndsWhoeverIsSilent(url: String) async throws {
        var silent: [RawBackend] = []
        for _ in 0..<20 { silent.append(try RawBackend { peer, _ in _ = peer.readToEnd() }) }
        defer { for one in silent { one.stop() } }
        let places = silent.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
        try await withLoop { loop in
            var options = RedisClient.Options()
            options.patience = .seconds(1)
            let client = RedisClient(url: try RedisURL(url.replacing("PLACES", with: places)), loop: loop, options: options)
            client.start()
            defer { client.close() }
            let begun = MonotonicTime.now
            let error = await #expect(throws: RedisError.self) { _ = try await client.send(RedisCommand("GET", "k")) }
            let took = MonotonicTime.now - begun
            #expect(error?.execution == .notExecuted && took >= .seconds(1) && took < .seconds(3), "\(took) \(String(describing: error))")
        }
    }

    /// A write to a slot that is on its way, of which ASK tells, is confirmed by replicas of the node that takes it; or its caller learns
    /// that it was not.
    @Test(arguments: [0, 1]) func aWriteThatASKSendsElsewhereIsConfirmedThere(replicas: Int) async throws {
        let heard = Heard()
        try await withRaw(Self.serve(heard) { $0[0] == "WAIT" ? ":\(replicas)\r\n" : "+OK\r\n" }) { receiver in
            let place = Port()
            let old = Self.serve(Heard()) { words in
                switch words[0] {
                case "CLUSTER": Self.slots(place.value)
                case "SET": "-ASK 12182 127.0.0.1:\(receiver.port)\r\n"
                default: ":9\r\n"
                }
            }
            try await withRaw(old) { sender in
                place.value = sender.port
                try await withLoop { loop in
                    let client = RedisClient(url: try RedisURL("redis+cluster://127.0.0.1:\(sender.port)"), loop: loop)
                    client.start()
                    defer { client.close() }
                    let write = RedisCommand("SET", "foo", "bar").confirmed(by: 1, within: .milliseconds(200))
                    if replicas == 1 {
                        #expect(try await client.send(write).string == "OK")
                    } else {
                        let error = await #expect(throws: RedisError.self) { _ = try await client.send(write) }
                        #expect(error?.code == .notReplicated, "\(String(describing: error))")
                    }
                }
            }
        }
        let order = heard.all.filter { !$0.hasPrefix("HELLO") }
        #expect(order == ["ASKING", "SET foo bar", "WAIT 1 200"])
    }
}

private final class Heard: Sendable {
    private let lines = Mutex<[String]>([])
    func add(_ line: String) { lines.withLock { $0.append(line) } }
    var all: [String] { lines.withLock { $0 } }
}

private final class Port: Sendable {
    private let number = Mutex<UInt16>(0)
    var value: UInt16 {
        get { number.withLock { $0 } }
        set { number.withLock { $0 = newValue } }
    }
}
