import Basics

/// From the death of the primary to its successor.
extension FailoverMachine {
    mutating func ended(_ number: Int, _ now: MonotonicTime) -> [Action] {
        let wasRunning = node(number).isRunning
        nodes[number - 1].isRunning = false
        nodes[number - 1].state = .backingOff
        forget(number)
        nodes[number - 1].answersUntilBound = 2
        guard number == record.primary, wasRunning else { return answeredByItsEnd(number, now) }
        switch phase {
        case .serving, .checkpointing: return lose("ended", now)
        // In order, as it was told to, if the fence finds it so.
        case .stopping: return fence(now)
        case .promoting:
            // It may have been promoted: it is started again, and nobody else is asked.
            enter(.promoting(heir: number))
            return []
        case .forming, .fencing, .headless, .choosing: return []
        }
    }

    /// A standby that ends while it is asked gives no answer any more.
    private mutating func answeredByItsEnd(_ number: Int, _ now: MonotonicTime) -> [Action] {
        guard phase == .choosing, answers[number] == nil else { return [] }
        answers[number] = .some(nil)
        return haveAllAnswers ? choose(now) : []
    }

    /// The primary is dead or as good as dead.
    mutating func lose(_ how: String, _ now: MonotonicTime) -> [Action] {
        seenAt = node(record.primary).firstSilence ?? now
        phaseBegan = seenAt
        wanted = nil
        let detected = measure("detect", now)
        return [.decided(lostPrimary(how))] + detected + fence(now)
    }

    mutating func fence(_ now: MonotonicTime) -> [Action] {
        if phaseBegan == nil { (seenAt, phaseBegan) = (now, now) }
        if case .stopping(let heir) = phase { wanted = heir }
        enter(.fencing, until: now + FailoverMachine.fencingTime)
        record.step = .fenced
        cleanStop = nil
        isCheckpointed = false
        return [.lead(nil), .fence(attempt: attempt, node: record.primary, keep: record)]
    }

    mutating func fenced(_ outcome: Fencing, _ now: MonotonicTime) -> [Action] {
        guard phase == .fencing else { return [] }
        switch outcome {
        case .failed(let why):
            enter(.headless(why), until: now + FailoverMachine.fenceAgain)
            return isNews(why) ? [.decided(notFenced(why))] : []
        case .confirmed(let clean):
            nodes[record.primary - 1].isRunning = false
            (cleanStop, failure) = (clean, nil)
            // A switchover whose primary did not stop in order is a failover like any other.
            if !isForced, clean == nil { wanted = nil }
            enter(.choosing, until: now + FailoverMachine.askingTime)
            answers = [:]
            isPatient = true
            let measured = measure("fence", now), asked = others.filter { node($0).isRunning }
            for number in others where !node(number).isRunning { answers[number] = .some(nil) }
            let told: [Action] = measured + [.decided(isFenced(clean))]
            if asked.isEmpty { return told + choose(now) }
            return told + asked.map { .ask(attempt: attempt, node: $0) }
        }
    }

    var haveAllAnswers: Bool { others.allSatisfy { answers[$0] != nil } }

    /// Who takes over by what is known now.
    var choice: Decision<Int?> {
        let position = [lastPosition, cleanStop].compactMap { $0 }.max()
        let lost = HeirChoice.Lost(
            store: settings.name, number: record.primary, timeline: record.timeline, position: position,
            quorum: wasStrict ? settings.quorum : 0, wanted: wanted)
        return HeirChoice.choose(after: lost, among: others.map(standby), maxLoss: settings.maxLoss)
    }

