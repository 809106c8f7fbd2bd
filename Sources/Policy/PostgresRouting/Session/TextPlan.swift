/// Carries a text's statements out on a copy of a session's state, one after the other, and gathers what they ask for. Pure: a text is
/// planned anew when it turns out that a part of it failed.
struct TextPlan {
    /// What one target must offer for all statements so far; of two, the larger.
    enum Need: Int { case either, replica, primary }

    struct Reason {
        var rule: RouteVerdict.Rule
        var finding: Finding?
        var subject = ""
    }

    struct State: Sendable, Equatable {
        var settings: SessionSettings
        var pins = Pins()
        var transaction: TransactionState?
    }

    var state: State
    let hint: Route?
    let count: Int
    /// READ ONLY transactions of this text open on the primary: a later statement of it needs that.
    let prefersPrimary: Bool
    let beganPinned: Bool
    /// Where the transaction is in which the text begins.
    let startServer: ServerRole?

    private(set) var need = Need.either
    private(set) var reason: Reason?
    private(set) var refusal: RouteVerdict.Refusal?
    private(set) var tookReplica = false
    private(set) var refusesForReplica = false
    private(set) var leading = 0
    private(set) var leavesReplica = false
    private(set) var afterwards: RouteVerdict.Afterwards = []
    private var done = 0
    /// The number of statements up to the end of the transaction in which the text began; 0: it has not ended.
    private var leftAt = 0

    init(_ state: State, hint: Route?, count: Int, prefersPrimary: Bool = false) {
        self.state = state
        self.hint = hint
        self.count = count
        self.prefersPrimary = prefersPrimary
        beganPinned = !state.pins.isEmpty
        startServer = state.transaction?.server
        if self.state.transaction == nil { beginImplicit() }
    }

    private mutating func beginImplicit() { state.transaction = TransactionState(state.settings, state.pins, isSingle: count == 1) }

    /// Plans one statement; false when it is refused, and with it the text.
    mutating func step(_ statement: StatementProfile) -> Bool {
        // The state always has a transaction here: that of the session, or an implicit one.
        if var transaction = state.transaction {
            state.transaction = nil
            let goesOn = step(statement, &transaction)
            state.transaction = transaction
            if hasEnded {
                hasEnded = false
                if let next = chained { state.transaction = next } else { beginImplicit() }
                chained = nil
            }
            done += 1
            return goesOn
        }
        return true
    }

    private var hasEnded = false
    private var chained: TransactionState?

    /// After the last statement: what was implicit ends.
    mutating func finish() {
        guard let transaction = state.transaction else { return }
        if !transaction.isExplicit {
            state.transaction = nil
            state.settings.endTransaction()
        } else if need == .primary, transaction.server != nil, startServer != .replica || leading > 0 {
            state.transaction?.server = .primary
        }
    }

    // MARK: needs

    private mutating func demand(_ role: ServerRole, _ rule: RouteVerdict.Rule, _ finding: Finding? = nil, _ subject: String = "") {
        let wanted: Need = role == .primary ? .primary : .replica
        // A transaction on a replica has ended in this text, and the rest needs the primary: what is before goes there first.
        if startServer == .replica, leftAt > 0, wanted == .primary { leading = leftAt }
        if role == .replica { tookReplica = true }
        if wanted.rawValue > need.rawValue || reason == nil || reason?.rule == .held || reason?.rule == .noted {
            reason = Reason(rule: rule, finding: finding, subject: subject)
        }
        if wanted.rawValue > need.rawValue { need = wanted }
    }

    private mutating func note(_ rule: RouteVerdict.Rule) { if reason == nil { reason = Reason(rule: rule) } }

    private mutating func refuse(
        _ rule: RouteVerdict.Rule, _ state: String, _ message: String, _ finding: Finding?, _ subject: String, on server: ServerRole?
    ) {
        reason = Reason(rule: rule, finding: finding, subject: subject)
        refusal = RouteVerdict.Refusal(sqlState: state, message: message, server: server)
    }

    // MARK: statements

    private mutating func step(_ statement: StatementProfile, _ transaction: inout TransactionState) -> Bool {
        if beganPinned {
            demand(.primary, .pinnedSession)
            transaction.server = .primary
        }
        if transaction.isFailed, !endsFailure(statement.action) {
            demand(transaction.server ?? .primary, .failedTransaction)
            return true
        }
        if statement.effects.contains(.needsNoServer) || statement.action == .prepareTransaction {
            return control(statement, &transaction)
        }
        guard run(statement, &transaction) else { return false }
        apply(statement)
        return true
    }

