import Basics
import Postgres

/// A server's end of PostgreSQL's protocol that a test plays by itself, on a blocking socket.
public struct PostgresPeer {
    public let peer: RawPeer

    public init(_ peer: RawPeer) { self.peer = peer }

    public func send(_ messages: BackendMessage...) { peer.send(messages.flatMap(\.encoded)) }
    public func send(raw bytes: [UInt8]) { peer.send(bytes) }

    /// The connection's first message; nil when it ended before.
    public func opening() -> OpeningMessage? {
        guard let body = body(peer.read(4)) else { return nil }
        return body.withUnsafeBytes { try? OpeningMessage($0) }
    }

    /// The next message; nil when the connection ended before.
    @discardableResult
    public func next() -> FrontendMessage? {
        guard let kind = peer.read(1).first, let body = body(peer.read(4)) else { return nil }
        return body.withUnsafeBytes { try? FrontendMessage(kind: kind, $0) }
    }

    private func body(_ length: [UInt8]) -> [UInt8]? {
        guard length.count == 4 else { return nil }
        let count = length.reduce(0) { $0 << 8 | Int($1) } - 4
        let bytes = peer.read(count)
        return bytes.count == count ? bytes : nil
    }

    /// The next message of this kind, those before it passed over.
    @discardableResult
    public func next(_ kind: UInt8) -> FrontendMessage? {
        while let message = next() { if message.kind == kind { return message } }
        return nil
    }

    /// Lets a client in without a proof. False: it asked to cancel, or ended.
    @discardableResult
    public func letIn(parameters: [(String, String)] = [("server_version", "15.1")]) -> Bool {
        guard case .startup = opening() else { return false }
        send(.authentication(.ok))
        for (name, value) in parameters { send(.parameterStatus(name: WireText(name), value: WireText(value))) }
        send(.backendKeyData(process: 4711, secret: 1147), .readyForQuery(.idle))
        return true
    }
}

/// A made-up PostgreSQL for the length of one test: `serve` plays each connection, on a thread of its own.
public func withPostgresPeer<T>(
    _ serve: @escaping @Sendable (_ peer: PostgresPeer, _ number: Int) -> Void, _ body: (_ url: String) async throws -> T
) async throws -> T {
    try await withRaw({ peer, number in serve(PostgresPeer(peer), number) }) { backend in
        try await body("postgresql://user:secret@127.0.0.1:\(backend.port)/db?sslmode=disable&connect_timeout=5")
    }
}
