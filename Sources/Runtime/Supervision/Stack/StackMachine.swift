import Basics

/// The whole stack: stores first, then services and tasks, each when what it depends on is ready; backwards when it ends. Units may be added
/// and removed while it runs. Pure.
struct StackMachine {
    /// What a stack consists of.
    struct Layout: Equatable {
        /// The number of servers of each store.
        var stores: [String: Int] = [:]
        /// The number of replicas each service begins with.
        var services: [String: Int] = [:]
        var tasks: [String] = []
        /// What each service and task waits for, by name. Without cycles.
        var dependencies: [String: [String]] = [:]
        /// Services whose replicas cannot run side by side.
        var exclusive: Set<String> = []
    }

    enum Phase: String, Equatable {
        case idle
        case startingStores = "starting-stores"
        case startingServices = "starting-services"
        case running
        case stoppingServices = "stopping-services"
        case stoppingStores = "stopping-stores"
        case stopped
    }

    enum Action: Equatable {
        case start(unit: String, number: Int, generation: Int)
        case stop(unit: String, number: Int)
        case startTask(String)
        case stopTask(String)
        case rollEnded(service: String, failure: String?)
        /// Nothing of a unit that was to be removed runs any more.
        case removed(String)
        case entered(Phase)
    }

    enum Event: Equatable {
        case begin
        case ready(unit: String, number: Int)
        case unready(unit: String, number: Int)
        case failedToStart(unit: String, number: Int, reason: String)
        case stopped(unit: String, number: Int)
        /// It ended by itself without success, and is not started again.
        case over(unit: String, number: Int)
        case taskEnded(String, failure: String?)
        /// `work`: what each replica does now, for the choice of those that go.
        case scale(service: String, count: Int, work: [Int: Int] = [:])
        /// `isExclusive`: its replicas cannot run side by side.
        case roll(service: String, isExclusive: Bool = false)
        /// The stack is to have these units too: those that it does not have begin, new stores before all else. What the layout's units wait
        /// for is as the layout says from now on. Nothing is removed. `tasks`: those of them that are to run again.
        case add(Layout, tasks: [String] = [])
        /// Units are to go, and are forgotten when nothing of them runs any more.
        case remove([String])
        /// The stack is going to stop: nothing more begins.
        case stopping
        case shutDown
    }

    private(set) var phase = Phase.idle
    private(set) var stores: [String: ServiceMachine] = [:]
    private(set) var services: [String: ServiceMachine] = [:]
    private(set) var tasks: [String: TaskState] = [:]
    private var counts: [String: Int] = [:]
    private var nodes: [String: Int] = [:]
    /// What each service and task waits for, by name.
    private var dependencies: [String: [String]] = [:]
    /// The same the other way round.
    private var waitedBy: [String: [String]] = [:]
    /// All services and tasks, each after what it waits for.
    private var order: [String] = []
    /// Stores that were added while the stack ran, until they are ready for the first time. Nothing begins meanwhile: it may use them.
    private var newStores: Set<String> = []
    /// Units that are to go, until nothing of them runs any more.
    private var leaving: Set<String> = []
    /// Services that were started: what they depend on was ready once.
    private var begun: Set<String> = []
    /// Tasks that run, and are to run once more when they have ended.
    private var runAgain: Set<String> = []
    /// Rolls that wait for a task.
    private var pendingRolls: Set<String> = []
    /// From `stopping` on.
    private var isFrozen = false

    /// Each state of a task, and how it is left.
    enum TaskState: Equatable {
        /// Until what it depends on is ready.
        case waiting
        /// Until its end.
        case running
        /// Until it is told to run again.
        case done
        case failed(String)
    }

    init(_ layout: Layout) { take(layout) }

