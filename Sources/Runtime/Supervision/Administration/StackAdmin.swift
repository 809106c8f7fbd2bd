import Basics
import HTTP
import Observability
import StackModel

/// What people and verbs ask of a running stack: another size, a roll, a changed stack file, and what runs. On the control loop.
final class StackAdmin {
    let runner: StackRunner
    /// The gateway is taking the routes of a changed stack file.
    private var isApplying = false

    init(_ runner: StackRunner) { self.runner = runner }

    private var context: StackContext { runner.context }
    private var stack: Stack { runner.stack }

    /// What `muster run` gives a command: what Muster tells the service's replicas.
    func given(to service: String) throws(APIError) -> [String: String] {
        guard let spec = stack.service(service) else { throw unknown(service) }
        return runner.units.given(to: spec.name, uses: spec.uses, number: "run", stack: stack.name)
    }

    // MARK: what is changed

    /// Changes a service's count. nil `count` frees it: back to what the stack declares. `isAsked`: somebody asked for this count, which
    /// outlives the supervisor; else the stack file says it.
    func scale(_ service: String, to count: Int?, isAsked: Bool = true) throws(APIError) {
        guard let spec = stack.service(service) else { throw unknown(service) }
        guard runner.takesSizes else {
            throw APIError(409, "not_running", "the stack is \(runner.standing); scale it when it runs")
        }
        let before = runner.size(of: service) ?? 0
        // Freed, it goes on from where it is when it scales by itself, and else to what is declared.
        let wanted = count ?? (spec.scaling != nil ? before : spec.replicas.lowerBound)
        try check(wanted, spec)
        let owned = runner.scaling.set(spec, count, from: before)
        context.journal.append(
            owned
                ?? DecisionRecord(
                    .scale, subject: service, inputs: [.init("asked", count.map(String.init) ?? "auto"), .init("before", before)],
                    raw: String(wanted), outcome: String(wanted),
                    sentence:
                        "\(service) goes from \(before) to \(wanted) replicas: "
                        + "\(count == nil ? "its count was freed, and the stack declares \(wanted)" : "somebody asked for \(wanted)").",
                    flip: "muster scale \(service)=\(before)"))
        context.tell("scale: \(service) from \(before) to \(wanted)")
        context.record.take(ScalingLine(service: service, held: isAsked ? count : nil, .size(wanted)))
        runner.setSize(service, wanted)
    }

    private func check(_ count: Int, _ spec: ServiceSpec) throws(APIError) {
        if let reason = spec.refusal(of: count) { throw APIError(400, "out_of_range", reason, field: "replicas") }
    }

    /// Calls `done` with nil, or with why the roll was given up. `before` is what the service was, when its definition is another one now.
    func roll(_ service: String, from before: ServiceSpec? = nil, _ done: @escaping (String?) -> Void) throws(APIError) {
        guard stack.service(service) != nil else { throw unknown(service) }
        context.tell("roll: \(service)")
        context.journal.append(
            DecisionRecord(
                .roll, subject: service, raw: "replace every replica", outcome: "rolling",
                sentence: "A roll of \(service) begins: a new replica is ready before an old one is drained, one after the other.",
                flip: "nothing; somebody asked"))
        runner.roll(service, from: before, done)
    }

