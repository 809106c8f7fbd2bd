import Basics
import EventLoops

/// The loop's end of COPY FROM STDIN: says when it may begin, and when more may be sent. On its connection's loop.
///
/// States: waiting for the server → open → closed (finished by us, or ended by the server).
final class CopyFeed {
    private enum State { case waiting, open(PostgresLink), finished(PostgresLink), over }

    private var state = State.waiting
    /// Called once: true when data may be sent, false when the server ended it before.
    private var onBegin: ((Bool) -> Void)?
    private var onRoom: ((Bool) -> Void)?
    private let outcome = CopyOutcome()

    /// Bytes that may wait for the network before whoever feeds has to wait.
    static let ahead = 256 << 10
    /// Most bytes of one message: the server reads one whole before it looks at it.
    static let piece = 64 << 10

    /// Whether data can be sent.
    var isOpen: Bool { if case .open = state { true } else { false } }

    func whenBegun(_ body: @escaping (Bool) -> Void) {
        switch state {
        case .waiting: onBegin = body
        case .open: body(true)
        case .finished, .over: body(false)
        }
    }

    /// False: it had begun already.
    func begin(_ link: PostgresLink) -> Bool {
        guard case .waiting = state else { return false }
        state = .open(link)
        onBegin?(true)
        onBegin = nil
        return true
    }

    /// Sends data; `room` is called when more may be sent: at once, or when the network has taken what waited. False: nothing is taken any more.
    func send(_ bytes: [UInt8], _ room: @escaping (Bool) -> Void) {
        guard case .open(let link) = state, link.isOpen else { return room(false) }
        bytes.withUnsafeBytes { all in
            var at = 0
            while at < all.count {
                let count = min(CopyFeed.piece, all.count - at)
                link.putCopyData(all.part(at, count))
                at += count
            }
        }
        if let operation = link.flight.first { link.progressed(operation) }
        if link.waiting > CopyFeed.ahead { onRoom = room } else { room(true) }
    }

    func drained() {
        if case .open(let link) = state, let operation = link.flight.first { link.progressed(operation) }
        tellRoom(true)
    }

    private func tellRoom(_ isRoom: Bool) {
        let told = onRoom
        onRoom = nil
        told?(isRoom)
    }

    /// Ends the data: all of it is to be kept, or, with a reason, none.
    func finish(_ failure: String?) {
        guard case .open(let link) = state else { return }
        state = .finished(link)
        link.put((failure.map { FrontendMessage.copyFail(WireText($0)) } ?? .copyDone).encoded)
        tellRoom(false)
    }

    /// The server has refused: what is sent from now on would be dropped.
    func serverFailed() {
        if case .finished = state { return }
        end()
    }

    func end() {
        state = .over
        onBegin?(false)
        onBegin = nil
        tellRoom(false)
    }
}

extension CopyFeed {
    func settle(_ result: Result<PostgresResult, PostgresError>) {
        end()
        outcome.settle(result)
    }

    func whenSettled(_ body: @escaping (Result<PostgresResult, PostgresError>) -> Void) { outcome.whenSettled(body) }
}

/// The statement's result, for whoever asks once for it, before it is there or after.
final class CopyOutcome {
    private var result: Result<PostgresResult, PostgresError>?
    private var body: ((Result<PostgresResult, PostgresError>) -> Void)?

    func settle(_ result: Result<PostgresResult, PostgresError>) {
        self.result = result
        body?(result)
        body = nil
    }

    func whenSettled(_ body: @escaping (Result<PostgresResult, PostgresError>) -> Void) {
        if let result { body(result) } else { self.body = body }
    }
}

/// The loop's end of COPY TO STDOUT: keeps what has come until somebody takes it, and holds the server back when that is much.
final class CopyTap {
    private var link: PostgresLink?
    private var kept: [UInt8] = []
    private var isOver = false
    private var isAbandoned = false
    private var onData: (([UInt8]?) -> Void)?
    private var hasBegun = false
    private let outcome = CopyOutcome()

    /// Bytes that are kept before the server is held back. One message more may come on top.
    static let ahead = 256 << 10

    /// False: it had begun already.
    func begin(_ link: PostgresLink) -> Bool {
        if hasBegun { return false }
        hasBegun = true
        self.link = link
        return true
    }

    /// False: it had not begun.
    func take(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let link else { return false }
        if isAbandoned { return true }
        kept.append(contentsOf: bytes)
        if let onData {
            self.onData = nil
            give(onData)
        } else if kept.count >= CopyTap.ahead {
            link.holdBack()
        }
        return true
    }

    private func give(_ body: ([UInt8]?) -> Void) {
        let bytes = kept
        kept = []
        link?.release()
        body(bytes)
    }

    /// Calls `body` with what has come, at once or when something has; nil at the end.
    func next(_ body: @escaping ([UInt8]?) -> Void) {
        if !kept.isEmpty { return give(body) }
        if isOver { return body(nil) }
        onData = body
    }

    /// Nobody takes more: the rest is dropped.
    func abandon() {
        isAbandoned = true
        kept = []
        link?.release()
    }

    func end() {
        isOver = true
        link = nil
        guard let body = onData else { return }
        onData = nil
        next(body)
    }

    func settle(_ result: Result<PostgresResult, PostgresError>) {
        end()
        outcome.settle(result)
    }

    /// The result, and whether the server had begun a COPY.
    func whenSettled(_ body: @escaping (Result<PostgresResult, PostgresError>, Bool) -> Void) {
        outcome.whenSettled { [unowned self] result in body(result, hasBegun) }
    }
}
