import Basics
import EventLoops
import Glibc
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

    /// A command that a server took and did not answer may have been carried out, whatever is not to be had afterwards.
    @Test(arguments: ["redis+cluster", "redis+sentinel"]) func whatMayHaveRunIsToldSo(kind: String) async throws {
        let own = Port(), backend = Port()
        // Whoever knows the masters goes on answering; the master is gone after the first command.
        try await withRaw(
            Self.serve(Heard()) { words in
                switch words.prefix(2).joined(separator: " ").uppercased() {
                case "CLUSTER SLOTS", "CLUSTER SHARDS": Self.slots(backend.value)
                case "SENTINEL GET-MASTER-ADDR-BY-NAME":
                    "*2\r\n$9\r\n127.0.0.1\r\n$\("\(backend.value)".utf8.count)\r\n\(backend.value)\r\n"
                case "SENTINEL SENTINELS", "SENTINEL REPLICAS": "*0\r\n"
                default: "+OK\r\n"
                }
            }
        ) { guide in
            own.value = guide.port
            let isGone = Tally()
            try await withRaw({ peer, _ in
                while isGone.count == 0 {
                    let words = peer.redisCommand()
                    switch words.first {
                    case "HELLO": peer.send("%1\r\n+server\r\n+redis\r\n")
                    case "ROLE": peer.send("*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n")
                    case "GET": return isGone.add()
                    case nil: return
                    default: peer.send("+OK\r\n")
                    }
                }
            }) { master in
                backend.value = master.port
                try await withLoop { loop in
                    var options = RedisClient.Options()
                    options.patience = .seconds(1)
                    let url = "\(kind)://127.0.0.1:\(guide.port)\(kind == "redis+sentinel" ? "/m" : "")"
                    let client = RedisClient(url: try RedisURL(url), loop: loop, options: options)
                    client.start()
                    defer { client.close() }
                    let error = await #expect(throws: RedisError.self) { _ = try await client.send(RedisCommand("GET", "k")) }
                    #expect(isGone.count == 1 && error?.execution == .maybeExecuted, "\(String(describing: error))")
                    // One that was never begun is told so.
                    let other = await #expect(throws: RedisError.self) { _ = try await client.send(RedisCommand("SET", "k", "v")) }
                    #expect(other?.execution == .notExecuted, "\(String(describing: other))")
                }
            }
        }
    }

    /// The steps of a greeting have one time limit together.
    @Test func aGreetingsTimeIsThatOfAllItsSteps() async throws {
        let heard = Heard()
        try await withRaw(
            Self.serve(heard) { words in
                if words[0] == "GET" { return "$1\r\nv\r\n" }
                usleep(350_000)
                return "+OK\r\n"
            }
        ) { node in
            try await withLoop { loop in
                var options = RedisClient.Options()
                options.connectTime = .milliseconds(600)
                options.patience = .milliseconds(1500)
                let client = RedisClient(url: try RedisURL("redis://127.0.0.1:\(node.port)/3"), loop: loop, options: options)
                client.start()
                defer { client.close() }
                #expect(try await client.send(RedisCommand("GET", "k")).string == "v")
            }
        }
        let slow = Heard()
        try await withRaw({ peer, _ in
            while true {
                let words = peer.redisCommand()
                if words.isEmpty { return }
                slow.add(words[0])
                usleep(350_000)
                peer.send(words[0] == "HELLO" ? "-ERR unknown command\r\n" : "+OK\r\n")
            }
        }) { node in
            try await withLoop { loop in
                var options = RedisClient.Options()
                options.connectTime = .milliseconds(600)
                options.patience = .milliseconds(2500)
                let client = RedisClient(url: try RedisURL("redis://:pw@127.0.0.1:\(node.port)/3"), loop: loop, options: options)
                client.start()
                defer { client.close() }
                let error = await #expect(throws: RedisError.self) { _ = try await client.send(RedisCommand("GET", "k")) }
                #expect(error?.message.contains("no greeting within 600ms") == true, "\(String(describing: error))")
            }
        }
        #expect(slow.all.contains("AUTH") && !slow.all.contains("GET"), "\(slow.all)")
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
