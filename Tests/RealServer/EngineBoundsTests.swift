import Basics
import Compression
import EventLoops
import Glibc
import HTTP
import JSONCoding
import Observability
import OpenTelemetry
import ProtobufCoding
import Redis
import TestSupport
import Testing

/// What one client may cost the others: the engine as a process, and clients that ask for too much in every way.
@Suite struct EngineBoundsTests {
    private static let json = "application/json"

    private static func post(_ client: HTTPClient, _ engine: Endpoint, _ path: String, _ type: String, _ body: [UInt8], gzip: Bool = false)
        async throws -> HTTPClientResponse
    {
        let headers = [("Content-Type", type)] + (gzip ? [("Content-Encoding", "gzip")] : [])
        return try await client.send("POST", path, to: engine, headers: headers, body: gzip ? Gzip.pack(body) : body, timeout: .seconds(60))
    }

    private static func traceID(_ number: Int) -> [UInt8] {
        withUnsafeBytes(of: (UInt64(number).bigEndian, UInt64(1).bigEndian)) { Array($0) }
    }

    /// One resource with these logs, each of its own trace (or all of one).
    private static func logs(_ count: Int, text: String = "", trace: Int? = nil, from: Int = 1) -> [UInt8] {
        let now = UInt64(WallTime.now.milliseconds) * 1_000_000
        var out = ProtobufWriter()
        out.message(1) { outer in
            outer.message(1) { $0.attribute(1, "service.name", "s") }
            outer.message(2) { scope in
                for i in from..<from + count {
                    scope.message(2) { log in
                        log.fixed64(1, now + UInt64(i))
                        if !text.isEmpty { log.message(5) { $0.string(1, text) } }
                        log.bytes(9, traceID(trace ?? i))
                    }
                }
            }
        }
        return out.bytes
    }

    /// The longest that a probe had to wait while `body` ran.
    private static func worstProbe(_ loop: EventLoop, _ engine: Endpoint, during body: () async throws -> Void) async throws -> Duration {
        let client = HTTPClient(loop: loop)
        let stop = Tally()
        // Ends when `stop` is counted below.
        let probes = Task {
            var worst = Duration.zero
            while stop.count == 0 {
                let start = MonotonicTime.now
                _ = try await client.send("GET", "/health/live", to: engine, timeout: .seconds(60))
                worst = max(worst, .now - start)
                try await Task.sleep(for: .milliseconds(5))
            }
            return worst
        }
        let result: Result<Void, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        stop.add()
        let worst = try await probes.value
        try result.get()
        return worst
    }

