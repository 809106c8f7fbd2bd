import Basics
import EventLoops
import Glibc
import Redis
import Sharding

/// Fetches one server's snapshot as a replica does when it first synchronises (`PSYNC ? -1`), straight into a file.
///
/// So no access to the server's files is needed and it does not matter how it persists: since Redis 7 the append-only log is a folder of
/// several files with a manifest (`appendonlydir`), and a copy of one `appendonly.aof` is no backup. The server forks once, as for any new
/// replica. Where it can (6.2 and later) it is told that only the snapshot is wanted (`REPLCONF rdb-only`): then it keeps no replication
/// stream for us meanwhile.
///
/// States: connecting → authenticating → describing → ready → asked (the answer `+FULLRESYNC`) → waiting (newlines while the server
/// prepares) → body (a length, or until a mark of 40 bytes) → gone. Lives on a loop of its own, whose thread writes the file.
final class ReplicationStream: Stream {
    struct Snapshot: Sendable {
        let replicationID: String
        let offset: Int
        /// When the server told us the offset, which is when it forked.
        let begun: WallTime
        let ended: WallTime
        let bytes: Int
        let sha256: String
    }

    private enum State { case connecting, authenticating, describing(Int), ready, asked, waiting, sized(Int), marked([UInt8]), gone }

    /// Beyond it a line is none.
    private static let lineLimit = 1024
    private static let handshakeTime = Duration.seconds(5)
    /// A server that prepares a snapshot sends a newline every second, and one that sends it sends.
    private static let silenceLimit = Duration.seconds(60)
    /// Options that we say before we ask; one that the server does not know costs nothing.
    private static let options = [["capa", "eof"], ["capa", "psync2"], ["rdb-only", "1"]]

    private let address: NodeAddress
    private let credentials: RedisCredentials
    private var state = State.connecting
    private var line: [UInt8] = []
    /// The last 40 bytes, which may be the mark.
    private var tail: [UInt8] = []
    private var file: BackupFile?
    private var replicationID = ""
    private var offset = 0
    private var begun = WallTime.now
    private var silence: LoopTimer?
    private var failure: ProvisioningFailure?
    private var onProgress: (Int) -> Void = { _ in }
    private var onReady: ((Result<Void, ProvisioningFailure>) -> Void)?
    private var onDone: ((Result<Snapshot, ProvisioningFailure>) -> Void)?

    init(_ address: NodeAddress, _ credentials: RedisCredentials, loop: EventLoop) {
        self.address = address
        self.credentials = credentials
        super.init(loop: loop)
    }

    func open(_ ready: @escaping (Result<Void, ProvisioningFailure>) -> Void) {
        onReady = ready
        silence = LoopTimer(loop: loop) { [unowned self] in
            let limit = file == nil ? ReplicationStream.handshakeTime : ReplicationStream.silenceLimit
            fail(.unreachable, "sent nothing for \(limit.brief)")
        }
        silence?.schedule(after: ReplicationStream.handshakeTime)
        guard let endpoint = Endpoint(address.description) else { return fail(.refused, "no address of a node") }
        connect(to: endpoint)
    }

    /// Asks for the snapshot. `progress` is told every so often how many bytes have come.
    func fetch(into file: BackupFile, progress: @escaping (Int) -> Void, _ done: @escaping (Result<Snapshot, ProvisioningFailure>) -> Void)
    {
        self.file = file
        onProgress = progress
        onDone = done
        guard isOpen else { return finish(.failure(failure ?? ProvisioningFailure(.unreachable, "closed the connection", node: address))) }
        state = .asked
        silence?.schedule(after: ReplicationStream.silenceLimit)
        send("PSYNC", "?", "-1")
    }

    private func send(_ words: String...) {
        var text = "*\(words.count)\r\n"
        for word in words { text += "$\(word.utf8.count)\r\n\(word)\r\n" }
        Array(text.utf8).withUnsafeBytes { write($0) }
    }

