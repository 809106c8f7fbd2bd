import Basics
import EventLoops
import Glibc
import JSONCoding
import Postgres
import Synchronization
import TestSupport
import Testing

/// A PostgreSQL store as a user has it, with its failovers, on real servers.
@Suite(.serialized) struct PostgresStackTests {
    private static let file = """
        stack: pg
        services:
          web: { command: "sleep 100000", uses: [db], grace: 1s }
        stores:
          db: { postgres: { replicas: 2, failover: 3s, settings: { shared_buffers: 16MB, max_connections: "30" } } }

        """

    /// What a client of the store needs. The password stands in a file of the store's.
    private func url(_ stack: SmallStack) async throws -> PostgresURL {
        let ports = try await stack.rows().filter { $0.name.hasPrefix("db/") }.compactMap(\.port)
        let password = try required(Files.text("\(stack.folder)/.muster/pg/stores/db/passwords/app")?.split(separator: "\n").first)
        let hosts = ports.map { "127.0.0.1:\($0)" }.joined(separator: ",")
        return try PostgresURL("postgresql://app:\(password)@\(hosts)/app?target_session_attrs=read-write&connect_timeout=2")
    }

    private struct Standing { let state: String, primary: Int?, states: [String] }

    private func standing(_ stack: SmallStack) async throws -> Standing {
        let (_, output) = try await stack.muster("postgres", "status", "--json", "--stack", "s.yaml")
        let json = output.split(separator: "\n").first { $0.hasPrefix("[") } ?? "[]"
        return try JSONDocument().parse(Array(json.utf8)) { root in
            let store = root.array?.first
            return Standing(
                state: store?["state"]?.string ?? "", primary: store?["primary"]?.int,
                states: (store?["nodes"]?.array ?? []).map { $0["state"]?.string ?? "" })
        }
    }

    private func serves(_ stack: SmallStack) async throws -> Bool {
        try await eventually(.seconds(60)) { try await standing(stack).state == "serving" }
    }

    private func data(_ stack: SmallStack, _ number: Int) -> String {
        Files.absolute("\(stack.folder)/.muster/pg/stores/db/node-\(number)/data")
    }

    private func server(_ stack: SmallStack, _ number: Int) throws -> Int32 {
        try required(Files.text(data(stack, number) + "/postmaster.pid")?.split(separator: "\n").first.flatMap { Int32($0) })
    }

    /// Writes numbers, one transaction each, and remembers which were acknowledged.
    private final class Writers: Sendable {
        private let state = Mutex<(acknowledged: [Int], next: Int, isOver: Bool)>(([], 0, false))

        var acknowledged: [Int] { state.withLock { $0.acknowledged } }
        func stop() { state.withLock { $0.isOver = true } }

        private func next() -> Int? {
            state.withLock { state in
                if state.isOver { return nil }
                state.next += 1
                return state.next
            }
        }

        func run(_ url: PostgresURL, on loop: EventLoop) async {
            var connection: PostgresConnection?
            while let number = next() {
                do throws(PostgresError) {
                    if connection == nil { connection = try await PostgresConnection.connect(url, on: loop) }
                    _ = try await connection?.simple("INSERT INTO t VALUES (\(number))", within: .seconds(20))
                    state.withLock { $0.acknowledged.append(number) }
                } catch {
                    await connection?.close()
                    connection = nil
                    await loop.sleep(.milliseconds(10))
                }
            }
            await connection?.close()
        }

        /// Until it is written again.
        func goesOn() async -> Bool {
            let before = acknowledged.count
            return await eventually(.seconds(60)) { self.acknowledged.count > before + 4 }
        }
    }

    private func numbers(_ url: PostgresURL, _ loop: EventLoop) async throws -> Set<Int> {
        let connection = try await PostgresConnection.connect(url, on: loop)
        let rows = try await connection.simple("SELECT n FROM t").last
        await connection.close()
        return Set((rows.map(Array.init) ?? []).compactMap { $0.text(0).flatMap { Int($0) } })
    }

