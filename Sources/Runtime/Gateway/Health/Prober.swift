import Balancing
import Basics
import EventLoops
import HTTP
import Observability
import StackModel
import Synchronization

/// Active checks of declared backends: each is probed on its own schedule, with jitter, one probe at a time. (Services that Muster runs
/// itself are probed by their supervisor.) Where a route wants it, its replicas are also compared with each other.
public final class Prober: Sendable {
    private let gateway: Gateway
    private let loop: EventLoop
    private let client: HTTPClient
    private let probed = Mutex<Set<ObjectIdentifier>>([])
    private let compared = Mutex<Set<String>>([])

    /// Interval of the comparison of replicas: Envoy's interval of outlier detection.
    static let comparisonInterval = Duration.seconds(10)

    public init(gateway: Gateway, loop: EventLoop) {
        self.gateway = gateway
        self.loop = loop
        // Only the status counts: a page of any size may come with it.
        client = HTTPClient(loop: loop, responseLimit: 65_536, passesOver: true)
    }

    /// Begins to probe the backends that are not probed yet. Call again after the routes have changed; probes of replicas that are gone
    /// stop by themselves.
    public func follow() {
        for (place, route) in gateway.routes.enumerated() {
            if route.spec.eject.outliers, compared.withLock({ $0.insert(route.label).inserted }) {
                // Ends when the route is gone or no longer wants it.
                Task(executorPreference: loop) { await self.compare(route.label) }
            }
            for replica in Prober.probed(route) where probed.withLock({ $0.insert(ObjectIdentifier(replica)).inserted }) {
                // Ends when the replica has left the routes that probe.
                Task(executorPreference: loop) { await self.watch(replica, place) }
            }
        }
    }

    /// The replicas that a route's probe is for: those of backends, the route's own and its canary's.
    private static func probed(_ route: Route) -> [Replica] {
        guard route.spec.probe != nil else { return [] }
        var all: [Replica] = []
        if case .backends = route.spec.target { all += route.replicas }
        if let canary = route.spec.canary, canary.service == nil { all += route.canaryReplicas }
        return all
    }

    /// How a replica is asked: what its route declares now, with the PROXY header and the TLS that its requests have.
    private struct Question {
        let spec: ProbeSpec
        let preface: [UInt8]
        let tls: UpstreamTLS?
    }

    /// How the replica's route wants it asked now: a reload may change the probe and keep the replica. `place` is where that route stood
    /// before, and is looked at first.
    private func probe(of replica: Replica, _ place: inout Int) -> Question? {
        func has(_ route: Route) -> Bool { Prober.probed(route).contains { $0 === replica } }
        let routes = gateway.routes
        if place >= routes.count || !has(routes[place]) {
            guard let now = routes.firstIndex(where: has) else { return nil }
            place = now
        }
        let route = routes[place]
        return route.spec.probe.map { Question(spec: $0, preface: Prober.preface(route.spec.proxyHeader), tls: route.tls) }
    }

    /// The PROXY header of a connection on which this process asks by itself and for no client (`LOCAL`, or `UNKNOWN` in version 1).
    private static func preface(_ version: RouteSpec.ProxyHeader?) -> [UInt8] {
        guard let version else { return [] }
        var header = ByteBuffer()
        ProxyHeader.render(version == .v1 ? .one : .two, source: .unix(""), into: &header)
        return Array(header.bytes)
    }

    private func watch(_ replica: Replica, _ first: Int) async {
        var health = ActiveHealth(.init())
        var random = SystemRandomNumberGenerator()
        var place = first, goodWhileEjected = 0
        while let question = probe(of: replica, &place) {
            let probe = question.spec
            let settings = ActiveHealth.Settings(rise: probe.rise, fall: probe.fall)
            if health.settings != settings { health = ActiveHealth(settings, startsUp: health.isUp) }
            let outcome = await ask(replica, question)
            if case .lacking(let detail) = outcome { gateway.ranShort(detail) }
            if let (success, detail) = outcome.result {
                if let decision = health.probed(success, subject: replica.name, detail: detail) {
                    if decision.result {
                        replica.remove(.down, because: decision.record.sentence)
                        replica.seenServing()
                    } else {
                        replica.add(.down, because: decision.record.sentence)
                    }
                    gateway.journal.append(decision.record)
                    gateway.replicasChanged()
                }
                goodWhileEjected = success && probe.path != nil && replica.obstacles.contains(.ejected) ? goodWhileEjected + 1 : 0
                if goodWhileEjected >= probe.rise {
                    replica.seenServing()
                    gateway.journal.append(Prober.endsEjection(replica.name, goodWhileEjected, detail))
                    goodWhileEjected = 0
                }
            }
            // ±10 %, so that many gateways do not ask together.
            let interval = probe.interval.nanoseconds
            await loop.sleep(.nanoseconds(interval * 9 / 10 + Int64.random(in: 0...max(interval / 5, 1), using: &random)))
        }
        probed.withLock { _ = $0.remove(ObjectIdentifier(replica)) }
        // Nobody asks any more, so nobody would find it well again.
        if !health.isUp { replica.remove(.down, because: "no longer probed") }
    }