    // MARK: events

    override func connected() {
        guard let password = credentials.password else { return describe(0) }
        state = .authenticating
        if let user = credentials.user { send("AUTH", user, password) } else { send("AUTH", password) }
    }

    private func describe(_ i: Int) {
        guard i < ReplicationStream.options.count else {
            state = .ready
            silence?.cancel()
            onReady?(.success(()))
            onReady = nil
            return
        }
        state = .describing(i)
        send("REPLCONF", ReplicationStream.options[i][0], ReplicationStream.options[i][1])
    }

    override func received(_ bytes: UnsafeRawBufferPointer) {
        if silence?.isArmed == true, file != nil { silence?.schedule(after: ReplicationStream.silenceLimit) }
        var rest = bytes
        while !rest.isEmpty, isOpen {
            switch state {
            case .sized(let left):
                let count = min(left, rest.count)
                guard keep(UnsafeRawBufferPointer(rebasing: rest[..<count])) else { return }
                state = .sized(left - count)
                // What follows is the replication stream, which nobody wants.
                if left == count { return complete() }
                return
            case .marked(let mark): return take(rest, until: mark)
            case .gone: return
            case .connecting, .authenticating, .describing, .ready, .asked, .waiting:
                guard let end = rest.firstIndex(of: 10) else {
                    line.append(contentsOf: rest)
                    if line.count > ReplicationStream.lineLimit { fail(.server, "a line without an end") }
                    return
                }
                line.append(contentsOf: rest[..<end])
                rest = UnsafeRawBufferPointer(rebasing: rest[(end + 1)...])
                if line.last == 13 { line.removeLast() }
                let text = String(decoding: line, as: UTF8.self)
                line.removeAll(keepingCapacity: true)
                // An empty line says only that the server lives.
                if !text.isEmpty { take(text) }
            }
        }
    }

    private func take(_ text: String) {
        switch state {
        case .authenticating:
            // A server without a password says so; that is no wrong password.
            if text.hasPrefix("-"), !text.contains("without any password") { return refuse(text) }
            describe(0)
        case .describing(let i):
            if text.hasPrefix("-NOAUTH") || text.hasPrefix("-NOPERM") { return refuse(text) }
            describe(i + 1)
        case .asked:
            let words = text.split(separator: " ")
            guard words.count == 3, words[0] == "+FULLRESYNC", let value = Int(words[2]) else { return refuse(text) }
            replicationID = String(words[1])
            offset = value
            begun = .now
            state = .waiting
        case .waiting:
            guard text.hasPrefix("$") else { return refuse(text) }
            if text.hasPrefix("$EOF:") {
                let mark = Array(text.utf8.dropFirst(5))
                guard mark.count == 40 else { return fail(.server, "an end mark of \(mark.count) bytes") }
                state = .marked(mark)
            } else {
                guard let size = Int(text.dropFirst()), size > 0 else { return fail(.server, "a snapshot of '\(text.prefix(32))' bytes") }
                state = .sized(size)
            }
        case .ready, .connecting, .sized, .marked, .gone: break
        }
    }

    /// All but the last 40 bytes are certainly the snapshot's. Nothing is sent behind the mark before we confirm it, which we never do.
    private func take(_ piece: UnsafeRawBufferPointer, until mark: [UInt8]) {
        let certain = tail.count + piece.count - 40
        if certain >= tail.count {
            guard tail.withUnsafeBytes({ keep($0) }), keep(UnsafeRawBufferPointer(rebasing: piece[..<(certain - tail.count)])) else {
                return
            }
            tail = Array(piece[(certain - tail.count)...])
        } else {
            if certain > 0 {
                guard tail.withUnsafeBytes({ keep(UnsafeRawBufferPointer(rebasing: $0[..<certain])) }) else { return }
                tail.removeFirst(certain)
            }
            tail.append(contentsOf: piece)
        }
        if tail == mark { complete() }
    }

