import Basics
import EventLoops
import Glibc
import Postgres
import StoreKinds
import Synchronization

/// Loses the primary of a store for a test while writers write, and audits what they were told. On the loop that it is given.
public struct PostgresDrill: Sendable {
    /// What becomes of the primary.
    public enum Fault: String, Sendable, CaseIterable {
        /// Its process is killed with -9.
        case kill
        /// Its process is stopped: it serves old connections, and no new ones.
        case stop
    }

    /// A node, as the writers reach it.
    public struct Node: Sendable {
        public let number: Int
        public let folder: String
        public let port: UInt16

        public init(number: Int, folder: String, port: UInt16) {
            self.number = number
            self.folder = folder
            self.port = port
        }
    }

    /// What the writers saw. Times are counted from the fault.
    public struct Outcome: Sendable, Equatable {
        public let firstWrite: Duration
        public let acknowledged: Int
        /// Acknowledged writes that are not there any more.
        public let lost: Int
    }

    private let nodes: [Node]
    private let primary: Node
    private let loop: EventLoop

    /// Writers at once, as many as the figures in the guide are of.
    private static let writers = 4
    /// Before the fault, and after the first write behind it.
    private static let calm = Duration.seconds(1)
    private static let table = "muster_drill"

    public init?(_ nodes: [Node], primary: Int, on loop: EventLoop) {
        guard let first = nodes.first(where: { $0.number == primary }) else { return nil }
        self.nodes = nodes
        self.primary = first
        self.loop = loop
    }

    private final class Tally: Sendable {
        struct State {
            var next = 0
            var acknowledged: [Int] = []
            var times: [MonotonicTime] = []
            var isOver = false
        }
        let state = Mutex(State())

        func next() -> Int? {
            state.withLock { state in
                if state.isOver { return nil }
                state.next += 1
                return state.next
            }
        }
    }

    /// Over the nodes' sockets, as their superuser: no password is needed for it.
    private var url: PostgresURL {
        var url = PostgresURL(
            hosts: nodes.map { .init(directory: $0.folder + "/socket", port: $0.port) }, user: "postgres", database: "postgres")
        url.encryption = .disable
        url.target = .readWrite
        url.connectTime = .seconds(1)
        return url
    }

    /// Throws why it could not be done; the fault may have been made all the same. `limit` is for all of it.
    public func run(_ fault: Fault, within limit: Duration) async throws(StoreFailure) -> Outcome {
        let deadline = MonotonicTime.now + limit, tally = Tally(), url = url
        try await statement("CREATE TABLE IF NOT EXISTS \(PostgresDrill.table) (n bigint PRIMARY KEY); TRUNCATE \(PostgresDrill.table)")
        let struck: MonotonicTime
        do {
            struck = try await withThrowingTaskGroup(of: Void.self, returning: MonotonicTime.self) { group in
                for _ in 0..<PostgresDrill.writers { group.addTask { await PostgresDrill.write(url, tally, loop) } }
                defer { tally.state.withLock { $0.isOver = true } }
                await loop.sleep(PostgresDrill.calm)
                let server = FolderFence.server(of: primary.folder + "/data")
                guard let server else { throw StoreFailure("the primary's process is not found") }
                let struck = MonotonicTime.now
                guard Glibc.kill(server, fault == .kill ? SIGKILL : SIGSTOP) == 0 else {
                    throw StoreFailure("\(SystemError("signal \(server)"))")
                }
                try await another(than: primary, until: deadline)
                await loop.sleep(PostgresDrill.calm)
                return struck
            }
        } catch { throw error as? StoreFailure ?? StoreFailure("\(error)") }
        let rows = try await statement("SELECT n FROM \(PostgresDrill.table)")
        let there = Set((rows.map(Array.init) ?? []).compactMap { $0.text(0).flatMap { Int($0) } })
        try await statement("DROP TABLE \(PostgresDrill.table)")
        let (acknowledged, times) = tally.state.withLock { ($0.acknowledged, $0.times.sorted()) }
        // The longest silence that ends after the fault is the failover's.
        let silences = zip(times, times.dropFirst()).filter { $0.1 > struck }
        guard let longest = silences.max(by: { $0.1 - $0.0 < $1.1 - $1.0 }) else {
            throw StoreFailure("nothing was written after the fault")
        }
        return Outcome(
            firstWrite: longest.1 - struck, acknowledged: acknowledged.count, lost: acknowledged.count { !there.contains($0) })
    }

    private static func write(_ url: PostgresURL, _ tally: Tally, _ loop: EventLoop) async {
        var connection: PostgresConnection?
        while let number = tally.next() {
            do throws(PostgresError) {
                if connection == nil { connection = try await PostgresConnection.connect(url, on: loop) }
                _ = try await connection?.simple("INSERT INTO \(table) VALUES (\(number))", within: .seconds(30))
                tally.state.withLock {
                    $0.acknowledged.append(number)
                    $0.times.append(.now)
                }
            } catch {
                await connection?.close()
                connection = nil
                await loop.sleep(.milliseconds(5))
            }
        }
        await connection?.close()
    }

    /// Until another node takes writes.
    private func another(than old: Node, until deadline: MonotonicTime) async throws(StoreFailure) {
        var others = url
        others.hosts = nodes.filter { $0.number != old.number }.map { .init(directory: $0.folder + "/socket", port: $0.port) }
        while MonotonicTime.now < deadline {
            if let connection = try? await PostgresConnection.connect(others, on: loop) { return await connection.close() }
            await loop.sleep(.milliseconds(20))
        }
        throw StoreFailure("no other node took writes in time: 'muster why' tells what was decided")
    }

    @discardableResult
    private func statement(_ text: String) async throws(StoreFailure) -> PostgresResult? {
        do throws(PostgresError) {
            let connection = try await PostgresConnection.connect(url, on: loop)
            let answer = try await connection.simple(text, within: .seconds(30))
            await connection.close()
            return answer.last
        } catch { throw StoreFailure("\(error)") }
    }
}
