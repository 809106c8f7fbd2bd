import Basics
import EventLoops
import Glibc
import Observability
import StackModel
import Synchronization

/// Keeps routes' backends as a file or the DNS has them. When a file cannot be read or a name not found, the backends before it stay.
public final class Discovery: Sendable {
    private let gateway: Gateway
    private let loop: EventLoop
    private let logger: Logger
    private let onChange: @Sendable () -> Void
    private let followed = Mutex(Followed())

    private struct Followed {
        /// By route.
        var sources: [String: Source] = [:]
        var begun = 0
    }

    /// A source that is followed, by one task.
    private struct Source {
        let spec: DiscoverySpec
        /// Which task follows it: one that was replaced by another ends.
        let number: Int
        /// Whether it has said once what there is, or why it does not say.
        var isAsked = false
        /// Whether the gateway has been given what was found.
        var isPublished = false
    }

    /// How often a file's time is looked at.
    private static let fileInterval = Duration.milliseconds(500)
    /// The time between the first two looks: before them nothing is known.
    private static let firstInterval = Duration.milliseconds(100)
    /// A TTL is kept, but questions are never closer together than `soonest`, nor further apart than `latest`.
    private static let soonest = Duration.seconds(1)
    private static let latest = Duration.seconds(300)
    /// Wait before a question that was not answered is asked again.
    private static let again = Duration.seconds(2)
    static let fileLimit = 1 << 20

    /// `onChange` is called after backends have changed (the prober follows).
    public init(gateway: Gateway, loop: EventLoop, logger: Logger, onChange: @escaping @Sendable () -> Void) {
        self.gateway = gateway
        self.loop = loop
        self.logger = logger
        self.onChange = onChange
    }

    /// Follows the sources that the routes name now, and no others. Call again after the routes have changed. A route that went and came back
    /// is asked for at once, because the gateway has forgotten what was found for it.
    public func follow() {
        let wanted = gateway.routes.compactMap { route in route.spec.discovery.map { (label: route.label, spec: $0) } }
        let begun = followed.withLock { followed in
            var begun: [(label: String, source: Source)] = []
            var sources: [String: Source] = [:]
            for (label, spec) in wanted {
                if let known = followed.sources[label], known.spec == spec, !known.isPublished || gateway.found(of: label) != nil {
                    sources[label] = known
                    continue
                }
                followed.begun += 1
                let source = Source(spec: spec, number: followed.begun)
                sources[label] = source
                begun.append((label, source))
            }
            followed.sources = sources
            return begun
        }
        for (label, source) in begun {
            // Ends when the route no longer wants it.
            Task(executorPreference: loop) { await self.keep(label, source) }
        }
    }

    /// Waits until each followed source has said once what there is, or why it does not say, but no longer than `patience`. Returns the routes
    /// that have no backends because nothing is known of what they follow: a source that says that there are none is known.
    public func firstRound(within patience: Duration) async -> [String] {
        let deadline = MonotonicTime.now + patience
        while MonotonicTime.now < deadline, followed.withLock({ $0.sources.values.contains { !$0.isAsked } }) {
            await loop.sleep(.milliseconds(10))
        }
        return followed.withLock { $0.sources.keys.sorted() }.filter { label in
            gateway.found(of: label) == nil && gateway.backends(of: label)?.isEmpty != false
        }
    }

    private func isWanted(_ label: String, _ source: Source) -> Bool {
        gateway.routes.contains { $0.label == label && $0.spec.discovery == source.spec }
            && followed.withLock { $0.sources[label]?.number == source.number }
    }

    private func note(_ label: String, _ source: Source, _ change: (inout Source) -> Void) {
        followed.withLock { followed in
            guard var known = followed.sources[label], known.number == source.number else { return }
            change(&known)
            followed.sources[label] = known
        }
    }

