import Basics
import EventLoops
import Glibc
import JSONCoding
import Redis

// Sends SET and GET over all slots through the Redis client, for `Benchmarks/redis-client`.
//
//   redis-load [URL] [--seconds 5] [--clients 50] [--pipeline 1] [--size 20] [--reads 0] [--wait 0]
//
// Without URL: REDIS_URL, where a password is not on the command line. Each client sends `--pipeline` commands, waits for all their
// answers, and goes on. `--reads 1`: GET in place of SET. Prints one JSON object: operations, CPU time of this process, percentiles of a
// round in microseconds. SIGINT ends it early.

struct Options {
    var url = ""
    var seconds = 5.0
    var clients = 50
    var pipeline = 1
    var size = 20
    var reads = 0
    var wait = 0

    init(_ arguments: [String]) {
        var rest = arguments.dropFirst()
        while let word = rest.popFirst() {
            guard word.hasPrefix("--") else {
                url = word
                continue
            }
            guard let value = rest.popFirst().flatMap(Double.init), value >= 0 else { stop("\(word) needs a number") }
            switch word {
            case "--seconds": seconds = value
            case "--clients": clients = Int(value)
            case "--pipeline": pipeline = Int(value)
            case "--size": size = Int(value)
            case "--reads": reads = Int(value)
            case "--wait": wait = Int(value)
            default: stop("unknown option \(word)")
            }
        }
        if url.isEmpty { url = environmentValue("REDIS_URL") ?? "" }
        if url.isEmpty { stop("say where: redis+cluster://HOST:PORT, or REDIS_URL") }
    }
}

func stop(_ text: String) -> Never {
    let line = Array("redis-load: \(text)\n".utf8)
    _ = write(STDERR_FILENO, line, line.count)
    exit(2)
}

/// Lives on its loop.
final class Load {
    let options: Options
    let client: RedisClient
    let value: String
    var random = SeededRandom(seed: 7)
    var operations = 0
    var failures = 0
    var firstFailure = ""
    var rounds: [Int64] = []
    var end = MonotonicTime(nanoseconds: 0)
    var running = 0
    let done: () -> Void

    init(_ options: Options, _ client: RedisClient, done: @escaping () -> Void) {
        self.options = options
        self.client = client
        self.done = done
        value = String(repeating: "x", count: options.size)
    }

    func start() {
        end = .now + Duration(clampedSeconds: options.seconds)
        running = options.clients
        for _ in 0..<options.clients { round() }
    }

    func round() {
        let begin = MonotonicTime.now
        if begin >= end {
            running -= 1
            if running == 0 { done() }
            return
        }
        var missing = options.pipeline
        for _ in 0..<options.pipeline {
            let key = "key:\(UInt32.random(in: 0..<100_000, using: &random))"
            var command = options.reads > 0 ? RedisCommand("GET", key) : RedisCommand("SET", key, value)
            if options.wait > 0 { command = command.confirmed(by: options.wait) }
            client.submit(command) { [self] result in
                switch result {
                case .success: operations += 1
                case .failure(let error):
                    failures += 1
                    if firstFailure.isEmpty { firstFailure = "\(error)" }
                }
                missing -= 1
                if missing == 0 {
                    rounds.append((MonotonicTime.now - begin).nanoseconds)
                    round()
                }
            }
        }
    }
}

func cpuMicroseconds() -> Int {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return Int(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1_000_000 + Int(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec)
}

let options = Options(CommandLine.arguments)
let loop = try EventLoop()
let interrupted = Box()
final class Box { var load: Load? }
let url: RedisURL
do { url = try RedisURL(options.url) } catch { stop("\(error)") }
let client = RedisClient(url: url, loop: loop)
client.start()
let begin = LoopBound(
    {
        // One command first: connecting is not measured.
        client.submit(RedisCommand("GET", "key:0")) { _ in
            let cpu = cpuMicroseconds(), start = MonotonicTime.now
            var load: Load?
            load = Load(options, client) {
                guard let load else { return }
                let seconds = Double((MonotonicTime.now - start).nanoseconds) / 1e9
                var json = JSONWriter()
                json.beginObject()
                json.member("operations", load.operations)
                json.member("failures", load.failures)
                if load.failures > 0 { json.member("first_failure", load.firstFailure) }
                json.member("operations_per_second", Int(clamped: Double(load.operations) / seconds))
                json.member("cpu_microseconds", cpuMicroseconds() - cpu)
                load.rounds.sort()
                for (name, share) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] where !load.rounds.isEmpty {
                    json.member(name, Int(load.rounds[min(load.rounds.count - 1, Int(clamped: Double(load.rounds.count) * share))] / 1000))
                }
                json.endObject()
                let line = Array((json.text + "\n").utf8)
                _ = write(1, line, line.count)
                exit(load.failures > 0 ? 1 : 0)
            }
            interrupted.load = load
            load?.start()
        }
    }, on: loop)
let signals = LoopBound(try SignalWatch([SIGINT], loop: loop) { _ in interrupted.load?.end = MonotonicTime(nanoseconds: 0) }, on: loop)
loop.execute {
    try? signals.value.start()
    begin.value()
}
loop.run()