    @Test(.timeLimit(.minutes(5))) func nothingAcknowledgedIsLostWhateverBecomesOfThePrimary() async throws {
        try await withSmallStack { stack in
            chmod(stack.folder, 0o711)
            try stack.put("s.yaml", Self.file)
            try await stack.up()
            #expect(try await serves(stack))
            try await usersAreTold(stack)
            let url = try await url(stack), loop = stack.loop, writers = Writers()
            let first = try await PostgresConnection.connect(url, on: loop)
            _ = try await first.simple("CREATE TABLE t (n int PRIMARY KEY)")
            #expect(try await first.simple("SHOW wal_retrieve_retry_interval").last?.text == "200ms")
            await first.close()
            try await withThrowingDiscardingTaskGroup { group in
                for _ in 0..<4 { group.addTask { await writers.run(url, on: loop) } }
                do {
                    try await aKilledPrimaryIsReplaced(stack, writers)
                    try await aStoppedPrimaryIsReplaced(stack, writers)
                    try await aSwitchoverLosesNothing(stack, writers)
                    try await allKilledAtOnceComeBack(stack, writers)
                } catch {
                    writers.stop()
                    throw error
                }
                writers.stop()
            }
            let there = try await numbers(url, loop)
            #expect(Set(writers.acknowledged).subtracting(there).isEmpty && writers.acknowledged.count > 100)
            try await aDrillAudits(stack)
            try await dataStaysOverARestart(stack, there)
        }
    }

    private func usersAreTold(_ stack: SmallStack) async throws {
        let (_, output) = try await stack.muster("run", "web", "--stack", "s.yaml", "--", "env")
        let lines = output.split(separator: "\n")
        let told = try required(lines.first { $0.hasPrefix("DATABASE_URL=") })
        #expect(told.contains("postgresql://app@127.0.0.1:") && told.contains("/app?target_session_attrs=read-write&passfile="))
        let file = try required(lines.first { $0.hasPrefix("DATABASE_PASSWORD_FILE=") }).split(separator: "=")[1]
        let password = try required(Files.text(String(file))?.split(separator: "\n").first)
        #expect(password.utf8.count == 48 && !output.contains(password))
        // libpq reads it so.
        let (status, answer) = try await stack.muster(
            "run", "web", "--stack", "s.yaml", "--", "sh", "-c", "psql \"$DATABASE_URL\" -AtXc 'SELECT current_user'")
        #expect(status == 0 && answer.contains("app"))
    }

    /// A session of the dead server's own processes still works: it is ended before anybody takes over.
    private func aKilledPrimaryIsReplaced(_ stack: SmallStack, _ writers: Writers) async throws {
        for _ in 0..<2 {
            let old = try required(try await standing(stack).primary)
            kill(try server(stack, old), SIGKILL)
            #expect(await writers.goesOn())
            #expect(try await serves(stack))
        }
        let (_, why) = try await stack.muster("why", "--stack", "s.yaml")
        #expect(why.contains("is fenced before anybody takes over") && why.contains("is taken back"))
    }

    /// It serves its old connections, and no new ones.
    private func aStoppedPrimaryIsReplaced(_ stack: SmallStack, _ writers: Writers) async throws {
        let old = try required(try await standing(stack).primary), pid = try server(stack, old)
        kill(pid, SIGSTOP)
        #expect(await eventually(.seconds(30)) { !isAlive(pid) })
        #expect(await writers.goesOn())
        #expect(try await serves(stack))
    }

    private func aSwitchoverLosesNothing(_ stack: SmallStack, _ writers: Writers) async throws {
        let old = try required(try await standing(stack).primary), heir = old % 3 + 1
        let (refused, words) = try await stack.muster("postgres", "promote", "db/9", "--stack", "s.yaml", "--yes")
        #expect(refused == 1 && words.contains("1 to 3"))
        let (dry, plan) = try await stack.muster("postgres", "promote", "\(heir)", "--stack", "s.yaml", "--dry-run")
        #expect(dry == 0 && plan.contains("stops in order") && plan.contains("nothing was changed"))
        let (status, output) = try await stack.muster("postgres", "promote", "db/\(heir)", "--stack", "s.yaml", "--yes")
        #expect(status == 0, "\(output)")
        #expect(try await standing(stack).primary == heir)
        #expect(await writers.goesOn())
        #expect(try await serves(stack))
    }

    private func allKilledAtOnceComeBack(_ stack: SmallStack, _ writers: Writers) async throws {
        for pid in try (1...3).map({ try server(stack, $0) }) { kill(pid, SIGKILL) }
        #expect(await writers.goesOn())
        #expect(try await serves(stack))
    }

