import Basics
import EventLoops
import Glibc
import HTTP
import Synchronization
import TestSupport
import Testing

/// `muster gateway` as a process, with a file that a test may change.
struct GatewayProcess {
    let folder: String
    let port: UInt16
    let admin: UInt16
    let child: Child
    let client: HTTPClient
    let loop: EventLoop

    var file: String { folder + "/gateway.yaml" }
    var log: String { child.output }

    static func text(_ port: UInt16, _ admin: UInt16, _ more: [String], _ routes: [String], listen: String? = nil) -> String {
        let lines =
            ["gateway:", "  listen: \(listen ?? "127.0.0.1:\(port)")", "  admin: 127.0.0.1:\(admin)"] + more.map { "  " + $0 } + [
                "  routes:"
            ]
            + routes.map { "    - " + $0 }
        return lines.joined(separator: "\n") + "\n"
    }

    func write(port: UInt16? = nil, more: [String] = ["access-log: false"], listen: String? = nil, _ routes: [String]) throws {
        try Files.replace(file, with: Array(Self.text(port ?? self.port, admin, more, routes, listen: listen).utf8))
    }

    func send(_ target: String = "/", _ method: String = "GET", headers: [(String, String)] = [], body: [UInt8]? = nil) async throws
        -> HTTPClientResponse
    {
        try await client.send(method, target, to: .address(.loopback(port: port)), headers: headers, body: body, timeout: .seconds(20))
    }

    func ask(_ target: String, _ method: String = "GET", headers: [(String, String)] = [], body: String? = nil) async throws
        -> HTTPClientResponse
    {
        try await client.send(
            method, target, to: .address(.loopback(port: admin)), headers: headers, body: body.map { Array($0.utf8) }, timeout: .seconds(20)
        )
    }

    func logged(_ text: String, times: Int = 1) async -> Bool {
        await eventually { log.split(separator: "\n").filter { $0.contains(text) }.count >= times }
    }

    /// The processes that took over, in their order.
    var successors: [Int32] {
        log.split(separator: "\n").filter { $0.contains("successor_started") }.compactMap { line in
            line.split(separator: " ").first { $0.hasPrefix("pid=") }.flatMap { Int32($0.dropFirst(4)) }
        }
    }

    /// Resident memory in KiB.
    static func resident(_ pid: Int32) -> Int {
        for line in (Files.text("/proc/\(pid)/status") ?? "").split(separator: "\n") where line.hasPrefix("VmRSS:") {
            return Int(line.filter(\.isNumber)) ?? 0
        }
        return 0
    }
}

func withGatewayProcess(_ routes: [String], more: [String] = ["access-log: false"], _ body: (GatewayProcess) async throws -> Void)
    async throws
{
    try await withLoop { loop in
        try await withFolder { folder in
            try Files.replace(folder + "/token", with: Array("a-token-of-the-tests\n".utf8))
            let client = HTTPClient(loop: loop)
            var process = try start(routes, more, folder, client, loop, 1)
            // A port that was free a moment ago may be somebody else's by now.
            for attempt in 2...4 {
                let isUp = await eventually { process.log.contains("admin_listening") || process.log.contains("muster gateway:") }
                if isUp, process.log.contains("admin_listening") { break }
                await process.child.destroy()
                process = try start(routes, more, folder, client, loop, attempt)
            }
            let child = process.child
            let isUp = await process.logged("admin_listening")
            let result: Result<Void, any Error>
            do {
                try #require(isUp, "\(process.log)")
                result = .success(try await body(process))
            } catch { result = .failure(error) }
            client.close()
            for pid in process.successors { kill(pid, SIGKILL) }
            await child.destroy()
            try result.get()
        }
    }
}

/// Clients that go on asking, each on a thread: some keep their connection, with and without a pause between two requests, some make a new
/// one for each. What goes wrong is written down.
final class Load: Sendable {
    let served = Tally()
    private let failures = Mutex<[String]>([])
    private let isOver = Atomic<Bool>(false)
    private let running = Tally()

    init(port: UInt16) {
        for kind in 0..<6 {
            running.add()
            startThread { [self] in
                run(port, keeps: kind < 4, pause: kind % 2 == 0 ? 0 : 20_000)
                running.add(-1)
            }
        }
    }

    private func run(_ port: UInt16, keeps: Bool, pause: UInt32) {
        var peer: RawPeer?
        while !isOver.load(ordering: .relaxed) {
            if peer == nil {
                do { peer = try RawPeer(port: port) } catch { note("\(error)") }
            }
            guard let connection = peer else {
                usleep(10_000)
                continue
            }
            connection.send("GET /load HTTP/1.1\r\nHost: a\r\n\(keeps ? "" : "Connection: close\r\n")\r\n")
            let answer = connection.answer()
            if answer.head.hasPrefix("HTTP/1.1 200 ") {
                served.add()
            } else {
                note("'\(answer.head.prefix(20))', keeps: \(keeps), pause: \(pause)")
            }
            if !answer.head.hasPrefix("HTTP/1.1 ") || answer.head.contains("Connection: close") { peer = nil }
            if pause > 0 { usleep(pause) }
        }
    }

    private func note(_ failure: String) { failures.withLock { $0.append(failure) } }

    /// Waits for so many more to be served.
    func more(_ count: Int) async -> Bool {
        let target = served.count + count
        return await eventually(.seconds(20)) { served.count >= target }
    }

    /// What went wrong.
    func end() async -> [String] {
        isOver.store(true, ordering: .relaxed)
        _ = await eventually { running.count == 0 }
        return failures.withLock { $0 }
    }
}

/// Answers every request with 200 and its name.
func withPlainBackend(_ name: String = "a", _ body: (RawBackend) async throws -> Void) async throws {
    try await withRaw({ peer, _ in
        while peer.head().contains("HTTP/1.1\r\n") { peer.send("HTTP/1.1 200 OK\r\nX-Backend: \(name)\r\nContent-Length: 2\r\n\r\nok") }
    }) { try await body($0) }
}

private func start(_ routes: [String], _ more: [String], _ folder: String, _ client: HTTPClient, _ loop: EventLoop, _ attempt: Int) throws
    -> GatewayProcess
{
    let port = TestPorts.server(), admin = TestPorts.server()
    func filled(_ lines: [String]) -> [String] { lines.map { $0.replacing("FOLDER", with: folder) } }
    try Files.replace(folder + "/gateway.yaml", with: Array(GatewayProcess.text(port, admin, filled(more), filled(routes)).utf8))
    let child = try Child(
        builtProgram("muster"), ["gateway", folder + "/gateway.yaml"], log: folder + "/gateway\(attempt).out", folder: folder)
    return GatewayProcess(folder: folder, port: port, admin: admin, child: child, client: client, loop: loop)
}