    /// Makes places for the units of a layout that have none. Returns the stores among them.
    @discardableResult
    private mutating func take(_ layout: Layout) -> [String] {
        let new = layout.stores.keys.filter { stores[$0] == nil }.sorted()
        for store in new {
            stores[store] = ServiceMachine(name: store, desired: 0)
            nodes[store] = layout.stores[store]
        }
        for (service, count) in layout.services where services[service] == nil {
            services[service] = ServiceMachine(name: service, desired: 0)
            services[service]?.isExclusive = layout.exclusive.contains(service)
            counts[service] = count
        }
        for task in layout.tasks where tasks[task] == nil { tasks[task] = .waiting }
        // Units that the layout does not have wait for what they waited for: they are to go, or have their own places.
        let known = Set(layout.services.keys).union(layout.tasks)
        dependencies = dependencies.filter { !known.contains($0.key) }.merging(layout.dependencies) { $1 }
        sortUnits()
        return new
    }

    /// Brings services and tasks into an order in which each stands behind what it waits for.
    private mutating func sortUnits() {
        waitedBy = [:]
        for (unit, wanted) in dependencies.sorted(by: { $0.key < $1.key }) {
            for name in wanted { waitedBy[name, default: []].append(unit) }
        }
        let units = Set(services.keys).union(tasks.keys)
        var left = dependencies.mapValues { Set($0).intersection(units) }
        var free = units.filter { left[$0]?.isEmpty ?? true }.sorted(by: >)
        order = []
        while let name = free.popLast() {
            order.append(name)
            for unit in waitedBy[name] ?? [] where left[unit]?.remove(name) != nil && left[unit]!.isEmpty { free.append(unit) }
        }
    }

    /// Services and tasks that are not started, and will not be without somebody's doing, each with what holds it: a task that failed, or a
    /// service that ended without success and is not started again.
    var held: [String: String] {
        var found: [String: String] = [:]
        let failed = tasks.filter { if case .failed = $0.value { true } else { false } }.keys
        var next = (Array(failed) + services.filter { $0.value.isOver }.keys).sorted().map { (name: $0, cause: $0) }
        while let (name, cause) = next.popLast() {
            for unit in waitedBy[name] ?? [] where found[unit] == nil {
                guard tasks[unit] == .waiting || services[unit] != nil && !begun.contains(unit) else { continue }
                found[unit] = cause
                next.append((unit, cause))
            }
        }
        return found
    }

    /// All that was to be started is ready, done, over, or held.
    private var isAsFarAsItGets: Bool {
        let held = held
        return services.allSatisfy { begun.contains($0.key) ? $0.value.isSettled : held[$0.key] != nil }
            && tasks.allSatisfy { $0.value != .running && ($0.value != .waiting || held[$0.key] != nil) }
    }

    /// Nothing runs or waits that will end or begin by itself.
    var isQuiet: Bool { phase == .running && pendingRolls.isEmpty && newStores.isEmpty && leaving.isEmpty && isAsFarAsItGets }

    /// Whether a unit has got as far as it is to get: a store or a service that is ready, a task that is done.
    func isReady(_ unit: String) -> Bool { stores[unit]?.isSettled ?? isSatisfied(unit) }

    /// Whether a unit is to go, and has not ended yet.
    func isLeaving(_ unit: String) -> Bool { leaving.contains(unit) }
    var isAnythingLeaving: Bool { !leaving.isEmpty }

    /// What a unit waits for that is not ready.
    func missing(for unit: String) -> [String] { (dependencies[unit] ?? []).filter { !isSatisfied($0) } }

    /// Whether there is a unit of this name, also one that is to go and has not ended yet.
    func has(_ unit: String) -> Bool { stores[unit] != nil || services[unit] != nil || tasks[unit] != nil }

    /// How many replicas a service is to have, also when it is not started yet.
    func size(of service: String) -> Int? { begun.contains(service) ? services[service]?.desired : counts[service] }

    private func isSatisfied(_ name: String) -> Bool {
        if let task = tasks[name] { return task == .done }
        if let service = services[name] { return begun.contains(name) && service.isReady }
        // A store: they are ready before anything else begins.
        return true
    }

