import Redis
import TestSupport

extension RedisClient {
    /// Waits until a server has given all its writes to its log, so that a SIGKILL loses none: with `appendfsync everysec` one that waits for
    /// its disk answers up to two seconds before.
    func isWrittenDown() async throws -> Bool {
        try await eventually { try await send(RedisCommand("INFO", "persistence")).string?.contains("aof_buffer_length:0\r") == true }
    }
}