    private func keep(_ label: String, _ source: Source) async {
        var found: [BackendSpec]?, told = "", isAsked = false
        var memory = NameMemory(), watch = FileWatch()
        while isWanted(label, source) {
            var wait = isAsked ? Discovery.fileInterval : Discovery.firstInterval
            var outcome: Result<[BackendSpec], Gateway.Failure>?
            switch source.spec {
            case .file(let path):
                outcome = watch.look(path)
                isAsked = isAsked || outcome != nil
            case .dns(let name, let isSRV, let port, let server):
                isAsked = true
                switch await NameQuery.ask(name, srv: isSRV, port: port, server: server) {
                case .success(let answer):
                    wait = min(max(answer.lifetime, Discovery.soonest), Discovery.latest)
                    let (records, unanswered) = memory.complete(answer)
                    if let unanswered {
                        wait = min(wait, Discovery.again)
                        outcome = .failure(Gateway.Failure(description: unanswered))
                    } else if records.isEmpty {
                        wait = Discovery.again
                        outcome = .failure(Gateway.Failure(description: "\(name): no address"))
                    }
                    if !records.isEmpty {
                        found = Discovery.backends(records)
                        outcome = outcome ?? .success(found!)
                    }
                case .failure(let failure):
                    wait = Discovery.again
                    outcome = .failure(Gateway.Failure(description: failure.description))
                }
            }
            switch outcome {
            case .success(let new)?: (found, told) = (new, "")
            case .failure(let failure)?: told = tell(failure.description, label, told)
            case nil: break
            }
            // Compared with what the gateway has, and not with what it was given once: a reload may have taken it away.
            if let found, isWanted(label, source), gateway.found(of: label) != found {
                if let failure = await publish(found, label, source) { told = tell(failure, label, told) }
            }
            if isAsked { note(label, source) { $0.isAsked = true } }
            await loop.sleep(wait)
        }
    }

    /// Gives the gateway what was found. Returns why that could not be done; nil when it was.
    private func publish(_ found: [BackendSpec], _ label: String, _ source: Source) async -> String? {
        do throws(Gateway.Failure) { try await gateway.setFound(found, of: label) } catch { return error.description }
        note(label, source) { $0.isPublished = true }
        let all = gateway.backends(of: label) ?? []
        logger.info("backends_found", .init("route", label), .init("backends", all.map(\.address).joined(separator: " ")))
        onChange()
        return nil
    }

    /// Logs the reason, once for each new one.
    private func tell(_ reason: String, _ label: String, _ told: String) -> String {
        if reason != told {
            logger.warning(
                "backends_not_found", .init("route", label), .init("error", reason), .init("kept", "the backends before"))
        }
        return reason
    }

    /// The backends that records name. Weights of SRV records go to 65,535 and ours to 256: where one of a level's is larger, all of that
    /// level are made smaller by the same factor, but none becomes 0 by that. Records that all have weight 0 have no weights (RFC 2782).
    static func backends(_ records: [NameMemory.Record]) -> [BackendSpec] {
        var out: [BackendSpec] = []
        let largest = Dictionary(records.map { ($0.priority, $0.weight) }, uniquingKeysWith: max)
        func weight(_ record: NameMemory.Record) -> Int {
            let most = largest[record.priority] ?? 0
            if most == 0 { return 1 }
            return most <= 256 || record.weight == 0 ? record.weight : max(1, (record.weight.multipliedClamped(by: 256) + most / 2) / most)
        }
        // Priorities in their order: whatever numbers SRV records use, the first group is 0 here.
        let levels = Set(records.map(\.priority)).sorted().prefix(8)
        for record in records.sorted(by: { ($0.host, $0.port) < ($1.host, $1.port) }) {
            guard let level = levels.firstIndex(of: record.priority) else { continue }
            let host = record.host.contains(":") ? "[\(record.host)]" : record.host
            let backend = BackendSpec(address: "\(host):\(record.port)", weight: weight(record), priority: level)
            if !out.contains(backend) { out.append(backend) }
        }
        return out
    }

