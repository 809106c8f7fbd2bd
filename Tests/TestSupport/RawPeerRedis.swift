extension RawPeer {
    /// The words of the next command of a Redis client; empty at the connection's end.
    public func redisCommand() -> [String] {
        guard let count = Int(line().dropFirst()) else { return [] }
        return (0..<count).map { _ in
            let length = Int(line().dropFirst()) ?? 0
            defer { line() }
            return text(length)
        }
    }
}
