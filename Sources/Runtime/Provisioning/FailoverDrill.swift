import Basics
import EventLoops
import Glibc
import Redis
import Sharding

/// Loses a master on purpose, under load, and tells what became of it: when it was noticed, when another took over, when writes of its
/// slots went on, and how many acknowledged writes were lost. Local nodes only, because it signals processes.
public struct FailoverDrill: Sendable {
    public enum Fault: String, Sendable, CaseIterable {
        /// kill -9.
        case kill
        /// SIGSTOP: it takes connections and answers nothing.
        case stop
        /// Its peers cannot reach it, clients can.
        case partition
    }

    /// Milliseconds after the fault; nil: not seen.
    public struct Timeline: Sendable, Equatable {
        /// Before the fault: negative.
        public var lastWrite: Int?
        public var suspected: Int?
        public var failed: Int?
        public var elected: Int?
        public var firstWrite: Int?
        public var whole: Int?
        /// Flagged as failed, or replaced before that.
        public var detected: Int? { [failed, elected].compactMap { $0 }.min() }
    }

    public struct Outcome: Sendable {
        /// When the fault began.
        public let at: WallTime
        public let timeline: Timeline
        public let wait: Int
        public let acknowledged: Int
        public let lost: Int
        /// Writes that ended with an error: of the lost master's slots, and of others.
        public let failedInLost: Int
        public let failedElsewhere: Int
        public let firstFailureElsewhere: String
        public let victim: NodeAddress
        public let heir: NodeAddress?
    }

    public let fault: Fault
    public let victim: NodeAddress
    public let slots: SlotSet
    public let wait: Int
    public let rate: Int
    /// Its supervisor starts it again after a kill; else the drill does.
    public let isSupervised: Bool
    private let victimID: String
    private let pid: Int32
    /// When the process was started, in clock ticks: pids are used again.
    private let pidStarted: UInt64
    /// What is started again after a kill, and with which secrets; nil: nothing is.
    private let again: (process: NodeProcess, secrets: String)?
    private let nodeTimeout: Duration
    private let ends: [Partition.Node]

    public var plan: [String] {
        let what =
            switch fault {
            case .kill:
                "kill -9 \(victim) (pid \(pid)), master of \(slots.count) slots; "
                    + (again.map { "it is started again with \($0.process.configuration) when another has taken over" }
                        ?? "its supervisor starts it again")
            case .stop: "SIGSTOP \(victim) (pid \(pid)), master of \(slots.count) slots; SIGCONT when another has taken over"
            case .partition:
                "cut \(victim), master of \(slots.count) slots, off from its peers by dropping packets on loopback; healed when another "
                    + "has taken over"
            }
        return [
            "write \(rate) keys a second over all slots\(wait > 0 ? ", each confirmed by \(wait) replica\(wait == 1 ? "" : "s")" : ""), and count what was acknowledged",
            what, "compare, and remove the keys",
        ]
    }

    /// Whether this drill does what `other` says it does: the same fault to the same process.
    public func isShown(as other: FailoverDrill) -> Bool { plan == other.plan && pidStarted == other.pidStarted }

    /// How long a drill may take until somebody took over.
    private var limit: Duration { max(.seconds(20), nodeTimeout * 4 + .seconds(10)) }

    /// `node`: the master that is to go; nil: the first one that has a replica.
    public static func plan(_ session: ClusterSession, fault: Fault, node: NodeAddress?, wait: Int, rate: Int)
        async throws(ProvisioningFailure) -> FailoverDrill
    {
        let reading = try await session.read()
        let missing = session.shortcomings(reading)
        guard missing.isEmpty else {
            throw ProvisioningFailure(
                .refused, "the cluster is not whole, so a drill would show something else: \(missing.prefix(3).joined(separator: "; "))")
        }
        let masters = reading.reports.filter { report in
            report.nodes.myself.isMaster && !report.nodes.myself.slots.isEmpty
                && reading.reports.contains { $0.nodes.myself.master == report.id }
        }
        guard let victim = node.map({ node in masters.first { $0.asked == node } }) ?? masters.min(by: { $0.asked < $1.asked }) else {
            throw ProvisioningFailure(
                .refused, node == nil ? "no master has a replica: nobody could take over" : "is no master with slots and a replica",
                node: node)
        }
        let pid = try pid(of: victim)
        let isSupervised = parentIsMuster(pid), again = fault == .kill && !isSupervised
        return try FailoverDrill(
            victim, reading, pid, again: again ? try await self.again(victim, pid, session) : nil, isSupervised: isSupervised, fault: fault,
            wait: wait, rate: rate)
    }