    private static func peak(_ engine: Child) -> Int {
        let status = Files.text("/proc/\(engine.pid)/status") ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }?.split(separator: " ") ?? []
        return (line.count > 1 ? Int(line[line.count - 2]) ?? 0 : 0) >> 10
    }

    /// A delivery that the whole memory could not hold is refused for good: sent again it would be refused again.
    @Test func aDeliveryLargerThanTheMemoryIs413() async throws {
        try await withLoop { loop in
            try await withEngine(["CORRELATION_MEMORY_MB": "1"]) { engine, _ in
                let client = HTTPClient(loop: loop)
                let answer = try await Self.post(client, engine, "/v1/logs", "application/x-protobuf", Self.logs(5000))
                #expect(answer.status == 413 && answer.header("retry-after") == nil, "\(answer.status) \(answer.text)")
                let small = try await Self.post(client, engine, "/v1/logs", "application/x-protobuf", Self.logs(5))
                #expect(small.status == 200, "\(small.status) \(small.text)")
                client.close()
            }
        }
    }

    // MARK: work

    /// Small bodies with hundreds of thousands of parts. Each is answered in a sentence; a probe is answered meanwhile.
    @Test func workOfOneRequestLeavesTheLoopToOthers() async throws {
        let empty = { (field: UInt8, count: Int) in Array(repeating: [field << 3 | 2, 0] as [UInt8], count: count).flatMap { $0 } }
        let held = { (field: Int, inner: [UInt8]) in
            var out: [UInt8] = []
            inner.withUnsafeBytes { ProtobufWriter.append(field, $0, to: &out) }
            return out
        }
        let attributes = held(1, held(2, held(2, empty(9, 8) + empty(6, 60_000)) + held(2, empty(6, 60_000))))
        var deep: [UInt8] = []
        for _ in 0..<60 { deep = held(5, held(1, deep)) }
        let values = held(1, held(2, Array(repeating: held(2, held(5, deep)), count: 4000).flatMap { $0 }))
        let jsonRecords =
            "{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[" + Array(repeating: "{}", count: 250_000).joined(separator: ",")
            + "]}]}]}"
        let apiRecords =
            "{\"resource\":{\"service\":\"s\"},\"records\":[" + Array(repeating: "0", count: 2_000_000).joined(separator: ",") + "]}"
        let cases: [(String, String, [UInt8], Set<Int>)] = [
            ("/v1/traces", "application/x-protobuf", empty(1, 4_000_000), [413]),
            ("/v1/logs", "application/x-protobuf", held(1, empty(2, 4_000_000)), [413]),
            ("/v1/logs", "application/x-protobuf", held(1, held(2, empty(2, 150_000))), [200]),
            ("/v1/logs", "application/x-protobuf", attributes, [200]), ("/v1/logs", "application/x-protobuf", values, [200, 413]),
            ("/v1/logs", "application/x-protobuf", Self.logs(20_000, trace: 7), [200]),
            ("/v1/logs", "application/json", Array(jsonRecords.utf8), [413]),
            ("/api/logs", "application/json", Array(apiRecords.utf8), [413]),
        ]
        try await withLoop { loop in
            try await withEngine(["CORRELATION_QUIET_SECONDS": "0.2"]) { engine, _ in
                let client = HTTPClient(loop: loop)
                for (i, (path, type, body, statuses)) in cases.enumerated() {
                    let worst = try await Self.worstProbe(loop, engine) {
                        let answer = try await Self.post(client, engine, path, type, body, gzip: true)
                        #expect(
                            statuses.contains(answer.status) && !(answer.status == 413 && answer.body.isEmpty),
                            "case \(i): \(answer.status)")
                    }
                    // A probe waits this long for its answer before the engine counts as silent.
                    #expect(worst < .seconds(2), "case \(i): \(worst.brief)")
                }
                client.close()
            }
        }
    }

    /// A batch above the queue's capacity has its turn while others go on sending.
    @Test func aBatchAboveTheQueuesCapacityIsTakenInItsTurn() async throws {
        try await withRedis { redis in
            try await withLoop { loop in
                let environment = ["USE_REDIS_STATE": "true", "REDIS_URL": redis.url, "CORRELATION_QUEUE_CAPACITY": "500"]
                try await withEngine(environment) { engine, _ in
                    let client = HTTPClient(loop: loop)
                    let stop = Tally(), small = Tally()
                    // Each ends when `stop` is counted below.
                    let others = (0..<6).map { sender in
                        Task {
                            var number = 0
                            while stop.count == 0 {
                                number += 1
                                let body = Self.logs(5, from: 1_000_000 * (sender + 1) + 10 * number)
                                let status = try await Self.post(client, engine, "/v1/logs", "application/x-protobuf", body).status
                                if status == 200 { small.add() } else if status != 503 { Issue.record("\(status)") }
                            }
                        }
                    }
                    let json = Array(
                        ("{\"resource\":{\"service\":\"s\"},\"records\":["
                            + (0..<2000).map {
                                "{\"timestamp\":\"\(CalendarTime.render(.now))\",\"severity\":\"INFO\","
                                    + "\"message\":\"\($0)\",\"trace_id\":\"t\($0)\"}"
                            }.joined(separator: ",") + "]}").utf8)
                    for _ in 0..<3 {
                        let large = Self.logs(2000, from: Int.random(in: 1_000_000_000...2_000_000_000))
                        #expect(try await Self.post(client, engine, "/v1/logs", "application/x-protobuf", large).status == 200)
                        #expect(try await Self.post(client, engine, "/api/logs", Self.json, json).status == 202)
                    }
                    stop.add()
                    for task in others { try await task.value }
                    #expect(small.count > 0)
                    client.close()
                }
            }
        }
    }

    // MARK: bytes

    /// Twelve correlations whose JSON is far larger than they are. A page ends with a cursor, and readers that do not read hold little.
    @Test func pagesAndReadersThatDoNotReadAreBounded() async throws {
        try await withLoop { loop in
            try await withEngine(["CORRELATION_QUIET_SECONDS": "0.2"]) { engine, child in
                let client = HTTPClient(loop: loop)
                let text = String(repeating: "\u{1}", count: 4000)
                for trace in 1...12 {
                    let body = Self.logs(600, text: text, trace: trace)
                    #expect(try await Self.post(client, engine, "/v1/logs", "application/x-protobuf", body, gzip: true).status == 200)
                }
                let before = Self.peak(child)
                var ids: Set<String> = [], pages = 0, cursor = ""
                let worst = try await Self.worstProbe(loop, engine) {
                    repeat {
                        let page = try await client.send("GET", "/api/correlations?limit=200\(cursor)", to: engine, timeout: .seconds(60))
                        #expect(page.status == 200 && page.body.count < 12 << 20)
                        let value = try JSONValue.parse(page.body)
                        for item in value["correlations"].list {
                            ids.insert(item["id"].string ?? "")
                            #expect(item["log_count"].int == 600)
                            #expect(item["logs"].list.count + (item["logs_dropped"].int ?? 0) == 600 && item["logs_dropped"].int ?? 0 > 0)
                        }
                        pages += 1
                        cursor = value["next_cursor"].string.map { "&cursor=\($0)" } ?? ""
                    } while !cursor.isEmpty && pages < 20
                }
                #expect(ids.count == 12 && pages > 1 && pages < 20 && worst < .seconds(1), "\(ids.count) \(pages) \(worst.brief)")
                let one = try await client.send("GET", "/api/correlations/\(ids.sorted()[0])", to: engine)
                #expect(one.status == 200 && one.body.count < 6 << 20)
                let sockets = try (0..<40).map { number in
                    let socket = try RawSocket(port: engine.testPort)
                    let path = number % 2 == 0 ? "/api/correlations?limit=200" : "/api/correlations/\(ids.sorted()[0])"
                    socket.send("GET \(path) HTTP/1.1\r\nHost: x\r\n\r\n")
                    return socket
                }
                try await Task.sleep(for: .seconds(2))
                #expect(try await client.send("GET", "/health/live", to: engine).status == 200)
                // 128 MiB of waiting answers at most, and what working on one costs; without bounds it were a GiB.
                #expect(Self.peak(child) - before < 300, "\(before) \(Self.peak(child))")
                withExtendedLifetime(sockets) {}
                client.close()
            }
        }
    }

    /// Tens of thousands of correlations that changed in one millisecond: a page finds its place among them at once.
    @Test func pagesOfManyChangesOfOneMillisecond() async throws {
        try await withLoop { loop in
            try await withEngine([:]) { engine, _ in
                let client = HTTPClient(loop: loop)
                let body = Self.logs(60_000)
                #expect(try await Self.post(client, engine, "/v1/logs", "application/x-protobuf", body, gzip: true).status == 200)
                let worst = try await Self.worstProbe(loop, engine) {
                    var ids: Set<String> = [], cursor = ""
                    for _ in 0..<5 {
                        let page = try await client.send("GET", "/api/correlations?limit=200\(cursor)", to: engine, timeout: .seconds(60))
                        let value = try JSONValue.parse(page.body)
                        for item in value["correlations"].list { ids.insert(item["id"].string ?? "") }
                        cursor = "&cursor=\(value["next_cursor"].string ?? "")"
                    }
                    #expect(ids.count == 1000)
                    // A filter that matches nothing looks at 2,000 of them.
                    let start = MonotonicTime.now
                    let none = try await client.send("GET", "/api/correlations?service=none", to: engine, timeout: .seconds(60))
                    let value = try JSONValue.parse(none.body)
                    #expect(value["correlations"].list.isEmpty && value["next_cursor"].string != nil)
                    #expect(MonotonicTime.now - start < .seconds(8))
                }
                #expect(worst < .seconds(1), "\(worst.brief)")
                client.close()
            }
        }
    }

    /// Bodies that come in slowly count against one budget; small requests find room beside them.
    @Test func manySlowLargeUploadsAreBounded() async throws {
        try await withLoop { loop in
            try await withEngine([:]) { engine, child in
                let client = HTTPClient(loop: loop)
                let before = Self.peak(child)
                let part = [UInt8](repeating: 32, count: 4 << 20)
                let heads = ["Content-Length: 10000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n400000\r\n"]
                let sockets = try (0..<60).map { number in
                    let socket = try RawSocket(port: engine.testPort)
                    socket.send("POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + heads[number % 2])
                    socket.send(part)
                    return socket
                }
                let body = Self.logs(5)
                #expect(try await Self.post(client, engine, "/v1/logs", "application/x-protobuf", body).status == 200)
                let large = try await Self.post(client, engine, "/v1/logs", "application/x-protobuf", Self.logs(90_000))
                #expect(large.status == 503 && large.header("retry-after") != nil, "\(large.status)")
                // Whoever asks first is told so, and is not asked to go on.
                let asking = try RawSocket(port: engine.testPort)
                asking.send("POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n")
                let told = asking.receive()
                #expect(told.hasPrefix("HTTP/1.1 503 ") && !told.contains("100 Continue"), "\(told)")
                #expect(Self.peak(child) - before < 300, "\(before) \(Self.peak(child))")
                let refused = sockets.count { socket in
                    let answer = socket.receive(patience: 200) { $0.contains("\r\n\r\n") }
                    return answer.hasPrefix("HTTP/1.1 503 ") && answer.contains("Retry-After: ") && answer.contains("too_much_under_way")
                }
                #expect(refused >= 20 && refused < 60, "\(refused)")
                withExtendedLifetime(sockets) {}
                client.close()
            }
        }
    }

    // MARK: counts

    @Test func neverMoreStreamsThanThereMayBe() async throws {
        try await withRedis { redis in
            try await withEngine(["USE_REDIS_STATE": "true", "REDIS_URL": redis.url]) { engine, _ in
                // A request that never becomes a stream gives its place back.
                for _ in 0..<120 {
                    let socket = try RawSocket(port: engine.testPort)
                    socket.send("HEAD /api/correlations/stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    #expect(socket.receive().hasPrefix("HTTP/1.1 200 "))
                }
                let sockets = try (0..<300).map { _ in try RawSocket(port: engine.testPort) }
                for socket in sockets { socket.send("GET /api/correlations/stream HTTP/1.1\r\nHost: x\r\n\r\n") }
                let answers = sockets.map { $0.receive { $0.contains("\r\n\r\n") } }
                #expect(answers.count { $0.hasPrefix("HTTP/1.1 200 ") } == 100 && answers.count { $0.hasPrefix("HTTP/1.1 503 ") } == 200)
            }
        }
    }
}