    private func canBegin(_ unit: String) -> Bool { (dependencies[unit] ?? []).allSatisfy(isSatisfied) }

    /// Starts what waits for nothing any more.
    private mutating func begin() -> [Action] {
        newStores = newStores.filter { stores[$0]?.isSettled == false }
        guard newStores.isEmpty else { return [] }
        var actions: [Action] = []
        // Each after what it waits for: one that begins with no replica is ready with that, and nothing else would tell so.
        for name in order where !leaving.contains(name) && canBegin(name) {
            if tasks[name] == .waiting {
                tasks[name] = .running
                actions.append(.startTask(name))
            } else if services[name] != nil, begun.insert(name).inserted {
                actions += change(name) { [counts] in $0.setDesired(counts[name] ?? 0) }
            }
        }
        let held = pendingRolls.isEmpty ? [:] : held
        for name in pendingRolls.sorted() {
            let waitsFor = (dependencies[name] ?? []).filter { tasks[$0] != nil }
            if waitsFor.allSatisfy(isSatisfied) {
                pendingRolls.remove(name)
                actions += change(name) { $0.beginRoll() }
            } else if let task = waitsFor.first(where: { if case .failed? = tasks[$0] { true } else { held[$0] != nil } }) {
                pendingRolls.remove(name)
                let why = held[task].map { "waits for \($0), which failed" } ?? "failed"
                actions.append(.rollEnded(service: name, failure: "the task \(task), which must be done before it, \(why)"))
            }
        }
        return actions
    }

    mutating func handle(_ event: Event) -> [Action] {
        let actions = apply(event)
        return actions + advance()
    }

    private mutating func apply(_ event: Event) -> [Action] {
        switch event {
        case .begin:
            guard phase == .idle else { return [] }
            phase = .startingStores
            let nodes = nodes
            return [.entered(phase)] + StackMachine.each(&stores) { $0.setDesired(nodes[$0.name] ?? 1) }
        case .ready(let unit, let number): return change(unit) { $0.becameReady(number) }
        case .unready(let unit, let number): return change(unit) { $0.becameUnready(number) }
        case .failedToStart(let unit, let number, let reason): return change(unit) { $0.failedToStart(number, reason) }
        case .stopped(let unit, let number): return change(unit) { $0.stopped(number) }
        case .over(let unit, let number): return change(unit) { $0.over(number) }
        case .taskEnded(let task, let failure):
            // One that has changed while it ran runs once more, however this run went.
            let again = runAgain.remove(task) != nil && !leaving.contains(task)
            if tasks[task] != nil { tasks[task] = again ? .waiting : failure.map(TaskState.failed) ?? .done }
            return []
        case .scale(let service, let count, let work):
            guard phase == .running || phase == .startingServices, !leaving.contains(service) else { return [] }
            guard begun.contains(service) else {
                // It begins with as many.
                if counts[service] != nil { counts[service] = count }
                return []
            }
            return change(service) { $0.setDesired(count, work: work) }
        case .roll(let service, let isExclusive):
            guard phase == .running else { return [.rollEnded(service: service, failure: "the stack is \(phase.rawValue)")] }
            if leaving.contains(service) { return [.rollEnded(service: service, failure: "\(service) is to be removed")] }
            services[service]?.isExclusive = isExclusive
            // Not started yet: it will be, as the new version.
            guard begun.contains(service) else { return [.rollEnded(service: service, failure: nil)] }
            pendingRolls.insert(service)
            return []
        case .add(let layout, let again):
            guard phase == .running else { return [] }
            let new = take(layout)
            for name in again where tasks[name] != nil && !leaving.contains(name) {
                if tasks[name] == .running { runAgain.insert(name) } else { tasks[name] = .waiting }
            }
            newStores.formUnion(new)
            let nodes = nodes
            return new.flatMap { store in change(store) { $0.setDesired(nodes[store] ?? 1) } }
        case .remove(let units): return phase == .running ? remove(units) : []
        case .stopping:
            isFrozen = true
            return []
        case .shutDown:
            guard phase != .stopped, phase != .stoppingServices, phase != .stoppingStores else { return [] }
            phase = .stoppingServices
            let given = pendingRolls.sorted()
            pendingRolls = []
            return [.entered(phase)] + given.map { .rollEnded(service: $0, failure: "the stack is stopping") }
                + tasks.filter { $0.value == .running }.keys.sorted().map(Action.stopTask)
                + StackMachine.each(&services) { $0.setDesired(0) }
        }
    }