    /// The victim's process on this machine.
    private static func pid(of report: NodeReport) throws(ProvisioningFailure) -> Int32 {
        guard report.asked.isLoopback, let pid = report.info["process_id"].flatMap({ Int32($0) }), pid > 1,
            let name = Files.text("/proc/\(pid)/comm")?.split(whereSeparator: \.isNewline).first
        else { throw ProvisioningFailure(.refused, "does not run on this machine: a drill signals processes", node: report.asked) }
        guard name.hasPrefix("redis") || name.hasPrefix("valkey") else {
            throw ProvisioningFailure(
                .refused, "says that it is the process \(pid), and that one is '\(name)' on this machine: a drill signals only servers",
                node: report.asked)
        }
        return pid
    }

    /// How the victim is started again as it is. Refused before anything is done where that cannot be known.
    private static func again(_ report: NodeReport, _ pid: Int32, _ session: ClusterSession)
        async throws(ProvisioningFailure) -> (NodeProcess, String)
    {
        if let user = session.credentials.user, user != "default" {
            throw ProvisioningFailure(
                .refused,
                "has no supervisor, and a user like '\(user)' may be gone when it starts again: for a kill, log in without --user",
                node: report.asked)
        }
        let process = try NodeProcess(again: pid, configuration: report.info["config_file"] ?? "", port: report.asked.port)
        var secrets: [String: Secret] = [:]
        for name in RedisConfiguration.secretNames {
            let pair: [RESPValue]
            do { pair = try await session.client(report.asked).ask("CONFIG GET", name).array ?? [] } catch {
                throw ProvisioningFailure(
                    error.code == .server ? .refused : error.code,
                    "does not tell \(name), so it could not be started again with it after a kill: \(error.message)", node: report.asked)
            }
            // A server that does not know the setting answers with nothing.
            guard pair.count == 2, let value = pair[1].string else { continue }
            guard !value.utf8.contains(where: { $0 < 32 || $0 == 127 }) else {
                throw ProvisioningFailure(
                    .refused, "has control characters in \(name), which no line of a file can hold", node: report.asked)
            }
            secrets[name] = Secret(value)
        }
        return (process, RedisConfiguration.secrets(secrets))
    }

    private init(
        _ report: NodeReport, _ reading: ClusterReading, _ pid: Int32, again: (NodeProcess, String)?, isSupervised: Bool, fault: Fault,
        wait: Int, rate: Int
    ) throws(ProvisioningFailure) {
        self.fault = fault
        self.wait = wait
        self.rate = rate
        victim = report.asked
        victimID = report.id
        slots = report.nodes.myself.slots
        nodeTimeout = report.nodeTimeout ?? .seconds(15)
        self.pid = pid
        self.again = again
        self.isSupervised = isSupervised
        guard let started = try? ProcessIdentity.startTime(pid) else {
            throw ProvisioningFailure(.unfinished, "its process \(pid) has ended meanwhile: nothing was done to it", node: victim)
        }
        pidStarted = started
        var ends: [Partition.Node] = []
        if fault == .partition {
            if let obstacle = Partition.obstacle() { throw ProvisioningFailure(.refused, obstacle) }
            for other in [report] + reading.reports.filter({ $0.id != report.id }) {
                guard let source = other.bindSource, source != other.asked.host else {
                    throw ProvisioningFailure(
                        .refused, "has no bind-source-addr of its own, by which its traffic could be told from a client's",
                        node: other.asked)
                }
                ends.append(.init(source: source, port: other.asked.port, bus: other.nodes.myself.busPort))
            }
        }
        self.ends = ends
    }