    private func endsFailure(_ action: StatementProfile.Action) -> Bool {
        switch action {
        case .commit, .rollback, .rollbackTo, .prepareTransaction: true
        default: false
        }
    }

    /// What a statement that a server carried out leaves in the session.
    private mutating func apply(_ statement: StatementProfile) {
        for pin in statement.pins where pin != .prepared { state.pins.insert(pin) }
        switch statement.action {
        case .prepare(let name): state.pins.prepare(name)
        case .deallocate(let name): state.pins.deallocate(name)
        case .unlistenAll: state.pins.remove(.listen)
        case .closeAll: state.pins.remove(.heldCursor)
        default: break
        }
        if !statement.effects.isDisjoint(with: [.code, .volatile, .unknownFunction]) { afterwards.insert(.discardAll) }
        if statement.makesValues { afterwards.insert(.discardSequences) }
        if statement.changesCatalog { afterwards.insert(.readCatalog) }
        if statement.touchesAdvisoryLocks { afterwards.insert(.checkAdvisoryLocks) }
    }

    /// Finds a server for a statement that needs one.
    private mutating func run(_ statement: StatementProfile, _ transaction: inout TransactionState) -> Bool {
        let effects = statement.effects
        if beganPinned { return true }
        if effects.contains(.needsValue), !transaction.isExplicit {
            refuse(
                .sequenceValue, "55000",
                "no value was taken from the sequence on a connection of this session: take it by RETURNING, or in one transaction",
                .currval, statement.subject, on: nil)
            return false
        }
        if let server = transaction.server, !(transaction.isFresh && server == .replica) { return run(statement, &transaction, on: server) }
        let route = hint ?? transaction.route ?? state.settings.route
        if transaction.isSerializable {
            return open(statement, &transaction, on: .primary, .serializable)
        } else if route == .replica {
            if !transaction.isReadOnly {
                transaction.isReadOnly = true
                transaction.isForcedReadOnly = true
            }
            return asked(statement, &transaction)
        } else if route == .primary {
            return open(statement, &transaction, on: .primary, hint == .primary || transaction.route == .primary ? .hint : .route)
        } else if transaction.isReadOnly {
            let needsPrimary = !effects.isDisjoint(with: .primaryInReadOnly)
            let rule: RouteVerdict.Rule = transaction.isExplicit ? .readOnlyTransaction : .readOnlyDefault
            let role: ServerRole = !effects.contains(.writes) && (needsPrimary || prefersPrimary) ? .primary : .replica
            return open(statement, &transaction, on: role, needsPrimary ? .primaryInReadOnly : rule)
        } else if transaction.isExplicit {
            return open(statement, &transaction, on: .primary, .readWriteTransaction)
        }
        if effects.isEmpty {
            demand(.replica, .reads)
        } else {
            demand(.primary, effects.contains(.pins) ? .pins : .statement, statement.finding, statement.subject)
        }
        return true
    }

    /// The first statement of a transaction that needs a server.
    private mutating func open(
        _ statement: StatementProfile, _ transaction: inout TransactionState, on role: ServerRole, _ rule: RouteVerdict.Rule
    ) -> Bool {
        if transaction.isFresh, transaction.server == .replica, role == .primary {
            leavesReplica = true
            transaction.held = [transaction.beginning]
        }
        transaction.isFresh = false
        transaction.server = role
        if transaction.isReadOnly, statement.effects.contains(.writes) { return refuseWrite(statement, &transaction, on: role) }
        demand(role, rule, rule == .primaryInReadOnly ? statement.finding(of: .primaryInReadOnly)?.finding : nil, statement.subject)
        return true
    }

    /// A replica was asked for, by a hint or the route.
    private mutating func asked(_ statement: StatementProfile, _ transaction: inout TransactionState) -> Bool {
        let cannot: Effects = [.writes, .primaryOnly, .pins, .unknown]
        transaction.server = .replica
        transaction.isFresh = false
        guard statement.effects.isDisjoint(with: cannot) else {
            let found = statement.finding(of: cannot)
            refuse(
                .contradictsReplica, "25006",
                "a replica was asked for, and this statement needs the primary: it \(found?.finding.words ?? "")",
                found?.finding, found?.subject ?? "", on: nil)
            failHere(&transaction)
            return false
        }
        demand(.replica, hint == .replica || transaction.route == .replica ? .hint : .route)
        return true
    }

