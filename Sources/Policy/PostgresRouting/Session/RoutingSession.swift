import Basics

/// How a text went, as its server (or the router) answered it.
public struct TextOutcome: Sendable, Equatable {
    /// The status that ReadyForQuery tells.
    public enum Transaction: Sendable { case idle, open, failed }

    /// The statements that were carried out before the first error; nil: all of them.
    public let completed: Int?
    public let transaction: Transaction?

    /// Everything was carried out.
    public static let success = TextOutcome(completed: nil)

    /// - Parameter transaction: as far as the server said it; nil, what follows from the text.
    public init(completed: Int?, transaction: Transaction? = nil) {
        self.completed = completed
        self.transaction = transaction
    }
}

/// One client's session: decides where each text goes, and remembers what that does to the session. A pure machine.
///
/// For each text: `route`, then `answered` with how it went; in between nothing else. A text that no server saw (a refusal whose `server`
/// is nil) needs no `answered`.
///
/// The order of the rules: pinned session, open transaction, hint or route, statement.
///
/// - Complexity: a plain read outside of a transaction, found in the cache, costs no allocation.
public struct RoutingSession: Sendable {
    private var state: TextPlan.State
    /// What the state becomes when the text is carried out.
    private var next: TextPlan.State?
    private var profile: TextProfile?

    /// - Parameters:
    ///   - user: for `$user` in the search path.
    ///   - reported: what the server reports at a connection's start, such as `default_transaction_read_only`.
    ///   - options: what the client asked for when it connected, such as `muster.route`. Carried like a setting; RESET goes back to it.
    public init(user: String, reported: [String: String] = [:], options: [String: String] = [:]) {
        state = TextPlan.State(settings: SessionSettings(user: user, reported: reported, options: options))
    }

    public var isPinned: Bool { !state.pins.isEmpty }
    /// The first reason for the pin, in the order of `PinReason`.
    public var pin: PinReason? { state.pins.first }
    /// Where the open transaction is; nil: there is none, or no server knows of it.
    public var transactionServer: ServerRole? { state.transaction?.server }
    public var isInTransaction: Bool { state.transaction != nil }
    /// What is carried to each connection that serves the session.
    public var settings: SessionSettings { state.settings }
    /// Whether a connection that served it is closed afterwards instead of cleaned.
    public var endsWithClosing: Bool { state.pins.contains(.library) || state.pins.contains(.seed) }

    /// Where `text` goes. The text is one simple query, with as many statements as it has.
    public mutating func route(_ text: UnsafeRawBufferPointer, _ catalog: RoutingCatalog, _ cache: inout VerdictCache) -> RouteVerdict {
        let profile =
            text.count > TextProfile.longest || isMisread(text) ? .unread(text) : cache.profile(text, catalog, state.settings.path)
        return route(profile, text)
    }

    /// Whether PostgreSQL, with the session's settings, would read the text otherwise than its parser does here.
    private func isMisread(_ text: UnsafeRawBufferPointer) -> Bool {
        if state.settings.hidesASCII, text.contains(where: { $0 >= 128 }) { return true }
        return state.settings.escapesByBackslash && text.contains(UInt8(ascii: "\\"))
    }

    /// The same of a text in memory of ours.
    public mutating func route(_ text: String, _ catalog: RoutingCatalog, _ cache: inout VerdictCache) -> RouteVerdict {
        var text = text
        return text.withUTF8 { route(UnsafeRawBufferPointer($0), catalog, &cache) }
    }

    private mutating func route(_ profile: TextProfile, _ text: UnsafeRawBufferPointer) -> RouteVerdict {
        self.profile = profile
        next = nil
        if profile.isPlainRead, state.transaction == nil, state.pins.isEmpty, state.settings.route == .auto, !state.settings.isReadOnly,
            !state.settings.isSerializable
        {
            return .plainRead
        }
        if profile.statements.isEmpty { return empty() }
        var plan = planned(profile, prefersPrimary: false)
        let wantsPrimary = plan.refusesForReplica || plan.refusal == nil && plan.need == .primary
        if plan.tookReplica, wantsPrimary, plan.startServer != .replica { plan = planned(profile, prefersPrimary: true) }
        return verdict(plan, profile, text)
    }