    mutating func choose(_ now: MonotonicTime) -> [Action] {
        let old = record.primary, standbys = others.map(standby), choice = choice
        let told: [Action] = measure("choose", now) + [.decided(choice.record)]
        guard let heir = choice.result else { return told + backInPlace("nobody can take over: \(choice.record.sentence)") }
        let taken = standbys.first { $0.number == heir }?.position ?? WALPosition(0)
        // A stop in order sends the standbys all there is: where the heir lacks the end, it is no switchover without loss.
        if let cleanStop, wanted != nil, !isForced, taken < cleanStop {
            return told + [.decided(switchoverGivenUp(heir, taken, cleanStop))]
                + backInPlace("\(name(heir)) has not received the end of the log")
        }
        for standby in standbys where standby.number != heir {
            let follows = standby.position.map { $0 <= taken } ?? false
            if !follows || standby.timeline != record.timeline { record.toRewind.insert(standby.number) }
        }
        if cleanStop.map({ $0 > taken }) ?? true { record.toRewind.insert(old) }
        record.primary = heir
        record.term = record.term.addingClamped(1)
        record.step = .promoting
        (record.timeline, record.fork) = (nil, nil)
        nodes[old - 1].state = .fenced
        return told + promote(heir, now)
    }

    private func standby(_ number: Int) -> HeirChoice.Standby {
        let answer = answers[number] ?? nil, before = node(number).report
        return HeirChoice.Standby(
            number, position: answer?.role == .standby ? answer?.position : nil, timeline: answer?.timeline ?? before?.timeline,
            isSynchronous: wasStrict && before?.isReceiving == true, bound: node(number).bound)
    }

    /// The primary is started again with its own data.
    private mutating func backInPlace(_ why: String) -> [Action] {
        record.step = .leading
        enter(.forming)
        wanted = nil
        return answer(failure: "\(why); \(name(record.primary)) is started again")
    }

    mutating func promote(_ heir: Int, _ now: MonotonicTime) -> [Action] {
        enter(.promoting(heir: heir))
        // One that does not run is promoted when it answers again.
        guard node(heir).isRunning else { return [] }
        return [.promote(attempt: attempt, node: heir, keep: record)]
    }

    mutating func promoted(_ outcome: Promotion, _ now: MonotonicTime) -> [Action] {
        guard case .promoting(let heir) = phase else { return [] }
        switch outcome {
        case .failed(let why):
            deadline = now + FailoverMachine.promoteAgain
            return isNews(why) ? [.decided(notPromoted(heir, why))] : []
        case .done(let timeline, let fork):
            let measured = measure("promote", now)
            enter(.serving)
            failure = nil
            record.step = .leading
            record.hasServed = true
            (record.timeline, record.fork) = (timeline, fork)
            nodes[heir - 1].state = .primary
            (lastPosition, aloneSince, isRelaxed) = (fork, nil, false)
            // The record of the setting is made anew by the new primary's own answers; it begins strict.
            wasStrict = settings.quorum > 0
            let total = seenAt.map { now - $0 }
            (seenAt, phaseBegan) = (nil, nil)
            for number in 1...settings.nodes where number != heir { nodes[number - 1].detachedSince = nil }
            var actions: [Action] = [.keep(record), .lead(heir)] + measured
            if let total { actions.append(.measured(phase: "total", total)) }
            actions.append(.decided(isPromoted(heir, timeline, fork, total)))
            actions.append(.prepare(node: heir))
            for number in others where node(number).isRunning {
                let isFit = !record.toRewind.contains(number) && !record.toClone.contains(number)
                actions.append(isFit ? .follow(attempt: attempt, node: number, primary: heir) : .end(node: number))
            }
            actions.append(.checkpoint(attempt: attempt, node: heir))
            let isAsWanted = orderedHeir == nil || orderedHeir == heir
            return actions + answer(failure: isAsWanted ? nil : "the primary was lost meanwhile, and \(name(heir)) has taken over")
        }
    }

    /// The end of an order, if there is one.
    mutating func answer(failure: String?) -> [Action] {
        guard isOrdered else { return [] }
        (isOrdered, isForced, wanted, orderedHeir) = (false, false, nil, nil)
        return [.answered(failure: failure)]
    }

