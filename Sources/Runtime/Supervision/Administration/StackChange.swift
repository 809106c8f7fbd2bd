import Basics
import EventLoops
import HTTP
import Observability
import StackModel

/// A changed stack file is taken while the stack runs: first what is new is started, then the gateway gets the routes, then what is changed
/// is rolled and what is gone is stopped, stores last. So no route leads to what is not ready, and nothing goes that is still used. What can be
/// refused is refused before it has begun. On the control loop.
extension StackAdmin {
    /// Changes the stack to what `new` says, which was read from `file`; `counts` are the sizes that somebody asks for. Returns what was done, a
    /// line each, when all of it has happened. Throws what could not be done, and what stands then.
    func change(to new: Stack, of file: String, counts: [String: Int]) async throws(APIError) -> [String] {
        try check(new, counts)
        let isAnother = Set(new.units) != Set(stack.units)
        guard !isChanging, !isAnother || !runner.isRolling && !runner.isAnythingLeaving else {
            throw APIError(
                409, "busy",
                "another change of the stack is being made: try again when it is done (muster ps shows what starts and what ends)")
        }
        isChanging = true
        let before = stack
        // A file with the same units may follow while the rolls of this one are under way: it overtakes a version that does not start.
        let work: Gathering, removed: [String]
        var done: [String]
        do throws(APIError) { (done, removed, work) = try await begin(new, counts) } catch {
            isChanging = false
            throw error
        }
        done += keep(file)
        if !isAnother { isChanging = false }
        let limit = StackChange.patience(before, new) { runner.size(of: $0) ?? 0 }
        let timer = LoopTimer(loop: context.loop) {
            work.giveUp("not done within \(limit.brief); it goes on: muster ps and muster why show how")
        }
        timer.schedule(after: limit)
        await work.wait()
        timer.cancel()
        defer { if isAnother { isChanging = false } }
        guard work.failures.isEmpty else {
            let left = stack.stores.map(\.name).filter { removed.contains($0) }
            let stores = left.isEmpty ? "" : "; kept, because what runs may use it: \(left.joined(separator: ", "))"
            throw APIError(500, "roll_failed", work.failures[0] + stores)
        }
        return done + (await removeStores(removed))
    }

    /// All but the end of what is rolled and removed.
    private func begin(_ new: Stack, _ counts: [String: Int]) async throws(APIError) -> ([String], removed: [String], Gathering) {
        var done = try await addUnits(of: new, counts)
        let hasAdded = !done.isEmpty
        try check(new, counts)
        done += try await takeRoutes(of: new, hasAdded: hasAdded)
        try check(new, counts)
        let removed = stack.units.filter { !new.units.contains($0) }, work = Gathering()
        isReconciling = true
        defer { isReconciling = false }
        done += try reconcile(new, counts, removed, work, hasAdded: hasAdded)
        return (done, removed, work)
    }

    /// What runs is this file's from now on: a supervisor that starts again after a crash takes it. A change that was made is no failure when
    /// that cannot be written down: what follows from it is told, in a line.
    private func keep(_ file: String) -> [String] {
        do throws(SystemError) { try context.folder.setOwner(file) } catch {
            let line =
                "that \(Files.name(of: file)) is the stack's file now could not be written down (\(error)): should the supervisor crash, it "
                + "takes the file from before; run muster up with this one again when that is mended"
            context.tell(line)
            return [line]
        }
        return []
    }

    private func check(_ new: Stack, _ counts: [String: Int]) throws(APIError) {
        if let reason = StackChange.refusal(of: new, from: stack) {
            throw APIError(409, "needs_restart", "\(reason): run muster down, then muster up")
        }
        guard runner.takesChanges else {
            throw APIError(409, "not_running", "the stack is \(runner.standing); change it when it runs")
        }
        if let ending = new.units.first(where: { runner.has($0) && !stack.units.contains($0) }) {
            throw APIError(409, "busy", "\(ending) was removed and is still ending: try again when it has ended")
        }
        for spec in new.services {
            if let count = counts[spec.name] { try check(count, spec) }
        }
    }

