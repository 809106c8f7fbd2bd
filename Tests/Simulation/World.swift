import Basics

@testable import Supervision

/// A made-up machine: processes that start slowly, crash, hang and ignore signals, under a clock that jumps from event to event. It
/// drives the real `StackMachine` and `ReplicaMachine`s as the runner does, and checks after every step what must always hold.
struct World {
    struct Member {
        let unit: String
        let number: Int
        var machine: ReplicaMachine
        let generation: Int
        var process: Int?
        var readyAt: Int64 = .max
        var isHung = false
        var timerID = -1
        var everReady = false
        /// Which holder of this number it is: what was meant for the one before it must not reach it.
        let life: Int
    }

    private struct Event {
        let time: Int64
        let order: Int
        let unit: String
        let number: Int
        let life: Int
        let what: What

        func isBefore(_ other: Event) -> Bool { time != other.time ? time < other.time : order < other.order }
    }

    private enum What {
        case dies(process: Int)
        case probe(process: Int)
        case timer(Int)
        case drained
    }

    private(set) var machine: StackMachine
    private(set) var members: [String: Member] = [:]
    private(set) var violations: [String] = []
    private(set) var rollResults: [String?] = []
    private(set) var serving: [String: Int] = [:]
    /// While it holds, processes crash, hang and are slow; afterwards they behave.
    var isStormy: Bool
    var now: Int64 = 0
    /// A heap, the earliest first.
    private var queue: [Event] = []
    private var lives = 0
    private var order = 0
    private var nextProcess = 1
    private var alive: Set<Int> = []
    private var random: SeededRandom
    /// Something has happened since the last `check` that it looks at. Most probes change nothing.
    private var hasChanged = true

    init(seed: UInt64, services: [String: Int], stormy: Bool) {
        random = SeededRandom(seed: seed)
        machine = StackMachine(.init(stores: ["state": 1], services: services))
        isStormy = stormy
    }

    var processes: Int { alive.count }
    private func chance(_ percent: Int, _ random: inout SeededRandom) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

    mutating func tell(_ event: StackMachine.Event) {
        hasChanged = true
        for action in machine.handle(event) { perform(action) }
        check()
    }

    mutating func run(until end: Int64) {
        while let next = queue.first, next.time <= end {
            takeFirst()
            now = next.time
            happen(next)
            check()
        }
        now = end
    }

    /// Kills a random process, as chaos does.
    mutating func killOne(_ unit: String) {
        let candidates = members.filter { $0.key.hasPrefix(unit) && $0.value.process != nil }.keys.sorted()
        guard let key = candidates.randomElement(using: &random), let process = members[key]?.process else { return }
        die(key, process, "killed by SIGKILL")
        check()
    }

    private mutating func perform(_ action: StackMachine.Action) {
        switch action {
        case .start(let unit, let number, let generation):
            let key = "\(unit)/\(number)"
            if members[key] != nil { violations.append("\(key) is started twice") }
            lives += 1
            members[key] = Member(
                unit: unit, number: number, machine: ReplicaMachine(subject: key, settings: .init(), now: .init(nanoseconds: now)),
                generation: generation, life: lives)
            handle(key, .start)
        case .stop(let unit, let number): handle("\(unit)/\(number)", .stop)
        case .rollEnded(_, let failure): rollResults.append(failure)
        case .entered, .startTask, .stopTask, .removed: break
        }
    }

    private mutating func handle(_ key: String, _ event: ReplicaMachine.Event) {
        guard var member = members[key] else { return }
        let (unit, number) = (member.unit, member.number)
        let served = member.machine.isServing, restarts = member.machine.restarts, phase = member.machine.phase
        let actions = member.machine.handle(event, now: .init(nanoseconds: now))
        if !actions.isEmpty || member.machine.phase != phase || member.machine.isServing != served { hasChanged = true }
        members[key] = member
        for action in actions { carryOut(action, key, unit, number) }
        guard let after = members[key] else { return }
        if after.machine.isServing != served {
            members[key]!.everReady = members[key]!.everReady || after.machine.isServing
            tell(after.machine.isServing ? .ready(unit: unit, number: number) : .unready(unit: unit, number: number))
        }
        if after.machine.restarts > restarts, members[key]?.everReady == false {
            tell(.failedToStart(unit: unit, number: number, reason: after.machine.trouble))
        }
        if actions.contains(.finished) {
            if members[key]?.process != nil { violations.append("\(key) is finished with a process") }
            members[key] = nil
            tell(.stopped(unit: unit, number: number))
        }
    }

