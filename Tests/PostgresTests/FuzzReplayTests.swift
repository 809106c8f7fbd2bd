import TestSupport
import Testing

@testable import Postgres

/// The fuzzer's corpus and some thousand changes of it, in the ordinary tests.
@Suite struct FuzzReplayTests {
    @Test func anyBytesEndInAMessageOrAFailure() throws {
        #expect(try FuzzReplay.corpus("postgres").count >= 12)
        #expect(try FuzzReplay.faults("postgres", mutations: 500, checkMessages) == [])
    }

    /// The check finds what it should.
    @Test func theCheckBites() throws {
        let names = try FuzzReplay.corpus("postgres").map(\.name)
        for name in ["backend", "frontend", "opening", "answer-simple", "answer-extended", "array-binary", "array-text"] {
            #expect(names.contains(name), "\(name)")
        }
        // Each of the corpus is read to its end, and not refused at its beginning.
        let answer = try #require(try FuzzReplay.corpus("postgres").first { $0.name == "answer-extended" }).bytes
        var machine = AnswerMachine(simple: PostgresLimits())
        let refused = answer.dropFirst().withUnsafeBytes { bytes in
            (try? MessageFrame.next(bytes, limit: 4096)).flatMap { $0 }.map { frame in
                (try? machine.received(frame.kind, bytes.part(frame.body.lowerBound, frame.body.count))) == nil
            }
        }
        #expect(refused == true)
    }
}
