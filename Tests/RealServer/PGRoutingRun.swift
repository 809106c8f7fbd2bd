import Basics
import EventLoops
import Glibc
import PostgresRouting
import TestSupport
import Testing

/// A client session and what is expected of its last text, from a file of cases.
struct RoutingCase: Sendable, CustomTestStringConvertible {
    let name: String
    let session: [String]
    let sql: String
    let verdict: String
    /// Its place in its file.
    let place: Int

    var testDescription: String { name }

    init(_ value: JSONValue, place: Int) {
        self.place = place
        name = value["name"].string ?? "a case without a name: \(value)"
        session = value["session"].list.map { $0.string ?? "" }
        sql = value["sql"].string ?? ""
        verdict = value["verdict"].string ?? "none"
    }

    /// Where no server is needed, either of them will do.
    func accepts(_ target: RouteVerdict.Target) -> Bool {
        target.rawValue == verdict || verdict == "either" && (target == .primary || target == .replica)
    }
}

/// What became of a case.
struct RoutedCase: Sendable {
    let target: RouteVerdict.Target
    let sentence: String

    init(_ verdict: RouteVerdict, target: RouteVerdict.Target? = nil) {
        self.target = target ?? verdict.target
        sentence = verdict.sentence
    }
}

/// A file of cases: what the database holds, what the stack file declares, and the cases.
struct RoutingCases: Sendable {
    let fixture: [String]
    let declared: DeclaredFunctions
    let cases: [RoutingCase]

    init(_ path: String) throws {
        let file = try JSONValue.parse(try Files.read(path))
        fixture = file["fixture"].list.map { $0.string ?? "" }
        declared = DeclaredFunctions(
            readOnly: file["declared"]["read_only"].list.compactMap(\.string), writes: file["declared"]["writes"].list.compactMap(\.string))
        cases = file["cases"].list.enumerated().map { RoutingCase($1, place: $0) }
    }
}

/// One connection to a PostgreSQL that asks for no password, with the simple query protocol: what it is sent, it sends as it stands.
final class PlainPostgres {
    struct Answer {
        /// The statements that were carried out.
        var completed = 0
        var sqlState: String?
        var message = ""
        var transaction = TextOutcome.Transaction.idle
        var rows: [[String?]] = []
        var reported: [(name: String, value: String)] = []

        var outcome: TextOutcome { TextOutcome(completed: sqlState == nil ? nil : completed, transaction: transaction) }
    }

    private let peer: RawPeer
    private(set) var start = Answer()

    init(port: UInt16, database: String) throws {
        peer = try RawPeer(port: port)
        var words: [UInt8] = []
        for word in ["user", "postgres", "database", database, "client_encoding", "UTF8", ""] { words += Array(word.utf8) + [0] }
        peer.send(PlainPostgres.number(words.count + 8) + PlainPostgres.number(196_608) + words)
        start = read()
        if let state = start.sqlState { throw SystemError("PostgreSQL refused the connection: \(state) \(start.message)", ECONNREFUSED) }
    }

    private static func number(_ value: Int) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) } }

    private func send(_ type: Character, _ body: [UInt8]) { peer.send([type.asciiValue!] + PlainPostgres.number(body.count + 4) + body) }

    func ask(_ text: String) -> Answer {
        send("Q", Array(text.utf8) + [0])
        return read()
    }

    /// Ends the session and waits until the server has ended it too, with all its locks.
    func close() {
        send("X", [])
        _ = peer.readToEnd()
    }

    private func read() -> Answer {
        var answer = Answer()
        while true {
            let head = peer.read(5)
            guard head.count == 5 else {
                answer.sqlState = "08006"
                return answer
            }
            let body = peer.read(head[1...].reduce(0) { $0 << 8 | Int($1) } - 4)
            switch Character(UnicodeScalar(head[0])) {
            case "C", "I": answer.completed += 1
            case "E":
                for field in body.split(separator: 0) {
                    let text = String(decoding: field.dropFirst(), as: UTF8.self)
                    if field.first == UInt8(ascii: "C") { answer.sqlState = text }
                    if field.first == UInt8(ascii: "M") { answer.message = text }
                }
            case "S":
                let parts = body.split(separator: 0, omittingEmptySubsequences: false).map { String(decoding: $0, as: UTF8.self) }
                if parts.count > 1 { answer.reported.append((parts[0], parts[1])) }
            case "G": send("c", [])
            case "D": answer.rows.append(row(body))
            case "Z":
                answer.transaction = body.first == UInt8(ascii: "I") ? .idle : body.first == UInt8(ascii: "T") ? .open : .failed
                return answer
            default: break
            }
        }
    }

    private func row(_ body: [UInt8]) -> [String?] {
        var at = 2
        return (0..<(Int(body[0]) << 8 | Int(body[1]))).map { _ in
            let length = Int(Int32(bitPattern: body[at..<at + 4].reduce(0) { $0 << 8 | UInt32($1) }))
            at += 4
            guard length >= 0 else { return nil }
            defer { at += length }
            return String(decoding: body[at..<at + length], as: UTF8.self)
        }
    }
}

/// The cases of a file, carried out: each session on a real PostgreSQL, its last text only routed.
struct RoutingRun {
    private let file: RoutingCases
    private let port: UInt16
    private let template: RoutingCatalog
    private var cache = VerdictCache()
    private var isChanged = false