    private mutating func carryOut(_ action: ReplicaMachine.Action, _ key: String, _ unit: String, _ number: Int) {
        let second: Int64 = 1_000_000_000
        switch action {
        case .spawn:
            if members[key]!.process != nil { violations.append("\(key) has two processes") }
            let process = nextProcess
            nextProcess += 1
            alive.insert(process)
            members[key]!.process = process
            members[key]!.isHung = isStormy && chance(5, &random)
            members[key]!.readyAt = now + Int64.random(in: 0...(isStormy ? 3 * second : second / 5), using: &random)
            add(key, unit, number, after: second / 20, .probe(process: process))
            if isStormy, chance(40, &random) {
                add(key, unit, number, after: Int64.random(in: 0...20 * second, using: &random), .dies(process: process))
            }
        case .terminate:
            guard let process = members[key]!.process, !members[key]!.isHung else { break }
            add(
                key, unit, number, after: Int64.random(in: 0...(isStormy && chance(10, &random) ? 60 * second : second), using: &random),
                .dies(process: process))
        case .kill:
            if let process = members[key]!.process {
                add(key, unit, number, after: Int64.random(in: 0...second / 10, using: &random), .dies(process: process))
            }
        case .setTimer(let id, let after):
            members[key]!.timerID = id
            add(key, unit, number, after: after.nanoseconds, .timer(id))
        case .drain: add(key, unit, number, after: Int64.random(in: 0...12 * second, using: &random), .drained)
        case .admit, .withdraw, .decided, .completed, .finished: break
        }
    }

    private mutating func happen(_ event: Event) {
        let key = "\(event.unit)/\(event.number)"
        guard let member = members[key], member.life == event.life else { return }
        switch event.what {
        case .dies(let process): if member.process == process { die(key, process, "exit status 1") }
        case .timer(let id): handle(key, .timer(id))
        case .drained: handle(key, .drained)
        case .probe(let process):
            guard member.process == process else { return }
            add(key, event.unit, event.number, after: member.machine.isServing ? 2_000_000_000 : 200_000_000, .probe(process: process))
            handle(key, .probed(member.isHung || now < member.readyAt ? .failed("no answer") : .ready))
        }
    }

    private mutating func die(_ key: String, _ process: Int, _ how: String) {
        alive.remove(process)
        hasChanged = true
        members[key]!.process = nil
        handle(key, .exited(how))
    }

    private mutating func add(_ key: String, _ unit: String, _ number: Int, after: Int64, _ what: What) {
        order += 1
        queue.append(Event(time: now + after, order: order, unit: unit, number: number, life: members[key]!.life, what: what))
        var i = queue.count - 1
        while i > 0, queue[i].isBefore(queue[(i - 1) / 2]) {
            queue.swapAt(i, (i - 1) / 2)
            i = (i - 1) / 2
        }
    }

    private mutating func takeFirst() {
        queue.swapAt(0, queue.count - 1)
        queue.removeLast()
        var i = 0
        while 2 * i + 1 < queue.count {
            var child = 2 * i + 1
            if child + 1 < queue.count, queue[child + 1].isBefore(queue[child]) { child += 1 }
            guard queue[child].isBefore(queue[i]) else { return }
            queue.swapAt(i, child)
            i = child
        }
    }

    // MARK: what must always hold

    private mutating func check() {
        guard hasChanged else { return }
        hasChanged = false
        let running = members.values.compactMap(\.process)
        if Set(running) != alive || running.count != alive.count { violations.append("\(now): an orphan, or a process that nobody knows") }
        for (name, service) in machine.services {
            let here = service.members.values
            let staying = here.filter { !$0.isLeaving }.count
            if staying > service.desired + 1 { violations.append("\(now): \(name) has \(staying) of \(service.desired)") }
            if Set(here.map(\.number)).count != here.count { violations.append("a number twice") }
            serving[name] = members.values.count { $0.unit == name && $0.machine.isServing }
        }
        for (key, member) in members where member.machine.phase == .stopped { violations.append("\(key) is stopped and still here") }
    }
}
