import Basics
import EventLoops
import HTTP
import TestSupport
import Testing

/// The supervisor's own socket refuses what it cannot read, and does nothing then.
@Suite(.serialized) struct ControlStrictTests {
    @Test func whatCannotBeReadDoesNothing() async throws {
        try await withFolder { folder in
            let file = folder + "/s.yaml"
            try Files.replace(
                file, with: Array("stack: s\nservices:\n  a:\n    command: [sleep, \"1000\"]\n    replicas: 2\n    grace: 1s\n".utf8))
            let up = try await run(builtProgram("muster"), ["up", "-d", file], folder: folder)
            #expect(up.status == 0, "\(up.output)")
            try await withLoop { loop in
                let client = HTTPClient(loop: loop)
                defer { client.close() }
                let control = try #require(Endpoint("unix:\(folder)/.muster/s/control.sock"))
                func ask(_ method: String, _ target: String, _ body: String? = nil) async throws -> HTTPClientResponse {
                    try await client.send(method, target, to: control, body: body.map { Array($0.utf8) })
                }
                for (target, body) in [
                    ("/api/scale", "{\"service\":\"a\",\"replicas\":\"3\"}"), ("/api/scale", "{\"service\":\"a\",\"replicas\":null}"),
                    ("/api/scale", "{\"service\":\"a\",\"replicas\":2.5}"), ("/api/scale", "{\"service\":\"a\",\"replicas\":-1}"),
                    ("/api/scale", "{\"service\":\"a\",\"replica\":3}"),
                    ("/api/scale", "{\"service\":\"a\",\"replicas\":3,\"replicas\":4}"),
                    ("/api/scale", "{\"replicas\":3}"), ("/api/scale", "[]"),
                    ("/api/scale?service=a", "{\"service\":\"a\",\"replicas\":3}"),
                    ("/api/roll", "{\"service\":1}"), ("/api/roll", "{\"service\":\"a\",\"now\":true}"), ("/api/roll", ""),
                    ("/api/apply", "{\"file\":\"\(file)\",\"replicas\":{\"a\":\"3\"}}"),
                    ("/api/apply", "{\"file\":\"\(file)\",\"replicas\":[3]}"),
                    ("/api/apply", "{\"file\":\"\(file)\",\"environment\":{\"A\":1}}"),
                    ("/api/apply", "{\"file\":\"\(file)\",\"replicas\":{\"a\":3,\"a\":4}}"), ("/api/apply", "{\"replicas\":{\"a\":3}}"),
                    ("/api/apply", "{\"file\":\"\(file)\",\"counts\":{\"a\":3}}"), ("/api/down?now=1", ""),
                ] {
                    let refused = try await ask("POST", target, body)
                    #expect(refused.status == 400 && refused.text.hasPrefix("{\"error\""), "\(target) \(body): \(refused.text)")
                }
                let unknown = try await ask("POST", "/api/apply", "{\"file\":\"\(file)\",\"replicas\":{\"b\":3}}")
                #expect(unknown.status == 404 && unknown.text.contains("'b'"), "\(unknown.text)")
                for target in [
                    "/api/scaling?points=x", "/api/scaling?points=-1", "/api/scaling?point=1", "/api/resources?services=a",
                    "/api/replicas?service=a",
                    "/api/stack?x", "/api/scaling?service=%zz",
                ] {
                    let refused = try await ask("GET", target)
                    #expect(refused.status == 400, "\(target): \(refused.text)")
                }
                let rows = try await ask("GET", "/api/replicas")
                #expect(rows.text.components(separatedBy: "\"service\":\"a\"") == 2, "\(rows.text)")
                let scaled = try await ask("POST", "/api/scale", "{\"service\":\"a\",\"replicas\":3}")
                #expect(scaled.status == 200, "\(scaled.text)")
            }
            let down = try await run(builtProgram("muster"), ["down", file], folder: folder)
            #expect(down.status == 0, "\(down.output)")
        }
    }
}

extension String {
    /// How often a text stands in this one.
    fileprivate func components(separatedBy part: String) -> Int { ranges(of: part).count }
}