    private static func parentIsMuster(_ pid: Int32) -> Bool {
        let status = Files.text("/proc/\(pid)/status") ?? ""
        let line = status.split(whereSeparator: \.isNewline).first { $0.hasPrefix("PPid:") }
        guard let parent = line.flatMap({ Int32($0.dropFirst(5).filter(\.isNumber)) }) else { return false }
        return Files.text("/proc/\(parent)/comm") == "muster\n"
    }

    // MARK: run

    public func run(_ session: ClusterSession, tell: @Sendable (String) -> Void) async throws(ProvisioningFailure) -> Outcome {
        var options = RedisClient.Options()
        options.patience = limit
        options.name = "muster-drill"
        // A busy disk holds up a server that appends to its file for up to two seconds.
        options.commandTime = .seconds(5)
        let url: RedisURL
        do { url = try session.credentials.clusterURL(try await session.read().reports.map(\.asked)) } catch {
            throw ProvisioningFailure(.refused, "no addresses of a cluster")
        }
        let client = RedisClient(url: url, loop: session.loop, options: options)
        client.start()
        defer { client.close() }
        let load = LoopBound(
            DrillLoad(client: client, prefix: "muster:drill:\(secretHex(bytes: 4)):", lost: slots, confirmedBy: wait, rate: rate),
            on: session.loop)
        try await onLoop(session) { load.value.start() }
        let isSteady = try await session.eventually(.seconds(20)) { () async throws(ProvisioningFailure) in
            try await onLoop(session) { load.value.acknowledgedInLost > 200 }
        }
        guard isSteady else {
            try await onLoop(session) { load.value.stop() }
            await clear(session, client, load, tell)
            throw ProvisioningFailure(
                .unfinished,
                "writes to \(victim)'s slots are not acknowledged: "
                    + "\(wait > 0 ? "does it have \(wait) replicas in step?" : "nothing was done")"
            )
        }
        await session.loop.sleep(.seconds(1))
        let result: Result<(Timeline, NodeAddress?, WallTime), ProvisioningFailure>
        do throws(ProvisioningFailure) { result = .success(try await lose(session, load, tell)) } catch { result = .failure(error) }
        try await onLoop(session) { load.value.stop() }
        let lost: Result<Int, ProvisioningFailure>
        do throws(ProvisioningFailure) {
            try await quiet(session, load)
            lost = .success(try await audit(session, client, load))
        } catch { lost = .failure(error) }
        await clear(session, client, load, tell)
        let (timeline, heir, at) = try result.get(), missing = try lost.get()
        return try await onLoop(session) { [self] in
            let load = load.value
            return Outcome(
                at: at, timeline: timeline, wait: wait, acknowledged: load.acknowledged.count, lost: missing,
                failedInLost: load.failuresInLost,
                failedElsewhere: load.failuresElsewhere, firstFailureElsewhere: load.firstFailureElsewhere, victim: victim, heir: heir)
        }
    }

    private func onLoop<T: Sendable>(_ session: ClusterSession, _ body: @escaping @Sendable () -> T) async throws(ProvisioningFailure) -> T
    {
        do { return try await session.loop.run(body) } catch { throw ProvisioningFailure(.local, "\(error)") }
    }

