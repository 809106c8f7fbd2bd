import Basics
import Glibc
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

    /// A file that is being written is not taken for one with fewer backends.
    @Test func aFileInTheMiddleOfBeingWrittenIsNotTaken() async throws {
        try await withFolder { folder in
            let file = folder + "/backends"
            var watch = FileWatch()
            func look() throws -> [String]? { try watch.look(file)?.get().map(\.address) }
            try folder.put("backends", "127.0.0.1:1\n127.0.0.1:2\n127.0.0.1:3\n")
            #expect(try look() == nil)
            #expect(try look() == ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"])
            #expect(try look() == nil && look() == nil)
            // Emptied and filled again in place, a line between two looks.
            let fd = open(file, O_WRONLY | O_TRUNC)
            defer { close(fd) }
            for i in 4...7 {
                #expect(try look() == nil, "\(i)")
                let line = Array("127.0.0.1:\(i)\n".utf8)
                #expect(write(fd, line, line.count) == line.count)
            }
            #expect(try look() == nil)
            #expect(try look() == ["127.0.0.1:4", "127.0.0.1:5", "127.0.0.1:6", "127.0.0.1:7"])
            // What is gone is told, and told again as long as it is: the reason may change.
            Files.remove(file)
            #expect(watch.look(file) == nil)
            for _ in 0..<2 { if case .failure? = watch.look(file) {} else { Issue.record("not told") } }
        }
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
