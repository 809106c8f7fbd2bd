import Basics
import EventLoops
import Glibc
import HTTP
import LoadPlanning
import Loading
import Synchronization
import TestSupport
import Testing

/// The load generator against servers that count, stall, break off and lie. The server has a loop of its own.
@Suite struct LoadRunTests {
    private func scenario(
        _ phases: [LoadPhase], _ requests: [LoadRequest]? = nil, timeout: Duration = .seconds(10), connections: Int = 100, seed: UInt64 = 1,
        spacing: ArrivalSchedule.Spacing = .even
    ) throws -> Scenario {
        Scenario(
            requests: try requests ?? [LoadRequest("GET", LoadText("/"))], phases: phases, spacing: spacing, seed: seed, timeout: timeout,
            connections: connections)
    }

    private func run(_ scenario: Scenario, port: UInt16) async throws -> LoadReport {
        try await withLoop { loop in try await LoadRun(scenario, to: .address(.loopback(port: port)), on: loop).run() }
    }

    /// Runs against a server of ours that counts by method and path.
    private func counted(_ scenario: Scenario) async throws -> (report: LoadReport, seen: [String: Int]) {
        let seen = Mutex<[String: Int]>([:])
        var router = Router()
        for method in ["GET", "POST"] {
            for path in ["/", "/a", "/b", "/missing"] {
                router.add(method, path) { request, _ in
                    seen.withLock { $0["\(method) \(path)", default: 0] += 1 }
                    return .text("ok", status: path == "/missing" ? 404 : 200)
                }
            }
        }
        let report = try await withLoop { loop in
            try await withServer(loop, router) { endpoint in try await run(scenario, port: endpoint.testPort) }
        }
        return (report, seen.withLock { $0 })
    }

    @Test func everyRequestOfARateIsSentAndCounted() async throws {
        let (report, seen) = try await counted(try scenario([.hold(.arrivals, 500, for: .seconds(2))]))
        #expect(report.sent == 1000 && report.ended == 1000 && report.errors == 0)
        #expect(seen == ["GET /": 1000])
        #expect(report.statuses == [200: 1000] && report.failures.isEmpty)
        #expect(report.seconds.reduce(0) { $0 + $1.ended } == 1000)
        #expect(report.delay.count == 1000 && report.service.count == 1000 && !report.endedEarly)
        #expect(report.elapsed >= 2_000_000_000)
        #expect(report.bytesReceived > 1000 * 2 && report.bytesSent > 1000 * 20)
    }

    @Test func kindsOfRequestsAddUpAndErrorsAreTheirs() async throws {
        let requests = [
            LoadRequest("GET", try LoadText("/a"), weight: 6),
            LoadRequest("POST", try LoadText("/b"), weight: 3, body: try LoadText("{{n}} {{uuid}} {{now}}")),
            LoadRequest("GET", try LoadText("/missing")),
        ]
        let (report, seen) = try await counted(try scenario([.hold(.arrivals, 400, for: .seconds(1))], requests, spacing: .poisson))
        #expect(report.ended == report.sent && report.sent > 300)
        #expect(report.parts.map(\.ended) == ["GET /a", "POST /b", "GET /missing"].map { seen[$0] ?? 0 })
        #expect(report.statuses[404] == report.errors && report.parts[2].errors == report.errors && report.errors > 0)
        #expect(report.parts[0].errors == 0 && report.firstFailure == "status 404")
    }

    @Test func usersThinkAndOneConnectionServesEach() async throws {
        let (report, seen) = try await counted(
            try scenario([.hold(.users, 20, for: .seconds(2), think: .milliseconds(100) ... .milliseconds(100))]))
        #expect(report.ended == report.sent && report.errors == 0 && seen["GET /"] == report.ended)
        // Each asks at most every 100 ms; the first time within the first 100 ms.
        #expect(report.ended <= 20 * 20 && report.ended > 20 * 10, "\(report.ended)")
        #expect(report.connectionsMade == 20)
        #expect(report.seconds.first?.users == 20)
    }

