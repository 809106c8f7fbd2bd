import Basics
import EventLoops
import Glibc
import HTTP
import Measurement
import Metering
import Observability
import TestSupport
import Testing

/// Metrics pages of peers that behave, and of peers that do not.
@Suite struct PageMeterTests {
    private let machine = MachineBounds(processors: 4, memory: 8e9)

    private func meter(
        _ loop: EventLoop, _ port: UInt16, _ metrics: [PageMetric], time: Duration = .seconds(60), bytes: Int = 8 << 20
    ) -> PageMeter {
        var limits = PageSource.Limits()
        limits.time = time
        limits.bytes = bytes
        return PageMeter(
            PageSource(loop: loop, endpoint: .address(.loopback(port: port)), limits: limits), metrics, window: .seconds(300),
            bounds: machine)
    }

    /// What the meter says of `up` on a page of this peer.
    private func fault(
        time: Duration = .seconds(60), bytes: Int = 8 << 20, _ serve: @escaping @Sendable (RawPeer) -> Void
    ) async throws -> MeterFault? {
        let backend = try RawBackend { peer, _ in
            peer.head()
            serve(peer)
        }
        defer { backend.stop() }
        return try await withLoop { loop in
            let results = await meter(loop, backend.port, [PageMetric("up", try SampleSelector("up"))], time: time, bytes: bytes).read()
            if case .failure(let fault) = results[0] { return fault }
            return nil
        }
    }

    /// A replica that listens at a socket is read there, and a fault names the socket.
    @Test func aPageAtASocketIsRead() async throws {
        var router = Router()
        router.get("/metrics") { _, _ in .text("up 1\n", type: "text/plain") }
        try await withFolder { folder in
            try await withLoop { loop in
                let address = SocketAddress.unix(folder + "/s"), server = LoopBound(HTTPServer(loop: loop, router: router), on: loop)
                let page = PageSource(loop: loop, endpoint: .address(address))
                let meter = PageMeter(page, [PageMetric("up", try SampleSelector("up"))], window: .seconds(300), bounds: machine)
                guard case .failure(let fault)? = await meter.read().first else { throw SystemError("it was read without a server", 0) }
                #expect("\(fault)".contains("/metrics at unix:\(folder)/s"), "\(fault)")
                try await loop.run { _ = try server.value.listen(on: address) }
                let result = await meter.read().first
                guard case .success(let reading)? = result else { throw SystemError("\(String(describing: result))", 0) }
                #expect(reading.value == 1)
                try await loop.run { server.value.drain(grace: .zero) {} }
            }
        }
    }

    @Test func aPageGivesItsFigures() async throws {
        let asked = Tally()
        let backend = try RawBackend { peer, number in
            let head = peer.head()
            if head.contains("Accept-Encoding: identity\r\n"), head.hasPrefix("GET /metrics HTTP/1.1\r\n") { asked.add() }
            let body =
                "# TYPE depth gauge\r\ndepth{q=\"a\"} 3\r\ndepth{q=\"b\"} 4\r\n# TYPE jobs_total counter\r\njobs_total \(number * 1000)"
            // In chunks of one byte, as nobody would; the page's last line has no end.
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nTransfer-Encoding: chunked\r\n\r\n")
            peer.send(body.utf8.map { "1\r\n\(Character(UnicodeScalar($0)))\r\n" }.joined() + "0\r\n\r\n")
        }
        defer { backend.stop() }
        try await withLoop { loop in
            let metrics = [
                PageMetric("depth", try SampleSelector("depth")), PageMetric("a", try SampleSelector("depth{q=\"a\"}")),
                PageMetric("rate", try SampleSelector("jobs_total")),
                PageMetric("none", try SampleSelector("missing")), PageMetric("wrong", try SampleSelector("depth"), kind: .counter),
                PageMetric("most", try SampleSelector("depth"), most: 6),
            ]
            let meter = meter(loop, backend.port, metrics)
            let first = await meter.read()
            #expect(try first[0].get().value == 7 && first[0].get().unit == .count && first[0].get().window == .zero)
            #expect(try first[1].get().value == 3)
            #expect(first.map(kind) == [nil, nil, .tooEarly, .absent, .wrongType, .implausible])
            try await Task.sleep(for: .milliseconds(120))
            let rate = try (await meter.read())[2].get()
            #expect(rate.unit == .perSecond && abs(rate.value * rate.window.secondsAsDouble - 1000) < 0.001)
        }
        #expect(asked.count == 2)
    }

