import Basics
import PostgresFailover

/// Three made-up PostgreSQL nodes, clients that write, and a supervisor around a `FailoverMachine` that can be killed between any two steps
/// of what it does. Time is made up as well.
///
/// A log is a list of writes; its length is the position. A standby receives what continues its own log and nothing else. After the death
/// of a postmaster its backends go on (`ghost`), and one that is stopped goes on to serve its old connections (`deaf`), as real ones do.
final class PostgresWorld {
    struct Write: Hashable {
        let id: Int
        /// Where it stands in its log.
        let place: Int
    }

    struct Disk {
        var hasData = false
        /// A rewind that was cut off.
        var isBroken = false
        var log: [Write] = []
        var timeline: UInt32 = 1
        var signal = false
        var isClean = false
        var isCheckpointed = true

        func has(_ write: Write) -> Bool { write.place < log.count && log[write.place] == write }
        /// Whether `other` goes on where this log ends. What both have at one place after a write of the same number is the same.
        func isContinued(by other: Disk) -> Bool { log.last.map(other.has) ?? true }
    }

    enum Run: Equatable {
        case none
        case primary
        case standby(of: Int)
        /// The postmaster is dead, and its backends still acknowledge.
        case ghost
        /// The postmaster answers no new connection, and its backends still acknowledge.
        case deaf
    }

    let settings: FailoverMachine.Settings
    var random: SeededRandom
    var now = MonotonicTime(nanoseconds: 0)
    var disks: [Disk]
    var runs: [Run]
    var strict: [Bool]
    var recordText: String?
    private var nextWrite = 0
    /// Writes that wait for a standby: by node.
    private var waiting: [Int: [Write]] = [:]
    /// Those that were acknowledged when a standby had them.
    private(set) var guarded: Set<Write> = []
    private(set) var acknowledged = 0
    private(set) var promotions = 0
    var faults: [String] = []
    var isCalm = false

    // The supervisor, which may be dead.
    var machine: FailoverMachine?
    private var work: [[() -> Void]] = []
    /// Starts under way, by node: which one.
    private var starting: [Int: Int] = [:]
    private var starts = 0
    private var probeAt: [MonotonicTime]
    private var silent: [Int]
    private var bornAt = MonotonicTime(nanoseconds: 0)
    private(set) var orderOutcomes = 0

    init(seed: UInt64, settings: FailoverMachine.Settings) {
        self.settings = settings
        random = SeededRandom(seed: seed)
        disks = Array(repeating: Disk(), count: settings.nodes)
        runs = Array(repeating: .none, count: settings.nodes)
        strict = Array(repeating: true, count: settings.nodes)
        probeAt = Array(repeating: now, count: settings.nodes)
        silent = Array(repeating: 0, count: settings.nodes)
        startSupervisor()
    }

    private func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
    private func leads(_ index: Int) -> Bool { [.primary, .ghost, .deaf].contains(runs[index]) }
    private func runs(_ index: Int) -> Bool { runs[index] != .none && runs[index] != .ghost }

    // MARK: a supervisor's life

    /// What one that was killed has left is ended before anything is started.
    func startSupervisor() {
        for index in runs.indices { end(index) }
        let record = recordText.flatMap { try? StoreRecord(text: $0, nodes: settings.nodes) } ?? .first
        machine = FailoverMachine(settings, record: record)
        (work, starting) = ([], [:])
        bornAt = now
    }

    func killSupervisor() { (machine, work, starting) = (nil, [], [:]) }

    private func end(_ index: Int) {
        runs[index] = .none
        waiting[index] = nil
    }

    private func tell(_ event: FailoverMachine.Event) {
        guard machine != nil else { return }
        for action in machine!.handle(event, now: now) { perform(action) }
    }

    private func keep(_ record: StoreRecord) { recordText = record.text }