    private func planned(_ profile: TextProfile, prefersPrimary: Bool) -> TextPlan {
        var plan = TextPlan(state, hint: profile.hint, count: profile.statements.count, prefersPrimary: prefersPrimary)
        for statement in profile.statements where !plan.step(statement) { break }
        plan.finish()
        return plan
    }

    private func empty() -> RouteVerdict {
        if isPinned { return RouteVerdict(.pinned, .pinnedSession) }
        guard let server = transactionServer else { return RouteVerdict(.either, .empty) }
        return RouteVerdict(server == .primary ? .primary : .replica, .openTransaction)
    }

    private mutating func verdict(_ plan: TextPlan, _ profile: TextProfile, _ text: UnsafeRawBufferPointer) -> RouteVerdict {
        let reason = plan.reason ?? TextPlan.Reason(rule: .noted)
        var after = plan.state
        let isPinnedAfter = !after.pins.isEmpty
        if let refusal = plan.refusal {
            // Nothing of the text is done, but an open transaction has failed.
            let failed = after.transaction
            if var open = state.transaction, open.isExplicit {
                open.server = open.server ?? failed?.server
                open.isReadOnly = failed?.isReadOnly ?? open.isReadOnly
                open.isFailed = true
                open.isFailedHere = refusal.server == nil
                if refusal.server == nil { open.server = state.transaction?.server ?? open.server }
                state.transaction = open
            }
            return RouteVerdict(
                .refused, reason.rule, finding: reason.finding, subject: reason.subject, refusal: refusal,
                prelude: refusal.server == nil ? [] : takeHeld())
        }
        let target: RouteVerdict.Target =
            isPinnedAfter && (plan.beganPinned || plan.need == .primary)
            ? .pinned : plan.need == .primary ? .primary : plan.need == .replica ? .replica : .either
        var afterwards = plan.afterwards
        if plan.beganPinned, !isPinnedAfter { afterwards.insert(.unpinned) }
        var prelude: [String] = []
        if target == .either {
            hold(profile, text, &after)
        } else if let transaction = state.transaction, !transaction.held.isEmpty || plan.leavesReplica {
            prelude = plan.leavesReplica ? [transaction.beginning] : transaction.held
            if transaction.server == nil, plan.state.transaction?.isForcedReadOnly == true { prelude.append("SET TRANSACTION READ ONLY") }
            after.transaction?.held = []
        }
        next = after
        let open = state.transaction
        let failsHere = open?.isFailedHere == true
        let ends = profile.statements.count == 1 && after.transaction == nil
        return RouteVerdict(
            target, plan.beganPinned && !isPinnedAfter ? .pinsEnd : reason.rule, finding: reason.finding, subject: reason.subject,
            prelude: prelude, leading: plan.need == .primary ? plan.leading : 0, leavesReplica: plan.leavesReplica,
            isAnsweredAsFailed: failsHere && after.transaction?.isFailedHere == true, replacement: failsHere && ends ? "ROLLBACK" : nil,
            afterwards: afterwards,
            mayMoveToPrimary: target == .replica && open == nil && after.transaction == nil && reason.rule == .reads)
    }

    private mutating func takeHeld() -> [String] {
        defer { state.transaction?.held = [] }
        return state.transaction?.held ?? []
    }