    /// The record of an ejection that is over before its time. (A probe that only connects ends none: a process that hangs lets itself be
    /// connected to.)
    private static func endsEjection(_ replica: String, _ count: Int, _ detail: String) -> DecisionRecord {
        DecisionRecord(
            .eject, subject: replica, inputs: [.init("probes_in_a_row", count), .init("last_probe", detail)], raw: "ejected",
            outcome: "on probation",
            sentence: "\(replica) takes requests again before its time is over, on probation: \(count) good probes in a row.",
            flip: "a failed probe among the last \(count)")
    }

    /// The result of a probe.
    fileprivate enum Outcome {
        case answered(Bool, String)
        /// This process lacked something for the question: the result says nothing about the replica, and does not count.
        case lacking(String)
        /// Nobody has answered what the replica's name stands for: that says nothing about the replica either.
        case unresolved

        var result: (Bool, String)? { if case .answered(let success, let detail) = self { (success, detail) } else { nil } }
    }

    private func ask(_ replica: Replica, _ question: Question) async -> Outcome {
        let probe = question.spec
        guard let path = probe.path else { return await connect(replica, question) }
        do throws(HTTPClientError) {
            let headers = (probe.host.map { [("Host", $0)] } ?? []) + probe.headers.map { ($0.name, $0.value) }
            let response = try await client.send(
                "GET", path, to: replica.endpoint, headers: headers, preface: question.preface, timeout: probe.timeout,
                over: question.tls?.place(of: replica.endpoint))
            return .answered((200..<300).contains(response.status), "status \(response.status)")
        } catch {
            if error.isUnresolved { return .unresolved }
            return error.isOwnWant ? .lacking(error.description) : .answered(false, error.description)
        }
    }

    /// Probes by connecting: an established connection is enough, with TLS its handshake.
    private func connect(_ replica: Replica, _ question: Question) async -> Outcome {
        let loop = loop
        return await withUnsafeContinuation { continuation in
            loop.execute {
                let check = ConnectionCheck(loop: loop, question.preface) { continuation.resume(returning: $0) }
                check.tls = question.tls?.session(to: replica.endpoint)
                check.begin(replica.endpoint, question.spec.timeout)
            }
        }
    }

    // MARK: outliers

    private struct Totals {
        var requests = 0
        var failures = 0
        var answers = 0
        var latency = 0
    }

    private func compare(_ label: String) async {
        var before: [ObjectIdentifier: Totals] = [:]
        while let route = gateway.routes.first(where: { $0.label == label }), route.spec.eject.outliers {
            let detection = OutlierDetection(OutlierDetection.Settings(cap: EjectionCap(share: min(route.spec.eject.atMost, 0.5))))
            var samples: [OutlierDetection.Sample] = []
            var now: [ObjectIdentifier: Totals] = [:]
            for replica in route.replicas {
                let totals = Totals(
                    requests: replica.requests.current,
                    failures: replica.failures.current + (route.spec.eject.countsErrors ? 0 : replica.errors.current),
                    answers: replica.answers.current, latency: replica.latency.current)
                now[ObjectIdentifier(replica)] = totals
                let old = before[ObjectIdentifier(replica)] ?? totals
                samples.append(
                    .init(
                        replica.name, requests: totals.requests - old.requests, failures: totals.failures - old.failures,
                        answers: totals.answers - old.answers, latency: Int64(totals.latency - old.latency),
                        isEjected: replica.obstacles.contains(.ejected)))
            }
            before = now
            for decision in detection.judge(samples) {
                route.replicas[decision.result].eject(.now, because: decision.record)
                gateway.journal.append(decision.record)
            }
            await loop.sleep(Prober.comparisonInterval)
        }
        compared.withLock { _ = $0.remove(label) }
    }
}

/// A connection that is made only to see whether it can be made. Keeps itself alive until it has answered, once.
private final class ConnectionCheck: Stream {
    private var answer: ((Prober.Outcome) -> Void)?
    private var timer: LoopTimer?
    private var kept: ConnectionCheck?
    private let preface: [UInt8]

    init(loop: EventLoop, _ preface: [UInt8], _ answer: @escaping (Prober.Outcome) -> Void) {
        self.preface = preface
        self.answer = answer
        super.init(loop: loop)
    }

    func begin(_ endpoint: Endpoint, _ timeout: Duration) {
        kept = self
        timer = LoopTimer(loop: loop) { [unowned self] in failed("no connection within \(timeout.brief)", isOwnWant: false) }
        timer?.schedule(after: timeout)
        connectBy = timer?.deadline
        // Before TLS, as whoever reads it expects.
        preface.withUnsafeBytes { writeBeforeTLS($0) }
        connect(to: endpoint)
    }

    private func end(_ outcome: Prober.Outcome) {
        let answer = answer
        self.answer = nil
        timer?.cancel()
        close()
        answer?(outcome)
        kept = nil
    }

    private func failed(_ text: String, isOwnWant: Bool) {
        end(isUnresolved ? .unresolved : isOwnWant ? .lacking(text) : .answered(false, text))
    }

    override func connected() {
        if tls == nil { preface.withUnsafeBytes { write($0) } }
        end(.answered(true, "connected"))
    }
    override func closed(_ reason: CloseReason) { if answer != nil { failed(reason.description, isOwnWant: reason.isOwnWant) } }
}
