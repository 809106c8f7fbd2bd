import Basics
import EventLoops
import Redis
import TestSupport
import Testing

@Suite struct RedisClusterTests {
    @Test func theFixtureFormsAWholeCluster() async throws {
        try await withRedisCluster { cluster, loop in
            let info = try await cluster.ask(5, loop, RedisCommand("CLUSTER INFO")).string ?? ""
            #expect(info.contains("cluster_slots_ok:16384") && info.contains("cluster_size:3"))
        }
    }
}