    /// Starts what the stack does not have yet, and waits until it is ready. Tasks that are changed or have failed run first, because what is
    /// new may wait for them. What does not get ready is stopped again, with all that came with it.
    private func addUnits(of new: Stack, _ counts: [String: Int]) async throws(APIError) -> [String] {
        let before = stack, added = new.units.filter { !before.units.contains($0) }
        if added.isEmpty { return [] }
        let made = new.stores.filter { added.contains($0.name) && runner.units.isUnknown($0) }
        do throws(StackFolder.Failure) { try runner.open(new, counts: counts) } catch {
            throw APIError(409, "cannot_be_added", "nothing was changed: \(error.description)")
        }
        let waiting = Gathering()
        waiting.begin()
        var early = runner.add(new, counts: counts) { waiting.ended($0) }.map { "the task \($0) runs again" }
        early += try mend(new, Set(added.flatMap { new.dependencies[$0] ?? [] }))
        await waiting.wait()
        guard let failure = waiting.failures.first else {
            runner.scaling.follow()
            for spec in new.services where added.contains(spec.name) { noteSize(spec, counts[spec.name]) }
            return early + added.map { "\($0) is new, and ready" }
        }
        let never = runner.neverReady(made)
        let gone = Gathering()
        gone.begin()
        runner.remove(added) { gone.ended(nil) }
        _ = runner.take(stack.removing(Set(added)), runsTasks: false)
        runner.scaling.follow()
        await gone.wait()
        // A store that was never ready has stored nothing: what was made for it goes with it, so that another form of it may come.
        for spec in never { runner.units.discard(spec) }
        let rest = early.isEmpty ? "nothing was changed" : "nothing was changed but that \(early.joined(separator: ", and "))"
        throw APIError(500, "start_failed", "\(failure)\n\(rest); what was new is stopped again: \(added.joined(separator: ", "))")
    }

    /// Rolls services that something new waits for, that are not ready, and that the file has changed: the change may be their cure.
    private func mend(_ new: Stack, _ wanted: Set<String>) throws(APIError) -> [String] {
        var done: [String] = []
        for spec in new.services where wanted.contains(spec.name) && !runner.isReady(spec.name) {
            guard let before = stack.service(spec.name), !spec.runsLike(before) else { continue }
            runner.stack = stack.replacing(spec)
            isReconciling = true
            defer { isReconciling = false }
            try roll(spec.name, from: spec.isExclusive ? nil : before) { [runner] failure in
                if let failure { runner.failedToAdd("\(spec.name): \(failure)") }
            }
            done.append("\(spec.name), which is not ready, is rolled to its new definition")
        }
        return done
    }

    /// Gives the gateway the routes, and returns when every loop of the gateway has them. Throws when the gateway does not take them (a file
    /// that a route names cannot be read).
    private func takeRoutes(of new: Stack, hasAdded: Bool) async throws(APIError) -> [String] {
        guard let spec = new.gateway, spec != stack.gateway else { return [] }
        switch await runner.publisher.publish(spec) {
        case .taken:
            runner.stack = stack.replacing(gateway: spec)
            return ["routes replaced"]
        case .refused(let reason):
            let rest = hasAdded ? "what is new runs, and nothing else was changed" : "nothing was changed"
            throw APIError(409, "routes_refused", "the gateway keeps the routes that it has, and \(rest): \(reason)")
        }
    }

    /// Sets sizes, rolls what is changed, runs tasks that are changed or have failed, and stops what is gone but for stores, which may be in
    /// use until the rolls have ended.
    private func reconcile(_ new: Stack, _ counts: [String: Int], _ removed: [String], _ work: Gathering, hasAdded: Bool)
        throws(APIError) -> [String]
    {
        let old = stack, stores = Stack(name: new.name, services: [], stores: old.stores, gateway: nil)
        let gone = removed.filter { unit in !old.stores.contains { $0.name == unit } }
        for spec in old.services where gone.contains(spec.name) {
            tellSize(spec.name, from: runner.size(of: spec.name) ?? 0, to: 0, "the stack file has it no longer")
        }
        // First: nothing of them begins any more, whatever the changes free.
        work.begin()
        runner.remove(gone) { work.ended(nil) }
        var done = runner.take(new.adding(stores), runsTasks: !hasAdded).map { "the task \($0) runs again" }
        runner.scaling.follow()
        for spec in new.services {
            let before = old.service(spec.name)!
            // A count that the file does not allow (it was scaled, or the file has changed) goes back to what the file says.
            // One that scales by itself finds its own way there.
            let fits =
                spec.scaling != nil
                || spec.replicas == before.replicas && spec.replicas.contains(runner.size(of: spec.name) ?? 0)
            let wanted = counts[spec.name] ?? (fits ? nil : spec.replicas.lowerBound)
            if let wanted, wanted != runner.size(of: spec.name) {
                try scale(spec.name, to: wanted, isAsked: counts[spec.name] != nil)
                done.append("\(spec.name) goes to \(wanted) replicas")
            }
            if !spec.runsLike(before) {
                done.append("\(spec.name) is rolled to its new definition")
                work.begin()
                // A fixed port has no room for the old replica beside the new one: what runs after a failed roll is the new one, tried
                // again.
                try roll(spec.name, from: spec.isExclusive ? nil : before) { failure in
                    work.ended(failure.map { "\(spec.name): \($0)" })
                }
            }
        }
        return done + gone.map { "\($0) is removed" }
    }