    private mutating func remove(_ units: [String]) -> [Action] {
        var actions: [Action] = []
        for unit in units where has(unit) && leaving.insert(unit).inserted {
            if pendingRolls.remove(unit) != nil { actions.append(.rollEnded(service: unit, failure: "\(unit) is to be removed")) }
            if tasks[unit] == .running { actions.append(.stopTask(unit)) }
            actions += change(unit) { $0.setDesired(0) }
        }
        return actions
    }

    /// Forgets units that were to go and of which nothing runs any more.
    private mutating func forgetGone() -> [Action] {
        let gone = leaving.filter { (stores[$0] ?? services[$0])?.isGone ?? (tasks[$0] != .running) }.sorted()
        guard !gone.isEmpty else { return [] }
        for unit in gone {
            stores[unit] = nil
            services[unit] = nil
            tasks[unit] = nil
            nodes[unit] = nil
            counts[unit] = nil
            dependencies[unit] = nil
            begun.remove(unit)
            newStores.remove(unit)
            leaving.remove(unit)
        }
        sortUnits()
        return gone.map(Action.removed)
    }

    /// Goes on to the next phase where the present one is done; several at once when a stack has no stores or no services.
    private mutating func advance() -> [Action] {
        // Between the wish to stop and `shutDown` (the gateway drains meanwhile) nothing begins.
        if isFrozen, phase == .startingStores || phase == .startingServices || phase == .running { return [] }
        switch phase {
        case .startingStores where stores.values.allSatisfy(\.isSettled):
            phase = .startingServices
            return [.entered(phase)] + advance()
        case .startingServices:
            let actions = begin()
            guard isAsFarAsItGets else { return actions }
            phase = .running
            return actions + [.entered(phase)]
        case .running: return forgetGone() + begin()
        case .stoppingServices where services.values.allSatisfy(\.isGone) && !tasks.values.contains(.running):
            phase = .stoppingStores
            return [.entered(phase)] + StackMachine.each(&stores) { $0.setDesired(0) } + advance()
        case .stoppingStores where stores.values.allSatisfy(\.isGone):
            phase = .stopped
            return [.entered(phase)]
        default: return []
        }
    }

    private mutating func change(_ unit: String, _ body: (inout ServiceMachine) -> [ServiceMachine.Action]) -> [Action] {
        if stores[unit] != nil { return StackMachine.lift(unit, body(&stores[unit]!)) }
        if services[unit] != nil { return StackMachine.lift(unit, body(&services[unit]!)) }
        return []
    }

    private static func each(_ machines: inout [String: ServiceMachine], _ body: (inout ServiceMachine) -> [ServiceMachine.Action])
        -> [Action]
    {
        machines.keys.sorted().flatMap { StackMachine.lift($0, body(&machines[$0]!)) }
    }

    private static func lift(_ unit: String, _ actions: [ServiceMachine.Action]) -> [Action] {
        actions.map { action in
            switch action {
            case .start(let number, let generation): .start(unit: unit, number: number, generation: generation)
            case .stop(let number): .stop(unit: unit, number: number)
            case .rollEnded(let failure): .rollEnded(service: unit, failure: failure)
            }
        }
    }
}