    /// The fault, what was seen of it, and its end.
    private func lose(_ session: ClusterSession, _ load: LoopBound<DrillLoad>, _ tell: @Sendable (String) -> Void)
        async throws(ProvisioningFailure) -> (
            Timeline, NodeAddress?, WallTime
        )
    {
        var timeline = Timeline(), heir: NodeAddress?
        // Those that live are asked, each within a short time: it is their view that counts.
        let members = try await session.read().reports.map(\.asked), others = members.filter { $0 != victim }
        let watch = ClusterSession(seeds: others, credentials: session.credentials, loop: session.loop, commandTime: .milliseconds(500))
        defer { watch.close() }
        let sight = try await onLoop(session) { LoopBound(Sight(), on: session.loop) }
        try await watchers(watch, others, sight)
        let start = try await onLoop(session) {
            load.value.setMark()
            return MonotonicTime.now
        }
        let at = WallTime.now
        // Interrupted in the middle, or when its terminal is closed, it is finished first. When it is killed all the same, the lease mends.
        let signals = [SIGINT, SIGTERM, SIGHUP, SIGPIPE], interrupted = signals.map { Glibc.signal($0, SIG_IGN) }
        defer { for (number, old) in zip(signals, interrupted) { Glibc.signal(number, old) } }
        let (lease, partition) = try inflict(session)
        tell("fault: \(fault.rawValue) \(victim)")
        var isHealed = false
        func heal() throws(ProvisioningFailure) {
            if isHealed { return }
            switch fault {
            case .kill: if let again { _ = try again.process.start(secrets: again.secrets) }
            // One that has ended meanwhile is not stopped any more. One that cannot be looked at is: the signal does no harm to another.
            case .stop: if (try? ProcessIdentity.isRunning(pid, since: pidStarted)) ?? true { try send(SIGCONT) }
            case .partition: try partition?.heal()
            }
            isHealed = true
            // That a process was started does not mean that the node is back.
            if fault != .kill { lease?.end() }
        }
        func milliseconds(_ time: MonotonicTime) -> Int { Int((time - start).nanoseconds / 1_000_000) }
        let deadline = start + limit
        var hasMarkedHeir = false
        while MonotonicTime.now < deadline {
            let seen = try await onLoop(session) { [victimID, slots] in sight.value.judge(victimID, slots) }
            if timeline.suspected == nil, let time = seen.suspected { timeline.suspected = milliseconds(time) }
            if timeline.failed == nil, let time = seen.failed { timeline.failed = milliseconds(time) }
            if timeline.elected == nil, let (time, address) = seen.elected {
                timeline.elected = milliseconds(time)
                heir = address
                tell("\(address) has taken over after \(milliseconds(time)) ms")
            }
            if timeline.elected != nil, fault == .partition, !hasMarkedHeir {
                // The old master goes on acknowledging to its clients until it notices: only what is sent from now on is the heir's.
                hasMarkedHeir = true
                try await onLoop(session) { load.value.setMark() }
            }
            let first = try await onLoop(session) { load.value.firstAfterMark }
            if let first, fault != .partition || hasMarkedHeir { timeline.firstWrite = milliseconds(first) }
            // With WAIT, the lost slots' writes need the old master back as a replica.
            if timeline.elected != nil, timeline.firstWrite != nil || wait > 0 { try heal() }
            if timeline.elected != nil, timeline.firstWrite != nil { break }
            await session.loop.sleep(.milliseconds(5))
        }
        try heal()
        try await onLoop(session) { sight.value.isOver = true }
        if let lease, fault == .kill {
            let isBack = try await answers(session)
            // What was tried here is what the lease would try.
            lease.end()
            if !isBack { throw stillDead() }
        }
        timeline.lastWrite = try await onLoop(session) { load.value.lastBeforeMark }.map(milliseconds)
        if try await isWhole(members, session, tell) { timeline.whole = milliseconds(.now) }
        return (timeline, heir, at)
    }

    /// How long a node that was started again may take until it answers: it does while it loads its data.
    private static let answerTime = Duration.seconds(30)

