import Basics
import TestSupport
import Testing

@testable import Gateway

/// A file with a backend a line.
@Suite struct BackendsFileTests {
    private func read(_ text: String) async throws -> Result<[String], Gateway.Failure> {
        try await withFolder { folder in
            try folder.put("backends", text)
            return Discovery.read(folder + "/backends").map { $0.map { "\($0.address) \($0.weight) \($0.priority)" } }
        }
    }

    @Test(arguments: ["\n", "\r\n"]) func linesEndInEitherWay(end: String) async throws {
        let text =
            ["# ours", "127.0.0.1:1", "", "  127.0.0.1:2 weight=3 priority=1 # spare", "[::1]:3 weight=0", "unix:/run/app.sock"].joined(
                separator: end) + end
        let found = try await read(text).get()
        #expect(found == ["127.0.0.1:1 1 0", "127.0.0.1:2 3 1", "[::1]:3 0 0", "unix:/run/app.sock 1 0"])
    }

    @Test(arguments: [
        "127.0.0.1:1 weight=257", "127.0.0.1:1 priority=8", "127.0.0.1:1 weight", "127.0.0.1:1 127.0.0.1:2", "127.0.0.1",
        "127.0.0.1:1 weight=-1",
    ])
    func aWrongLineIsTold(line: String) async throws {
        let result = try await read("127.0.0.1:9\r\n\(line)\r\n")
        guard case .failure(let failure) = result else {
            Issue.record("taken: \(line)")
            return
        }
        #expect(failure.description.contains("backends line 2: "))
    }
}
