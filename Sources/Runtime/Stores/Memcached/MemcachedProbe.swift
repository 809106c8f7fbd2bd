import Basics
import EventLoops
import StoreKinds

/// Asks servers of memcached for their statistics, each over a connection that is kept: a server that is full takes no new one, and
/// answers on the old ones all the same.
final class MemcachedProbe: NodeProbe {
    private let servers: [Endpoint]
    private let loop: EventLoop
    private var connections: [MemcachedConnection?]
    /// Of the last answers, by server.
    private var statistics: [[String: String]]

    private static let timeLimit = Duration.seconds(2)

    init(_ servers: [Endpoint], loop: EventLoop) {
        self.servers = servers
        self.loop = loop
        connections = Array(repeating: nil, count: servers.count)
        statistics = Array(repeating: [:], count: servers.count)
    }

    func close() {
        for connection in connections { connection?.close() }
        connections = Array(repeating: nil, count: servers.count)
    }

    func ask() async -> ProbeReport {
        let asked = Gathering(servers.count)
        for index in servers.indices {
            let connection: MemcachedConnection
            if let known = connections[index], known.isUsable {
                connection = known
            } else {
                connection = MemcachedConnection(loop: loop)
                connection.connect(to: servers[index])
                connections[index] = connection
            }
            connection.ask(within: MemcachedProbe.timeLimit) { asked.add(index, $0) }
        }
        return ProbeReport(judge(await asked.all()))
    }

    /// One answer a server, in their order.
    func judge(_ answers: [MemcachedConnection.Answer]) -> NodeAnswer {
        var silent: [String] = [], wrong: [String] = [], lacking: [String] = [], unasked: [String] = []
        for (index, answer) in answers.enumerated() {
            let name = "stats on \(servers[index])"
            switch answer {
            case .statistics(let values):
                if let why = MemcachedProbe.wants(values, before: statistics[index]) { lacking.append("\(name): \(why)") }
                statistics[index] = values
            case .error(let words):
                statistics[index] = [:]
                wrong.append("\(name) was answered with: \(words)")
            case .silence(let reason):
                statistics[index] = [:]
                silent.append("\(name): \(reason)")
            case .unasked(let want):
                // What it said last is what is known of it.
                unasked.append("\(name): \(want)")
            }
        }
        // One that answers with an error is there; all others of several go on serving their part of the keys.
        if silent.count + wrong.count + unasked.count == servers.count {
            // Any of those that could not be asked may serve.
            if !unasked.isEmpty { return .unasked((unasked + wrong + silent).joined(separator: "; ")) }
            return wrong.isEmpty ? .failed(silent.joined(separator: "; ")) : .unready((wrong + silent).joined(separator: "; "))
        }
        let faults = silent + wrong + lacking
        return faults.isEmpty ? .ready : .degraded(faults.joined(separator: "; "))
    }

    /// What a server lacks by its own word; nil: nothing. It refuses connections beyond its limit, or lets them wait.
    private static func wants(_ now: [String: String], before: [String: String]) -> String? {
        let open = now["curr_connections"] ?? "?", limit = now["max_connections"] ?? "?"
        if now["accepting_conns"] == "0" { return "it takes no more connections (\(open) are open)" }
        guard let refused = now["rejected_connections"].flatMap({ Int($0) }),
            let known = before["rejected_connections"].flatMap({ Int($0) }),
            refused > known
        else { return nil }
        return "it refused \(refused.subtractingClamped(known)) connections since the last probe (\(open) are open, the limit is \(limit))"
    }

    /// Of all servers together, as they last said.
    func figures() async -> [StoreFigure] {
        let names: [(StoreFigure.Name, String)] = [
            (.memory, "bytes"), (.memoryLimit, "limit_maxbytes"), (.connections, "curr_connections"), (.items, "curr_items"),
        ]
        return names.compactMap { name, key in
            let values = statistics.compactMap { $0[key].flatMap { Int($0) } }
            return values.isEmpty ? nil : StoreFigure(name, values.reduce(0) { $0.addingClamped($1) })
        }
    }

    /// Answers that come in one after the other.
    private final class Gathering {
        private var answers: [MemcachedConnection.Answer?]
        private var waiting: UnsafeContinuation<[MemcachedConnection.Answer], Never>?

        init(_ count: Int) { answers = Array(repeating: nil, count: count) }

        func add(_ index: Int, _ answer: MemcachedConnection.Answer) {
            answers[index] = answer
            guard let waiting, let all = answers as? [MemcachedConnection.Answer] else { return }
            self.waiting = nil
            waiting.resume(returning: all)
        }

        func all() async -> [MemcachedConnection.Answer] {
            if let all = answers as? [MemcachedConnection.Answer] { return all }
            return await withUnsafeContinuation { waiting = $0 }
        }
    }
}

/// A connection to a memcached that asks one question after the other.
final class MemcachedConnection: Stream {
    enum Answer: Sendable, Equatable {
        case statistics([String: String])
        /// It answers, and not with what was asked for.
        case error(String)
        case silence(String)
        /// It could not be asked for want of something here: why.
        case unasked(String)
    }

    private var answer = ""
    private var done: ((Answer) -> Void)?
    private var timer: LoopTimer?
    private var isOver = false

    /// Statistics are about 3 KB.
    private static let sizeLimit = 64 << 10

    var isUsable: Bool { !isOver && done == nil }

    /// Calls `done` once, on the loop. After anything but statistics the connection is of no more use.
    func ask(within limit: Duration, _ done: @escaping (Answer) -> Void) {
        self.done = done
        answer = ""
        timer = LoopTimer(loop: loop) { [weak self] in self?.finish(.silence("no answer within \(limit.brief)")) }
        timer?.schedule(after: limit)
        Array("stats\r\n".utf8).withUnsafeBytes { write($0) }
    }

    override func received(_ bytes: UnsafeRawBufferPointer) {
        guard done != nil else { return close() }
        answer += String(decoding: bytes, as: UTF8.self)
        if answer.utf8.count > MemcachedConnection.sizeLimit { return finish(.error("more than \(MemcachedConnection.sizeLimit) bytes")) }
        if answer.hasSuffix("END\r\n") {
            var values: [String: String] = [:]
            for line in answer.split(whereSeparator: \.isNewline) {
                let words = line.split(separator: " ", maxSplits: 2)
                if words.count == 3, words[0] == "STAT" { values[String(words[1])] = String(words[2]) }
            }
            return finish(values["pid"] == nil ? .error("an END without statistics") : .statistics(values))
        }
        // What begins otherwise is no statistics: an error of memcached's, or another protocol.
        if answer.utf8.count >= 5, !answer.hasPrefix("STAT ") {
            finish(.error(String(answer.prefix(80).prefix { !$0.isNewline })))
        }
    }

    override func closed(_ reason: CloseReason) {
        isOver = true
        finish(reason.isOwnWant ? .unasked(reason.description) : .silence("the connection was \(reason)"))
    }

    private func finish(_ answer: Answer) {
        timer?.cancel()
        timer = nil
        guard let done else { return }
        self.done = nil
        if case .statistics = answer {
        } else {
            isOver = true
            close()
        }
        done(answer)
    }
}