    /// Whether the killed node answers again on its port, if only that it is not ready.
    private func answers(_ session: ClusterSession) async throws(ProvisioningFailure) -> Bool {
        let alone = ClusterSession(
            seeds: [victim], credentials: session.credentials, loop: session.loop, commandTime: .milliseconds(500))
        defer { alone.close() }
        let client = try alone.client(victim)
        return try await alone.eventually(FailoverDrill.answerTime) { () async throws(ProvisioningFailure) in
            do throws(ProvisioningFailure) { _ = try await client.ask("PING") } catch {
                return error.code == .server || error.code == .authentication
            }
            return true
        }
    }

    private func stillDead() -> ProvisioningFailure {
        let said = again.map { $0.process.lastWords } ?? ""
        return ProvisioningFailure(
            .unfinished,
            "was killed, was started again with \(again?.process.configuration ?? "its configuration"), and does not answer within "
                + "\(FailoverDrill.answerTime.brief): start it by hand\(said.isEmpty ? "; its log tells why" : "; it said:\n  " + said)",
            node: victim)
    }

    /// Whether the cluster is whole again within a minute. Whoever has much data copies it for longer; that is told, and what the drill has
    /// seen until then stands all the same.
    private func isWhole(_ members: [NodeAddress], _ session: ClusterSession, _ tell: @Sendable (String) -> Void)
        async throws(ProvisioningFailure) -> Bool
    {
        // Any of them may be the only one that was given: the drill asks all.
        let all = ClusterSession(seeds: members, credentials: session.credentials, loop: session.loop)
        defer { all.close() }
        let copying = try await all.waitUntilServing(.seconds(60), copyTime: .seconds(55))
        for note in copying { tell(note) }
        return copying.isEmpty
    }

    /// Puts the fault in. Returns what mends it when this process dies, and the packet rules of a partition, which must be healed. Throws
    /// when the fault did not come about.
    private func inflict(_ session: ClusterSession) throws(ProvisioningFailure) -> (FaultLease?, Partition?) {
        let lease = try lease(session)
        do throws(ProvisioningFailure) {
            switch fault {
            case .kill: try signal(SIGKILL)
            case .stop: try signal(SIGSTOP)
            case .partition: return (lease, try Partition(ends[0], from: Array(ends.dropFirst())))
            }
            return (lease, nil)
        } catch {
            // Nothing is broken: there is nothing to mend.
            lease?.end()
            throw error
        }
    }

    /// To the process that the plan names, and to no other one that has its number by now.
    private func signal(_ number: Int32) throws(ProvisioningFailure) {
        let isThere: Bool
        do { isThere = try ProcessIdentity.isRunning(pid, since: pidStarted) } catch {
            throw ProvisioningFailure(.local, "its process \(pid) cannot be looked at, so nothing was done to it: \(error)", node: victim)
        }
        guard isThere else {
            throw ProvisioningFailure(.unfinished, "its process \(pid) has ended meanwhile: nothing was done to it", node: victim)
        }
        try send(number)
    }

    private func send(_ number: Int32) throws(ProvisioningFailure) {
        guard Glibc.kill(pid, number) == 0 else {
            throw ProvisioningFailure(.local, "\(SystemError("signal the process \(pid)"))", node: victim)
        }
    }

    /// nil: somebody else mends (its supervisor), or the partition does.
    private func lease(_ session: ClusterSession) throws(ProvisioningFailure) -> FaultLease? {
        switch fault {
        case .kill: try again.map { again throws(ProvisioningFailure) in try again.process.restartLease(secrets: again.secrets) }
        case .stop:
            // Of another process that has the number by then the start time is another one.
            try FaultLease(mend: "set -- $(sed 's/.*) //' /proc/\(pid)/stat)\n[ \"${20}\" = \(pidStarted) ] && kill -CONT \(pid)")
        case .partition: nil
        }
    }

    /// What the nodes that live have said, and when it was first heard.
    private final class Sight {
        var isOver = false
        private var suspected: MonotonicTime?
        private var failed: MonotonicTime?
        private var elected: (MonotonicTime, NodeAddress)?
        private var latest: [(NodeAddress, ClusterNodes, MonotonicTime)] = []

        func saw(_ address: NodeAddress, _ nodes: ClusterNodes) { latest.append((address, nodes, .now)) }