    /// A statement in a transaction that has its server.
    private mutating func run(_ statement: StatementProfile, _ transaction: inout TransactionState, on server: ServerRole) -> Bool {
        if transaction.isReadOnly, statement.effects.contains(.writes) { return refuseWrite(statement, &transaction, on: server) }
        if server == .replica, !statement.effects.isDisjoint(with: [.primaryOnly, .pins, .unknown]) {
            let found = statement.finding(of: [.primaryOnly, .pins, .unknown])
            refusesForReplica = true
            refuse(
                .primaryOnlyOnReplica, "25006",
                "this READ ONLY transaction is on a replica, and the statement needs the primary: it \(found?.finding.words ?? ""); "
                    + "let it be the transaction's first statement, or begin the transaction without READ ONLY",
                found?.finding, found?.subject ?? "", on: nil)
            failHere(&transaction)
            return false
        }
        demand(server, .openTransaction)
        return true
    }

    private mutating func refuseWrite(_ statement: StatementProfile, _ transaction: inout TransactionState, on server: ServerRole) -> Bool {
        let found = statement.finding(of: .writes)
        // The server refuses by itself what its own rules know as a write; it does not know what the stack file declares, and large
        // objects it refuses with other errors.
        let isServers = found?.finding != .declaredWrites && found?.finding != .writingFunction
        refuse(
            .writeInReadOnly, "25006", "this transaction is READ ONLY, and the statement \(found?.finding.words ?? "writes")",
            found?.finding,
            found?.subject ?? "", on: isServers ? server : nil)
        if isServers { transaction.isFailed = transaction.isExplicit } else { failHere(&transaction) }
        return false
    }

    private mutating func failHere(_ transaction: inout TransactionState) {
        guard transaction.isExplicit else { return }
        transaction.isFailed = true
        transaction.isFailedHere = true
    }
}

// MARK: transactions, settings, what the router answers

extension TextPlan {
    fileprivate mutating func control(_ statement: StatementProfile, _ transaction: inout TransactionState) -> Bool {
        switch statement.action {
        case .begin(let modes):
            if !transaction.isExplicit { transaction.route = hint }
            transaction.isExplicit = true
            transaction.take(modes)
            return onServerOrHeld(&transaction)
        case .commit(let chain): return end(&transaction, commits: !transaction.isFailed, chain: chain)
        case .rollback(let chain): return end(&transaction, commits: false, chain: chain)
        case .prepareTransaction:
            guard transaction.isExplicit || beganPinned else {
                demand(.primary, .statement, .twoPhase)
                return true
            }
            if transaction.isFailed { return end(&transaction, commits: false, chain: false) }
            guard run(statement, &transaction) else { return false }
            return end(&transaction, commits: true, chain: false)
        case .savepoint, .rollbackTo, .release: return savepoint(statement.action, &transaction)
        case .setTransaction(let modes):
            guard transaction.isExplicit || !transaction.isSingle else { return answered(.noted) }
            if transaction.server != .replica || modes.isReadOnly != false { transaction.take(modes) }
            return onServerOrHeld(&transaction)
        default: return session(statement, &transaction)
        }
    }

    /// A statement that goes along with an open transaction, and is held in one that no server knows.
    private mutating func onServerOrHeld(_ transaction: inout TransactionState) -> Bool {
        if transaction.isExplicit, transaction.server == nil, transaction.holdsMost {
            transaction.server = transaction.isReadOnly && !transaction.isSerializable ? .replica : .primary
        }
        if let server = transaction.server {
            demand(server, .openTransaction)
        } else {
            note(transaction.isExplicit ? .held : .noted)
        }
        return true
    }

    private mutating func answered(_ rule: RouteVerdict.Rule) -> Bool {
        note(rule)
        return true
    }

