import Basics
import HTTP
import Observability
import StackModel

/// What people and verbs ask of a running stack: another size, a roll, a changed stack file, and what runs. On the control loop.
final class StackAdmin {
    let runner: StackRunner
    /// A changed stack file is being taken: one that adds or removes units until all of it has happened, another until its rolls begin.
    var isChanging = false
    /// The rolls of a changed stack file are being begun.
    var isReconciling = false

    init(_ runner: StackRunner) { self.runner = runner }

    var context: StackContext { runner.context }
    var stack: Stack { runner.stack }

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

    func check(_ count: Int, _ spec: ServiceSpec) throws(APIError) {
        if let reason = spec.refusal(of: count) { throw APIError(400, "out_of_range", reason, field: "replicas") }
    }

    /// Calls `done` with nil, or with why the roll was given up. `before` is what the service was, when its definition is another one now.
    func roll(_ service: String, from before: ServiceSpec? = nil, _ done: @escaping (String?) -> Void) throws(APIError) {
        guard stack.service(service) != nil else { throw unknown(service) }
        // Whoever counts on the rolls of a changed file having ended must know all of them.
        if before == nil, isChanging, !isReconciling {
            throw APIError(409, "busy", "a changed stack file is being taken: try again when that is done")
        }
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
