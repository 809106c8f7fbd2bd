import Basics
import EventLoops
import Postgres
import PostgresFailover
import StoreKinds

/// What the supervisor's own probing of a node is told: the keeper asks the nodes anyway, and more often.
final class PostgresProbe: NodeProbe {
    private let keeper: PostgresKeeper
    private let number: Int

    init(_ keeper: PostgresKeeper, _ number: Int) {
        self.keeper = keeper
        self.number = number
    }

    func ask() async -> ProbeReport { keeper.report(of: number) }
    func figures() async -> [StoreFigure] { keeper.figures(of: number) }
    func close() {}
}

/// Asks an external server.
final class ExternalPostgresProbe: NodeProbe {
    private let url: PostgresURL
    private let loop: EventLoop
    private static let limit = Duration.seconds(2)

    init(_ url: PostgresURL, _ loop: EventLoop) {
        var url = url
        url.connectTime = ExternalPostgresProbe.limit
        self.url = url
        self.loop = loop
    }

    func ask() async -> ProbeReport {
        do throws(PostgresError) {
            let connection = try await PostgresConnection.connect(url, on: loop)
            do throws(PostgresError) {
                let isStandby = try await connection.simple("SELECT pg_is_in_recovery()", within: ExternalPostgresProbe.limit).last?.text
                await connection.close()
                return ProbeReport(.ready, role: isStandby == "t" ? "replica" : "primary")
            } catch {
                await connection.close()
                throw error
            }
        } catch {
            switch PostgresQuestions.Silence(error) {
            case .occupied(let why): return ProbeReport(.unready(why))
            case .silent(let why): return ProbeReport(.failed(why))
            case .unasked(let why): return ProbeReport(.unasked(why))
            }
        }
    }

    func figures() async -> [StoreFigure] { [] }
    func close() {}
}