    /// The end of the transaction; `chain` begins another with the same modes, on the same server.
    private mutating func end(_ transaction: inout TransactionState, commits: Bool, chain: Bool) -> Bool {
        guard transaction.isExplicit else {
            // AND CHAIN outside of a transaction is an error, and the primary gives it.
            if chain { demand(.primary, .statement, .sessionCommand) } else { note(.noted) }
            guard !commits || !transaction.isSingle else { return true }
            if !commits { rollBack(to: transaction.start) }
            state.settings.endTransaction()
            hasEnded = true
            return true
        }
        if let server = transaction.server { demand(server, .openTransaction) } else { note(.held) }
        if commits { state.settings.endTransaction() } else { rollBack(to: transaction.start) }
        if leftAt == 0, startServer != nil { leftAt = done + 1 }
        hasEnded = true
        guard chain else { return true }
        var next = TransactionState(state.settings, state.pins, isSingle: transaction.isSingle)
        next.isExplicit = true
        next.isReadOnly = transaction.isReadOnly
        next.isolation = transaction.isolation
        next.route = transaction.route
        next.server = transaction.server
        next.isFresh = transaction.server == .replica && !transaction.isForcedReadOnly
        if transaction.server == nil { next.held = [next.beginning] }
        chained = next
        if next.server != nil { leftAt = 0 }
        return true
    }

    private mutating func rollBack(to snapshot: TransactionState.Snapshot) {
        state.settings = snapshot.settings
        state.pins.rollBack(to: snapshot.pins)
    }

    private mutating func savepoint(_ action: StatementProfile.Action, _ transaction: inout TransactionState) -> Bool {
        guard transaction.isExplicit else {
            // The error is the primary's to give.
            demand(.primary, .statement, .sessionCommand)
            return true
        }
        switch action {
        case .savepoint(let name):
            transaction.savepoints.append(
                .init(
                    name: name,
                    snapshot: .init(settings: state.settings, pins: state.pins, isReadOnly: transaction.isReadOnly)))
        case .rollbackTo(let name):
            guard let place = transaction.savepoints.lastIndex(where: { $0.name == name }) else { break }
            let snapshot = transaction.savepoints[place].snapshot
            rollBack(to: snapshot)
            transaction.isReadOnly = snapshot.isReadOnly
            transaction.isFailed = false
            transaction.isFailedHere = false
            transaction.savepoints.removeSubrange((place + 1)...)
        case .release(let name):
            guard let place = transaction.savepoints.lastIndex(where: { $0.name == name }) else { break }
            // READ ONLY that was said after the savepoint ends with it, as the server has it.
            transaction.isReadOnly = transaction.savepoints[place].snapshot.isReadOnly
            transaction.savepoints.removeSubrange(place...)
        default: break
        }
        return onServerOrHeld(&transaction)
    }

    /// Settings, and what the router answers by itself.
    private mutating func session(_ statement: StatementProfile, _ transaction: inout TransactionState) -> Bool {
        switch statement.action {
        case .settings(let changes):
            for change in changes {
                if change.name == SessionSettings.route, case .set(let words, _) = change.value,
                    Route(rawValue: words.first?.asciiLowercased ?? "") == nil
                {
                    refuseRoute(&transaction)
                    return false
                }
                if change.isLocal, !transaction.isExplicit, transaction.isSingle { continue }
                state.settings.take(change)
            }
            return changes.allSatisfy { $0.name.hasPrefix("muster.") } ? answered(.noted) : onServerOrHeld(&transaction)
        case .resetAll:
            state.settings.resetAll()
            return onServerOrHeld(&transaction)
        case .resetRole:
            state.pins.remove(.role)
            return onServerOrHeld(&transaction)
        case .localRole: return onServerOrHeld(&transaction)
        case .deallocate: state.pins.deallocate(nil)
        case .discardTemporary: state.pins.remove(.temporary)
        case .discardAll:
            guard !transaction.isExplicit, transaction.isSingle else {
                // An error in a transaction, which the server gives.
                demand(transaction.server ?? (transaction.isReadOnly && !transaction.isSerializable ? .replica : .primary), .statement)
                return true
            }
            state.pins.discardAll()
            state.settings.resetAll()
        default: break
        }
        if let server = transaction.server { demand(server, .openTransaction) } else { note(.noted) }
        return true
    }

    private mutating func refuseRoute(_ transaction: inout TransactionState) {
        reason = Reason(rule: .badRoute)
        refusal = RouteVerdict.Refusal(
            sqlState: "22023", message: "muster.route is primary, replica or auto: say one of these", server: nil)
        if transaction.isExplicit {
            transaction.isFailed = true
            transaction.isFailedHere = true
        }
    }
}
