import Basics
import EventLoops
import Postgres
import PostgresFailover

/// What Muster asks and tells the nodes of a store, each time over a new connection to its socket, as its superuser: a server that is stopped
/// goes on to serve old connections.
struct PostgresQuestions: Sendable {
    let node: PostgresNode
    let loop: EventLoop

    /// What a node says of itself, with what only people are shown.
    struct Answer: Sendable, Equatable {
        let report: NodeReport
        /// How old the last write is that a standby shows, where it is behind.
        let lag: Duration?
        let connections: Int
        /// Of a primary, how it treats each standby (`sync`, `quorum`, `async`), by node.
        let synchrony: [Int: String]
    }

    /// A connection that is kept, so that a failover need not wait for one.
    func keep(within: Duration) async -> PostgresConnection? { try? await connect(within: within) }

    private func connect(to database: String = "postgres", within: Duration) async throws(PostgresError) -> PostgresConnection {
        var url = PostgresURL(hosts: [.init(directory: node.socket, port: node.port)], user: "postgres", database: database)
        url.encryption = .disable
        url.applicationName = "muster"
        url.connectTime = within
        return try await PostgresConnection.connect(url, on: loop)
    }

    /// One text over a connection of its own; the rows of its last statement.
    func ask(_ text: String, within: Duration) async throws(PostgresError) -> PostgresResult? {
        let connection = try await connect(within: within)
        do throws(PostgresError) {
            let answer = try await connection.simple(text, within: within)
            await connection.close()
            return answer.last
        } catch {
            await connection.close()
            throw error
        }
    }

    /// Names are those that Muster gives: `node_1`.
    private static let text = """
        SELECT pg_is_in_recovery(),
          CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END,
          CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8) END,
          pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(),
          (SELECT received_tli FROM pg_stat_wal_receiver WHERE status = 'streaming'),
          CASE WHEN pg_is_in_recovery()
            THEN (SELECT max(substr(name, 1, 8)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$') END,
          (SELECT string_agg(application_name || '=' || sync_state, ',') FROM pg_stat_replication WHERE state = 'streaming'),
          (SELECT string_agg(slot_name, ',') FROM pg_replication_slots WHERE wal_status = 'lost'),
          current_setting('synchronous_standby_names') <> '',
          CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
            ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END,
          (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
        """

    /// How the node is, by a new connection.
    func look(within: Duration, over spare: PostgresConnection? = nil) async -> Result<Answer, Silence> {
        do throws(PostgresError) {
            let answer =
                if let spare { try await spare.simple(PostgresQuestions.text, within: within).last } else {
                    try await ask(PostgresQuestions.text, within: within)
                }
            guard let row = answer?.first else {
                return .failure(.occupied("it gave an answer without a row"))
            }
            return PostgresQuestions.read(row).map(Result.success) ?? .failure(.occupied("it gave an answer that cannot be read"))
        } catch { return .failure(Silence(error)) }
    }

    /// Why there is no answer.
    enum Silence: Error, Sendable, Equatable {
        case occupied(String)
        case silent(String)
        case unasked(String)

        init(_ error: PostgresError) {
            if error.isOwnWant {
                self = .unasked(error.message)
            } else if error.server != nil || error.code == .authentication || error.code == .malformed || error.code == .tooLarge {
                // Also "the database system is starting up": whoever says so lives.
                self = .occupied(error.message)
            } else {
                self = .silent(error.message)
            }
        }

        var testimony: NodeTestimony {
            switch self {
            case .occupied(let why): .occupied(why)
            case .silent(let why): .silent(why)
            case .unasked(let why): .unasked(why)
            }
        }
    }

    private static func read(_ row: PostgresRow) -> Answer? {
        let isStandby = row.text(0) == "t"
        let lag = row.text(10).flatMap { Double($0) }.flatMap { Duration(seconds: max(0, $0)) }
        let connections = row.text(11).flatMap { Int($0) } ?? 0
        if isStandby {
            let received = row.text(3).flatMap { WALPosition(text: $0) }, replayed = row.text(4).flatMap { WALPosition(text: $0) }
            let streamed = row.text(5).flatMap { UInt32($0) }, newest = row.text(6).flatMap { UInt32($0, radix: 16) }
            guard let position = [received, replayed].compactMap({ $0 }).max() else { return nil }
            return Answer(
                report: NodeReport(.standby, timeline: streamed ?? newest, position: position, isReceiving: streamed != nil), lag: lag,
                connections: connections, synchrony: [:])
        }
        guard let position = row.text(1).flatMap({ WALPosition(text: $0) }) else { return nil }
        var synchrony: [Int: String] = [:]
        for entry in (row.text(7) ?? "").split(separator: ",") {
            let parts = entry.split(separator: "=")
            if parts.count == 2, let number = number(parts[0]) { synchrony[number] = String(parts[1]) }
        }
        let lost = (row.text(8) ?? "").split(separator: ",").compactMap(number)
        return Answer(
            report: NodeReport(
                .primary, timeline: row.text(2).flatMap { UInt32($0, radix: 16) }, position: position, streaming: Set(synchrony.keys),
                cutOff: Set(lost), isStrict: row.text(9) == "t"), lag: nil, connections: connections, synchrony: synchrony)
    }

