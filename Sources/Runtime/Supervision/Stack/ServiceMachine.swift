import Basics

/// How many replicas of one service there are to be, and their replacement one by one: pure.
///
/// Promises: never more than one replica above `desired` that is not on its way out; while rolling, no old replica is stopped before
/// a new one is ready; numbers are unique among those that run (the lowest free one is taken).
struct ServiceMachine {
    struct Member: Equatable {
        let number: Int
        let generation: Int
        var isReady = false
        var isLeaving = false
        /// It ended by itself without success, and is not started again.
        var isOver = false
    }

    enum Action: Equatable {
        case start(Int, generation: Int)
        case stop(Int)
        /// nil: done; else why it was given up.
        case rollEnded(String?)
    }

    private enum Roll: Equatable {
        case none
        /// `surge` was started to take the place of `old`.
        case starting(surge: Int, old: Int)
        /// `old` is on its way out.
        case stopping(old: Int)
    }

    let name: String
    private(set) var desired: Int
    private(set) var generation = 1
    private(set) var members: [Int: Member] = [:]
    private var roll = Roll.none
    private var isRolling = false
    /// Two replicas cannot run side by side (they would listen on the same port), so the new one follows the end of the old one.
    var isExclusive = false
    /// What each replica was doing when the count last changed; unknown ones do nothing.
    private var work: [Int: Int] = [:]

    init(name: String, desired: Int) {
        self.name = name
        self.desired = desired
    }

    /// Nothing will change by itself: each replica serves, or is over.
    var isSettled: Bool {
        !isRolling && members.count == desired && members.values.allSatisfy { ($0.isReady || $0.isOver) && !$0.isLeaving }
    }
    /// Each replica serves, or has ended with success and is not started again: what depends on the service may begin.
    var isReady: Bool { isSettled && members.values.allSatisfy(\.isReady) }
    /// A replica ended without success and is not started again: what depends on the service is held until somebody replaces the replica.
    var isOver: Bool { members.values.contains { $0.isOver && !$0.isLeaving } }
    var isGone: Bool { members.isEmpty }
    /// The one that a roll has added, until the one whose place it takes is on its way out.
    var surge: Int? { if case .starting(let surge, _) = roll { surge } else { nil } }

    /// Of those that serve, the ones with the least `work` go first.
    mutating func setDesired(_ count: Int, work: [Int: Int] = [:]) -> [Action] {
        desired = count
        self.work = work
        guard count == 0, isRolling else { return reconcile() }
        // Nothing is left to roll; the surge goes with the others.
        roll = .none
        isRolling = false
        return reconcile() + [.rollEnded("the service is going to 0 replicas")]
    }

    /// Replaces every replica. A roll that is under way is followed by the new one; its surge, while that is not ready, is given up at once.
    mutating func beginRoll() -> [Action] {
        generation += 1
        isRolling = true
        return (giveUpOvertakenSurge() ?? []) + reconcile()
    }

    /// One that was started by a roll which another one has overtaken, and does not serve, is not waited for. nil: there is none.
    private mutating func giveUpOvertakenSurge() -> [Action]? {
        guard case .starting(let surge, _) = roll, let member = members[surge], member.generation < generation, !member.isReady else {
            return nil
        }
        roll = .none
        return stop(surge)
    }

    mutating func becameReady(_ number: Int) -> [Action] {
        members[number]?.isReady = true
        return reconcile()
    }

    /// One of the new version that served and then stopped serving ends the roll, before it takes the place of more good ones.
    mutating func becameUnready(_ number: Int) -> [Action] {
        members[number]?.isReady = false
        if let overtaken = giveUpOvertakenSurge() { return overtaken + reconcile() }
        guard isRolling, let member = members[number], member.generation == generation, !member.isLeaving else { return [] }
        roll = .none
        isRolling = false
        // Too many now, if it was on its way to take a place: reconcile stops the unready one first.
        return reconcile() + [.rollEnded("replica \(number) of the new version stopped serving; those not yet replaced go on serving")]
    }