    private func perform(_ action: FailoverMachine.Action) {
        switch action {
        case .keep(let record): keep(record)
        case .fence(let attempt, let number, let record): work.append(fence(attempt, number, record))
        case .ask(let attempt, let number):
            work.append([
                { [self] in
                    tell(.position(attempt: attempt, node: number, chance(isCalm ? 0 : 10) ? nil : report(number - 1)))
                }
            ])
        case .promote(let attempt, let number, let record): work.append(promote(attempt, number, record))
        case .follow(let attempt, let number, let primary):
            work.append([
                { [self] in
                    if case .standby = runs[number - 1] { runs[number - 1] = .standby(of: primary) }
                    tell(.following(attempt: attempt, node: number, WALPosition(UInt64(disks[number - 1].log.count))))
                }
            ])
        case .checkpoint(let attempt, let number):
            work.append([
                {},
                { [self] in
                    guard runs[number - 1] == .primary else {
                        return tell(.checkpointed(attempt: attempt, failure: "it does not run"))
                    }
                    disks[number - 1].isCheckpointed = true
                    tell(.checkpointed(attempt: attempt, failure: nil))
                },
            ])
        case .stop(let number): work.append([{}, { [self] in stopInOrder(number - 1) }])
        case .end(let number):
            work.append([
                { [self] in
                    guard runs[number - 1] != .none else { return }
                    end(number - 1)
                    tell(.ended(number))
                }
            ])
        case .acknowledge(let number, let isStrict): work.append([{ [self] in strict[number - 1] = isStrict }])
        case .answered: orderOutcomes += 1
        case .prepare, .lead, .decided, .measured: break
        }
    }

    /// Step by step, so that the supervisor can die between any two.
    private func fence(_ attempt: Int, _ number: Int, _ record: StoreRecord) -> [() -> Void] {
        let index = number - 1
        return [
            { [self] in keep(record) },
            { [self] in
                let wasRunning = runs[index] != .none
                if starting[number] != nil || chance(isCalm ? 0 : 5) {
                    return tell(.fenced(attempt: attempt, .failed("a process does not end")))
                }
                end(index)
                disks[index].signal = true
                let clean = disks[index].isClean ? WALPosition(UInt64(disks[index].log.count)) : nil
                if wasRunning { tell(.ended(number)) }
                tell(.fenced(attempt: attempt, .confirmed(clean: clean)))
            },
        ]
    }

    private func promote(_ attempt: Int, _ number: Int, _ record: StoreRecord) -> [() -> Void] {
        let index = number - 1
        return [
            { [self] in keep(record) },
            { [self] in
                switch runs[index] {
                case .standby:
                    for other in runs.indices where other != index && (leads(other) || disks[other].hasData && !disks[other].signal) {
                        faults.append("\(number) is promoted while \(other + 1) is not fenced")
                    }
                    runs[index] = .primary
                    strict[index] = true
                    disks[index].timeline = (disks.map(\.timeline).max() ?? 1) + 1
                    disks[index].signal = false
                    disks[index].isCheckpointed = false
                    promotions += 1
                case .primary: break
                case .none, .ghost, .deaf: return tell(.promoted(attempt: attempt, .failed("it does not run")))
                }
                // The answer may be lost together with the supervisor.
                work.append([
                    { [self] in
                        tell(
                            .promoted(
                                attempt: attempt, .done(timeline: disks[index].timeline, fork: WALPosition(UInt64(disks[index].log.count))))
                        )
                    }
                ])
            },
        ]
    }

    private func stopInOrder(_ index: Int) {
        guard runs[index] == .primary else { return }
        if chance(80) {
            for other in runs.indices where runs[other] == .standby(of: index + 1) && disks[other].isContinued(by: disks[index]) {
                disks[other].log = disks[index].log
            }
        }
        // What waited for a standby and had none is not acknowledged.
        end(index)
        disks[index].isClean = true
        tell(.ended(index + 1))
    }

    // MARK: starts

