import Basics
import EventLoops
import Postgres
import PostgresFailover
import StackModel
import StoreKinds

/// Keeps a PostgreSQL store: asks its nodes how they are, hands that to the `FailoverMachine`, and carries out what the machine decides
/// (`PostgresEffects`). A node is started only as what the machine says, and on a folder in which nobody works any more. On the control loop;
/// what touches files or looks through /proc is done on a thread of its own.
final class PostgresKeeper: StoreKeeper {
    /// Whatever is begun and waits holds it until its end: the stack may let it go meanwhile.
    unowned let store: PostgresStore
    unowned let host: any StoreHost
    let loop: EventLoop
    /// For what blocks.
    let worker: EventLoop?
    var machine: FailoverMachine
    /// What each node said last, and the last testimony of each.
    private var answers: [Int: PostgresQuestions.Answer] = [:]
    private var testimonies: [Int: NodeTestimony] = [:]
    /// Nodes that have streamed or led since their process began.
    private var haveServed: Set<Int> = []
    /// Numbers of the nodes' processes: a watch of one that has ended stops.
    private(set) var lives: [Int: Int] = [:]
    /// Nodes that are being started: none of them is fenced meanwhile, so that no process comes up behind a fence.
    var starting: Set<Int> = []
    /// The primary that leads has its slots, roles and databases.
    var isPrepared = false
    /// What a node does before its process begins, for people.
    var preparing: [Int: PostgresNodeState] = [:]
    /// How long the phases of the last change of the primary took, and how many commits were lost by it.
    private var phases: [(name: String, time: Duration)] = []
    private var lost: Int?
    /// To each standby one that stands: a failover asks and promotes over it.
    var spares: [Int: PostgresConnection] = [:]
    private var timer: LoopTimer?
    private var waiting: ((String?) -> Void)?
    private(set) var isClosed = false
    /// The stack ends the store.
    private(set) var isStopping = false

    init(_ store: PostgresStore, host: any StoreHost) {
        self.store = store
        self.host = host
        loop = host.loop
        worker = try? EventLoop.start(name: "postgres-\(store.name)")
        let spec = store.spec
        machine = FailoverMachine(
            .init(
                name: store.name, nodes: spec.nodes, quorum: spec.acknowledge == .primary ? 0 : 1, relax: spec.relax,
                maxLoss: UInt64(spec.maxLoss), failover: spec.failover), record: store.record)
        timer = LoopTimer(loop: loop) { [unowned self] in feed(.tick) }
    }

    func close() {
        isClosed = true
        timer?.cancel()
        worker?.stop()
    }

    var leader: Int? { machine.leader }
    func node(_ number: Int) -> PostgresNode { store.servers[number - 1] }
    func questions(_ number: Int) -> PostgresQuestions { PostgresQuestions(node: node(number), loop: loop) }

    // MARK: the machine

    func feed(_ event: FailoverMachine.Event) {
        if isClosed { return }
        if case .counted(_, let commits) = event { lost = commits }
        for action in machine.handle(event, now: .now) { perform(action) }
        if let due = machine.deadline { timer?.schedule(at: due) } else { timer?.cancel() }
    }

    private func perform(_ action: FailoverMachine.Action) {
        switch action {
        case .keep(let record): effect { keeper in await keeper.keep(record) }
        case .fence(let attempt, let number, let record): effect { await $0.fence(attempt, number, record) }
        case .ask(let attempt, let number): effect { await $0.askPosition(attempt, number) }
        case .promote(let attempt, let number, let record): effect { await $0.promote(attempt, number, record) }
        case .prepare(let number): effect { await $0.prepare(number) }
        case .follow(let attempt, let number, let primary): effect { await $0.follow(attempt, number, primary) }
        case .checkpoint(let attempt, let number): effect { await $0.checkpoint(attempt, number) }
        case .stop(let number): effect { await $0.stop(number) }
        case .end(let number): effect { await $0.end(number) }
        case .acknowledge(let number, let strict): effect { await $0.acknowledge(number, strict) }
        case .lead(let number):
            isPrepared = false
            if number == nil { (phases, lost) = ([], nil) }
            if let number { host.tell("\(store.name): \(store.name)/\(number) is the primary") }
        case .decided(let record):
            host.decided(record)
            host.tell(record.sentence)
        case .measured(let phase, let time):
            host.took(store.name, phase, time)
            phases.removeAll { $0.name == phase }
            phases.append((phase, time))
        case .answered(let failure):
            waiting?(failure)
            waiting = nil
        }
    }