    /// It ended by itself without success and is not started again; nothing takes its place.
    mutating func over(_ number: Int) -> [Action] {
        members[number]?.isOver = true
        return becameUnready(number)
    }

    /// It died before it was ever ready. In a roll that ends the roll: the new version does not work, so the old one stays. One of a version
    /// that another roll has overtaken is on its way out already, and says nothing of the newest one.
    mutating func failedToStart(_ number: Int, _ reason: String) -> [Action] {
        if isExclusive, isRolling, let member = members[number], member.generation == generation, !member.isLeaving {
            roll = .none
            isRolling = false
            return [.rollEnded("replica \(number) did not become ready: \(reason); its port is fixed, so none runs beside it")]
        }
        guard case .starting(number, _) = roll else { return [] }
        roll = .none
        isRolling = false
        return stop(number) + [.rollEnded("replica \(number) did not become ready: \(reason); the replicas before it go on serving")]
    }

    mutating func stopped(_ number: Int) -> [Action] {
        members[number] = nil
        switch roll {
        case .stopping(number): roll = .none
        // Its place is being taken already, whoever stopped it.
        case .starting(let surge, number): roll = members[surge]?.isReady == true ? .none : .starting(surge: surge, old: number)
        default: break
        }
        return reconcile()
    }

    private mutating func stop(_ number: Int) -> [Action] {
        guard members[number] != nil, members[number]?.isLeaving == false else {
            // Gone already: nothing will report its end.
            if case .stopping(number) = roll, members[number] == nil {
                roll = .none
                return reconcile()
            }
            return []
        }
        members[number]!.isLeaving = true
        return [.stop(number)]
    }

    private mutating func reconcile() -> [Action] {
        var actions: [Action] = []
        var surge: Int?
        if case .starting(let number, _) = roll { surge = number }
        var staying = members.values.filter { !$0.isLeaving && $0.number != surge }
        let isTaken = isExclusive && members.values.contains(where: \.isLeaving)
        while staying.count < desired, !isTaken {
            let member = add()
            staying.append(member)
            actions.append(.start(member.number, generation: generation))
        }
        // The ones that do not serve go first, then those with the least to do, then the youngest numbers.
        staying.sort { ($0.isReady ? 1 : 0, work[$0.number] ?? 0, -$0.number) < ($1.isReady ? 1 : 0, work[$1.number] ?? 0, -$1.number) }
        for member in staying.prefix(max(0, staying.count - desired)) { actions += stop(member.number) }
        return actions + rollOn()
    }

    private mutating func rollOn() -> [Action] {
        guard isRolling else { return [] }
        if case .starting(let surge, let old) = roll, members[surge]?.isReady == true {
            // The others must serve as well: a roll and a crash together would take away capacity.
            let others = members.values.filter { !$0.isLeaving && $0.number != old && $0.number != surge }
            // An old one that has stopped serving meanwhile goes instead: the new version may be its cure.
            let victim =
                members[old]?.isReady == false
                ? old : others.filter { $0.generation < generation && !$0.isReady }.map(\.number).min() ?? old
            guard others.allSatisfy({ $0.isReady || $0.number == victim }) || members[old]?.isReady == false else { return [] }
            roll = .stopping(old: victim)
            return stop(victim)
        }
        guard roll == .none, !members.values.contains(where: \.isLeaving) else { return [] }
        // One that does not serve is replaced first.
        let old = members.values.filter { $0.generation < generation }.min {
            ($0.isReady ? 1 : 0, $0.number) < ($1.isReady ? 1 : 0, $1.number)
        }?.number
        guard let old else {
            guard members.values.allSatisfy(\.isReady) else { return [] }
            isRolling = false
            return [.rollEnded(nil)]
        }
        if isExclusive {
            roll = .stopping(old: old)
            return stop(old)
        }
        let member = add()
        roll = .starting(surge: member.number, old: old)
        return [.start(member.number, generation: generation)]
    }

    private mutating func add() -> Member {
        var number = 1
        while members[number] != nil { number += 1 }
        let member = Member(number: number, generation: generation)
        members[number] = member
        return member
    }
}