    private func startNodes() {
        for index in runs.indices where !runs(index) && starting[index + 1] == nil && machine != nil {
            let number = index + 1, plan = machine!.plan(for: number, hasData: disks[index].hasData)
            switch plan {
            case .hold: continue
            case .initialise:
                start(number, [{ [self] in disks[index] = Disk(hasData: true) }], as: .primary)
            case .asPrimary(let record):
                start(number, [{ [self] in keep(record) }, { [self] in disks[index].signal = false }], as: .primary)
            case .asStandby(let primary):
                start(number, [{ [self] in disks[index].signal = true }], as: .standby(of: primary))
            case .rewind(let primary, let term): start(number, rewind(index, primary - 1, term), as: .standby(of: primary))
            case .clone(let primary, let term): start(number, clone(index, primary - 1, term), as: .standby(of: primary))
            }
        }
    }

    private func start(_ number: Int, _ steps: [() -> Void], as run: Run) {
        starts += 1
        let id = starts
        starting[number] = id
        // What a dead postmaster has left is ended before anything is done to the folder.
        work.append(
            [{ [self] in end(number - 1) }] + steps.map { step in { [self] in if starting[number] == id { step() } } } + [
                { [self] in
                    // A step before may have failed and let it go.
                    guard starting[number] == id else { return }
                    starting[number] = nil
                    let index = number - 1
                    if disks[index].isBroken { return }
                    disks[index].isClean = false
                    if run == .primary {
                        strict[index] = true
                        // Recovery ends with a checkpoint.
                        disks[index].isCheckpointed = true
                    }
                    runs[index] = run
                    tell(.began(number))
                }
            ])
    }

    private func rewind(_ index: Int, _ source: Int, _ term: Int) -> [() -> Void] {
        [
            { [self] in
                guard runs[source] == .primary, !disks[index].isBroken, chance(isCalm ? 100 : 80) else {
                    starting[index + 1] = nil
                    return tell(.rejoined(index + 1, term: term, .failed("the source does not run, or the target is broken")))
                }
                if disks[source].isCheckpointed { disks[index].isBroken = true }
            },
            { [self] in
                guard runs[source] == .primary else {
                    starting[index + 1] = nil
                    return tell(.rejoined(index + 1, term: term, .failed("the source has ended")))
                }
                if disks[source].isCheckpointed {
                    (disks[index].log, disks[index].timeline, disks[index].isBroken) = (disks[source].log, disks[source].timeline, false)
                } else {
                    faults.append("a rewind of \(index + 1) before the checkpoint of \(source + 1)")
                }
                disks[index].signal = true
                tell(.rejoined(index + 1, term: term, .rewound))
            },
        ]
    }

    private func clone(_ index: Int, _ source: Int, _ term: Int) -> [() -> Void] {
        [
            {},
            { [self] in
                guard runs[source] == .primary, chance(isCalm ? 100 : 80) else {
                    starting[index + 1] = nil
                    return tell(.rejoined(index + 1, term: term, .failed("the source does not run")))
                }
                disks[index] = Disk(hasData: true, log: disks[source].log, timeline: disks[source].timeline, signal: true)
                tell(.rejoined(index + 1, term: term, .cloned))
            },
        ]
    }

    // MARK: time

    private func report(_ index: Int) -> NodeReport? {
        let disk = disks[index], position = WALPosition(UInt64(disk.log.count))
        switch runs[index] {
        case .none, .ghost, .deaf: return nil
        case .primary:
            let streaming = runs.indices.filter { runs[$0] == .standby(of: index + 1) && disks[$0].isContinued(by: disk) }
            return NodeReport(
                .primary, timeline: disk.timeline, position: position, streaming: Set(streaming.map { $0 + 1 }), isStrict: strict[index])
        case .standby(let primary):
            let receives = leads(primary - 1) && disk.isContinued(by: disks[primary - 1])
            return NodeReport(.standby, timeline: receives ? disk.timeline : nil, position: position, isReceiving: receives)
        }
    }