    /// A text that is answered without a server, in a transaction that no server knows: it is sent before the first that needs one.
    private func hold(_ profile: TextProfile, _ text: UnsafeRawBufferPointer, _ after: inout TextPlan.State) {
        guard after.transaction != nil else { return }
        var held = state.transaction?.held ?? []
        if case .commit(chain: true)? = profile.statements.last?.action { held = [] }
        if case .rollback(chain: true)? = profile.statements.last?.action { held = [] }
        if held.isEmpty, let chained = after.transaction?.held, !chained.isEmpty {
            after.transaction?.held = chained
            return
        }
        let isRouters = profile.statements.allSatisfy {
            if case .settings(let changes) = $0.action { changes.allSatisfy { $0.name.hasPrefix("muster.") } } else { false }
        }
        let isNothing = profile.statements.allSatisfy {
            $0.action == .discardOther || $0.action == .discardTemporary || $0.action == .deallocate(nil)
        }
        if !isRouters, !isNothing { held.append(text.string) }
        after.transaction?.held = held
    }
}

extension RoutingSession {
    /// The text that was routed last has been answered.
    ///
    /// An error outside of a transaction undoes the text's settings and what ROLLBACK undoes; in a transaction it leaves the transaction
    /// failed. What survives an error (an advisory lock, the random seed, a text that nobody read) is taken for done.
    public mutating func answered(_ outcome: TextOutcome) {
        guard let profile else { return }
        defer {
            self.profile = nil
            next = nil
        }
        if let completed = outcome.completed {
            failed(profile, completed)
        } else if let next {
            state = next
        }
        if let transaction = outcome.transaction { reconcile(transaction) }
    }

    private mutating func failed(_ profile: TextProfile, _ completed: Int) {
        let before = state
        // Those before the error, and then the failure.
        var plan = TextPlan(
            state, hint: profile.hint, count: profile.statements.count, prefersPrimary: next?.transaction?.server == .primary)
        for statement in profile.statements.prefix(max(0, completed)) where !plan.step(statement) { break }
        var after = plan.state
        if profile.statements.count > completed, completed >= 0 {
            for pin in profile.statements[completed].pins where pin == .advisoryLock || pin == .seed || pin == .unread {
                after.pins.insert(pin)
            }
            if profile.statements[completed].action == .prepareTransaction {
                after.transaction = nil
                after.settings = before.transaction?.start.settings ?? after.settings
            }
        }
        if var transaction = after.transaction {
            if transaction.isExplicit {
                transaction.isFailed = true
                transaction.held = []
                // The failed statement told the server.
                transaction.server = transaction.server ?? next?.transaction?.server ?? .primary
                after.transaction = transaction
            } else {
                after.settings = transaction.start.settings
                after.settings.endTransaction()
                after.pins.rollBack(to: transaction.start.pins)
                after.transaction = nil
            }
        }
        state = after
    }

    /// The server's word on the transaction wins: a text that was not read may have begun or ended one.
    private mutating func reconcile(_ status: TextOutcome.Transaction) {
        switch status {
        case .idle:
            guard let transaction = state.transaction, transaction.server != nil, !transaction.isFailedHere else { return }
            state.settings.endTransaction()
            state.transaction = nil
        case .open, .failed:
            if state.transaction == nil {
                var transaction = TransactionState(state.settings, state.pins, isSingle: false)
                transaction.isExplicit = true
                transaction.server = .primary
                state.transaction = transaction
            }
            let isFailedHere = state.transaction?.isFailedHere == true
            state.transaction?.isFailed = status == .failed || isFailedHere
        }
    }

    /// After `Afterwards.checkAdvisoryLocks`: whether the session still holds one.
    ///
    /// - Returns: true when the session's last pin ended by it, so that its connection is cleaned and given back.
    public mutating func advisoryLocks(held: Bool) -> Bool {
        if held {
            state.pins.insert(.advisoryLock)
            return false
        }
        let wasPinned = isPinned
        state.pins.remove(.advisoryLock)
        return wasPinned && !isPinned
    }

    /// The server reported a parameter (ParameterStatus) in answer to a text of this session, or at its start.
    public mutating func parameterReported(_ name: String, _ value: String) { state.settings.reported(name, value) }
}