    /// Carries out one effect, which ends within the limits of what it asks and runs.
    private func effect(_ body: @escaping (PostgresKeeper) async -> Void) {
        let bound = LoopBound((keeper: self, body: body), on: loop), held = LoopBound(store, on: loop)
        // Ends with the effect: each question and program in it has a time limit.
        Task(executorPreference: loop) {
            await bound.value.body(bound.value.keeper)
            withExtendedLifetime(held) {}
        }
    }

    // MARK: the nodes' processes

    func died(_ node: Int) {
        lives[node] = nil
        forget(node)
        feed(.ended(node))
    }

    private func forget(_ node: Int) {
        answers[node] = nil
        testimonies[node] = nil
        haveServed.remove(node)
        spares[node] = nil
    }

    func stops() {
        isStopping = true
        feed(.stops)
        host.endSteps(of: store.name)
    }

    func began(_ number: Int) {
        starting.remove(number)
        preparing[number] = nil
        forget(number)
        feed(.began(number))
        let life = lives.values.max().map { $0 + 1 } ?? 1
        lives[number] = life
        effect { await $0.watch(number, life) }
    }

    /// Asks the node again and again while its process lives. Each question is over a new connection, and waits no longer than until the next
    /// one is due.
    private func watch(_ number: Int, _ life: Int) async {
        let interval = machine.settings.probeInterval
        while lives[number] == life, !isClosed {
            let began = MonotonicTime.now
            let result = await questions(number).look(within: interval)
            guard lives[number] == life, !isClosed else { return }
            switch result {
            case .success(let answer):
                answers[number] = answer
                await keepSpare(number, life, answer.report.role)
                take(number, .answered(answer.report))
            case .failure(let silence): take(number, silence.testimony)
            }
            // A node that starts is asked often, so that it serves as soon as it can.
            let pause = machine.state(of: number) == .starting ? Duration.milliseconds(50) : interval
            await loop.sleep(max(.milliseconds(10), pause - (.now - began)))
        }
    }

    private func keepSpare(_ number: Int, _ life: Int, _ role: NodeReport.Role) async {
        guard role == .standby, machine.leader != nil else { return }
        if let spare = spares[number], await spare.isOpen { return }
        let made = await questions(number).keep(within: .seconds(2))
        if lives[number] == life, !isClosed { spares[number] = made }
    }

    private func take(_ number: Int, _ testimony: NodeTestimony) {
        testimonies[number] = testimony
        feed(.probed(number, testimony))
        let state = machine.state(of: number)
        if state == .streaming || number == leader && isPrepared { haveServed.insert(number) }
    }

    // MARK: what is told of a node

    func answered(_ node: Int, _ report: ProbeReport) -> ProbeReport { report }

    func report(of number: Int) -> ProbeReport {
        let state = machine.state(of: number)
        let role = number == machine.record.primary ? "primary" : "replica"
        switch testimonies[number] {
        case nil: return ProbeReport(.failed("it has not answered yet"), role: role)
        case .silent(let why)?: return ProbeReport(.failed(why), role: role)
        case .occupied(let why)?: return ProbeReport(.occupied(why), role: role)
        case .unasked(let why)?: return ProbeReport(.unasked(why), role: role)
        case .answered?: break
        }
        switch state {
        case .primary where number == leader && isPrepared:
            return ProbeReport(machine.isRelaxed ? .degraded("it acknowledges writes that no standby has") : .ready, role: role)
        case .streaming: return ProbeReport(.ready, role: role)
        default: break
        }
        let lag = machine.lag(of: number).map { " (\($0) bytes behind)" } ?? ""
        return ProbeReport(haveServed.contains(number) ? .degraded(state.rawValue + lag) : .occupied(state.rawValue + lag), role: role)
    }