    /// 50 ms of everything.
    func step() {
        now = now + .milliseconds(50)
        write()
        replicate()
        acknowledge()
        guard machine != nil else { return }
        if let due = machine?.deadline, now >= due { tell(.tick) }
        for index in runs.indices where now >= probeAt[index] && runs(index) {
            probeAt[index] = now + settings.probeInterval
            let said = report(index)
            // What starts and does not answer is ended after a while, as the supervisor does.
            silent[index] = said == nil ? silent[index] + 1 : 0
            if silent[index] > 40 {
                silent[index] = 0
                end(index)
                tell(.ended(index + 1))
                continue
            }
            tell(.probed(index + 1, said.map(NodeTestimony.answered) ?? .silent("no answer")))
        }
        startNodes()
        // Some of what is under way gets on by a step.
        for position in work.indices.reversed() where machine != nil && chance(70) {
            guard position < work.count else { continue }
            let next = work[position].removeFirst()
            if work[position].isEmpty { work.remove(at: position) }
            next()
        }
    }

    private func write() {
        for index in runs.indices where leads(index) && chance(60) {
            let write = Write(id: nextWrite, place: disks[index].log.count)
            nextWrite += 1
            disks[index].log.append(write)
            waiting[index, default: []].append(write)
        }
    }

    private func replicate() {
        for index in runs.indices {
            guard case .standby(let primary) = runs[index], primary != index + 1, leads(primary - 1), chance(85) else { continue }
            let source = disks[primary - 1]
            guard disks[index].isContinued(by: source) else { continue }
            let left = source.log.count - disks[index].log.count
            let more = left == 0 ? 0 : Int.random(in: 0...left, using: &random)
            disks[index].log += source.log[disks[index].log.count..<disks[index].log.count + more]
            disks[index].timeline = source.timeline
        }
    }

    private func acknowledge() {
        for (index, writes) in waiting {
            let isGuarded = settings.quorum > 0 && strict[index]
            let done = writes.filter { write in
                !isGuarded
                    || runs.indices.contains { runs[$0] == .standby(of: index + 1) && disks[$0].has(write) }
            }
            if done.isEmpty { continue }
            for other in runs.indices where other != index && leads(other) {
                faults.append("\(index + 1) acknowledges while \(other + 1) takes writes")
            }
            acknowledged += done.count
            if isGuarded { guarded.formUnion(done) }
            waiting[index] = writes.filter { !done.contains($0) }
        }
    }

    // MARK: what goes wrong

    func harm(_ kind: Int) {
        // Of whom it happens to is the primary every other time.
        let leader = machine?.leader.map { $0 - 1 }, any = Int.random(in: runs.indices, using: &random)
        let index = chance(50) ? leader ?? any : any
        switch kind {
        case 0:
            // kill -9 of the postmaster.
            guard runs(index) else { return }
            let wasPrimary = leads(index)
            runs[index] = wasPrimary ? .ghost : .none
            tell(.ended(index + 1))
        case 1: if runs[index] == .primary { runs[index] = .deaf }
        case 2: killSupervisor()
        case 3: tell(.ordered(.promote(index + 1, isForced: false)))
        case 4: tell(.ordered(.rejoin(index + 1)))
        default:
            for index in runs.indices where runs(index) {
                runs[index] = leads(index) ? .ghost : .none
                tell(.ended(index + 1))
            }
        }
    }

    /// For a failing seed.
    var state: String {
        disks.map { "\($0.hasData ? "data" : "-") \($0.isBroken ? "broken" : "") \($0.log.count) t\($0.timeline)" }.joined(separator: ", ")
            + " starting \(starting)"
    }

    /// Every guarded write is in the log of whoever leads.
    func checkAll() {
        guard let leader = machine?.leader else { return }
        let missing = guarded.count { !disks[leader - 1].has($0) }
        if missing > 0 { faults.append("\(missing) acknowledged writes are lost at \(leader)") }
    }
}