    private func dataStaysOverARestart(_ stack: SmallStack, _ there: Set<Int>) async throws {
        try await stack.muster("down", "s.yaml")
        #expect(stack.processes.isEmpty)
        try await stack.up()
        let url = try await url(stack)
        #expect(try await numbers(url, stack.loop) == there)
        try await aBackupMakesAStore(stack, there)
        for name in Files.list("\(stack.folder)/.muster/pg/logs") {
            let log = Files.text("\(stack.folder)/.muster/pg/logs/\(name)") ?? ""
            #expect(!log.contains(url.password?.reveal ?? "?"), "\(name)")
        }
    }

    private func aDrillAudits(_ stack: SmallStack) async throws {
        let (refused, words) = try await stack.muster("postgres", "promote", "--drill", "partition", "--stack", "s.yaml", "--yes")
        #expect(refused == 2 && words.contains("kill, stop"))
        let (status, output) = try await stack.muster(
            "postgres", "promote", "--drill", "kill", "--stack", "s.yaml", "--json", "--yes", limit: .seconds(120))
        #expect(status == 0, "\(output)")
        let json = try required(output.split(separator: "\n").first { $0.hasPrefix("{") })
        let (lost, acknowledged, first) = try JSONDocument().parse(Array(json.utf8)) {
            ($0["lost"]?.int, $0["acknowledged"]?.int ?? 0, $0["first_write_ms"]?.int ?? 0)
        }
        #expect(lost == 0 && acknowledged > 10 && first > 0)
    }

    private func aBackupMakesAStore(_ stack: SmallStack, _ there: Set<Int>) async throws {
        #expect(try await serves(stack))
        let (status, output) = try await stack.muster("postgres", "backup", "--to", "b1", "--stack", "s.yaml", "--yes")
        #expect(status == 0, "\(output)")
        let (again, words) = try await stack.muster("postgres", "backup", "--to", "b1", "--stack", "s.yaml", "--yes")
        #expect(again == 1 && words.contains("is there already"))
        try await stack.muster("down", "s.yaml")
        let (full, refusal) = try await stack.muster("postgres", "restore", "--from", "b1", "--stack", "s.yaml", "--yes")
        #expect(full == 1 && refusal.contains("restored into a store without data"))
        let store = "\(stack.folder)/.muster/pg/stores/db"
        #expect(rename(store, store + ".old") == 0)
        let (restored, told) = try await stack.muster("postgres", "restore", "--from", "b1", "--stack", "s.yaml", "--yes")
        #expect(restored == 0, "\(told)")
        try await stack.up()
        #expect(try await numbers(try await url(stack), stack.loop) == there)
        try await stack.muster("down", "s.yaml")
    }

    @Test func whatLiesInTheFoldersIsJudgedBeforeAnythingStarts() async throws {
        try await withSmallStack { stack in
            chmod(stack.folder, 0o711)
            try stack.put("s.yaml", Self.file)
            let store = "\(stack.folder)/.muster/pg/stores/db"
            func refusal() async throws -> String {
                let (status, output) = try await stack.muster("up", "-d", "s.yaml")
                #expect(status == 1)
                return output
            }
            try Files.makeFolder("\(store)/node-1/data")
            try Files.replace("\(stack.folder)/.muster/pg/VERSION", with: Array("1\n".utf8))
            try Files.replace("\(store)/node-1/data/PG_VERSION", with: Array("9\n".utf8))
            #expect(try await refusal().contains("its data is of PostgreSQL 9, which is not installed"))
            try Files.replace("\(store)/node-1/data/PG_VERSION", with: Array("15\n".utf8))
            #expect(try await refusal().contains("record is missing, and node-1 has data"))
            try Files.replace("\(store)/record", with: Array("version 1\nprimary 7\nend\n".utf8))
            #expect(try await refusal().contains("cannot be read (its primary is none of the 3 nodes)"))
            if geteuid() == 0 {
                Files.remove("\(stack.folder)/.muster")
                chmod(stack.folder, 0o700)
                #expect(try await refusal().contains("who cannot pass the folder \(stack.folder)"))
            }
            #expect(stack.processes.isEmpty)
        }
    }
}