        func judge(_ victim: String, _ slots: SlotSet) -> (
            suspected: MonotonicTime?, failed: MonotonicTime?, elected: (MonotonicTime, NodeAddress)?
        ) {
            for (address, nodes, time) in latest {
                let line = nodes.node(victim)
                if suspected == nil, line.map({ $0.flags.contains(.suspected) || $0.isFailed }) ?? false { suspected = time }
                if failed == nil, line?.isFailed ?? false { failed = time }
                if elected == nil, nodes.myself.isMaster, nodes.myself.slots.intersection(slots) == slots { elected = (time, address) }
            }
            latest = []
            return (suspected, failed, elected)
        }
    }

    private func watchers(_ watch: ClusterSession, _ nodes: [NodeAddress], _ sight: LoopBound<Sight>) async throws(ProvisioningFailure) {
        for address in nodes {
            let client = try watch.client(address), loop = watch.loop
            // Ends when the drill says so.
            Task(executorPreference: loop) {
                while !sight.value.isOver {
                    if let nodes = try? await client.nodes() { sight.value.saw(address, nodes) }
                    // So that looking does not hold up what is looked at.
                    await loop.sleep(.milliseconds(10))
                }
            }
        }
    }

    /// Until all writes are answered, or the time is over in which they must be.
    private func quiet(_ session: ClusterSession, _ load: LoopBound<DrillLoad>) async throws(ProvisioningFailure) {
        let isQuiet = try await session.eventually(limit + .seconds(5)) { () async throws(ProvisioningFailure) in
            try await onLoop(session) { load.value.isQuiet }
        }
        if !isQuiet { throw ProvisioningFailure(.unfinished, "not all writes of the drill are answered: what was lost cannot be counted") }
    }

    /// How many acknowledged writes are not there.
    private func audit(_ session: ClusterSession, _ client: RedisClient, _ load: LoopBound<DrillLoad>) async throws(ProvisioningFailure)
        -> Int
    {
        let (numbers, prefix) = try await onLoop(session) { (load.value.acknowledged, load.value.prefix) }
        var lost = 0
        for start in stride(from: 0, to: numbers.count, by: FailoverDrill.portion) {
            let part = numbers[start..<min(start + FailoverDrill.portion, numbers.count)]
            let values = await client.pipeline(part.map { RedisCommand("GET", prefix + String($0)) })
            for (number, value) in zip(part, values) {
                do throws(RedisError) { if try value.get().string != String(number) { lost += 1 } } catch {
                    throw ProvisioningFailure(.unfinished, "what was lost cannot be counted: \(error)")
                }
            }
        }
        return lost
    }

    /// Removes every key that was sent, also what was never acknowledged: it may be there all the same. What cannot be removed is told; it
    /// ends by itself.
    private func clear(
        _ session: ClusterSession, _ client: RedisClient, _ load: LoopBound<DrillLoad>, _ tell: @Sendable (String) -> Void
    ) async {
        var reason = "", left = 0
        do throws(ProvisioningFailure) { try await quiet(session, load) } catch { reason = "\(error)" }
        guard let (sent, prefix) = try? await onLoop(session, { (load.value.sent, load.value.prefix) }) else { return }
        for start in stride(from: 0, to: sent, by: FailoverDrill.portion) {
            let part = start..<min(start + FailoverDrill.portion, sent)
            for result in await client.pipeline(part.map { RedisCommand("UNLINK", prefix + String($0)).repeatable() }) {
                do throws(RedisError) { _ = try result.get() } catch { reason = "\(error)" }
            }
            // Each portion would be waited for as long as the client is patient.
            if !reason.isEmpty {
                left = sent - start
                break
            }
        }
        if reason.isEmpty { return }
        tell("up to \(left) keys \(prefix)* may be left (\(reason)); each ends an hour after it was written")
    }

    /// Keys that are asked for at once.
    private static let portion = 2000
}