    private func unknown(_ service: String) -> APIError {
        let hint = nearestWord(to: service, in: stack.services.map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
        return APIError(404, "no_such_service", "the stack has no service '\(service)'\(hint)", field: "service")
    }

    /// Gives the gateway the routes of a changed stack file, and answers when every loop of the gateway has them. Throws, and nothing has
    /// changed, when the gateway does not take them (a file that a route names cannot be read), or when `reconcile` would refuse.
    func takeRoutes(of new: Stack, counts: [String: Int]) async throws(APIError) {
        try checkChange(to: new, counts)
        guard let spec = new.gateway, spec != stack.gateway else { return }
        guard !isApplying else { throw APIError(409, "busy", "another change of the stack is being made: try again when it is done") }
        isApplying = true
        defer { isApplying = false }
        switch await runner.publisher.publish(spec) {
        case .taken: runner.stack = stack.replacing(gateway: spec)
        case .refused(let reason):
            throw APIError(409, "routes_refused", "the gateway keeps the routes that it has, and nothing was changed: \(reason)")
        }
    }

    private func checkChange(to new: Stack, _ counts: [String: Int]) throws(APIError) {
        let same =
            Set(new.services.map(\.name)) == Set(stack.services.map(\.name)) && new.stores == stack.stores
            && Set(new.tasks.map(\.name)) == Set(stack.tasks.map(\.name)) && new.dependencies == stack.dependencies
            && new.gateway?.listen == stack.gateway?.listen && new.gateway?.admin == stack.gateway?.admin
            && new.gateway?.threads == stack.gateway?.threads && new.gateway?.accessLog == stack.gateway?.accessLog
            && new.name == stack.name
            && new.gateway?.limits == stack.gateway?.limits && new.gateway?.tracing == stack.gateway?.tracing
            && new.gateway?.limitStore == stack.gateway?.limitStore
        guard same else {
            throw APIError(
                409, "needs_restart",
                "services, tasks, what they depend on, stores or the gateway's addresses were added, removed or changed: run muster down, then muster up"
            )
        }
        guard runner.takesChanges else {
            throw APIError(409, "not_running", "the stack is \(runner.standing); change it when it runs")
        }
        for spec in new.services {
            if let count = counts[spec.name] { try check(count, spec) }
        }
    }

    /// Takes the services of a changed stack file while it runs, when the gateway has taken its routes (`takeRoutes`): counts are scaled
    /// and changed services rolled (`rolled` is called once for each, with why it was given up). Returns what is being done; throws, before
    /// anything has changed, when a change needs a new start.
    func reconcile(_ new: Stack, counts: [String: Int], rolled: @escaping (String, String?) -> Void) throws(APIError) -> (
        done: [String], rolls: Int
    ) {
        try checkChange(to: new, counts)
        let old = stack
        runner.stack = new
        var done: [String] = []
        var rolls = 0
        runner.scaling.follow()
        let tasks = runner.runTasks(changed: Set(new.tasks.filter { old.task($0.name) != $0 }.map(\.name)))
        done += tasks.map { "the task \($0) runs again" }
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
                rolls += 1
                // A fixed port has no room for the old replica beside the new one: what runs after a failed roll is the new one, tried
                // again.
                try roll(spec.name, from: spec.isExclusive ? nil : before) { failure in rolled(spec.name, failure) }
            }
        }
        return (done, rolls)
    }

    // MARK: what is shown

    struct Row {
        let service: String
        /// The kind of a store; nil for a service.
        let kind: String?
        let number: Int
        /// nil: Muster runs no process for it, because it is an external store.
        let pid: Int32?
        let port: UInt16?
        /// Where an external store is.
        var place: String?
        let state: String
        /// The part of a store's node in its store.
        let role: String?
        let restarts: Int
        let since: WallTime
        let trouble: String
    }

    var rows: [Row] {
        let units = runner.units
        let order = stack.stores.map(\.name) + stack.tasks.map(\.name) + stack.services.map(\.name)
        let run = runner.runners.values.map { runner in
            Row(
                service: runner.unit, kind: units.spec(runner.unit)?.kind.rawValue ?? (runner.machine.settings.isTask ? "task" : nil),
                number: runner.number, pid: runner.pid, port: self.runner.address(of: runner), state: runner.machine.state,
                role: runner.role, restarts: runner.machine.restarts,
                since: runner.startedAt, trouble: runner.machine.note)
        }
        let external = runner.externals.values.map { runner in
            Row(
                service: runner.unit, kind: units.spec(runner.unit)?.kind.rawValue, number: 1, pid: nil, port: nil,
                place: runner.machine.place, state: runner.machine.state, role: runner.role, restarts: 0, since: runner.startedAt,
                trouble: runner.machine.note)
        }
        return (run + external).sorted {
            (order.firstIndex(of: $0.service) ?? 0, $0.number) < (order.firstIndex(of: $1.service) ?? 0, $1.number)
        }
    }
}

extension ServiceSpec {
    /// Nothing differs that a running process would have to be replaced for.
    func runsLike(_ other: ServiceSpec) -> Bool {
        process == other.process && http == other.http && check == other.check && restart == other.restart && uses == other.uses
            && cpu == other.cpu && memory == other.memory && grace == other.grace && startTime == other.startTime
    }
}
