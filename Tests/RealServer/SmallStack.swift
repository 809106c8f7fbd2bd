import Basics
import EventLoops
import Glibc
import HTTP
import JSONCoding
import Redis
import TestSupport

/// A stack of small programs in a folder of its own, run by the built `muster`; what a test writes is the whole stack file.
final class SmallStack: Sendable {
    let folder: String
    let loop: EventLoop
    let client: HTTPClient
    let port: UInt16

    init(folder: String, loop: EventLoop) throws {
        self.folder = folder
        self.loop = loop
        client = HTTPClient(loop: loop)
        port = TestPorts.server()
        try put("web.py", SmallStack.web)
    }

    /// Listens at PORT, and at SOCKET where it is given one, unless DEAF is set; one request at a time at each. `/work?seconds=N` computes,
    /// `/env?name=X` answers with a variable's bytes in hex, `/where` with `socket` or `port`, `/lose` after it has removed the socket, all
    /// else with `WHO`.
    private static let web = """
        import http.server, os, socket, socketserver, sys, threading, time, urllib.parse
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                url = urllib.parse.urlparse(self.path); query = dict(urllib.parse.parse_qsl(url.query))
                body = os.environ.get("WHO", "x").encode()
                if url.path == "/work":
                    end = time.time() + float(query["seconds"])
                    while time.time() < end: pass
                if url.path == "/env": body = os.environb.get(query["name"].encode(), b"").hex().encode()
                if url.path == "/where": body = b"socket" if self.server.address_family == socket.AF_UNIX else b"port"
                if url.path == "/lose": os.unlink(os.environ["SOCKET"])
                self.send_response(int(os.environ.get("STATUS", "200")))
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            def log_message(self, *a): pass
        class Unix(socketserver.UnixStreamServer): request_queue_size = 128
        time.sleep(float(os.environ.get("DELAY", "0")))
        if "SOCKET" in os.environ and "DEAF" not in os.environ:
            threading.Thread(target=Unix(os.environ["SOCKET"], Handler).serve_forever, daemon=True).start()
        http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
        """

    func put(_ name: String, _ text: String) throws { try Files.replace("\(folder)/\(name)", with: Array(text.utf8)) }

    /// A service of `web.py`; `more` are further keys of it, each on a line of its own.
    func service(_ name: String = "web", environment: String = "", _ more: String...) throws -> String {
        let keys = ["grace: 1s", "environment: { \(environment) }", "http: { port: 8000, live: /, ready: / }"] + more
        return "  \(name):\n    command: [\(try systemProgram("python3")), web.py]\n" + keys.map { "    \($0)\n" }.joined()
    }

    /// The gateway's part of a file: everything goes to `service`.
    func gateway(_ service: String = "web", route: String = "", _ more: String...) -> String {
        "gateway:\n  listen: 127.0.0.1:\(port)\n" + more.map { "  \($0)\n" }.joined()
            + "  routes: [{ path: /, service: \(service)\(route.isEmpty ? "" : ", " + route) }]\n"
    }

    @discardableResult
    func muster(_ arguments: String..., environment: [String: String] = [:], limit: Duration = .seconds(60)) async throws -> (
        status: Int32, output: String
    ) {
        try await run(builtProgram("muster"), arguments, environment: environment, folder: folder, limit: limit)
    }

    /// `up -d`; throws what went wrong.
    func up(_ file: String = "s.yaml", environment: [String: String] = [:]) async throws {
        let (status, output) = try await muster("up", "-d", file, environment: environment)
        guard status == 0 else { throw SystemError("up: \(output)", 0) }
    }

    struct Row: Sendable {
        let name: String
        let pid: Int32
        let port: Int?
        let state: String
        let restarts: Int
        let trouble: String
    }

    func rows(_ file: String = "s.yaml") async throws -> [Row] {
        let (_, output) = try await muster("ps", "--json", file)
        return try JSONDocument().parse(Array((output.split(separator: "\n").first { $0.hasPrefix("[") } ?? "[]").utf8)) { root in
            (root.array ?? []).map {
                Row(
                    name: "\($0["service"]?.string ?? "")/\($0["replica"]?.int ?? 0)", pid: Int32($0["pid"]?.int ?? 0),
                    port: $0["port"]?.int, state: $0["state"]?.string ?? "", restarts: $0["restarts"]?.int ?? 0,
                    trouble: $0["trouble"]?.string ?? "")
            }
        }
    }

    func row(_ name: String, _ file: String = "s.yaml") async throws -> Row {
        try required(try await rows(file).first { $0.name == name }, name)
    }

    func get(_ path: String = "/", headers: [(String, String)] = [], port: Int? = nil) async throws -> HTTPClientResponse {
        try await client.send(
            "GET", path, to: .address(.loopback(port: port.map { UInt16($0) } ?? self.port)), headers: headers, timeout: .seconds(20))
    }

    /// Processes whose working folder is in this test's, zombies left out.
    var processes: [Int32] {
        Files.list("/proc").compactMap { Int32($0) }.filter { pid in
            var buffer = [CChar](repeating: 0, count: 4096)
            let count = readlink("/proc/\(pid)/cwd", &buffer, buffer.count)
            guard pid != getpid(), count > 0 else { return false }
            let place = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
            return place.hasPrefix(folder) && isAlive(pid)
        }
    }

    /// The supervisor, and the process that starts it again, of a running stack.
    func supervisor(of row: Row) throws -> (supervisor: Int32, watcher: Int32) {
        let supervisor = try parentProcess(row.pid)
        return (supervisor, try parentProcess(supervisor))
    }

    /// A client of a store, with the password that the supervisor has made.
    func redis(_ store: String, stack: String) throws -> RedisClient {
        let place = "\(folder)/.muster/\(stack)/stores/\(store)"
        func line(_ name: String) throws -> String {
            try required(Files.text("\(place)/\(name)")?.split(separator: "\n").first).description
        }
        let url = "redis://:\(try line("password"))@127.0.0.1:\(try line("port"))"
        let client = RedisClient(url: try RedisURL(url), loop: loop)
        client.start()
        return client
    }
}

/// The parent of a process.
func parentProcess(_ pid: Int32) throws -> Int32 {
    let text = try required(Files.text("/proc/\(pid)/stat"), "process \(pid)")
    let fields = try required(text.split(separator: ")").last).split(separator: " ")
    return try required(Int32(fields[1]), "the parent of \(pid)")
}

/// A folder, and at its end no process that works in it, whatever the test has left.
func withSmallStack(_ body: (SmallStack) async throws -> Void) async throws {
    try await withLoop { loop in
        try await withFolder { folder in
            let stack = try SmallStack(folder: folder, loop: loop)
            let result: Result<Void, any Error>
            do { result = .success(try await body(stack)) } catch { result = .failure(error) }
            stack.client.close()
            // A watcher that is killed after its supervisor starts no other one.
            for _ in 0..<100 {
                let left = stack.processes
                if left.isEmpty { break }
                for pid in left {
                    kill(pid, SIGCONT)
                    kill(pid, SIGKILL)
                }
                try await Task.sleep(for: .milliseconds(10))
            }
            try result.get()
        }
    }
}