    /// Stops stores that the stack file has no longer. What they have stored stays in their folders.
    private func removeStores(_ removed: [String]) async -> [String] {
        let stores = stack.stores.map(\.name).filter { removed.contains($0) }
        if stores.isEmpty { return [] }
        let work = Gathering()
        work.begin()
        runner.remove(stores) { work.ended(nil) }
        await work.wait()
        let own = stack.stores.filter { stores.contains($0.name) && $0.external == nil }.map(\.name)
        runner.stack = stack.removing(Set(stores))
        return stores.map { store in
            own.contains(store)
                ? "the store \(store) is removed; its data stays in \(context.folder.store(store)) until muster down --purge"
                : "the store \(store) is removed"
        }
    }

    /// A service has come. A size that somebody asked for is held, and outlives the supervisor; and what was recorded of one that had this
    /// name before counts no longer.
    private func noteSize(_ spec: ServiceSpec, _ asked: Int?) {
        let size = runner.size(of: spec.name) ?? 0
        tellSize(spec.name, from: 0, to: size, "the stack file has it now")
        if let asked, let record = runner.scaling.set(spec, asked, from: size) { context.journal.append(record) }
        context.record.take(ScalingLine(service: spec.name, held: asked, .size(size)))
    }

    private func tellSize(_ service: String, from before: Int, to count: Int, _ why: String) {
        context.journal.append(
            DecisionRecord(
                .scale, subject: service, inputs: [.init("before", before)], raw: String(count), outcome: String(count),
                sentence: "\(service) goes from \(before) to \(count) replicas: \(why).", flip: "another stack file"))
    }

    /// Several things that were begun, until all have ended. On the control loop.
    private final class Gathering {
        private(set) var failures: [String] = []
        private var open = 0
        private var waiting: UnsafeContinuation<Void, Never>?

        func begin() { open += 1 }

        func ended(_ failure: String?) {
            if let failure { failures.append(failure) }
            open -= 1
            if open == 0, let waiting {
                self.waiting = nil
                waiting.resume()
            }
        }

        /// Whoever waits is told, and what goes on ends for itself.
        func giveUp(_ why: String) {
            guard let waiting else { return }
            failures.append(why)
            self.waiting = nil
            waiting.resume()
        }

        func wait() async {
            if open == 0 { return }
            await withUnsafeContinuation { waiting = $0 }
        }
    }
}

/// What of a changed stack file a running stack can take.
enum StackChange {
    /// The longest that rolls and ends may take: of the slowest service, old or new, each replica's start and its end, which has its grace
    /// twice; and the tasks that rolls wait for.
    static func patience(_ old: Stack, _ new: Stack, size: (String) -> Int) -> Duration {
        let each = (old.services + new.services).map { ($0.startTime + $0.grace * 2) * (min(size($0.name), 1000) + 1) }
        let tasks = new.tasks.reduce(Duration.zero) { min($0 + $1.timeLimit, .seconds(3600)) }
        return min((each.max() ?? .zero) + tasks + .seconds(60), .seconds(3600))
    }

    /// What cannot be changed while the stack runs; nil: nothing of it.
    static func refusal(of new: Stack, from old: Stack) -> String? {
        if new.name != old.name { return "the stack has another name, \(new.name)" }
        for store in new.stores {
            if let before = old.stores.first(where: { $0.name == store.name }), before != store {
                return "the store \(store.name) is changed"
            }
        }
        func kinds(_ stack: Stack) -> [String: String] {
            Dictionary(
                stack.services.map { ($0.name, "a service") } + stack.tasks.map { ($0.name, "a task") }
                    + stack.stores.map { ($0.name, "a store") }, uniquingKeysWith: { $1 })
        }
        let before = kinds(old)
        for (name, kind) in kinds(new).sorted(by: { $0.key < $1.key }) {
            if let was = before[name], was != kind { return "\(name) was \(was) and is \(kind)" }
        }
        let a = new.gateway, b = old.gateway
        if (a == nil) != (b == nil) { return "the gateway was \(a == nil ? "removed" : "added")" }
        let parts: [(String, Bool)] = [
            ("listen", a?.listeners == b?.listeners), ("admin", a?.admin == b?.admin), ("threads", a?.threads == b?.threads),
            ("access-log", a?.accessLog == b?.accessLog), ("limits", a?.limits == b?.limits), ("tracing", a?.tracing == b?.tracing),
            ("limit-store", a?.limitStore == b?.limitStore),
        ]
        return parts.first { !$0.1 }.map { "gateway.\($0.0) is changed" }
    }
}

extension ServiceSpec {
    /// Nothing differs that a running process would have to be replaced for.
    func runsLike(_ other: ServiceSpec) -> Bool {
        process == other.process && http == other.http && check == other.check && restart == other.restart && uses == other.uses
            && cpu == other.cpu && memory == other.memory && grace == other.grace && startTime == other.startTime
    }
}
