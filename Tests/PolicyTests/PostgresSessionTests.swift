import Basics
import PostgresRouting
import TestSupport
import Testing

/// What a session's machine tells its router beside the target: what is sent before a text and instead of it, what follows it, what is
/// carried.
@Suite struct PostgresSessionTests {
    /// A session and its cache: each text is answered as it should be.
    struct Client {
        var session: RoutingSession
        var cache = VerdictCache()

        init(reported: [String: String] = [:], options: [String: String] = [:]) {
            session = RoutingSession(user: "app", reported: reported, options: options)
        }

        mutating func route(_ text: String, _ catalog: RoutingCatalog = PostgresRoutingTests.catalog) -> RouteVerdict {
            session.route(text, catalog, &cache)
        }

        @discardableResult
        mutating func send(_ texts: String...) -> RouteVerdict {
            var last: RouteVerdict?
            for text in texts {
                let verdict = route(text)
                last = verdict
                if verdict.target != .refused { session.answered(.success) }
            }
            return last!
        }
    }

    @Test func whatWasHeldIsSentBefore() {
        var client = Client()
        #expect(
            client.send("BEGIN", "SAVEPOINT a", "SET LOCAL work_mem = '1MB'").target == .either && client.session.transactionServer == nil)
        let verdict = client.send("SELECT 1")
        #expect(verdict.target == .primary && verdict.prelude == ["BEGIN", "SAVEPOINT a", "SET LOCAL work_mem = '1MB'"])
        #expect(client.send("SELECT 2").prelude == [] && client.session.transactionServer == .primary)
        #expect(client.send("COMMIT").target == .primary && !client.session.isInTransaction)
    }

    @Test func whatNoServerKnowsOfEndsWithoutOne() {
        var client = Client()
        #expect(client.send("BEGIN", "SET LOCAL work_mem = '1MB'", "COMMIT").target == .either)
        #expect(client.send("DELETE FROM accounts").prelude == [])
    }

    @Test func tooMuchIsNotHeld() {
        var client = Client()
        client.send("BEGIN READ ONLY")
        var opened = 0
        for number in 0..<150 where opened == 0 {
            if client.send("SAVEPOINT s\(number)").target == .replica { opened = number }
        }
        #expect(opened == 99 && client.session.transactionServer == .replica)
        var large = Client()
        large.send("BEGIN")
        large.send("SET LOCAL a.b = '\(String(repeating: "x", count: 20_000))'")
        #expect(large.send("SAVEPOINT a").target == .primary)
    }

    @Test func aChainOnAReplicaMayMove() {
        var client = Client()
        client.send("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SELECT 1", "COMMIT AND CHAIN")
        let verdict = client.send("SELECT * FROM scratch")
        #expect(verdict.target == .primary && verdict.leavesReplica)
        #expect(verdict.prelude == ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"] && client.session.transactionServer == .primary)
        #expect(client.send("SELECT 1").leavesReplica == false)
    }

    @Test func aTextMayEndATransactionOnAReplicaFirst() {
        var client = Client()
        client.send("BEGIN READ ONLY", "SELECT 1")
        let verdict = client.send("SELECT 2; COMMIT; DELETE FROM accounts; SELECT 3")
        #expect(verdict.target == .primary && verdict.leading == 2 && !client.session.isInTransaction)
        client.send("BEGIN READ ONLY", "SELECT 1")
        let again = client.send("COMMIT; BEGIN; SELECT 1")
        #expect(again.target == .primary && again.leading == 1 && client.session.transactionServer == .primary)
    }

    @Test func whatMusterRefusesFailsTheTransactionHereToo() {
        var client = Client()
        client.send("BEGIN READ ONLY", "SELECT 1")
        let refused = client.send("SELECT * FROM scratch")
        #expect(refused.target == .refused && refused.refusal?.server == nil && refused.refusal?.sqlState == "25006")
        let after = client.send("SELECT 1")
        #expect(after.target == .replica && after.isAnsweredAsFailed)
        let end = client.send("COMMIT")
        #expect(end.target == .replica && end.replacement == "ROLLBACK" && !client.session.isInTransaction)
        #expect(client.send("DELETE FROM accounts").target == .primary)
    }

    @Test func aServersRefusalIsTheServersToMake() {
        var client = Client()
        client.send("BEGIN READ ONLY")
        let refused = client.route("DELETE FROM accounts")
        #expect(refused.refusal?.server == .replica && refused.prelude == ["BEGIN READ ONLY"])
        client.session.answered(TextOutcome(completed: 0, transaction: .failed))
        let after = client.send("SELECT 1")
        #expect(after.target == .replica && !after.isAnsweredAsFailed && after.prelude == [])
    }

    @Test func theServersWordOnTheTransactionWins() {
        var client = Client()
        let text = "SELECT '\(String(repeating: "x", count: 70_000))'; BEGIN"
        #expect(client.route(text).target == .pinned)
        client.session.answered(TextOutcome(completed: nil, transaction: .open))
        #expect(client.session.transactionServer == .primary && client.session.pin == .unread)
        _ = client.route("SELECT 1")
        client.session.answered(TextOutcome(completed: nil, transaction: .idle))
        #expect(!client.session.isInTransaction && client.send("DISCARD ALL").afterwards.contains(.unpinned))
        #expect(client.send("SELECT 1").target == .replica)
    }

    @Test func whatFollowsATextIsSaid() {
        var client = Client()
        #expect(client.send("SELECT 1").afterwards == [] && client.send("SELECT 1").mayMoveToPrimary)
        #expect(client.send("SELECT touch(1)").afterwards == [.discardAll, .discardSequences])
        #expect(client.send("DO $$ $$").afterwards == [.discardAll, .discardSequences])
        #expect(client.send("DELETE FROM accounts").afterwards == [.discardSequences])
        #expect(client.send("CREATE TABLE x (a int)").afterwards == [.readCatalog])
        #expect(client.send("CREATE TEMP TABLE y (a int)").afterwards == [] && client.session.isPinned)
        #expect(client.send("DISCARD ALL").afterwards == [.unpinned])
        #expect(!client.send("/* muster:replica */ SELECT 1").mayMoveToPrimary)
        client.send("SET default_transaction_read_only = on")
        #expect(!client.send("SELECT 1").mayMoveToPrimary)
    }

    @Test func libraryAndSeedEndWithTheConnection() {
        for text in ["LOAD 'x'", "SELECT setseed(0.5)"] {
            var client = Client()
            let catalog = RoutingCatalog(functions: [.init(QualifiedName("pg_catalog", "setseed"), .volatile)], relations: [])
            #expect(client.route(text, catalog).target == .pinned)
            client.session.answered(.success)
            client.send("DISCARD ALL")
            #expect(client.session.isPinned && client.session.endsWithClosing)
        }
    }

    @Test func advisoryLocksAreTheServersToTell() {
        var client = Client()
        let catalog = RoutingCatalog(functions: [.init(QualifiedName("pg_catalog", "pg_try_advisory_lock"), .volatile)], relations: [])
        let lock = "SELECT pg_try_advisory_lock(1)"
        #expect(client.route(lock, catalog).afterwards.contains(.checkAdvisoryLocks))
        client.session.answered(.success)
        #expect(client.session.advisoryLocks(held: true) == false && client.session.isPinned)
        #expect(client.session.advisoryLocks(held: false) && !client.session.isPinned)
        // An error after the lock was taken: the lock is taken for held until the server says otherwise.
        _ = client.route(lock, catalog)
        client.session.answered(TextOutcome(completed: 0, transaction: .idle))
        #expect(client.session.isPinned && client.session.advisoryLocks(held: false))
    }

    // MARK: settings

    @Test func settingsAreCarriedFromConnectionToConnection() {
        var one = Client(options: ["application_name": "it's", "muster.route": "primary"]), two = Client()
        #expect(one.send("SELECT 1").target == .primary, "the connection option says so")
        one.send("SET search_path = app, \"Odd\"\"Name\"", "SET work_mem TO 1000", "SET app.tenant = E'a\\\\b'", "SET muster.route = auto")
        let put = one.session.settings.statements(from: nil)
        #expect(
            put == [
                "SET \"app\".\"tenant\" TO E'a\\\\b'", "SET \"application_name\" TO 'it''s'", "SET \"search_path\" TO 'app', 'Odd\"Name'",
                "SET \"work_mem\" TO '1000'",
            ])
        #expect(one.session.settings.statements(from: one.session.settings) == [])
        two.send("SET work_mem TO 1000")
        #expect(
            two.session.settings.statements(from: one.session.settings)
                == ["RESET \"app\".\"tenant\"", "RESET \"application_name\"", "RESET \"search_path\""])
        one.session.parameterReported("work_mem", "1000kB")
        #expect(one.session.settings.statements(from: two.session.settings).contains("SET \"work_mem\" TO '1000kB'"))
        one.send("RESET ALL")
        #expect(one.session.settings.statements(from: nil) == ["SET \"application_name\" TO 'it''s'"])
    }

    @Test func whatTheServerDidNotAcceptIsNotCarried() {
        var client = Client()
        _ = client.route("SET work_mem = 'much'")
        client.session.answered(TextOutcome(completed: 0, transaction: .idle))
        #expect(client.session.settings.statements(from: nil) == [])
        _ = client.route("SET work_mem = '1MB'; SELECT 1/0")
        client.session.answered(TextOutcome(completed: 1, transaction: .idle))
        #expect(client.session.settings.statements(from: nil) == [], "the text was one transaction")
        client.send("BEGIN", "SAVEPOINT a", "SET work_mem = '1MB'", "ROLLBACK TO a", "SET temp_buffers = 1000", "COMMIT")
        #expect(client.session.settings.statements(from: nil) == ["SET \"temp_buffers\" TO '1000'"])
    }

    @Test func aServerThatReportsReadOnlyMakesTransactionsReadOnly() {
        var client = Client(reported: ["default_transaction_read_only": "on"])
        #expect(client.send("BEGIN", "SELECT 1").target == .replica)
        client.send("COMMIT")
        #expect(client.send("DELETE FROM accounts").target == .refused)
        client.session.parameterReported("default_transaction_read_only", "off")
        #expect(client.send("DELETE FROM accounts").target == .primary)
    }

    @Test func textsThatWouldBeReadOtherwiseAreNotRead() {
        var sjis = Client(options: ["client_encoding": "Shift_JIS"])
        #expect(sjis.send("SELECT 1").target == .replica && sjis.send("SELECT 'é'").target == .pinned)
        var plain = Client()
        #expect(plain.send("SELECT 'é\\'").target == .replica)
        plain.send("SET standard_conforming_strings = off")
        #expect(plain.send("SELECT 1").target == .replica && plain.send("SELECT '\\''").target == .pinned)
    }

    // MARK: reasons and second tries

    @Test func everyVerdictSaysWhy() {
        var client = Client()
        let texts = [
            "SELECT 1", "", "SELECT touch(1)", "SELEC", "BEGIN", "SELECT 1", "COMMIT", "LISTEN a", "SELECT 1", "UNLISTEN *",
            "SET a.b = 'c'",
            "/* muster:replica */ DELETE FROM accounts", "SET muster.route = 'x'", "SELECT * FROM v",
        ]
        var rules: Set<String> = []
        for text in texts {
            let verdict = client.send(text), record = verdict.record(of: "main")
            #expect(record.kind == .route && record.subject == "main" && record.outcome == verdict.target.rawValue)
            #expect(verdict.sentence.hasSuffix(".") && !record.flip.isEmpty)
            rules.insert(verdict.rule.rawValue)
        }
        #expect(rules.count > 9)
        #expect(
            client.send("SELECT k FROM scratch").sentence.contains("unlogged table")
                && !client.send("SELECT 'secret' FRM").sentence.contains("secret"))
    }

    @Test func aReplicasErrorMayMoveAReadOnce() {
        var client = Client()
        let read = client.send("SELECT 1")
        func step(_ verdict: RouteVerdict, _ state: String, _ message: String = "", rows: Bool = false, second: Bool = false)
            -> Fallback.Step
        {
            Fallback.decide(verdict, sqlState: state, message: message, rowsWereSent: rows, isSecondTry: second)
        }
        #expect(step(read, "25006") == .primary(learns: true, readsCatalog: true))
        for state in ["42P01", "42883"] { #expect(step(read, state) == .primary(learns: false, readsCatalog: true)) }
        #expect(step(read, "42703") == .primary(learns: false, readsCatalog: false))
        #expect(
            step(read, "0A000", "cannot access temporary or unlogged relations during recovery")
                == .primary(learns: false, readsCatalog: false))
        for state in ["40001", "57014"] {
            #expect(step(read, state, "canceling statement due to conflict with recovery") == .primary(learns: false, readsCatalog: false))
        }
        func stays(_ step: Fallback.Step) -> Bool { if case .client(let why) = step { !why.isEmpty } else { false } }
        #expect(stays(step(read, "57014", "canceling statement due to user request")) && stays(step(read, "0A000", "not supported")))
        #expect(stays(step(read, "22012")) && stays(step(read, "25006", rows: true)) && stays(step(read, "25006", second: true)))
        client.send("BEGIN READ ONLY")
        #expect(
            stays(step(client.send("SELECT 1"), "25006"))
                && stays(step(Client().session.isPinned ? read : client.send("SELECT 2"), "42P01")))
        client.send("COMMIT")
        #expect(stays(step(client.send("/* muster:replica */ SELECT 1"), "25006")) && stays(step(client.send("SELECT touch(1)"), "25006")))
    }
}
