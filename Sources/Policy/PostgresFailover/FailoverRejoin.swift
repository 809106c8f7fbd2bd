import Basics

/// Probes of a store that serves, and how its other nodes come to follow the primary.
extension FailoverMachine {
    // MARK: probes

    mutating func probed(_ number: Int, _ testimony: NodeTestimony, _ now: MonotonicTime) -> [Action] {
        guard node(number).isRunning else { return [] }
        switch testimony {
        case .unasked: return []
        case .occupied:
            nodes[number - 1].silences = 0
            nodes[number - 1].firstSilence = nil
            return []
        case .silent(let why): return silent(number, why, now)
        case .answered(let report):
            nodes[number - 1].silences = 0
            nodes[number - 1].firstSilence = nil
            if case .promoting(number) = phase { return heirAnswered(number, report, now) }
            return report.role == .primary ? primary(number, report, now) : standby(number, report, now)
        }
    }

    private mutating func silent(_ number: Int, _ why: String, _ now: MonotonicTime) -> [Action] {
        nodes[number - 1].silences += 1
        if nodes[number - 1].firstSilence == nil { nodes[number - 1].firstSilence = now }
        guard number == record.primary else {
            nodes[number - 1].streamingSince = nil
            if node(number).state != .starting { nodes[number - 1].state = .detached }
            return []
        }
        let isLeading =
            switch phase {
            case .serving, .checkpointing: true
            case .forming, .stopping, .fencing, .headless, .choosing, .promoting: false
            }
        guard isLeading, node(number).silences >= FailoverMachine.deadAfter else { return [] }
        return lose("gave no answer to \(node(number).silences) new connections in a row (\(why))", now)
    }

    /// An heir that answers before it was promoted for all that is known: after a start of the supervisor or of its process.
    private mutating func heirAnswered(_ number: Int, _ report: NodeReport, _ now: MonotonicTime) -> [Action] {
        nodes[number - 1].report = report
        return node(number).state == .starting ? heirIsBack(number, now) : []
    }

    private mutating func heirIsBack(_ number: Int, _ now: MonotonicTime) -> [Action] {
        nodes[number - 1].state = .promoting
        if phaseBegan == nil { (seenAt, phaseBegan) = (now, now) }
        return promote(number, now)
    }

    private mutating func primary(_ number: Int, _ report: NodeReport, _ now: MonotonicTime) -> [Action] {
        guard number == record.primary else {
            // Only by hand can it have been started so: two that take writes are worse than one less that follows.
            record.toRewind.insert(number)
            return [.keep(record), .end(node: number), .decided(secondPrimary(number))]
        }
        nodes[number - 1].report = report
        nodes[number - 1].state = .primary
        var actions: [Action] = []
        switch phase {
        case .forming: actions = serves(number, report)
        case .serving, .checkpointing: break
        case .stopping, .fencing, .headless, .choosing, .promoting: return []
        }
        lastPosition = report.position
        for other in others where node(other).answersUntilBound > 0 {
            nodes[other - 1].answersUntilBound -= 1
            if node(other).answersUntilBound == 0 { nodes[other - 1].bound = report.position }
        }
        for other in report.cutOff.sorted() where other != number && !record.toClone.contains(other) {
            actions += mustClone(other, "the primary has removed log that it lacks")
        }
        return actions + acknowledgement(report, now)
    }

    private mutating func serves(_ number: Int, _ report: NodeReport) -> [Action] {
        enter(.serving)
        let before = record
        record.step = .leading
        record.hasServed = true
        record.timeline = report.timeline ?? record.timeline
        wasStrict = report.isStrict
        isCheckpointed = record.toRewind.isEmpty
        let isBack = phaseBegan != nil
        (seenAt, phaseBegan) = (nil, nil)
        var actions: [Action] = before == record ? [] : [.keep(record)]
        actions += [.lead(number), .prepare(node: number)]
        if isBack || !before.hasServed { actions.append(.decided(leads(number, isBack: isBack))) }
        for other in others where node(other).isRunning { actions.append(.follow(attempt: attempt, node: other, primary: number)) }
        if !isCheckpointed { actions.append(.checkpoint(attempt: attempt, node: number)) }
        return actions
    }

    /// Commits wait for a standby, unless none has streamed for `relax`.
    private mutating func acknowledgement(_ report: NodeReport, _ now: MonotonicTime) -> [Action] {
        guard settings.quorum > 0 else {
            wasStrict = false
            return []
        }
        let wasRelaxed = isRelaxed
        if report.streaming.isEmpty {
            if aloneSince == nil { aloneSince = now }
            if let relax = settings.relax, let aloneSince, now - aloneSince >= relax { isRelaxed = true }
        } else {
            (aloneSince, isRelaxed) = (nil, false)
        }
        // What it says itself counts: a setting that was asked for may not have come into force.
        wasStrict = report.isStrict && !isRelaxed
        var actions: [Action] = isRelaxed == wasRelaxed ? [] : [.decided(relaxed(isRelaxed))]
        if report.isStrict == isRelaxed { actions.append(.acknowledge(node: record.primary, strict: !isRelaxed)) }
        return actions
    }