    @Test func usersComeAndGoWithARamp() async throws {
        let phases = [
            LoadPhase(.users, .ramp, from: 0, to: 30, duration: .milliseconds(1500), think: .milliseconds(50) ... .milliseconds(50)),
            LoadPhase(.users, .ramp, from: 30, to: 0, duration: .milliseconds(1500), think: .milliseconds(50) ... .milliseconds(50)),
        ]
        let (report, seen) = try await counted(try scenario(phases))
        #expect(report.errors == 0 && seen["GET /"] == report.ended && report.sent == report.ended)
        let users = report.seconds.map(\.users)
        #expect(users.count >= 3 && users[0] > 10 && users[0] < 25 && users[1] > 10 && users[1] < 25, "\(users)")
    }

    /// A server that stands still for a second. Someone who waits for answers meets it once; the schedule charges it with all that was due
    /// meanwhile.
    @Test func aStandstillShowsInTheOpenModel() async throws {
        let answered = Tally()
        try await withRaw({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                answered.add()
                if answered.count == 100 { usleep(1_000_000) }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            }
        }) { backend in
            // One connection: the server serves one at a time, as a process does that collects garbage.
            let report = try await run(try scenario([.hold(.arrivals, 200, for: .seconds(3))], connections: 1), port: backend.port)
            #expect(report.ended == 600 && report.errors == 0)
            let corrected = report.total.response, plain = report.service
            // 200 of 600 were due in that second, evenly spread over it.
            #expect(corrected.quantile(0.99) > 900_000_000 && corrected.quantile(0.99) < 1_300_000_000, "\(corrected.quantile(0.99))")
            #expect(corrected.quantile(0.8) > 200_000_000, "\(corrected.quantile(0.8))")
            #expect(plain.quantile(0.5) < 50_000_000 && plain.quantile(0.99) < 100_000_000, "\(plain.quantile(0.99))")
            #expect(plain.most > 950_000_000)
            #expect(report.seconds.contains { $0.waiting > 50 })
        }
    }

    /// What waits is told second by second: all that is due, less what was sent.
    @Test func whatWaitsIsCountedEachSecond() async throws {
        try await withRaw({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                usleep(100_000)
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            }
        }) { backend in
            let report = try await run(
                try scenario([.hold(.arrivals, 200, for: .seconds(3))], timeout: .seconds(1), connections: 1), port: backend.port)
            var sent = 0
            for (second, one) in report.seconds.prefix(3).enumerated() {
                sent += one.sent
                // A busy machine looks late, at up to 40 more in 200 ms. Whoever counted one twice, or from the beginning, would be off by more.
                #expect(abs(one.waiting - (200 * (second + 1) - sent)) <= 40, "\(second): \(one)")
            }
            #expect(report.seconds.count >= 3 && report.seconds[2].waiting > 400)
            #expect(report.ended == 600 && report.failures[.unsent] ?? 0 > 500, "\(report.failures)")
        }
    }

    /// What finds no connection within the run and its timeout is counted, not forgotten.
    @Test func whatWasNeverSentIsAnError() async throws {
        try await withRaw({ peer, _ in
            while peer.head().contains("HTTP/1.1\r\n") {
                usleep(400_000)
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            }
        }) { backend in
            let report = try await run(
                try scenario([.hold(.arrivals, 50, for: .seconds(1))], timeout: .milliseconds(600), connections: 2), port: backend.port)
            let unsent = report.failures[.unsent] ?? 0
            #expect(report.ended == 50 && report.sent + unsent == 50 && unsent > 30, "\(report.sent) sent, \(unsent) unsent")
            #expect(report.errors == unsent)
            #expect(report.total.response.count == 50 && report.service.count == report.sent)
            #expect(report.total.response.quantile(0.9) > 600_000_000)
        }
    }

    @Test func silenceIsATimeout() async throws {
        try await withRaw({ peer, _ in
            peer.head()
            usleep(1_500_000)
        }) { backend in
            let report = try await run(
                try scenario([.hold(.arrivals, 20, for: .milliseconds(500))], timeout: .milliseconds(300)), port: backend.port)
            #expect(report.failures == [.timeout: 10] && report.errors == 10)
            #expect(report.firstFailure == "no answer within 300ms")
            #expect(report.service.least >= 295_000_000, "\(report.service.least)")
        }
    }

    @Test func nobodyThereIsToldAsThat() async throws {
        let port = TestPorts.server()
        let report = try await run(try scenario([.hold(.arrivals, 50, for: .milliseconds(400))]), port: port)
        #expect(report.failures == [.connect: 20] && report.connectionsMade == 0)
        #expect(report.firstFailure?.contains("refused") == true, "\(report.firstFailure ?? "")")
        // Users do not hammer a door that is closed.
        let users = try await run(try scenario([.hold(.users, 5, for: .seconds(1))]), port: port)
        #expect((users.failures[.connect] ?? 0) <= 5 * 11 && users.ended == users.errors, "\(users.failures)")
    }

    @Test(arguments: [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", LoadError.cut),
        ("HTTP/1.1 200 OK\r\nContent-Le", LoadError.cut),
        ("", LoadError.closed),
        ("SSH-2.0-x\r\n\r\n", LoadError.malformed),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", LoadError.malformed),
    ])
    func brokenAnswersAreToldApart(answer: String, error: LoadError) async throws {
        try await withRaw({ peer, _ in
            peer.head()
            peer.send(answer)
        }) { backend in
            let report = try await run(try scenario([.hold(.arrivals, 20, for: .milliseconds(500))]), port: backend.port)
            #expect(
                report.failures == [error: 10] && report.ended == 10 && report.errors == 10,
                "\(report.failures) \(report.firstFailure ?? "")")
        }
    }

    /// A process that has no descriptor left says nothing of the service. In a process of its own, which has none.
    @Test func ourOwnWantIsNoErrorOfTheService() async {
        await #expect(processExitsWith: .success) {
            var limit = rlimit(rlim_cur: 128, rlim_max: 128)
            guard setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { exit(2) }
            let scenario = Scenario(
                requests: [try LoadRequest("GET", LoadText("/"))], phases: [.hold(.arrivals, 100, for: .milliseconds(500))], spacing: .even,
                seed: 1, timeout: .seconds(10), connections: 4)
            let report = try await withLoop { loop in
                while open("/dev/null", O_RDONLY) >= 0 {}
                // Nobody is there; that is not found out.
                return try await LoadRun(scenario, to: .address(.loopback(port: 1)), on: loop).run()
            }
            guard report.failures == [.own: 50], report.errors == 0, report.ended == 0 else { exit(3) }
            let verdict = LoadVerdict([], of: report)
            guard !verdict.holds, verdict.unmeasured?.contains("50 requests were not sent") == true,
                verdict.unmeasured?.contains("Too many open files") == true
            else { exit(4) }
            exit(0)
        }
    }

    /// A server that closes each connection after three answers, without a word: a GET is sent again, a POST that may have been carried out
    /// is an error.
    @Test(arguments: ["GET", "POST"]) func keptConnectionsThatClose(method: String) async throws {
        let answered = Tally()
        try await withRaw({ peer, _ in
            for i in 0..<4 {
                guard peer.head().contains("HTTP/1.1\r\n"), i < 3 else { return }
                answered.add()
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            }
        }) { backend in
            let requests = [LoadRequest(method, try LoadText("/"))]
            let report = try await run(
                try scenario([.hold(.arrivals, 100, for: .seconds(1))], requests, connections: 1), port: backend.port)
            #expect(report.ended == 100 && answered.count == 100 - report.errors)
            if method == "GET" {
                #expect(report.errors == 0 && report.repeated > 20, "\(report.failures)")
            } else {
                #expect(report.repeated == 0 && report.failures == [.closed: report.errors] && report.errors > 15)
            }
        }
    }

    /// Connection: close is no error, and costs a connection.
    @Test func aServerThatClosesAfterEachAnswer() async throws {
        try await withRaw({ peer, _ in
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end")
        }) { backend in
            let report = try await run(try scenario([.hold(.arrivals, 50, for: .seconds(1))]), port: backend.port)
            #expect(report.ended == 50 && report.errors == 0 && report.connectionsMade == 50)
        }
    }

    @Test func whatIsFilledInArrives() async throws {
        let bodies = Mutex<[(path: String, body: String)]>([])
        var router = Router()
        router.add("POST", "/items/{id}") { request, _ in
            bodies.withLock { $0.append((request.path, String(decoding: request.body, as: UTF8.self))) }
            return .text("ok")
        }
        let body = try LoadText("{\"id\":\"{{uuid}}\",\"at\":\"{{now}}\",\"n\":{{n}}}")
        let requests = [LoadRequest("POST", try LoadText("/items/{{n}}"), headers: [("X-A", "b")], body: body)]
        let scenario = try scenario([.hold(.arrivals, 100, for: .milliseconds(300))], requests)
        let report = try await withLoop { loop in
            try await withServer(loop, router) { endpoint in try await run(scenario, port: endpoint.testPort) }
        }
        #expect(report.errors == 0 && report.ended == 30)
        let seen = bodies.withLock { $0 }.sorted { $0.path.count == $1.path.count ? $0.path < $1.path : $0.path.count < $1.path.count }
        #expect(seen.map(\.path) == (0..<30).map { "/items/\($0)" })
        let ids = seen.map { $0.body.split(separator: "\"")[3] }
        #expect(Set(ids).count == 30)
        for (i, one) in seen.enumerated() {
            #expect(one.body.hasSuffix("\"n\":\(i)}") && one.body.contains("\"at\":\"20") && one.body.contains("Z\""))
            let id = Array(ids[i].utf8)
            #expect(id.count == 36 && id[14] == 52 && "89ab".utf8.contains(id[19]))
        }
    }

    @Test func stoppingGivesWhatThereIs() async throws {
        for isCancelled in [false, true] {
            try await withPlainServer { port in
                let scenario = try scenario([.hold(.arrivals, 200, for: .seconds(60)), .hold(.users, 10, for: .seconds(60))])
                let report = try await withLoop { loop in
                    let run = LoadRun(scenario, to: .address(.loopback(port: port)), on: loop)
                    let task = Task { try await run.run() }
                    try await Task.sleep(for: .milliseconds(600))
                    if isCancelled { task.cancel() } else { run.stop() }
                    return try await task.value
                }
                #expect(report.endedEarly && report.ended == report.sent && report.errors == 0)
                #expect(report.ended > 50 && report.ended < 400 && report.elapsed < 20_000_000_000, "\(report.ended)")
            }
        }
    }

    /// Both models in a row, and the same seed twice: the same requests in the same order.
    @Test func theSameSeedSendsTheSame() async throws {
        var rows: [[String]] = []
        for _ in 0..<2 {
            let row = Mutex<[String]>([])
            var router = Router()
            router.add("GET", "/{kind}") { request, _ in
                row.withLock { $0.append(String(request.path.prefix(2))) }
                return .text("ok")
            }
            let requests = [LoadRequest("GET", try LoadText("/a")), LoadRequest("GET", try LoadText("/b-{{uuid}}"))]
            let scenario = try scenario([.hold(.arrivals, 100, for: .milliseconds(500))], requests, connections: 1, seed: 11)
            _ = try await withLoop { loop in
                try await withServer(loop, router) { endpoint in try await run(scenario, port: endpoint.testPort) }
            }
            rows.append(row.withLock { $0 })
        }
        #expect(rows[0] == rows[1] && rows[0].count == 50 && Set(rows[0]) == ["/a", "/b"])
    }

    @Test func moreUsersThanPortsAreRefusedAtOnce() async throws {
        let scenario = try scenario([.hold(.users, 50_000, for: .seconds(1))])
        let failure = await withLoopOrNil { loop -> LoadFailure? in
            do throws(LoadFailure) {
                _ = try await LoadRun(scenario, to: .address(.loopback(port: 1)), on: loop).run()
                return nil
            } catch { return error }
        }
        let description = try #require(failure).description
        #expect(description.contains("50000") && (description.contains("ports") || description.contains("open files")), "\(description)")
    }

    private func withPlainServer(_ body: (UInt16) async throws -> Void) async throws {
        var router = Router()
        router.add("GET", "/") { _, _ in .text("ok") }
        try await withLoop { loop in try await withServer(loop, router) { endpoint in try await body(endpoint.testPort) } }
    }

    private func withLoopOrNil<T>(_ body: (EventLoop) async -> T?) async -> T? { (try? await withLoop { loop in await body(loop) }) ?? nil }
}