    /// Reads `ADDRESS [weight=N] [priority=N]`, one line per backend; `#` begins a comment.
    static func read(_ path: String) -> Result<[BackendSpec], Gateway.Failure> {
        let bytes: [UInt8]
        do throws(SystemError) { bytes = try Files.read(path, limit: fileLimit) } catch {
            return .failure(Gateway.Failure(description: "\(error)"))
        }
        var out: [BackendSpec] = []
        for (number, line) in String(decoding: bytes, as: UTF8.self).split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
            .enumerated()
        {
            let words = line.prefix { $0 != "#" }.split(whereSeparator: \.isWhitespace)
            guard let address = words.first else { continue }
            var weight = 1, priority = 0
            var given: Set<Substring> = []
            func wrong(_ why: String) -> Result<[BackendSpec], Gateway.Failure> {
                .failure(Gateway.Failure(description: "\(path) line \(number + 1): \(why)"))
            }
            if Endpoint(String(address)) == nil { return wrong("'\(address)' is no host:port") }
            for word in words.dropFirst() {
                let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                let isNumber = parts.count == 2 && !parts[1].isEmpty && parts[1].utf8.allSatisfy { $0 &- 48 < 10 }
                guard isNumber, let value = Int(parts[1]) else { return wrong("'\(word)': expected weight=N or priority=N") }
                guard given.insert(parts[0]).inserted else { return wrong("'\(parts[0])' is given twice") }
                switch parts[0] {
                case "weight" where (0...256).contains(value): weight = value
                case "priority" where (0...7).contains(value): priority = value
                default: return wrong("'\(word)': expected weight=0..256 or priority=0..7")
                }
            }
            out.append(BackendSpec(address: String(address), weight: weight, priority: priority, line: number + 1))
        }
        return .success(out)
    }
}

/// What was seen of a backends file. Its content is taken only when two looks in a row have found the same file, and it has not changed while
/// it was read: a file that somebody is writing at this moment is not taken for one with fewer backends.
struct FileWatch {
    private var seen: String?
    private var taken: String?

    /// Looks at the file once. Returns its content, or why it could not be read, if that is new; nil when there is nothing new, or it is not
    /// certain yet.
    mutating func look(_ path: String) -> Result<[BackendSpec], Gateway.Failure>? {
        let now = FileWatch.stamp(path)
        let isSettled = now == seen
        seen = now
        guard isSettled, now != taken else { return nil }
        let content = Discovery.read(path)
        guard FileWatch.stamp(path) == now else { return nil }
        // What could not be read is tried again: what was in the way (rights, say) may go without the file's time changing.
        if case .success = content { taken = now }
        return content
    }

    /// A text that changes with the file's content: its place, size and time.
    static func stamp(_ path: String) -> String {
        var info = Glibc.stat()
        guard stat(path, &info) == 0 else { return "gone" }
        return "\(info.st_ino) \(info.st_size) \(info.st_mtim.tv_sec).\(info.st_mtim.tv_nsec)"
    }
}

/// The addresses that each question of a name gave last. A question that is not answered now (its server failed, or is silent) keeps the
/// addresses that it gave before, so half an answer changes only half.
struct NameMemory {
    struct Record: Equatable {
        let host: String
        let port: UInt16
        let priority: Int
        let weight: Int
    }

    private var hosts: [String: [String]] = [:]

    /// All records, with those of unanswered questions as they were, and why the first unanswered question was not answered.
    mutating func complete(_ answer: NameQuery.Answer) -> (records: [Record], unanswered: String?) {
        var records: [Record] = [], now: [String: [String]] = [:], unanswered: String?
        for part in answer.parts {
            switch part.hosts {
            case .success(let found): now[part.question] = found
            case .failure(let failure):
                now[part.question] = hosts[part.question] ?? []
                unanswered = unanswered ?? "\(part.question.prefix { $0 != " " }) of \(failure.description)"
            }
            for host in now[part.question] ?? [] {
                records.append(Record(host: host, port: part.port, priority: part.priority, weight: part.weight))
            }
        }
        // Names that SRV records no longer point to are forgotten.
        hosts = now
        return (records, unanswered)
    }
}
