import Basics
import EventLoops
import Glibc
import Observability
import Provisioning
import Redis
import Sharding
import StoreKinds

/// Keeps one store: a node is started only on a folder that is fit for it (`FolderCensus`). The nodes of a cluster it keeps together: it
/// forms the cluster when all nodes answer for the first time, and lets a replica take over when a master's process has ended, long before
/// the nodes themselves would notice.
///
/// The supervisor knows of a death by the kernel, at once; the cluster only after its node timeout. So the most advanced replica that has
/// a whole copy is told `CLUSTER FAILOVER FORCE`: it need not wait, and the other masters' votes are still needed, so that a supervisor
/// that errs makes no second master. Redis does not ask a replica that is told so how old its copy is: `Heir` does. The dead process is
/// started again when that is decided: before, it would come back as the master that it was. Hangs and partitions are left to the cluster's
/// own detection. On the control loop.
final class RedisClusterKeeper: StoreKeeper {
    /// Whatever is begun and waits holds it until its end: the stack may let it go meanwhile.
    private unowned let store: RedisStore
    private var isClosed = false
    private unowned let host: any StoreHost
    private let loop: EventLoop
    private let session: ClusterSession
    /// The nodes belong together: they serve.
    private(set) var isFormed: Bool
    private var isForming = false
    /// When forming may be tried again, after it failed.
    private var nextForming = MonotonicTime(nanoseconds: 0)
    private var answering: Set<Int> = []
    /// Deaths that are being dealt with, and who waits to be started again.
    private var open: [Int: [() -> Void]] = [:]
    /// How many nodes may start and have not begun to, and the lock that is held for them; -1: none is.
    private var starts = 0
    private var folderLock: Int32 = -1

    /// Nodes that do not answer within this are not waited for.
    private static let questionTime = Duration.milliseconds(500)
    /// A replica asks again so often: votes may have been lost, or were given to another in the last two node timeouts.
    private static let askAgain = Duration.milliseconds(500)
    /// What is wrong is seldom gone in less, and each attempt is told.
    private static let formAgain = Duration.seconds(5)

    init(_ store: RedisStore, host: any StoreHost) {
        self.store = store
        self.host = host
        loop = host.loop
        isFormed = !store.spec.isCluster
        session = ClusterSession(
            seeds: store.servers.map(\.address), credentials: RedisCredentials(password: store.password), loop: loop,
            commandTime: RedisClusterKeeper.questionTime)
    }

    func close() {
        isClosed = true
        session.close()
    }

    // MARK: forming

    /// When all nodes answer, they are formed into a cluster, unless they are one. Until then none of them serves.
    func answered(_ node: Int, _ report: ProbeReport) -> ProbeReport {
        switch report.answer {
        case .ready, .degraded: break
        case .unready, .occupied, .failed, .unasked: return report
        }
        if !isFormed { isThere(node) }
        return isFormed ? report : ProbeReport(.occupied("the cluster is not formed yet"), role: report.role)
    }

    private func isThere(_ number: Int) {
        answering.insert(number)
        guard !isFormed, !isForming, answering.count == store.servers.count, .now >= nextForming else { return }
        isForming = true
        let bound = LoopBound(self, on: loop), held = LoopBound(store, on: loop)
        let nodes = store.servers.map(\.address), replicas = store.spec.replicas, credentials = session.credentials, loop = loop,
            name = store.name
        let mark = FormedMark.path(beside: store.folder)
        // Ends when the cluster serves, or cannot be made to: after 60 s at most beyond what its steps and the loading of data take.
        Task(executorPreference: loop) {
            do throws(ProvisioningFailure) {
                let outcome = try await ClusterFormation.form(nodes: nodes, replicas: replicas, credentials: credentials, on: loop) { _ in }
                do { try FormedMark.set(mark) } catch { throw ProvisioningFailure(.local, "\(error)") }
                bound.value.formed(outcome)
            } catch { bound.value.notFormed("store \(name): \(error)") }
            withExtendedLifetime(held) {}
        }
    }

