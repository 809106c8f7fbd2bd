import Basics
import EventLoops
import Glibc
import Postgres
import TestSupport
import Testing

/// What a server that is broken, hostile or slow can do to the client: it gets an error that says so, in time, and nothing else.
@Suite struct PostgresPeerTests {
    typealias Serve = @Sendable (PostgresPeer) -> Void

    /// A login that a server breaks.
    struct Login: Sendable, CustomTestStringConvertible {
        let name: String
        let code: PostgresError.Code
        let words: String
        let serve: Serve
        init(_ name: String, _ code: PostgresError.Code, _ words: String, _ serve: @escaping Serve) {
            (self.name, self.code, self.words, self.serve) = (name, code, words, serve)
        }
        var testDescription: String { name }
    }

    static let logins: [Login] = [
        Login("a huge length", .tooLarge, "65536") { $0.send(raw: [82, 127, 255, 255, 255]) },
        Login("a negative length", .malformed, "a length of -1") { $0.send(raw: [82, 255, 255, 255, 255]) },
        Login("HTTP", .tooLarge, "'H'") { $0.send(raw: Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8)) },
        Login("an unknown way to log in", .authentication, "99") { $0.send(.authentication(.other(99, []))) },
        Login("md5", .authentication, "scram-sha-256") { $0.send(.authentication(.md5Password(salt: 1))) },
        Login("GSSAPI", .authentication, "GSSAPI") { $0.send(.authentication(.gss)) },
        Login("SASL without SCRAM", .authentication, "OAUTHBEARER") { $0.send(.authentication(.sasl(mechanisms: ["OAUTHBEARER"]))) },
        Login("no SASL at all", .authentication, "no way") { $0.send(.authentication(.sasl(mechanisms: []))) },
        Login("ready without a login", .malformed, "before the login") { $0.send(.readyForQuery(.idle)) },
        Login("a row during the login", .malformed, "'D'") { $0.send(.dataRow(DataRow([]))) },
        Login("an error during the login", .server, "53300") {
            $0.send(.errorResponse(ServerMessage(severity: "FATAL", state: "53300", "too many clients")))
        },
        Login("the end during the login", .unavailable, "closed") { _ in },
        Login("another SCRAM", .authentication, "nonce") {
            $0.send(.authentication(.sasl(mechanisms: ["SCRAM-SHA-256"])))
            $0.next()
            $0.send(.authentication(.saslContinue(Array("r=other,s=c2FsdA==,i=4096".utf8))))
            $0.next()
        },
        Login("a million iterations", .authentication, "iterations") { peer in
            PostgresPeerTests.challenge(peer, "s=c2FsdA==,i=1000000")
            peer.next()
        },
        Login("a salt that is none", .authentication, "salt") { peer in
            PostgresPeerTests.challenge(peer, "s=!,i=4096")
            peer.next()
        },
        Login("no proof of the server's", .authentication, "own proof") { peer in
            PostgresPeerTests.challenge(peer, "s=c2FsdA==,i=4096")
            peer.next()
            peer.send(.authentication(.ok), .readyForQuery(.idle))
        },
        Login("a wrong proof of the server's", .authentication, "verifier") { peer in
            PostgresPeerTests.challenge(peer, "s=c2FsdA==,i=4096")
            peer.next()
            peer.send(.authentication(.saslFinal(Array("v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".utf8))))
        },
        Login("accepted in the middle of SCRAM", .malformed, "order") {
            $0.send(.authentication(.sasl(mechanisms: ["SCRAM-SHA-256"])))
            $0.next()
            $0.send(.authentication(.ok))
        },
    ]

    /// A challenge that goes on from the client's own nonce.
    private static func challenge(_ peer: PostgresPeer, _ rest: String) {
        peer.send(.authentication(.sasl(mechanisms: ["SCRAM-SHA-256"])))
        guard case .proof(let proof) = peer.next(), let first = try? FrontendMessage.SASLFirst(proof) else { return }
        let nonce = String(decoding: first.data ?? [], as: UTF8.self).split(separator: ",").last?.dropFirst(2) ?? ""
        peer.send(.authentication(.saslContinue(Array("r=\(nonce)more,\(rest)".utf8))))
    }

    @Test(arguments: logins) func aLoginThatIsBroken(login: Login) async throws {
        try await withPostgresPeer({ peer, _ in
            _ = peer.opening()
            login.serve(peer)
        }) { url in
            try await withLoop { loop in
                let error = await #expect(throws: PostgresError.self) {
                    try await PostgresConnection.connect(try PostgresURL(url), on: loop)
                }
                #expect(error?.code == login.code && error?.outcome == .notSent, "\(error.map { "\($0)" } ?? "")")
                #expect(error?.message.contains(login.words) == true, "\(error.map { "\($0)" } ?? "")")
                #expect(error.map { "\($0)".contains("secret") } == false)
            }
        }
    }

    @Test func aSilentServerAndOneThatNeverEndsItsLoginAreLeft() async throws {
        try await withPostgresPeer({ peer, number in
            _ = peer.opening()
            if number == 1 {
                peer.next(0)
                return
            }
            peer.send(.authentication(.ok))
            // Slowly first, so that only time ends it; the third in a flood.
            if number == 2 { while peer.peer.send(BackendMessage.parameterStatus(name: "a", value: "b").encoded) { usleep(20_000) } }
            while peer.peer.send(BackendMessage.parameterStatus(name: "a", value: "b").encoded) {}
        }) { url in
            try await withLoop { loop in
                for (code, words) in [(PostgresError.Code.timeout, "1s"), (.timeout, "1s"), (.malformed, "1000 messages")] {
                    let patient = url.replacing("connect_timeout=5", with: "connect_timeout=1")
                    let error = await #expect(throws: PostgresError.self) {
                        try await PostgresConnection.connect(try PostgresURL(patient), on: loop)
                    }
                    #expect(error?.code == code && error?.message.contains(words) == true, "\(error.map { "\($0)" } ?? "")")
                }
            }
        }
    }

    /// An answer that a server breaks, to a simple text and to an extended statement.
    struct Answer: Sendable, CustomTestStringConvertible {
        let name: String
        let code: PostgresError.Code
        let outcome: PostgresError.Outcome
        let words: String
        let messages: [UInt8]
        init(
            _ name: String, _ code: PostgresError.Code, _ outcome: PostgresError.Outcome, _ words: String, _ messages: [BackendMessage],
            raw: [UInt8] = []
        ) {
            (self.name, self.code, self.outcome, self.words) = (name, code, outcome, words)
            self.messages = messages.flatMap(\.encoded) + raw
        }
        var testDescription: String { name }
    }

    private static let column = BackendMessage.rowDescription([.init(name: "a")])

    static let answers: [Answer] = [
        Answer("the end", .lost, .mayHaveRun, "closed", []),
        Answer("a row without columns", .malformed, .mayHaveRun, "'D'", [.dataRow(DataRow([nil]))]),
        Answer("a row of another width", .malformed, .mayHaveRun, "2 values in a row of 1", [column, .dataRow(DataRow([nil, nil]))]),
        Answer(
            "a value of a negative length", .malformed, .mayHaveRun, "-2 bytes", [column], raw: [68, 0, 0, 0, 10, 0, 1, 255, 255, 255, 254]),
        Answer(
            "a value longer than its row", .malformed, .mayHaveRun, "bytes of a value", [column],
            raw: [68, 0, 0, 0, 10, 0, 1, 127, 255, 255, 255]),
        Answer("a negative count of columns", .malformed, .mayHaveRun, "count", [], raw: [84, 0, 0, 0, 6, 255, 255]),
        Answer("a row longer than the bound", .tooLarge, .mayHaveRun, "20000", [column], raw: [68, 0, 1, 0, 0]),
        Answer("too many columns", .tooLarge, .mayHaveRun, "columns", [.rowDescription(Array(repeating: .init(name: "a"), count: 40))]),
        Answer("ready too early", .malformed, .mayHaveRun, "'Z'", [column, .readyForQuery(.idle)]),
        Answer("an unknown message", .malformed, .mayHaveRun, "'~'", [], raw: [126, 0, 0, 0, 4]),
        Answer("an unknown transaction state", .malformed, .mayHaveRun, "status", [], raw: [90, 0, 0, 0, 5, 88]),
        Answer("replication", .malformed, .mayHaveRun, "COPY", [.copyBothResponse(.init(isBinary: false, columns: []))]),
        Answer("data of no COPY", .malformed, .mayHaveRun, "COPY", [.copyData([1])]),
        Answer("a message cut short", .lost, .mayHaveRun, "closed", [], raw: [67, 0, 0]),
        Answer("a tag without its end", .malformed, .mayHaveRun, "CommandComplete", [column], raw: [67, 0, 0, 0, 5, 65]),
        Answer(
            "the server's end", .lost, .refused, "57P01", [.errorResponse(ServerMessage(severity: "FATAL", state: "57P01", "going down"))]),
    ]

    @Test(arguments: answers) func anAnswerThatIsBroken(answer: Answer) async throws {
        try await withPostgresPeer({ peer, _ in
            guard peer.letIn(), let first = peer.next() else { return }
            if first.kind != 81 {
                peer.next(83)
                // What comes before an extended statement's columns.
                peer.send(.parseComplete, .bindComplete)
            }
            peer.send(raw: answer.messages)
        }) { url in
            try await withLoop { loop in
                var limits = PostgresLimits()
                limits.messageBytes = 20_000
                limits.columns = 32
                for isSimple in [true, false] {
                    let connection = try await PostgresConnection.connect(try PostgresURL(url), on: loop, limits: limits)
                    let error = await #expect(throws: PostgresError.self) {
                        if isSimple { _ = try await connection.simple("SELECT 1") } else { _ = try await connection.query("SELECT 1") }
                    }
                    #expect(error?.code == answer.code && error?.outcome == answer.outcome, "\(error.map { "\($0)" } ?? "")")
                    #expect(error?.message.contains(answer.words) == true, "\(error.map { "\($0)" } ?? "")")
                    #expect(await connection.isOpen == false)
                }
            }
        }
    }
}
