import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import OpenTelemetry
import Synchronization

// Sends traces of five spans and five logs by OTLP protobuf, for `Benchmarks/correlation`.
//
//   otlp-load HOST:PORT[,HOST:PORT…] [--seconds 10] [--rate TRACES_A_SECOND | --connections 8] [--traces 50]
//
// With a rate it is an open model: requests are sent when they are due, and their time counts from then, so that a slow server is not
// spared (coordinated omission). Without one, each connection sends as fast as it is answered. Prints one JSON object.

struct Options {
    var endpoints: [Endpoint] = []
    var seconds = 10.0
    var rate = 0.0
    var connections = 8
    var traces = 50

    init(_ arguments: [String]) {
        var rest = arguments.dropFirst()
        func fail(_ text: String) -> Never {
            let line = Array("otlp-load: \(text)\n".utf8)
            _ = write(STDERR_FILENO, line, line.count)
            exit(2)
        }
        while let word = rest.popFirst() {
            if word.hasPrefix("--") {
                guard let value = rest.popFirst().flatMap(Double.init), value > 0 else { fail("\(word) needs a number above 0") }
                switch word {
                case "--seconds": seconds = value
                case "--rate": rate = value
                case "--connections": connections = Int(value)
                case "--traces": traces = min(Int(value), 4096)
                default: fail("unknown option \(word)")
                }
            } else {
                for text in word.split(separator: ",") {
                    guard let endpoint = Endpoint(String(text)) else { fail("'\(text)' is no host:port") }
                    endpoints.append(endpoint)
                }
            }
        }
        if endpoints.isEmpty { fail("say where to send: HOST:PORT") }
    }
}

/// Lives on its loop.
final class Load {
    let options: Options
    let loop: EventLoop
    let client: HTTPClient
    let templates: [(String, TraceTemplate)]
    let run = UInt64.random(in: 1 ... .max)
    var sequence: UInt64 = 0
    var number = 0
    var latencies: [Int64] = []
    var accepted = 0
    var failed = 0
    var bytes = 0
    var firstFailure = ""
    var inFlight = 0

    init(_ options: Options, _ loop: EventLoop) {
        self.options = options
        self.loop = loop
        client = HTTPClient(loop: loop)
        templates = [
            ("/v1/traces", TraceTemplate(.traces, traces: options.traces)), ("/v1/logs", TraceTemplate(.logs, traces: options.traces)),
        ]
    }

    /// Sends the spans and then the logs of the next traces.
    func pair(due: MonotonicTime?) async {
        let first = sequence
        sequence += UInt64(options.traces)
        let endpoint = options.endpoints[number % options.endpoints.count]
        number += 1
        inFlight += 1
        defer { inFlight -= 1 }
        for (path, template) in templates {
            let start = due ?? .now
            let body = template.filled(
                first: first, run: run, nanoseconds: UInt64(clamping: WallTime.now.milliseconds) * 1_000_000 - 3_000_000)
            bytes += body.count
            do throws(HTTPClientError) {
                let answer = try await client.send(
                    "POST", path, to: endpoint, headers: [("Content-Type", "application/x-protobuf")], body: body)
                if answer.status == 200, answer.body.isEmpty {
                    accepted += 1
                } else {
                    fail("status \(answer.status): \(answer.text.prefix(200))")
                }
            } catch { fail(error.description) }
            latencies.append((MonotonicTime.now - start).nanoseconds)
        }
    }

    private func fail(_ text: String) {
        failed += 1
        if firstFailure.isEmpty { firstFailure = text }
    }
}

func report(_ load: Load, _ seconds: Double) {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    let cpu = Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6
    let sorted = load.latencies.sorted()
    func milliseconds(_ share: Double) -> Double {
        sorted.isEmpty ? 0 : Double(sorted[min(Int(clamped: Double(sorted.count) * share), sorted.count - 1)] / 1000) / 1000
    }
    let traces = Double(load.accepted) * Double(load.options.traces) / 2
    var json = JSONWriter()
    json.beginObject()
    json.member("traces", traces)
    json.member("traces_per_s", (traces / seconds).rounded())
    json.member("requests", load.accepted + load.failed)
    json.member("failed", load.failed)
    if load.failed > 0 { json.member("first_failure", load.firstFailure) }
    json.member("p50_ms", milliseconds(0.5))
    json.member("p95_ms", milliseconds(0.95))
    json.member("p99_ms", milliseconds(0.99))
    json.member("max_ms", milliseconds(1))
    json.member("bytes_per_trace", (Double(load.bytes) / max(Double(load.sequence), 1)).rounded())
    json.member("cpu_us_per_trace", (cpu / max(traces, 1) * 1e7).rounded() / 10)
    json.endObject()
    print(json.text)
}

let options = Options(CommandLine.arguments)
let loop = try EventLoop()
let load = LoopBound(Load(options, loop), on: loop)
loop.execute {
    // Ends when the time is over; the process ends with it.
    Task(executorPreference: loop) {
        let started = MonotonicTime.now
        let end = started + Duration(clampedSeconds: options.seconds)
        if options.rate > 0 {
            let gap = Double(options.traces) / options.rate * 1e9
            var count = 0.0
            while MonotonicTime.now < end {
                while Double((MonotonicTime.now - started).nanoseconds) >= count * gap, load.value.inFlight < 1000 {
                    let due = started + .nanoseconds(Int64(clamped: count * gap))
                    count += 1
                    // Ends when both requests are answered.
                    Task(executorPreference: loop) { await load.value.pair(due: due) }
                }
                await loop.sleep(.milliseconds(1))
            }
            for _ in 0..<1000 where load.value.inFlight > 0 { await loop.sleep(.milliseconds(10)) }
        } else {
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<options.connections {
                    // Ends with the time.
                    group.addTask { while MonotonicTime.now < end { await load.value.pair(due: nil) } }
                }
            }
        }
        report(load.value, Double((MonotonicTime.now - started).nanoseconds) / 1e9)
        exit(load.value.failed == 0 ? 0 : 1)
    }
}
loop.run()