    private func formed(_ outcome: ClusterFormation.Outcome) {
        if isClosed { return }
        isForming = false
        isFormed = true
        let spec = store.spec, serves = outcome.copying.isEmpty ? "the cluster is whole again:" : "the cluster serves again:"
        host.tell(
            "\(store.name): \(outcome.isChanged ? "formed a cluster of" : serves) \(spec.masters) masters with \(spec.replicas) "
                + "replica\(spec.replicas == 1 ? "" : "s") each"
        )
        for note in outcome.copying { host.tell("\(store.name): \(note); until then nobody can take over from its master") }
    }

    private func notFormed(_ reason: String) {
        if isClosed { return }
        isForming = false
        answering = []
        nextForming = .now + RedisClusterKeeper.formAgain
        // A cluster that was formed before is mended while its nodes run: ending them would leave nobody who could take over.
        if FormedMark.exists(for: store.folder) { return host.tell("\(reason); it is tried again") }
        host.failed(reason)
    }

    // MARK: deaths

    /// The process of node `number` has ended, and nobody told it to.
    func died(_ number: Int) {
        answering.remove(number)
        guard isFormed, store.spec.isCluster, store.spec.replicas > 0, open[number] == nil else { return }
        open[number] = []
        let bound = LoopBound(self, on: loop), held = LoopBound(store, on: loop), died = MonotonicTime.now
        // Ends when a replica has taken over, or nobody can: within the store's own failover time.
        Task(executorPreference: loop) {
            await bound.value.succeed(number, died)
            bound.value.settled(number)
            withExtendedLifetime(held) {}
        }
    }