    private func keep(_ piece: UnsafeRawBufferPointer) -> Bool {
        guard let file, !piece.isEmpty else { return true }
        do { try file.write(piece) } catch {
            let advice = error.code == ENOSPC ? "; what was written is removed" : ""
            failure = ProvisioningFailure(.local, "\(error)\(advice)")
            close()
            return false
        }
        onProgress(file.bytes)
        return true
    }

    // MARK: ends

    private func complete() {
        guard let file else { return }
        do {
            let digest = try file.finish()
            finish(
                .success(
                    Snapshot(replicationID: replicationID, offset: offset, begun: begun, ended: .now, bytes: file.bytes, sha256: digest)))
        } catch { finish(.failure(ProvisioningFailure(.local, "\(error)"))) }
        close()
    }

    private func refuse(_ text: String) {
        let message = text.hasPrefix("-") ? String(text.dropFirst()) : "an answer that is not understood: \(text.prefix(64))"
        let isPassword = message.hasPrefix("NOAUTH") || message.hasPrefix("WRONGPASS") || message.hasPrefix("ERR invalid password")
        fail(isPassword ? .authentication : .server, message)
    }

    private func fail(_ code: ProvisioningFailure.Code, _ message: String) {
        failure = ProvisioningFailure(code, message, node: address)
        if isOpen { close() } else { finish(.failure(failure!)) }
    }

    private func finish(_ result: Result<Snapshot, ProvisioningFailure>) {
        silence?.cancel()
        if case .failure(let failure) = result { onReady?(.failure(failure)) }
        onDone?(result)
        onReady = nil
        onDone = nil
        file = nil
    }

    override func closed(_ reason: CloseReason) {
        let got = file.map { " after \($0.bytes) bytes of the snapshot" } ?? ""
        state = .gone
        finish(.failure(failure ?? ProvisioningFailure(.unreachable, "\(reason)\(got)", node: address)))
    }
}

/// A replication stream with the loop and thread that it lives on.
struct SnapshotSource: Sendable {
    private let loop: EventLoop
    private let stream: LoopBound<ReplicationStream>

    /// Connects and logs in; asks for nothing yet.
    static func open(_ address: NodeAddress, _ credentials: RedisCredentials) async throws(ProvisioningFailure) -> SnapshotSource {
        let loop: EventLoop
        do { loop = try EventLoop.start(name: "snapshot") } catch { throw ProvisioningFailure(.local, "\(error)") }
        let result = await withUnsafeContinuation {
            (continuation: UnsafeContinuation<Result<SnapshotSource, ProvisioningFailure>, Never>) in
            loop.execute {
                let stream = ReplicationStream(address, credentials, loop: loop)
                let source = SnapshotSource(loop: loop, stream: LoopBound(stream, on: loop))
                stream.open { continuation.resume(returning: $0.map { source }) }
            }
        }
        if case .failure = result { loop.stop() }
        return try result.get()
    }

    func fetch(into path: String, progress: @escaping @Sendable (Int) -> Void) async -> Result<
        ReplicationStream.Snapshot, ProvisioningFailure
    > {
        let stream = stream
        return await withUnsafeContinuation {
            (continuation: UnsafeContinuation<Result<ReplicationStream.Snapshot, ProvisioningFailure>, Never>) in
            loop.execute {
                do {
                    stream.value.fetch(into: try BackupFile(path), progress: progress) { continuation.resume(returning: $0) }
                } catch { continuation.resume(returning: .failure(ProvisioningFailure(.local, "\(error)"))) }
            }
        }
    }

    /// Ends what is under way.
    func stop() {
        let stream = stream
        loop.execute { stream.value.close() }
    }

    /// And its thread.
    func close() {
        let stream = stream, loop = loop
        loop.execute {
            stream.value.close()
            loop.stop()
        }
    }
}