    private static func number(_ name: Substring) -> Int? { name.hasPrefix("node_") ? Int(name.dropFirst(5)) : nil }

    // MARK: what is done to a node

    /// Makes the node primary, unless it is, and tells its timeline and where that began.
    ///
    /// `pg_promote(false)` returns at once; what it began is looked for every 5 ms, for its own waiting looks every 100. The startup process may
    /// miss it while it waits for something, so it is told again.
    func promote(within limit: Duration, over spare: PostgresConnection?) async throws(PostgresError) -> FailoverMachine.Promotion {
        let connection: PostgresConnection, deadline = MonotonicTime.now + limit
        if let spare, await spare.isOpen { connection = spare } else { connection = try await connect(within: limit) }
        var asked: MonotonicTime?
        while try await connection.simple("SELECT pg_is_in_recovery()", within: limit).last?.text == "t" {
            if MonotonicTime.now >= deadline { return .failed("it is still a standby after \(limit.brief)") }
            if asked.map({ MonotonicTime.now - $0 >= .milliseconds(100) }) ?? true {
                asked = .now
                do throws(PostgresError) { _ = try await connection.simple("SELECT pg_promote(false)", within: limit) } catch {
                    // It became primary between the question and this.
                    guard error.state == "55000" else { throw error }
                }
            }
            await loop.sleep(.milliseconds(5))
        }
        let name = try await connection.simple(
            "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)", within: limit
        ).last?.text
        guard let timeline = name.flatMap({ UInt32($0, radix: 16) }) else { return .failed("it does not tell its timeline") }
        // What it began with is promised to nobody: without it losses are not counted.
        let history = try? await connection.simple(
            "SELECT pg_read_file('pg_wal/\(TimelineHistory.file(of: timeline))', 0, 65536, true)", within: limit
        ).last?.text
        await connection.close()
        return .done(timeline: timeline, fork: history.flatMap { TimelineHistory($0).fork })
    }

    /// nil: it is the first one, or its file is gone.
    func history(of timeline: UInt32, within limit: Duration) async throws(PostgresError) -> TimelineHistory? {
        let file = TimelineHistory.file(of: timeline)
        return try await ask("SELECT pg_read_file('pg_wal/\(file)', 0, 65536, true)", within: limit)?.text.map { TimelineHistory($0) }
    }

    /// Slots of the other nodes, so that the log that they lack is kept; its own is nobody's now.
    func makeSlots(for others: [Int], within limit: Duration) async throws(PostgresError) {
        let names = others.map { "('\(PostgresNode.name($0))')" }.joined(separator: ",")
        if !names.isEmpty {
            _ = try await ask(
                "SELECT pg_create_physical_replication_slot(n, true) FROM (VALUES \(names)) AS wanted(n) "
                    + "WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = n)", within: limit)
        }
        _ = try await ask(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                + "WHERE slot_name = '\(node.name)' AND NOT active", within: limit)
    }

    /// Slots that a node has as a standby would hold back log that nobody reads.
    func dropSlots(within limit: Duration) async throws(PostgresError) {
        _ = try await ask(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                + "WHERE slot_name LIKE 'node\\_%' AND NOT active AND pg_is_in_recovery()", within: limit)
    }

    /// Roles and databases that are declared and not there. Nothing is changed that is there, and nothing is taken away. Written by the
    /// primary alone: at the first start there is no standby that could have it.
    func makeDatabases(_ names: [String], roles: [(name: String, password: Secret)], extensions: [String], within limit: Duration)
        async throws(PostgresError)
    {
        let connection = try await connect(within: limit)
        let known = try await connection.simple(
            "SET synchronous_commit = local; SELECT string_agg('r ' || rolname, ',') FROM pg_roles; "
                + "SELECT string_agg('d ' || datname, ',') FROM pg_database", within: limit)
        let there = Set(known.dropFirst().flatMap { ($0.text ?? "").split(separator: ",").map(String.init) })
        for role in roles where !there.contains("r " + role.name) {
            let name = PostgresConnection.quoted(role.name)
            // Drawn here, of hexadecimal digits.
            _ = try await connection.simple("CREATE ROLE \(name) LOGIN PASSWORD '\(role.password.reveal)'", within: limit)
        }
        for name in names where !there.contains("d " + name) {
            _ = try await connection.simple(
                "CREATE DATABASE \(PostgresConnection.quoted(name)) OWNER \(PostgresConnection.quoted(roles[0].name))", within: limit)
        }
        await connection.close()
        if extensions.isEmpty { return }
        for name in names {
            let inside = try await connect(to: name, within: limit)
            _ = try await inside.simple("SET synchronous_commit = local", within: limit)
            for word in extensions {
                _ = try await inside.simple("CREATE EXTENSION IF NOT EXISTS \(PostgresConnection.quoted(word))", within: limit)
            }
            await inside.close()
        }
    }
}