    /// The verdicts by the cases' places.
    static func verdicts(_ file: RoutingCases) async throws -> [RoutedCase] {
        try await withFolder { folder in
            let server = try await RoutingServer.start(
                in: folder, settings: ["max_prepared_transactions = 5", "max_connections = 20"])
            let result = Result { () throws -> [RoutedCase] in
                var run = try RoutingRun(file, port: server.port)
                return try file.cases.map { try run.verdict($0) }
            }
            await server.destroy()
            return try result.get()
        }
    }

    init(_ file: RoutingCases, port: UInt16) throws {
        self.file = file
        self.port = port
        for name in ["routing", "changing"] { try RoutingRun.make(name, file.fixture, port) }
        let connection = try PlainPostgres(port: port, database: "routing")
        defer { connection.close() }
        template = try RoutingRun.catalog(connection, file.declared)
    }

    /// A database with the fixture.
    static func make(_ name: String, _ fixture: [String], _ port: UInt16) throws {
        let connection = try PlainPostgres(port: port, database: "postgres")
        defer { connection.close() }
        let made = connection.ask("CREATE DATABASE \(name)")
        if made.sqlState != nil { throw SystemError("the database \(name): \(made.message)", EINVAL) }
        try fill(name, fixture, port)
    }

    static func catalog(
        _ connection: PlainPostgres, _ declared: DeclaredFunctions, after previous: RoutingCatalog? = nil
    ) throws -> RoutingCatalog {
        _ = connection.ask(CatalogReading.begin)
        let rows = try [CatalogReading.functions, CatalogReading.relations, CatalogReading.serials].map { query in
            let answer = connection.ask(query)
            if let state = answer.sqlState { throw SystemError("the catalog: \(state) \(answer.message)", EINVAL) }
            return answer.rows
        }
        _ = connection.ask(CatalogReading.end)
        return CatalogReading.catalog(functions: rows[0], relations: rows[1], serials: rows[2], declared: declared, after: previous)
    }

    mutating func verdict(_ item: RoutingCase) throws -> RoutedCase {
        // What changes the catalog has a database of its own, which is made anew for the next one.
        if let verdict = try verdict(item, database: "routing", isOwn: false) { return verdict }
        if isChanged { try RoutingRun.fill("changing", file.fixture, port) }
        isChanged = true
        guard let verdict = try verdict(item, database: "changing", isOwn: true) else { throw SystemError("no verdict", EINVAL) }
        return verdict
    }

    /// Everything that is not PostgreSQL's own goes, and the fixture comes.
    private static func fill(_ database: String, _ fixture: [String], _ port: UInt16) throws {
        let connection = try PlainPostgres(port: port, database: database)
        defer { connection.close() }
        let empty = """
            SET client_min_messages = error;
            DO $$ DECLARE one text; BEGIN
              FOR one IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)' LOOP
                EXECUTE format('DROP SCHEMA %I CASCADE', one);
              END LOOP;
              PERFORM lo_unlink(oid) FROM pg_largeobject_metadata;
            END $$;
            CREATE SCHEMA public
            """
        for statement in [empty] + fixture {
            // A role is the whole server's: it is there the second time.
            let answer = connection.ask(statement)
            if let state = answer.sqlState, state != "42710" { throw SystemError("the fixture: \(statement): \(answer.message)", EINVAL) }
        }
    }

    private mutating func verdict(_ item: RoutingCase, database: String, isOwn: Bool) throws -> RoutedCase? {
        let connection = try PlainPostgres(port: port, database: database)
        defer { connection.close() }
        var catalog = template
        var session = RoutingSession(user: "postgres")
        for one in connection.start.reported { session.parameterReported(one.name, one.value) }
        for text in item.session {
            let verdict = session.route(text, catalog, &cache)
            let changes = verdict.afterwards.contains(.readCatalog)
            if changes, !isOwn { return nil }
            carryOut(text, verdict, &session, connection)
            if changes, !session.isInTransaction {
                let reader = try PlainPostgres(port: port, database: database)
                catalog = try RoutingRun.catalog(reader, file.declared, after: catalog)
                reader.close()
            }
        }
        let verdict = session.route(item.sql, catalog, &cache)
        // Whether an advisory lock is the last is the server's to say.
        if verdict.rule == .pinnedSession, verdict.target == .pinned, verdict.afterwards.contains(.checkAdvisoryLocks) {
            carryOut(item.sql, verdict, &session, connection)
            if !session.isPinned { return RoutedCase(verdict, target: .primary) }
        }
        return RoutedCase(verdict)
    }

    /// As the router does it, with one connection for all.
    private func carryOut(_ text: String, _ verdict: RouteVerdict, _ session: inout RoutingSession, _ connection: PlainPostgres) {
        if verdict.target == .refused, verdict.refusal?.server == nil { return }
        if verdict.isAnsweredAsFailed { return }
        if verdict.target == .either, text.contains("muster.") { return session.answered(.success) }
        let answer = connection.ask(verdict.replacement ?? text)
        session.answered(answer.outcome)
        for one in answer.reported { session.parameterReported(one.name, one.value) }
        guard verdict.afterwards.contains(.checkAdvisoryLocks), !session.isInTransaction else { return }
        _ = session.advisoryLocks(held: connection.ask(CatalogReading.holdsAdvisoryLocks).rows.first?.first == "t")
    }
}