    func figures(of number: Int) -> [StoreFigure] {
        guard let answer = answers[number] else { return [] }
        var figures = [
            StoreFigure(.connections, answer.connections), StoreFigure(.isPrimary, number == leader ? 1 : 0),
            StoreFigure(.timeline, Int(clamping: answer.report.timeline ?? 0)),
        ]
        if number != leader, let bytes = machine.lag(of: number) { figures.append(StoreFigure(.lagBytes, Int(clamping: bytes))) }
        if number != leader, let lag = answer.lag { figures.append(StoreFigure(.lagMilliseconds, Int(clamping: lag.milliseconds))) }
        return figures
    }

    func view() -> StoreView? {
        let record = machine.record
        var figures: [StoreView.Figure] = [.init("term", record.term), .init("acknowledge", store.spec.acknowledge.rawValue)]
        if let leader { figures.insert(.init("primary", leader), at: 0) }
        if let timeline = record.timeline { figures.append(.init("timeline", timeline)) }
        if machine.isRelaxed { figures.append(.init("relaxed", "true")) }
        for phase in phases { figures.append(.init("\(phase.name)_ms", phase.time.milliseconds)) }
        if let lost { figures.append(.init("counted_lost", lost)) }
        let nodes = store.servers.map { server -> StoreView.Node in
            let number = server.number, answer = answers[number]
            var own: [StoreView.Figure] = [.init("port", server.port)]
            if let report = answer?.report {
                own.append(.init("position", report.position))
                if let timeline = report.timeline { own.append(.init("timeline", timeline)) }
            }
            if number != leader {
                if let bytes = machine.lag(of: number) { own.append(.init("lag_bytes", bytes)) }
                if let lag = answer?.lag { own.append(.init("lag_ms", lag.milliseconds)) }
                if let leader, let sync = answers[leader]?.synchrony[number] { own.append(.init("sync_state", sync)) }
            }
            if let connections = answer?.connections { own.append(.init("connections", connections)) }
            let state = preparing[number] ?? machine.state(of: number)
            return .init(number: number, state: state.rawValue, role: number == record.primary ? "primary" : "replica", figures: own)
        }
        return StoreView(state: machine.state.rawValue, figures: figures, nodes: nodes)
    }

    // MARK: orders

    func carryOut(_ order: StoreOrder) async throws(StoreFailure) -> String {
        guard let number = order.node, (1...store.spec.nodes).contains(number) else {
            throw StoreFailure("\(order.verb) needs the number of a node: 1 to \(store.spec.nodes)")
        }
        let name = "\(store.name)/\(number)", event: FailoverMachine.Order, flaw: String?, plan: String, done: String
        switch order.verb {
        case "promote":
            if number == leader { return "\(name) is the primary already" }
            event = .promote(number, isForced: order.isForced)
            flaw = leader == nil ? nil : machine.flaw(ofHeir: number)
            let old = "\(store.name)/\(machine.record.primary)"
            plan =
                leader == nil
                ? "\(name) is made primary although \(old) does not serve: what it lacks is lost"
                : "\(old) writes a checkpoint and stops in order, \(name) is made primary, and \(old) follows it; writes wait for about a "
                    + "second, and connections to \(old) end"
            done = "\(name) is the primary"
        case "rejoin":
            event = .rejoin(number)
            flaw = machine.flaw(ofRejoining: number)
            plan = "\(name) is stopped, rewound to the primary (or gets a new copy where that fails), and follows it"
            done = "\(name) is made to follow the primary again; 'muster postgres status' shows how far it is"
        default: throw StoreFailure("a PostgreSQL store knows no '\(order.verb)': promote, rejoin")
        }
        if let flaw { throw StoreFailure(flaw) }
        if order.isDry { return plan }
        guard waiting == nil else { throw StoreFailure("another order is being carried out") }
        let failure: String? = await withUnsafeContinuation { continuation in
            waiting = { continuation.resume(returning: $0) }
            feed(.ordered(event))
        }
        if let failure { throw StoreFailure(failure) }
        return done
    }
}
