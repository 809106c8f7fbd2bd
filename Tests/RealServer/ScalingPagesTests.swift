import Basics
import EventLoops
import Glibc
import HTTP
import TestSupport
import Testing

/// A stack that scales by a figure of its replicas' pages, and pages that say what nobody expects. Real processes and sockets.
@Suite(.serialized) struct ScalingPagesTests {
    /// A replica whose page is the file `page-N` of its folder, or `page` where there is none.
    private static let replica = """
        import http.server, os
        folder, number = os.environ["PAGES"], os.environ.get("INSTANCE_ID", "")
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def do_GET(self):
                body, kind = b"{}", "application/json"
                if self.path == "/metrics":
                    name = folder + "/page-" + number
                    body, kind = open(name if os.path.exists(name) else folder + "/page", "rb").read(), "text/plain"
                self.send_response(200); self.send_header("Content-Type", kind); self.send_header("Content-Length", str(len(body)))
                self.end_headers(); self.wfile.write(body)
            def log_message(self, *a): pass
        http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
        """

    private struct Pages {
        let stack: StackFixture

        /// The same page for all, or one for a replica.
        func say(_ text: String, of replica: Int? = nil) throws {
            try Files.replace(stack.folder + "/page" + (replica.map { "-\($0)" } ?? ""), with: Array(text.utf8))
        }

        func why() async throws -> String { try await stack.muster("why", "w", "--stack", stack.file).output }

        /// Waits until `muster why` says this of now.
        func expectTold(_ text: String) async throws {
            let isTold = try await eventually(.seconds(20)) { try await why().contains(text) }
            let last = try await why()
            #expect(isTold, "\(text) is missing: \(last)")
        }

        func expectSize(_ count: Int) async throws {
            let isSo = try await eventually(.seconds(30)) { try await size() == count }
            let last = try await why()
            #expect(isSo, "\(last)")
        }

        func size() async throws -> Int { try await stack.rows().filter { $0.service == "w" && $0.pid > 0 }.count }
        func answers() async throws -> Bool {
            try await stack.client.send("GET", "/", to: stack.gateway, timeout: .seconds(5)).status == 200
        }
    }

    private func withPages(_ replicas: String, _ scale: String, _ body: (Pages) async throws -> Void) async throws {
        try await withStack(up: false) { stack in
            let pages = Pages(stack: stack)
            try pages.say("q 10\n")
            try Files.replace(stack.folder + "/replica.py", with: Array(Self.replica.utf8))
            let text = """
                stack: demo
                services:
                  w:
                    command: [python3, "\(stack.folder)/replica.py"]
                    replicas: \(replicas)
                    http: { metrics: /metrics, live: /live, ready: /ready }
                    environment: { PAGES: "\(stack.folder)" }
                    resources: { cpu: 250m, memory: 128Mi }
                    scale: { \(scale), every: 1s, warm-up: 0s, down: { pods: 8, every: 1s, stabilization: 2s } }
                gateway:
                  listen: 127.0.0.1:\(stack.port)
                  admin: \(stack.admin)
                  routes: [{ path: /, service: w }]
                """
            try Files.replace(stack.file, with: Array(text.utf8))
            let up = try await stack.muster("up", "-d", stack.file)
            #expect(up.status == 0, "\(up.output)")
            try await body(pages)
        }
    }

    /// Each on the pages of two replicas, beside a third that says 10. Whatever they say, the supervisor and the gateway go on.
    @Test func whateverAPageSaysTheStackGoesOn() async throws {
        try await withPages("3..4", "metrics: [{ metric: q, average: 10 }]") { pages in
            try pages.say("q 10\n", of: 1)
            let odd = [
                "1e-300", "5e-324", "-0", "0x1p-1074", "1e300", "1.7976931348623157e308", "1e999", "NaN", "-1e300", "+Inf", "-Inf", "-5",
                "9007199254740992", "9007199254740993", "18446744073709551616", "0x1.8p3",
            ]
            for value in odd {
                try pages.say("q \(value)\n")
                // More than a round of the meters and a decision.
                try await Task.sleep(for: .milliseconds(1300))
                let answers = try await pages.answers()
                #expect(answers, "after \(value)")
            }
            for (value, told) in [
                ("1e300", "thrown away: w/2: q is 1e+300, more than 9007199254740992.0 can be"), ("NaN", "q is not a number (NaN)"),
                ("-7", "q is negative (-7.0)"),
            ] {
                try pages.say("q \(value)\n")
                try await pages.expectTold(told)
            }
        }
    }

    /// The busy one is believed; a figure that is thrown away holds the size, and both are told.
    @Test func aGuardHoldsAndNeverTurnsAWishRound() async throws {
        try await withPages("1..6", "metrics: [{ metric: q, average: 10 }]") { pages in
            try pages.say("q 30\n")
            try await pages.expectSize(6)
            // What all say asks for one; what one of them says cannot be, and may have been much.
            try pages.say("q 1\n")
            try pages.say("q 1e300\n", of: 1)
            try await pages.expectTold("nothing is taken away while a figure is thrown away: w/1: q is 1e+300")
            try await Task.sleep(for: .seconds(4))
            let size1 = try await pages.size()
            #expect(size1 == 6)
            // A page that cannot be read is no page without a figure.
            try pages.say("q one\n", of: 1)
            try await pages.expectTold("nothing is taken away while a figure is thrown away: w/1: http")
            try pages.say("q 1 1000\n", of: 1)
            try await pages.expectTold("q is of 1970-01-01T00:00:01.000Z by the page's own word")
            let size2 = try await pages.size()
            #expect(size2 == 6)
            // 5000, 1, 1, …: three orders of magnitude from the others, and the one that has the work.
            try pages.say("q 5000\n", of: 1)
            try await pages.expectTold("note: w/1: it is 5000.0, where the median of its siblings is 1.0")
            try await Task.sleep(for: .seconds(4))
            let size3 = try await pages.size()
            #expect(size3 == 6)
            try pages.say("q 1\n", of: 1)
            try await pages.expectSize(1)
        }
    }
}
