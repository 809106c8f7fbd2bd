import Basics
import EventLoops
import Glibc
import TestSupport
import Testing

/// `muster init` as somebody uses it who comes with a file of another tool: it writes a stack file, and that stack runs.
@Suite(.serialized) struct InitVerbTests {
    private static let server = """
        import http.server, os, sys
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = os.environ.get("GREETING", "none").encode()
                self.send_response(200 if self.path in ("/ok", "/") else 404)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            def log_message(self, *a): pass
        http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
        """

    /// The file as it was written, but with an admin port that no other test has.
    private func movePort(_ stack: SmallStack) throws {
        let text = try required(Files.text("\(stack.folder)/muster.yaml"))
        try stack.put("muster.yaml", text.replacing("8404", with: String(TestPorts.server())))
    }

    @Test func aComposeFileBecomesAStackThatRuns() async throws {
        try await withSmallStack { stack in
            try stack.put("server.py", Self.server)
            try stack.put(
                "docker-compose.yml",
                """
                services:
                  web:
                    build: .
                    command: python3 server.py 8000
                    ports: ["127.0.0.1:\(stack.port):8000"]
                    environment: { GREETING: "${GREETING:-hello} for $$5" }
                    healthcheck: { test: curl -f http://localhost:8000/ok }
                    deploy: { replicas: 2 }
                    volumes: [".:/code"]
                """)
            let (status, output) = try await stack.muster("init")
            #expect(status == 0 && output.contains("'volumes' is not taken over") && output.contains("wrote muster.yaml"), "\(output)")
            try movePort(stack)
            let up = try await stack.muster("up", "-d")
            #expect(up.status == 0, "\(up.output)")
            #expect(try await stack.get().text == "hello for $5")
            let down = try await stack.muster("down")
            #expect(down.status == 0)
        }
    }

    @Test func aCommandBecomesAStackThatRuns() async throws {
        try await withSmallStack { stack in
            let (status, output) = try await stack.muster("init", "--", "python3", "web.py", "--help")
            #expect(status == 0, "\(output)")
            let text = try required(Files.text("\(stack.folder)/muster.yaml"))
            try stack.put("muster.yaml", text.replacing("listen: 8080", with: "listen: 127.0.0.1:\(stack.port)"))
            try movePort(stack)
            let up = try await stack.muster("up", "-d")
            #expect(up.status == 0, "\(up.output)")
            #expect(try await stack.get().text == "x")
            try await stack.muster("down")
        }
    }

    @Test func aStackFileIsNeverOverwritten() async throws {
        try await withSmallStack { stack in
            try stack.put("muster.yaml", "mine")
            try stack.put("Procfile", "web: python3 web.py")
            let (status, output) = try await stack.muster("init")
            #expect(status == 1 && output.contains("exists already"), "\(output)")
            #expect(Files.text("\(stack.folder)/muster.yaml") == "mine")
        }
    }

    @Test func whatIsNoFileOfTheKindIsRefusedAndNothingWritten() async throws {
        try await withSmallStack { stack in
            func refused(_ words: String, _ arguments: String...) async throws {
                let (status, output) = try await run(
                    builtProgram("muster"), ["init"] + arguments, folder: stack.folder, limit: .seconds(20))
                #expect(status != 0 && output.contains(words), "\(output)")
                #expect(!Files.exists("\(stack.folder)/muster.yaml"))
            }
            try await refused("neither a compose file nor a Procfile")
            try await refused("a command is needed", "--")
            #expect(mkfifo("\(stack.folder)/pipe.yaml", 0o600) == 0)
            try await refused("is no file", "--from", "pipe.yaml")
            try await refused("is no file", "--from", ".")
            try stack.put("large.yaml", String(repeating: "# \(String(repeating: "x", count: 1000))\n", count: 5000))
            try await refused("more than", "--from", "large.yaml")
            try stack.put("images.yaml", "services: { db: { image: \"postgres:16\" } }")
            try await refused("nothing in it can be run", "--from", "images.yaml")
            try await refused("either --from FILE or a command", "--from", "images.yaml", "--", "x")
            try stack.put("Procfile", "web: x")
            try stack.put("compose.yaml", "services: { web: { command: x } }")
            try await refused("which one?")
        }
    }
}
