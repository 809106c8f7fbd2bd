import Basics
import EventLoops
import Glibc
import HTTP
import TestSupport
import Testing

/// The cases of the response cache: a runner that is client and origin plays them against the gateway. `MUSTER_CACHE_CASES` names another
/// file of the same form.
@Suite struct CacheCases {
    /// Cases at a time: most of them wait for something to become stale.
    private static let jobs = 40

    /// Plays `cases`, or those of one level, and tells each that the gateway does not agree with. Returns how many were played.
    private static func play(_ cases: String, level: String) async throws -> Int {
        let origin = TestPorts.server()
        var played = 0
        try await withGatewayProcess(["{ path: /, backends: [127.0.0.1:\(origin)], cache: {} }"], more: more) { gateway in
            let file = gateway.folder + "/results.json"
            let (status, output) = try await run(
                try systemProgram("python3"),
                [
                    "\(projectFolder)/Tests/RealServer/Cache/cache_runner.py", cases, "--base", "http://127.0.0.1:\(gateway.port)",
                    "--origin",
                    "\(origin)", "--level", level, "--jobs", "\(jobs)", "--patience", "60", "--purge",
                    "http://127.0.0.1:\(gateway.admin)/api/cache/purge", "--token", "a-token-of-the-tests", "--json", file, "--why",
                ], limit: .seconds(400))
            for line in output.split(separator: "\n") where line.hasPrefix("fail") { Issue.record("\(line)") }
            let counts = output.split(separator: "\n").last ?? ""
            print("cache cases, \(level): \(counts)")
            if level == "must" { #expect(status == 0, "\(output)") }
            played = counts.split(whereSeparator: { !$0.isNumber }).compactMap { Int($0) }.sumClamped()
        }
        return played
    }

    // Room for all cases at once: those of the largest answers would push out what others count on.
    private static let more = ["access-log: false", "admin-token-file: FOLDER/token", "cache: { memory: 512Mi }"]
    private static var cases: String {
        environmentValue("MUSTER_CACHE_CASES").flatMap { $0.isEmpty ? nil : $0 }
            ?? "\(projectFolder)/Tests/RealServer/Cache/cache-cases.json"
    }

    @Test func whatMustBe() async throws { #expect(try await Self.play(Self.cases, level: "must") > 0) }

    @Test func whatWeWant() async throws { _ = try await Self.play(Self.cases, level: "want") }

    /// Purges by tag and prefix concern every fetch that is under way, and so the herds of cases that are played at the same time.
    @Test func purgesOfManyAnswers() async throws {
        #expect(try await Self.play("\(projectFolder)/Tests/RealServer/Cache/purge-cases.json", level: "want") == 2)
    }

    /// A gateway without a cache does not agree: the cases can tell.
    @Test func theCasesCanTell() async throws {
        let origin = TestPorts.server()
        try await withGatewayProcess(["{ path: /, backends: [127.0.0.1:\(origin)] }"]) { gateway in
            let (_, output) = try await run(
                try systemProgram("python3"),
                [
                    "\(projectFolder)/Tests/RealServer/Cache/cache_runner.py", "\(projectFolder)/Tests/RealServer/Cache/cache-cases.json",
                    "--base", "http://127.0.0.1:\(gateway.port)", "--origin", "\(origin)", "--only", "dev-max-age,dev-no-store",
                ], limit: .seconds(60))
            #expect(output.contains("1 passed, 1 failed"), "\(output)")
        }
    }
}