    private mutating func standby(_ number: Int, _ report: NodeReport, _ now: MonotonicTime) -> [Action] {
        let before = node(number).report
        nodes[number - 1].report = report
        // Who receives nothing does not know the timeline; it has not changed by that.
        if report.timeline == nil { nodes[number - 1].report?.timeline = before?.timeline }
        guard number != record.primary else { return [] }
        let isServing = phase == .serving, isNew = node(number).state == .starting
        if isServing, record.toRewind.contains(number) || record.toClone.contains(number) {
            // It was started before that was known.
            return [.end(node: number)]
        }
        let follows: [Action] = isServing && isNew ? [.follow(attempt: attempt, node: number, primary: record.primary)] : []
        if report.isReceiving, report.timeline == record.timeline || record.timeline == nil {
            let since = node(number).streamingSince ?? now, isSteady = now - since >= FailoverMachine.steadyTime
            nodes[number - 1].streamingSince = since
            nodes[number - 1].detachedSince = nil
            nodes[number - 1].state = isSteady ? .streaming : .catchingUp
            if isSteady { nodes[number - 1].rejoins = 0 }
            return follows
        }
        nodes[number - 1].streamingSince = nil
        let isMoving = before.map { $0.position < report.position } ?? true
        if isMoving || node(number).detachedSince == nil { nodes[number - 1].detachedSince = now }
        nodes[number - 1].state = isMoving ? .catchingUp : .detached
        guard phase == .serving, node(record.primary).silences == 0, let since = node(number).detachedSince,
            now - since >= FailoverMachine.detachedTime
        else { return follows }
        let why = "it has received nothing for \(FailoverMachine.detachedTime.brief) while the primary serves"
        return node(number).rejoins > 0 ? mustClone(number, why) : again(number, because: why)
    }

    // MARK: how a node is started

    /// How the process of a node is to be started now. `hasData`: whether there is a data folder with something in it.
    public func plan(for number: Int, hasData: Bool) -> StartPlan {
        if number == record.primary { return planForPrimary(number, hasData: hasData) }
        switch phase {
        case .serving, .checkpointing: break
        case .forming:
            let isFit = hasData && !record.toRewind.contains(number) && !record.toClone.contains(number)
            return isFit ? .asStandby(of: record.primary) : .hold("it waits for \(name(record.primary)) to serve")
        case .stopping, .fencing, .headless, .choosing, .promoting: return .hold("who leads is being decided")
        }
        if !hasData || record.toClone.contains(number) { return .clone(from: record.primary, term: record.term) }
        guard record.toRewind.contains(number) else { return .asStandby(of: record.primary) }
        // Before that checkpoint pg_rewind takes the old timeline for the new primary's own and does nothing.
        return isCheckpointed
            ? .rewind(from: record.primary, term: record.term) : .hold("it waits for the checkpoint of \(name(record.primary))")
    }

    private func planForPrimary(_ number: Int, hasData: Bool) -> StartPlan {
        switch phase {
        case .promoting:
            // Started as what its folder says: a standby that is promoted then, or the primary that it was made.
            return hasData ? .asStandby(of: number) : .hold("its data is gone, and it may have taken writes: put its folder back")
        case .stopping, .fencing, .headless, .choosing: return .hold("it is fenced, and who leads is being decided")
        case .forming, .serving, .checkpointing: break
        }
        guard hasData else {
            return record.hasServed
                ? .hold(
                    "its data is gone, and it led the store: put its folder back, or let another lead by 'muster postgres promote NODE'")
                : .initialise
        }
        var kept = record
        kept.step = .leading
        return .asPrimary(keep: kept)
    }

    mutating func rejoined(_ number: Int, _ outcome: Rejoining) -> [Action] {
        guard number != record.primary else { return [] }
        switch outcome {
        case .rewound, .cloned:
            nodes[number - 1].rejoins += 1
            let before = record
            record.toRewind.remove(number)
            record.toClone.remove(number)
            return (before == record ? [] : [.keep(record)]) + [.decided(fit(number, outcome))]
        case .failed(let why):
            guard record.toRewind.contains(number), !record.toClone.contains(number) else { return [.decided(unfit(number, why))] }
            record.toRewind.remove(number)
            record.toClone.insert(number)
            return [.keep(record), .decided(needsCopy(number, "pg_rewind failed: \(why)"))]
        }
    }

    mutating func following(_ number: Int, _ position: WALPosition?) -> [Action] {
        guard phase == .serving, number != record.primary, let position, let fork = record.fork, position > fork else { return [] }
        // It went on receiving what the lost primary had sent, after it was asked how far it is.
        guard node(number).report?.timeline.map({ $0 != record.timeline }) ?? false else { return [] }
        return again(number, because: "its log goes on beyond \(fork), where \(name(record.primary)) took over")
    }

    /// The node is stopped and rewound.
    mutating func again(_ number: Int, because why: String) -> [Action] {
        record.toRewind.insert(number)
        nodes[number - 1].detachedSince = nil
        var actions: [Action] = [.keep(record), .decided(mustRejoin(number, why))]
        if !isCheckpointed { actions.append(.checkpoint(attempt: attempt, node: record.primary)) }
        if node(number).isRunning { actions.append(.end(node: number)) }
        return actions
    }

    private mutating func mustClone(_ number: Int, _ why: String) -> [Action] {
        record.toRewind.remove(number)
        record.toClone.insert(number)
        nodes[number - 1].detachedSince = nil
        return [.keep(record), .decided(needsCopy(number, why))] + (node(number).isRunning ? [.end(node: number)] : [])
    }
}