    mutating func checkpointed(_ failure: String?, _ now: MonotonicTime) -> [Action] {
        switch phase {
        case .checkpointing(let heir):
            guard failure == nil else {
                enter(.serving)
                return answer(failure: "the checkpoint of \(name(record.primary)) failed: \(failure ?? "")")
            }
            if let flaw = flaw(ofHeir: heir) {
                enter(.serving)
                return answer(failure: flaw)
            }
            enter(.stopping(heir: heir), until: now + FailoverMachine.stoppingTime)
            (seenAt, phaseBegan) = (now, now)
            return [.stop(node: record.primary)]
        case .serving:
            isCheckpointed = failure == nil
            return failure == nil ? [] : [.checkpoint(attempt: attempt, node: record.primary)]
        case .forming, .stopping, .fencing, .headless, .choosing, .promoting: return []
        }
    }

    // MARK: orders

    mutating func ordered(_ order: Order, _ now: MonotonicTime) -> [Action] {
        if isOrdered { return [.answered(failure: "another order is being carried out")] }
        switch order {
        case .promote(let heir, let isForced): return switchOver(to: heir, isForced: isForced, now)
        case .rejoin(let number): return rejoin(number)
        }
    }

    private mutating func switchOver(to heir: Int, isForced force: Bool, _ now: MonotonicTime) -> [Action] {
        guard heir != record.primary else { return [.answered(failure: nil)] }
        switch phase {
        case .serving:
            if let flaw = flaw(ofHeir: heir) { return [.answered(failure: flaw)] }
            (isOrdered, orderedHeir) = (true, heir)
            enter(.checkpointing(heir: heir), until: now + FailoverMachine.checkpointTime)
            return [.decided(switchoverBegins(heir)), .checkpoint(attempt: attempt, node: record.primary)]
        case .forming where !node(record.primary).isRunning:
            if !force {
                let why = "\(name(record.primary)) leads and does not run: start it, or give up what only it has (--force)"
                return [.answered(failure: why)]
            }
            guard (1...settings.nodes).contains(heir), node(heir).isRunning else {
                return [.answered(failure: "\(name(heir)) does not run")]
            }
            (isOrdered, isForced, orderedHeir) = (true, true, heir)
            (seenAt, phaseBegan) = (now, now)
            let fencing = fence(now)
            wanted = heir
            return [.decided(forced(heir))] + fencing
        case .forming: return [.answered(failure: "\(name(record.primary)) starts now: wait until it serves, or has ended")]
        case .checkpointing, .stopping, .fencing, .headless, .choosing, .promoting:
            return [.answered(failure: "a change of the primary is under way")]
        }
    }

    /// Why a standby cannot take over without loss now; nil: it can.
    public func flaw(ofHeir heir: Int) -> String? {
        guard (1...settings.nodes).contains(heir) else { return "there is no node \(heir): there are 1 to \(settings.nodes)" }
        if heir == record.primary { return nil }
        guard node(heir).state == .streaming else { return "\(name(heir)) is \(state(of: heir).rawValue), not streaming" }
        guard let lag = lag(of: heir) else { return "how far \(name(heir)) is behind is not known" }
        return lag < FailoverMachine.switchoverLag
            ? nil : "\(name(heir)) is \(lag) bytes behind; a switchover takes one that is less than 1 MiB behind"
    }

    /// Why a node cannot be made to rejoin now; nil: it can.
    public func flaw(ofRejoining number: Int) -> String? {
        guard (1...settings.nodes).contains(number) else { return "there is no node \(number): there are 1 to \(settings.nodes)" }
        if number == record.primary { return "\(name(number)) is the primary: it has nobody to follow" }
        return phase == .serving ? nil : "no primary serves now"
    }

    private mutating func rejoin(_ number: Int) -> [Action] {
        if let flaw = flaw(ofRejoining: number) { return [.answered(failure: flaw)] }
        return again(number, because: "somebody asked for it") + [.answered(failure: nil)]
    }
}