    /// A dead node waits until its successor is chosen; then its folder must be fit to be started on. A folder that is not, or that
    /// `muster redis` is at work on, holds it. From `start` until `began` the folder is locked: nobody may change it between the look and the
    /// start.
    func mayStart(_ node: Int) async -> StartVerdict {
        if open[node] != nil {
            await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in open[node]?.append { continuation.resume() } }
        }
        if let busy = lockFolder() { return .hold(busy) }
        guard let why = store.obstacle(to: node, tell: host.tell) else { return .start }
        began(node)
        return .hold(why)
    }

    func began(_ node: Int) {
        starts -= 1
        guard starts == 0, folderLock >= 0 else { return }
        Glibc.close(folderLock)
        folderLock = -1
    }

    /// One lock for all nodes that are about to start. Why there is none now, or nil: it is held, and `began` lets it go.
    private func lockFolder() -> String? {
        if starts == 0 {
            let (descriptor, busy) = store.lock()
            if let busy { return busy }
            folderLock = descriptor
        }
        starts += 1
        return nil
    }

    private func settled(_ number: Int) {
        for go in open.removeValue(forKey: number) ?? [] { go() }
    }

    private func name(_ number: Int) -> String { "\(store.name)/\(number)" }

    private func succeed(_ number: Int, _ died: MonotonicTime) async {
        let dead = store.servers[number - 1]
        let others = store.servers.filter { $0.number != number && open[$0.number] == nil }
        let views = await ask(others, replacing: dead.port)
        // Whoever answers knows the dead node by its port.
        guard let seen = views.lazy.compactMap({ $0.nodes.nodes.first { $0.address.port == dead.port } }).first else { return }
        let heirs = views.filter { $0.nodes.myself.master == seen.id }
        // A replica, or a master without slots: nobody has to follow it. One that has been replaced already shows as a replica, too.
        guard seen.isMaster, !seen.slots.isEmpty, !views.contains(where: { !$0.nodes.myself.slots.intersection(seen.slots).isEmpty }) else {
            return
        }
        let choice = Heir.choose(
            of: name(number), slots: seen.slots, sinceDeath: .now - died, among: heirs.map { .init(name: name($0.number), copy: $0.copy) })
        host.decided(choice.record)
        guard let heir = heirs.first(where: { name($0.number) == choice.result }) else { return host.tell(choice.record.sentence) }
        let isDone = await takeOver(heir.number, died + store.spec.failover)
        let took = (MonotonicTime.now - died).brief
        host.tell(
            isDone
                ? "\(name(heir.number)) has taken over from \(name(number)), \(took) after its death"
                : "\(name(heir.number)) has not taken over from \(name(number)) within \(took): it is left to the cluster")
    }

    private struct View: Sendable {
        let number: Int
        let nodes: ClusterNodes
        let copy: ReplicaCopy
    }

    /// Views of nodes that come in one after the other, until they are enough: all have come, or those of all replicas of the dead node, or
    /// the time is over. Nodes that hang are not waited for longer.
    private final class Gathering {
        private(set) var views: [View] = []
        private var missing: Int
        private let dead: UInt16
        private var ports: Set<UInt16>
        private var isOver = false
        private var waiting: UnsafeContinuation<Void, Never>?

        init(_ servers: [RedisServer], dead: UInt16) {
            missing = servers.count
            ports = Set(servers.map(\.port))
            self.dead = dead
        }

        func add(_ view: View?, of port: UInt16) {
            if isOver { return }
            missing -= 1
            ports.remove(port)
            if let view { views.append(view) }
            if missing == 0 || haveAllReplicas { end() }
        }

        private var haveAllReplicas: Bool {
            guard let view = views.last, let lost = view.nodes.nodes.first(where: { $0.address.port == dead }) else { return false }
            let replicas = view.nodes.nodes.filter { $0.master == lost.id }
            return !replicas.isEmpty && replicas.allSatisfy { !ports.contains($0.address.port) }
        }

        func end() {
            isOver = true
            waiting?.resume()
            waiting = nil
        }

        func wait() async { if !isOver, missing > 0 { await withUnsafeContinuation { waiting = $0 } } }
    }

    /// Each node's view, of those that answer in time: 500 ms for all of them together, connecting included.
    private func ask(_ servers: [RedisServer], replacing dead: UInt16) async -> [View] {
        let gathering = Gathering(servers, dead: dead), session = session
        let bound = LoopBound(gathering, on: loop)
        let timer = LoopTimer(loop: loop) { gathering.end() }
        timer.schedule(after: RedisClusterKeeper.questionTime)
        for server in servers {
            let number = server.number, address = server.address
            // Ends with the node's answer, or its time limits; who is late is not waited for.
            Task(executorPreference: loop) {
                let view = await RedisClusterKeeper.view(number, address, session)
                bound.value.add(view, of: address.port)
            }
        }
        await gathering.wait()
        timer.cancel()
        return gathering.views.sorted { $0.number < $1.number }
    }

    private static func view(_ number: Int, _ address: NodeAddress, _ session: ClusterSession) async -> View? {
        guard
            let answers = try? await session.client(address).ask(all: [
                RedisCommand("CLUSTER NODES"), RedisCommand("INFO", "replication"),
            ]),
            let nodes = try? ClusterNodes(answers[0].string ?? "")
        else { return nil }
        return View(number: number, nodes: nodes, copy: ReplicaCopy(info: answers[1].string ?? ""))
    }

    /// Until the heir is master, or the time is over.
    private func takeOver(_ heir: Int, _ deadline: MonotonicTime) async -> Bool {
        guard let client = try? session.client(store.servers[heir - 1].address) else { return false }
        var asked: MonotonicTime?
        while MonotonicTime.now < deadline {
            if asked.map({ MonotonicTime.now - $0 >= RedisClusterKeeper.askAgain }) ?? true {
                asked = .now
                // Until it is asked again half a second passes, in which it may have begun to copy from another master: then its copy is
                // gone. It refuses when it is master already; the look below sees that.
                let info = (try? await client.ask("INFO", "replication"))?.string ?? ""
                if ReplicaCopy(info: info).offset != nil { _ = try? await client.ask("CLUSTER FAILOVER", "FORCE") }
            }
            if (try? await client.ask("ROLE"))?.array?.first?.string == "master" { return true }
            await loop.sleep(.milliseconds(10))
        }
        return false
    }
}