    /// A series that vanishes from the page takes nothing away, and is not taken for a counter that began anew.
    @Test func aSeriesThatVanishesIsNoReset() async throws {
        let backend = try RawBackend { peer, number in
            peer.head()
            let second = number == 1 ? "jobs_total{queue=\"b\",le=\"1\"} 10\n" : ""
            let body = "jobs_total{queue=\"a\"} \(1_000_000 + number)\n" + second
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + body)
        }
        defer { backend.stop() }
        try await withLoop { loop in
            let meter = meter(loop, backend.port, [PageMetric("rate", try SampleSelector("jobs_total"))])
            #expect(kind(await meter.read()[0]) == .tooEarly)
            try await Task.sleep(for: .milliseconds(120))
            let rate = try (await meter.read())[0].get()
            #expect(abs(rate.value * rate.window.secondsAsDouble - 1) < 0.001 && rate.note.isEmpty, "\(rate)")
        }
    }

    /// What a line of 64 KiB may cost is bounded by the number of its labels.
    @Test func aLineOfThousandsOfLabelsIsMalformed() async throws {
        let labels = { @Sendable (count: Int) in (0..<count).map { "l\($0)=\"\"" }.joined(separator: ",") }
        let fault = try await fault { peer in
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nup{\(labels(129))} 1\n")
        }
        #expect(fault == MeterFault(.malformed, fault?.reason ?? "") && fault?.reason.contains("line 1 is no sample") == true)
        let most = try await self.fault { peer in
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nup{\(labels(128))} 1\n")
        }
        #expect(most == nil)
    }

    private func kind(_ result: Result<MeterFigure, MeterFault>) -> MeterFault.Kind? {
        if case .failure(let fault) = result { fault.kind } else { nil }
    }

    @Test func aPageOfAHundredMegabytesIsCutOff() async throws {
        let sent = Tally()
        let fault = try await fault { peer in
            let line = Array(String(repeating: "filler{a=\"b\"} 1\n", count: 4096).utf8)
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: \(100 << 20)\r\n\r\n")
            while sent.count < 100 << 20, peer.send(line) { sent.add(line.count) }
        }
        #expect(fault?.kind == .tooLarge)
        #expect(fault?.reason.contains("page larger than 8 MiB") == true)
        // What the kernel's buffers took counts as sent.
        #expect(sent.count < 30 << 20)
    }

    @Test func aPageWithoutAnEndIsCutOff() async throws {
        let fault = try await fault { peer in
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            let line = [UInt8](repeating: 120, count: 65_536)
            while peer.send(line) {}
        }
        #expect(fault?.kind == .tooLarge)
    }

    @Test func aByteNowAndThenDoesNotKeepItWaiting() async throws {
        let began = MonotonicTime.now
        let fault = try await fault(time: .milliseconds(400)) { peer in
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n")
            for _ in 0..<200 where peer.send("#") { usleep(30_000) }
        }
        #expect(fault?.kind == .timedOut)
        #expect(MonotonicTime.now - began >= .milliseconds(400))
    }

    @Test func silenceIsNotWaitedFor() async throws {
        #expect(try await fault(time: .milliseconds(200)) { peer in _ = peer.readToEnd() }?.kind == .timedOut)
    }

    @Test(arguments: [
        ("404 Not Found", "", "no", MeterFault.Kind.refused), ("500 Internal Server Error", "", "no", .refused),
        ("204 No Content", "", "", .refused),
        ("302 Found", "Location: /elsewhere\r\n", "", .refused),
        ("200 OK", "Content-Type: text/html; charset=utf-8\r\n", "<p>up 1", .wrongType),
        ("200 OK", "Content-Type: application/json\r\n", "{}", .wrongType), ("200 OK", "Content-Encoding: gzip\r\n", "\u{1F}", .wrongType),
        ("200 OK", "", "", .absent), ("200 OK", "Content-Type: text/plain\r\n", "down 1\n", .absent),
        ("200 OK", "", "up one\n", .malformed),
        ("200 OK", "", "up{a=\"1\"} 1\nup{a=\"1\"} 2\n", .malformed), ("200 OK", "", "up NaN\n", .notANumber),
        ("200 OK", "", "up +Inf\n", .infinite),
        ("200 OK", "", "up{a=\"1\"} -5\nup 10\n", .negative), ("200 OK", "", "up 1e300\n", .implausible),
    ])
    func whatIsNoFigureIsTold(status: String, fields: String, body: String, expected: MeterFault.Kind) async throws {
        let fault = try await fault { peer in
            let length = status.hasPrefix("204") ? "" : "Content-Length: \(body.utf8.count)\r\n"
            peer.send("HTTP/1.1 \(status)\r\n\(fields)\(length)\r\n\(body)")
        }
        #expect(fault?.kind == expected, "\(fault?.description ?? "a figure")")
    }

    private static let openMetrics = "Content-Type: application/openmetrics-text; version=1.0.0\r\n"
    private static let text = "Content-Type: text/plain; version=0.0.4\r\n"

    /// The formats' own signs of an end and of an age. Without a length the answer ends with its connection.
    @Test(arguments: [
        (openMetrics, "up 5\n", true, MeterFault.Kind?.some(.malformed)), (openMetrics, "up 5\n", false, .malformed),
        (openMetrics, "up 5\n# EO", true, .malformed), (openMetrics, "up 5\n# EOF\n", true, nil), (openMetrics, "up 5\n# EOF", false, nil),
        (text, "up 5\n", false, nil), (text, "up 5", true, nil), (text, "up 5", false, .malformed), ("", "up 5", false, .malformed),
        // In the text format this is a comment, and what follows is part of the page.
        (text, "# EOF\nup 5\n", true, nil),
        (text, "up 5 1000\n", true, .stale), (text, "up 5 -9223372036854775808\n", true, .stale), (text, "up 5 1e300\n", true, .stale),
        (text, "up 5 NaN\n", true, .malformed), (openMetrics, "up 5 1000.5\n# EOF\n", true, .stale),
        ("Age: 86400\r\n", "up 5\n", true, .stale), ("Age: 10\r\n", "up 5\n", true, nil),
        (text, "up NaN\n", true, .notANumber),
    ])
    func aPageThatIsCutOrStaleByItsOwnWordIsNotBelieved(
        fields: String, body: String, isFramed: Bool, expected: MeterFault.Kind?
    ) async throws {
        let fault = try await fault { peer in
            peer.send("HTTP/1.1 200 OK\r\n\(fields)\(isFramed ? "Content-Length: \(body.utf8.count)\r\n" : "")\r\n\(body)")
        }
        #expect(fault?.kind == expected, "\(fault?.description ?? "a figure")")
    }

    @Test(arguments: [(0, true), (200, true), (-200, true), (400, false), (-400, false)])
    func aTimeOnASampleMayBeFiveMinutesOff(secondsAgo: Int, isFresh: Bool) async throws {
        let at = WallTime.now.milliseconds - Int64(secondsAgo) * 1000
        for body in ["up 5 \(at)\n", "up{a=\"1\"} 5\nup{a=\"2\"} 5 \(at)\n"] {
            let fault = try await fault { peer in peer.send("HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)") }
            #expect(fault?.kind == (isFresh ? nil : .stale), "\(fault?.description ?? "a figure")")
        }
    }

    /// A last chunk that never comes: what came before it is no page.
    @Test func chunksThatBreakOffAreNoPage() async throws {
        let fault = try await fault { peer in
            peer.send("HTTP/1.1 200 OK\r\n\(Self.text)Transfer-Encoding: chunked\r\n\r\n5\r\nup 5\n\r\n")
        }
        #expect(fault != nil)
    }

    @Test func anAnswerThatIsCutOffOrNoHTTPOrRefusedIsTold() async throws {
        let cut = try await fault { peer in peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nup 1\n") }
        #expect(cut?.kind == .unreachable)
        let garbage = try await fault { peer in peer.send("SSH-2.0-OpenSSH\r\n\r\n") }
        #expect(garbage?.kind == .malformed)
        let port = TestPorts.server()
        try await withLoop { loop in
            let results = await meter(loop, port, [PageMetric("up", try SampleSelector("up"))]).read()
            #expect(kind(results[0]) == .unreachable)
        }
    }

    /// It says that it used a thousand cores.
    @Test func aReplicaThatClaimsMoreCPUThanThereIsIsNotBelieved() async throws {
        let backend = try RawBackend { peer, number in
            peer.head()
            let body = "process_cpu_seconds_total \(number * 1000)\n"
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        }
        defer { backend.stop() }
        try await withLoop { loop in
            let meter = meter(loop, backend.port, [PageMetric("cpu", try SampleSelector("process_cpu_seconds_total"))])
            _ = await meter.read()
            try await Task.sleep(for: .milliseconds(150))
            #expect(kind((await meter.read())[0]) == .implausible)
        }
    }

    @Test func aTaskThatIsCancelledEndsItsRequest() async throws {
        let backend = try RawBackend { peer, _ in _ = peer.readToEnd() }
        defer { backend.stop() }
        try await withLoop { loop in
            let meter = meter(loop, backend.port, [PageMetric("up", try SampleSelector("up"))], time: .seconds(3600))
            // Ends when it is cancelled, below.
            let task = Task { await meter.read() }
            #expect(await eventually { backend.open.count == 1 })
            task.cancel()
            let result = await task.value[0]
            #expect(throws: MeterFault(.timedOut, "http://127.0.0.1:\(backend.port)/metrics was no longer waited for")) { try result.get() }
        }
    }

    @Test func aLagIsReadPartitionByPartition() async throws {
        let page = """
            # TYPE kafka_consumergroup_lag gauge
            kafka_consumergroup_lag{consumergroup="g",partition="0",topic="t"} 7
            kafka_consumergroup_lag{consumergroup="g",partition="1",topic="t"} 99
            kafka_consumergroup_lag{consumergroup="g",partition="2",topic="t"} -1
            kafka_consumergroup_lag{consumergroup="other",partition="0",topic="t"} 1000
            kafka_consumergroup_current_offset{consumergroup="g",partition="1",topic="t"} 40
            kafka_consumergroup_current_offset{consumergroup="g",partition="2",topic="t"} -1
            kafka_topic_partition_current_offset{partition="0",topic="t"} 50
            kafka_topic_partition_current_offset{partition="1",topic="t"} 60
            kafka_topic_partition_current_offset{partition="2",topic="t"} 70
            """
        let backend = try RawBackend { peer, _ in
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n\(page)\n")
        }
        defer { backend.stop() }
        try await withLoop { loop in
            let source = PageSource(loop: loop, endpoint: .address(.loopback(port: backend.port)))
            let figure = try (await LagMeter(source, group: "g", topic: "t").read()).get()
            #expect(figure.value == 27)
            #expect(
                figure.partitions == [
                    PartitionOffsets(topic: "t", partition: 0, latest: 50, told: 7),
                    PartitionOffsets(topic: "t", partition: 1, committed: 40, latest: 60, told: 99),
                    PartitionOffsets(topic: "t", partition: 2, latest: 70),
                ])
            #expect(figure.note == "of 3 partitions, the lag of 1 is not known" && figure.isPartial)
            #expect(kind(await (try LagMeter(source, group: "g", topic: "un\"known")).read()) == .absent)
        }
    }

    /// Two clusters on one page: neither stands for both.
    @Test func twoSeriesOfOnePartitionMakeNoLag() async throws {
        let page = """
            kafka_consumergroup_lag{cluster="a",consumergroup="g",partition="0",topic="t"} 9000
            kafka_consumergroup_lag{cluster="b",consumergroup="g",partition="0",topic="t"} 3
            """
        let backend = try RawBackend { peer, _ in
            peer.head()
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n\(page)\n")
        }
        defer { backend.stop() }
        try await withLoop { loop in
            let source = PageSource(loop: loop, endpoint: .address(.loopback(port: backend.port)))
            guard case .failure(let fault) = await (try LagMeter(source, group: "g", topic: "t")).read() else {
                Issue.record("a figure of one of two clusters")
                return
            }
            #expect(fault.kind == .malformed && fault.reason.contains("more than one sample of partition 0"), "\(fault.reason)")
        }
    }
}
