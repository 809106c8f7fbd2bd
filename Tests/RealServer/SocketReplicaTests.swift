import Basics
import EventLoops
import Glibc
import HTTP
import TestSupport
import Testing

/// Services whose replicas listen at a Unix socket beside their port: `http: { socket: true }`.
@Suite(.serialized) struct SocketReplicaTests {
    private func put(
        _ stack: SmallStack, folder: String? = nil, environment: String = "", socket: Bool = true, _ more: String..., admin: UInt16? = nil
    ) throws {
        var service = try stack.service(environment: environment)
        if socket { service.replace("port: 8000", with: "port: 8000, socket: true") }
        let gateway = admin.map { stack.gateway("web", route: "", "admin: 127.0.0.1:\($0)") } ?? stack.gateway()
        let text = "stack: s\nservices:\n" + service + more.map { "    \($0)\n" }.joined() + gateway
        try Files.replace("\(folder ?? stack.folder)/s.yaml", with: Array(text.utf8))
    }

    private func variable(_ stack: SmallStack, _ name: String) async throws -> String {
        let digits = Array(try await stack.get("/env?name=\(name)").text.utf8)
        let bytes = stride(from: 0, to: digits.count - 1, by: 2).compactMap {
            UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private func mode(_ path: String) -> mode_t? {
        var info = stat()
        return lstat(path, &info) == 0 ? info.st_mode & 0o777 : nil
    }

    /// A new process has a new socket, also after a kill and after a roll; of those that have ended, none is left.
    @Test func theGatewaySendsToTheSocketOfTheProcessThatRuns() async throws {
        try await withSmallStack { stack in
            let admin = TestPorts.server(), folder = stack.folder + "/.muster/s/sockets"
            try put(stack, admin: admin)
            try await stack.up()
            #expect(try await stack.get("/where").text == "socket")
            let first = try await stack.row("web/1")
            #expect(try await stack.get("/where", port: first.port).text == "port")
            var socket = try await variable(stack, "SOCKET")
            #expect(socket.hasPrefix("/") && socket.hasSuffix("/.muster/s/sockets/\(Files.list(folder).first ?? "-")"), "\(socket)")
            #expect(mode(folder) == 0o700)
            #expect(try await stack.get("/api/state", port: Int(admin)).text.contains("\"address\":\"unix:\(socket)\""))
            #expect(Files.text(stack.folder + "/.muster/s/logs/supervisor.log")?.contains(", asked at unix:\(socket) (pid ") == true)

            kill(first.pid, SIGKILL)
            let isBack = try await eventually(.seconds(20)) {
                let row = try await stack.rows().first
                return row?.state == "ready" && row?.pid != first.pid
            }
            #expect(isBack)
            #expect(try await stack.get("/where").text == "socket")
            #expect(try await variable(stack, "SOCKET") != socket && !Files.exists(socket) && Files.list(folder).count == 1)

            socket = try await variable(stack, "SOCKET")
            #expect(try await stack.muster("roll", "web", "s.yaml").status == 0)
            #expect(try await stack.get("/where").text == "socket")
            #expect(try await variable(stack, "SOCKET") != socket)
            #expect(await eventually { !Files.exists(socket) && Files.list(folder).count == 1 })

            #expect(try await stack.muster("down", "s.yaml").status == 0)
            #expect(!Files.exists(folder))
            // What a machine's end has left is in nobody's way.
            try Files.makeFolder(folder, mode: 0o700)
            for life in 1...3 { try Files.replace("\(folder)/web-1-\(life).sock", with: []) }
            try await stack.up()
            #expect(try await stack.get("/where").text == "socket")
            #expect(Files.list(folder).count == 1)
            // Without the key it is as it was, at the next definition already.
            try put(stack, socket: false, admin: admin)
            try await stack.up()
            #expect(try await stack.get("/where").text == "port")
            #expect(try await variable(stack, "SOCKET") == "")
            #expect(await eventually { Files.list(folder).isEmpty })
        }
    }

    /// One that does not listen there is told so and does not become ready; neither does the definition that wants it to.
    @Test func whoDoesNotListenAtItsSocketIsTold() async throws {
        try await withSmallStack { stack in
            try put(stack, environment: "DEAF: '1'", "start: 2s")
            let refused = try await stack.muster("up", "-d", "s.yaml")
            #expect(refused.status == 1 && refused.output.contains("it does not listen at its socket (SOCKET=/"), "\(refused.output)")
            try put(stack, environment: "DEAF: '1'", socket: false)
            try await stack.up()
            try put(stack, environment: "DEAF: '1', WHO: new", "start: 2s")
            #expect(try await stack.muster("up", "s.yaml").status == 1)
            #expect(try await stack.get("/where").text == "port")
            #expect(try await stack.get().text == "x")
        }
    }

    /// A socket at which no more connections may wait is no answer, and is told as what it is.
    @Test func aFullBacklogIsTold() async throws {
        try await withSmallStack { stack in
            try stack.put(
                "full.py",
                """
                import os, socket, time
                full = socket.socket(socket.AF_UNIX)
                full.bind(os.environ["SOCKET"])
                full.listen(0)
                waiting = [socket.socket(socket.AF_UNIX) for _ in range(4)]
                for one in waiting:
                    one.setblocking(False)
                    one.connect_ex(os.environ["SOCKET"])
                time.sleep(1000)
                """)
            try put(stack)
            let file = stack.folder + "/s.yaml"
            try stack.put("s.yaml", (Files.text(file) ?? "").replacing("web.py", with: "full.py"))
            let up = try Child(builtProgram("muster"), ["up", "s.yaml"], log: stack.folder + "/up", folder: stack.folder)
            var trouble = ""
            let isTold = try await eventually(.seconds(20)) {
                trouble = try await stack.rows().first?.trouble ?? ""
                return trouble.hasSuffix("more connections wait at its socket than it lets wait")
            }
            #expect(isTold, "\(trouble)")
            up.send(SIGTERM)
            #expect(await up.end() != nil)
        }
    }

    /// One that loses its socket gets no more requests, although its port answers.
    @Test func aSocketThatIsLostIsAFailure() async throws {
        try await withSmallStack { stack in
            try put(stack)
            try await stack.up()
            #expect(try await stack.get("/lose").status == 200)
            // Connections that are open go on.
            stack.client.close()
            var said = ""
            let isOut = try await eventually(.seconds(20)) {
                said = try await stack.muster("why", "web", "--stack", "s.yaml").output
                return said.contains("gets no requests") && said.contains("it does not listen at its socket")
            }
            #expect(isOut, "\(said)")
        }
    }

    /// A folder that is too deep for a socket's path: the sockets are somewhere that only their owner can enter, and none is left.
    @Test func aDeepFoldersSocketsAreElsewhere() async throws {
        try await withSmallStack { stack in
            let deep = stack.folder + "/" + (0..<8).map { "a-long-name-\($0)" }.joined(separator: "/"), run = stack.folder + "/run"
            try Files.makeFolder(deep)
            try Files.makeFolder(run, mode: 0o700)
            try put(stack, folder: deep)
            try Files.replace(deep + "/web.py", with: try Files.read(stack.folder + "/web.py"))
            try await stack.up(deep + "/s.yaml", environment: ["XDG_RUNTIME_DIR": run])
            #expect(try await stack.get("/where").text == "socket")
            let socket = try await variable(stack, "SOCKET"), folder = Files.folder(of: socket)
            #expect(Files.folder(of: folder) == run && mode(folder) == 0o700 && Files.exists(socket), "\(socket)")
            #expect(try await stack.muster("down", deep + "/s.yaml").status == 0)
            #expect(!Files.exists(folder))
        }
    }

    /// The engine listens at its socket, which nobody else may reach, and at its port, and takes the socket along.
    @Test func theEngineListensAtBoth() async throws {
        try await withFolder { folder in
            let socket = folder + "/engine"
            try await withLoop { loop in
                let client = HTTPClient(loop: loop)
                try await withEngine(["SOCKET": socket]) { port, _ in
                    for place in [port, .address(.unix(socket))] {
                        let answer = try await client.send("GET", "/health/ready", to: place)
                        #expect(answer.status == 200)
                    }
                    #expect(mode(socket).map { $0 & 0o077 } == 0)
                    client.close()
                }
            }
            #expect(!Files.exists(socket))
        }
    }
}
