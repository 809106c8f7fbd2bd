import Basics

/// Units that come to a running stack and go from it: which of them are on their way, and who waits for that. On the control loop.
final class UnitChanges {
    /// Units that were added and have not been ready since.
    private(set) var new: Set<String> = []
    private var whenReady: ((String?) -> Void)?
    /// Groups of units that are to go, each with who waits for its last one.
    private var leaving: [(units: Set<String>, gone: () -> Void)] = []

    /// Units have been added. `ready` is called once: with nil when they have got as far as they are to get, or with why that does not
    /// happen by itself.
    func add(_ units: [String], _ ready: @escaping (String?) -> Void) {
        end("another change of the stack has come meanwhile")
        new.formUnion(units)
        whenReady = ready
    }

    /// Nothing has got ready for so long that whoever waits is told.
    func timePassed(_ machine: StackMachine, _ limit: Duration) {
        let late = new.sorted().map { unit in
            let missing = machine.missing(for: unit)
            return missing.isEmpty ? unit : "\(unit), which waits for \(missing.joined(separator: ", "))"
        }
        end("not ready within \(limit.brief): \(late.joined(separator: "; "))")
    }

    /// Units are to go; `gone` is called when nothing of them runs any more, or the stack stops.
    func remove(_ units: [String], _ gone: @escaping () -> Void) {
        new.subtract(units)
        leaving.append((Set(units), gone))
    }

    func removed(_ unit: String) { for i in leaving.indices { leaving[i].units.remove(unit) } }

    func fail(_ why: String) { end(why) }

    /// A unit that is not ready yet will not be so soon.
    func failed(_ unit: String, _ why: String) { if new.contains(unit) { end(why) } }

    /// Something has happened to the stack.
    func follow(_ machine: StackMachine) {
        let gone = leaving.filter { $0.units.isEmpty || machine.phase != .running }
        leaving.removeAll { $0.units.isEmpty || machine.phase != .running }
        for group in gone { group.gone() }
        guard whenReady != nil || !new.isEmpty else { return }
        guard machine.phase == .running else { return end("the stack is \(machine.phase.rawValue)") }
        new = new.filter { !machine.isReady($0) }
        for unit in new.sorted() {
            if case .failed(let why)? = machine.tasks[unit] { return end("the task \(unit) failed: \(why)") }
        }
        let held = new.isEmpty ? [:] : machine.held
        for unit in new.sorted() {
            if let task = held[unit] { return end("\(unit) waits for \(task), which failed") }
        }
        if new.isEmpty { end(nil) }
    }

    private func end(_ failure: String?) {
        let waiter = whenReady
        whenReady = nil
        waiter?(failure)
    }
}
