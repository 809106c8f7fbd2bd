import Basics

/// The whole stack: stores first, then services; backwards when it ends. Pure.
struct StackMachine {
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
        case rollEnded(service: String, failure: String?)
        case entered(Phase)
    }

    enum Event: Equatable {
        case begin
        case ready(unit: String, number: Int)
        case unready(unit: String, number: Int)
        case failedToStart(unit: String, number: Int, reason: String)
        case stopped(unit: String, number: Int)
        /// `work`: what each replica does now, for the choice of those that go.
        case scale(service: String, count: Int, work: [Int: Int] = [:])
        case roll(service: String)
        case shutDown
    }

    private(set) var phase = Phase.idle
    private(set) var stores: [String: ServiceMachine] = [:]
    private(set) var services: [String: ServiceMachine] = [:]
    private let counts: [String: Int]
    private let nodes: [String: Int]

    /// `stores` with the number of servers of each, `services` with the number of replicas each begins with.
    init(stores: [String: Int], services: [String: Int]) {
        for store in stores.keys { self.stores[store] = ServiceMachine(name: store, desired: 0) }
        nodes = stores
        for service in services.keys { self.services[service] = ServiceMachine(name: service, desired: 0) }
        counts = services
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
        case .scale(let service, let count, let work):
            guard phase == .running || phase == .startingServices else { return [] }
            return change(service) { $0.setDesired(count, work: work) }
        case .roll(let service):
            guard phase == .running else { return [.rollEnded(service: service, failure: "the stack is \(phase.rawValue)")] }
            return change(service) { $0.beginRoll() }
        case .shutDown:
            guard phase != .stopped, phase != .stoppingServices, phase != .stoppingStores else { return [] }
            phase = .stoppingServices
            return [.entered(phase)] + StackMachine.each(&services) { $0.setDesired(0) }
        }
    }

    /// Goes on to the next phase where the present one is done; several at once when a stack has no stores or no services.
    private mutating func advance() -> [Action] {
        switch phase {
        case .startingStores where stores.values.allSatisfy(\.isSettled):
            phase = .startingServices
            let counts = counts
            return [.entered(phase)] + StackMachine.each(&services) { $0.setDesired(counts[$0.name] ?? 0) } + advance()
        case .startingServices where services.values.allSatisfy(\.isSettled):
            phase = .running
            return [.entered(phase)]
        case .stoppingServices where services.values.allSatisfy(\.isGone):
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
