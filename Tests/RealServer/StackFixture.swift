import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import Redis
import Synchronization
import TestSupport

/// The correlation stack as a user has it, on ports of its own, in a folder of its own, run by the built `muster`.
final class StackFixture: Sendable {
    let folder: String
    let file: String
    let port: UInt16
    let admin: UInt16
    let gateway: Endpoint
    let loop: EventLoop
    let client: HTTPClient

    init(folder: String, loop: EventLoop, replicas: String = "3") throws {
        self.folder = folder
        self.loop = loop
        port = TestPorts.server()
        admin = TestPorts.server()
        file = folder + "/demo.yaml"
        gateway = .address(.loopback(port: port))
        client = HTTPClient(loop: loop)
        try write(replicas: replicas)
    }

    /// `more` goes into the engines' environment, `keys` are further keys of the service.
    func write(
        replicas: String = "3", command: String = "correlation-engine", level: String = "info", more: String = "",
        store: String = "role: state, memory: 256Mi",
        keys: String = ""
    ) throws {
        let text = """
            stack: demo
            services:
              correlation-engine:
                command: \(command)
                replicas: \(replicas)
                http: { socket: true, metrics: /metrics }
                uses: [state]
                environment: { USE_REDIS_STATE: "${USE_REDIS_STATE:-true}", LOG_LEVEL: \(level)\(more) }
                \(keys)
            stores:
              state: { redis: { \(store) } }
            gateway:
              listen: 127.0.0.1:\(port)
              admin: \(admin)
              routes:
                - { path: /, service: correlation-engine, idempotent: true, retry: { attempts: 4, budget: 20% } }
            """
        try Files.replace(file, with: Array(text.utf8))
    }

    @discardableResult
    func muster(_ arguments: String..., environment: [String: String] = [:], limit: Duration = .seconds(60)) async throws -> (
        status: Int32, output: String
    ) {
        try await run(builtProgram("muster"), arguments, environment: environment, folder: folder, limit: limit)
    }

    struct Row: Sendable {
        let service: String
        let replica: Int
        let pid: Int32
        let port: UInt16
        let state: String
        let restarts: Int
    }

    func rows() async throws -> [Row] {
        let (_, output) = try await muster("ps", "--json", file)
        return try JSONDocument().parse(Array(output.utf8)) { root in
            (root.array ?? []).map {
                Row(
                    service: $0["service"]?.string ?? "", replica: $0["replica"]?.int ?? 0, pid: Int32($0["pid"]?.int ?? 0),
                    port: UInt16($0["port"]?.int ?? 0),
                    state: $0["state"]?.string ?? "", restarts: $0["restarts"]?.int ?? 0)
            }
        }
    }

    func engines() async throws -> [Row] { try await rows().filter { $0.service == "correlation-engine" && $0.pid > 0 } }

    func redis() async throws -> RedisClient {
        let state = try required(try await rows().first { $0.service == "state" })
        let password = (Files.text("\(folder)/.muster/demo/stores/state/password") ?? "").split(separator: "\n").first ?? ""
        let client = RedisClient(url: try RedisURL("redis://:\(password)@127.0.0.1:\(state.port)"), loop: loop)
        client.start()
        return client
    }

    /// Posts one record and tells whether it was acknowledged.
    func post(trace: String, id: String) async -> Int {
        let body = """
            {"resource":{"service":"writer","host":"h"},"records":[{"timestamp":"\(CalendarTime.render(.now))","severity":"INFO","message":"m","trace_id":"\(trace)","id":"\(id)"}]}
            """
        do {
            return try await client.send(
                "POST", "/api/logs", to: gateway, headers: [("Content-Type", "application/json")], body: Array(body.utf8),
                timeout: .seconds(20)
            ).status
        } catch {
            print("POST /api/logs: \(error)")
            return 0
        }
    }

    func get(_ path: String) async throws -> [UInt8] {
        let response = try await client.send("GET", path, to: gateway, timeout: .seconds(20))
        guard response.status == 200 else { throw SystemError("\(path): \(response.status) \(response.text)", EINVAL) }
        return response.body
    }

    /// How often each log's id stands in the store, over all correlations, page by page.
    func storedIDs() async throws -> [String: Int] {
        var counts: [String: Int] = [:]
        var cursor: String? = ""
        while let place = cursor {
            let page = try await get("/api/correlations?limit=200&cursor=\(place)")
            cursor = try JSONDocument().parse(page) { root in
                for correlation in root["correlations"]?.array ?? [] {
                    for log in correlation["logs"]?.array ?? [] { counts[log["id"]?.string ?? "", default: 0] += 1 }
                }
                return root["next_cursor"]?.string
            }
        }
        return counts
    }

    func ledger() async throws -> [String: Int] {
        try JSONDocument().parse(try await get("/api/ledger")) { root in
            Dictionary(uniqueKeysWithValues: (root.members ?? []).map { ($0.key, $0.value.int ?? .min) })
        }
    }
}

/// The value; without one the test ends with an error that says so.
func required<T>(_ value: T?, _ what: String = "a value") throws -> T {
    guard let value else { throw SystemError("\(what) is missing", ENOENT) }
    return value
}

func withStack(replicas: String = "3", up: Bool = true, _ body: (StackFixture) async throws -> Void) async throws {
    try await withLoop { loop in
        try await withFolder { folder in
            let stack = try StackFixture(folder: folder, loop: loop, replicas: replicas)
            if up {
                let (status, output) = try await stack.muster("up", "-d", stack.file)
                guard status == 0 else { throw SystemError("up: \(output)", EINVAL) }
            }
            let result: Result<Void, any Error>
            do { result = .success(try await body(stack)) } catch { result = .failure(error) }
            try await stack.muster("down", stack.file)
            stack.client.close()
            try result.get()
        }
    }
}

/// What writers were told, and what they were not.
final class Writers: Sendable {
    let acknowledged = Mutex<Set<String>>([])
    let refused = Mutex<[Int: Int]>([:])
    let isOver = Mutex(false)

    /// `count` writers, each posting as fast as it is answered, until `isOver`; ten records a trace.
    func run(_ count: Int, _ stack: StackFixture) async {
        await withTaskGroup(of: Void.self) { group in
            for writer in 0..<count {
                group.addTask(executorPreference: stack.loop) {
                    var i = 0
                    while !self.isOver.withLock({ $0 }) {
                        let id = "w\(writer)-\(i)"
                        let status = await stack.post(trace: "trace-\(writer)-\(i / 10)", id: id)
                        if status == 202 {
                            self.acknowledged.withLock { _ = $0.insert(id) }
                        } else {
                            self.refused.withLock { $0[status, default: 0] += 1 }
                        }
                        i += 1
                    }
                }
            }
        }
    }
}
