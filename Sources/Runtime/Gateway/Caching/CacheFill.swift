import Basics
import Caching
import EventLoops
import HTTP
import Resilience

/// One fetch of the cache's on its loop: the client's side of an exchange that no client waits for. It goes on whether or not somebody does.
///
/// What comes is kept in a `CacheFlow`, from which requests read, and is stored when it is whole. What is not for sharing goes straight to
/// the request that led.
final class CacheFill {
    /// What happens to the answer.
    private enum Mode {
        /// Its head has not come.
        case asking
        /// It is kept, and will be stored.
        case keeping
        /// It is passed to those who read already, piece by piece, and not kept: it is larger than what is stored.
        case passing
        /// It goes to the leader alone.
        case direct
        /// It goes nowhere.
        case dropping
        /// It was a 304 about something else: the origin is asked again, without a condition.
        case again
    }

    private let gateway: GatewayLoop
    let flow: CacheFlow
    private let origin: Origin
    private var exchange: Exchange?
    private var leader: CacheVisit?
    private var mode = Mode.asking
    private var asked: MonotonicTime
    /// Bytes that have come.
    private var count = 0
    /// Free bytes of the last piece.
    private var room = 0
    private var length: Int?
    /// What has come since readers were told.
    private var isNews = false
    private var isOver = false

    /// What a fetch needs of the request that began it.
    struct Origin {
        let target: [UInt8]
        let id: [UInt8]
        let client: IPAddress?
        let key: UInt64?
        let route: RouteOnLoop
        let pool: PoolOnLoop?
        /// The head for the backend, without its last line end.
        let head: [UInt8]
        let directives: RequestDirectives
    }

    /// Pieces of a body whose length nobody knows, at first; they grow to the largest.
    private static let firstPiece = 4096
    private static let largestPiece = 128 << 10

    init(_ gateway: GatewayLoop, _ flow: CacheFlow, _ origin: Origin, leader: CacheVisit?) {
        self.gateway = gateway
        self.flow = flow
        self.origin = origin
        self.leader = leader
        asked = gateway.loop.now
    }

    private var store: ResponseCache { flow.cache.store }

    /// Asks the origin.
    func begin() {
        store.metrics.fills.add()
        ask(conditional: flow.validating != nil)
    }

    private func ask(conditional: Bool) {
        mode = .asking
        asked = .now
        let exchange = gateway.lendExchange()
        self.exchange = exchange
        exchange.beginFill(self, origin, validating: conditional ? flow.validating : nil)
    }

    // MARK: the client's side of the exchange

    /// Bytes that wait for those who read.
    var waiting: Int {
        switch mode {
        case .direct: leader?.exchange.client?.waiting ?? 0
        case .passing: count - flow.note { $0.readers.map(\.position).min() ?? count }
        default: 0
        }
    }

    func interim(_ table: HeadTable, _ edits: HeaderEdits?) {
        guard mode == .asking, let client = leader?.exchange.client, client.takesInterims else { return }
        client.interim(table, edits)
    }

    func respond(_ table: HeadTable) {
        let now = MonotonicTime.now, wall = WallTime.now
        var facts = ResponseFacts(status: table.status)
        let fields = CacheFill.storable(table, &facts)
        let freshness = Freshness(facts, asked: asked, came: now, cameWall: wall)
        if table.status == 304, let old = flow.validating { return renew(old, by: fields, facts, freshness, now) }
        if Reuse.isFailure(table.status), let old = flow.validating, mayServeStale(old, now) {
            mode = .dropping
            old.refreshFailed(now)
            return fail(CacheFailure(status: table.status, type: nil, body: [], lines: []))
        }
        let names = flow.cache.selectingNames(facts)
        var verdict = Storability.verdict(flow.request, facts, freshness, now: now)
        if names == nil, verdict == .stored { verdict = .varyAny }
        if case .length(let size) = table.framing {
            length = size
            if size > store.largestObject, verdict == .stored { verdict = .tooLarge }
        } else if case .none = table.framing {
            length = 0
        }
        guard verdict == .stored, let names, let selecting = leaderForms(names) else {
            return pass(table, facts, verdict == .stored ? .varyAny : verdict, now)
        }
        let content = CacheEntry.Content(
            key: flow.key, route: flow.cache.number, selecting: selecting, facts: facts, freshness: freshness,
            lines: CacheLines.render(CacheFill.dated(fields, wall)), leader: origin.id,
            isCompressible: Compressible.isWorthwhile(fields, facts))
        mode = .keeping
        let head = CacheFlow.Head(
            content: content, length: length, isStream: table.first(.contentType).map { Compressible.isStream($0) } ?? false)
        noteWay()
        flow.change { state in
            _ = state.line.headCame(isShared: true)
            state.head = head
        }
    }

    /// The forms of the request that led. A background refresh has none: it was made with the fields of what it renews.
    private func leaderForms(_ names: [[UInt8]]) -> [SelectingField]? {
        let known = flow.known + (flow.validating?.selecting ?? [])
        if let visit = leader, visit.flow === flow { return visit.selecting(names) }
        var out: [SelectingField] = []
        for name in names {
            if let field = known.first(where: { $0.name == name }) ?? origin.form(name, flow.cache) { out.append(field) }
        }
        return out.count == names.count ? out : nil
    }

    /// The end-to-end fields of an answer, as they may be stored; tells `facts` all of them.
    private static func storable(_ table: HeadTable, _ facts: inout ResponseFacts) -> [FieldMerge.Field] {
        var out: [FieldMerge.Field] = []
        for field in table.fields {
            let name = table.text(field.name), value = table.text(field.value)
            facts.take(name, value)
            switch field.known {
            case .contentLength, .connection, .transferEncoding, .keepAlive, .proxyConnection, .te, .trailer, .upgrade, .proxyAuthorization,
                .proxyAuthenticate, .xMusterExplain, .xRequestID:
                continue
            default: break
            }
            if table.nominatesFields, table.isNominated(field.name) { continue }
            if name.equals("age") || name.equals("cache-tag") || name.equals("proxy-authentication-info") { continue }
            out.append(FieldMerge.Field(name: Array(name), value: Array(value)))
        }
        return out
    }

    private static func dated(_ fields: [FieldMerge.Field], _ now: WallTime) -> [FieldMerge.Field] {
        let hasDate = fields.contains { $0.name.withUnsafeBytes { $0.equals("date") } }
        if hasDate { return fields }
        return fields + [FieldMerge.Field(name: Array("Date".utf8), value: Array(httpDate(seconds: now.milliseconds / 1000).utf8))]
    }

    private func mayServeStale(_ old: CacheEntry, _ now: MonotonicTime) -> Bool {
        old.reuse(trusted: flow.cache.spec.trustsStale).mayServeOnError(origin.directives, now: now)
    }

    /// A 304 has come: renews what is stored.
    private func renew(
        _ old: CacheEntry, by fields: [FieldMerge.Field], _ given: ResponseFacts, _ freshness: Freshness, _ now: MonotonicTime
    ) {
        guard Conditional.fits(given, stored: old.facts) else {
            mode = .again
            store.remove(old)
            return
        }
        mode = .dropping
        let merged = CacheFill.dated(FieldMerge.renewed(CacheLines.fields(old.lines), by: fields), .now)
        var facts = ResponseFacts(status: old.facts.status)
        for field in merged {
            field.name.withUnsafeBytes { name in field.value.withUnsafeBytes { value in facts.take(name, value) } }
        }
        facts.age = given.age
        facts.tags = given.tags.isEmpty ? old.facts.tags : given.tags
        // The old date was replaced by the 304's, or stands for a time that the origin has just confirmed.
        if given.date == nil { facts.date = nil }
        let renewed = Freshness(facts, asked: asked, came: now, cameWall: .now)
        let verdict = Storability.verdict(flow.request, facts, renewed, now: now)
        let content = CacheEntry.Content(
            key: old.key, route: old.route, selecting: old.selecting, facts: facts, freshness: renewed, lines: CacheLines.render(merged),
            leader: origin.id, isCompressible: old.isCompressible)
        noteWay()
        leader?.note.stored = verdict
        let stored = verdict == .stored ? store.store(content, old.body, flow, now: now) : (nil, verdict)
        if stored.0 == nil { store.remove(old) }
        // Whoever waits for it may have it in any case: it was asked for them.
        let entry = stored.0 ?? CacheEntry(content, body: old.body, now: now, ledger: CacheLedger())
        finish { state in
            _ = state.line.headCame(isShared: true)
            state.outcome = .whole(entry)
        }
    }

    /// The answer is not for sharing: it goes to whoever led, and the others ask by themselves.
    private func pass(_ table: HeadTable, _ facts: ResponseFacts, _ why: CacheReason, _ now: MonotonicTime) {
        if facts.status < 500 {
            if let old = flow.validating { store.remove(old) }
            // What the request itself does not allow says nothing of the answers to others.
            if why != .authorization, why != .requestNoStore { store.noteUnshared(flow.key, now: now) }
        } else if let old = flow.validating, Reuse.isFailure(facts.status) {
            old.refreshFailed(now)
            store.metrics.refreshFailures.add()
        }
        let reader = leader.flatMap { $0.flow === flow ? $0 : nil }
        mode = reader == nil ? .dropping : .direct
        noteWay()
        // It is no reader any more: others are told to go, and it gets all that comes. They are told first, because its head is gathered
        // where theirs would be.
        if let reader { _ = flow.leave(reader.ticket) }
        finish { state in
            _ = state.line.headCame(isShared: false)
            state.outcome = .unshared
        }
        reader?.exchange.passHead(table, flow, why)
        if reader == nil { abandon() }
    }

    /// Lets the leader's records tell which backend was asked.
    private func noteWay() {
        guard let visit = leader, visit.flow === flow, let exchange else { return }
        visit.exchange.questions.takeChoice(exchange.questions)
        visit.exchange.answer.upstreamTime = exchange.answer.upstreamTime
    }

    /// The exchange gives an answer of its own: there was none from a backend.
    func respond(_ answer: OwnAnswer, _ lines: UnsafeRawBufferPointer) {
        noteWay()
        if let old = flow.validating { old.refreshFailed(.now) }
        mode = .dropping
        fail(CacheFailure(status: answer.status, type: answer.type, body: answer.body, lines: Array(lines)))
    }

    private func fail(_ failure: CacheFailure) {
        if flow.validating != nil { store.metrics.refreshFailures.add() }
        let leads = leader?.flow === flow ? 1 : 0
        finish { state in
            let next = state.line.fetchFailed(followers: state.readers.count - leads)
            state.outcome = .failed(failure, next, leaders: state.line.leaders)
        }
    }

    func pass(_ bytes: UnsafeRawBufferPointer) -> Bool {
        switch mode {
        case .direct: return leader?.exchange.passPart(bytes) ?? false
        case .keeping:
            if count + bytes.count > store.largestObject || !keep(bytes) { return passUnkept(bytes) }
            return true
        case .passing: return passUnkept(bytes)
        case .asking, .dropping, .again: return false
        }
    }

    /// Appends to the body that will be stored; false when there is no room.
    private func keep(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var rest = bytes
        while !rest.isEmpty {
            if room == 0, !addPiece(for: rest.count) { return false }
            rest = append(rest)
        }
        isNews = true
        return true
    }

    private func append(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        let part = bytes.part(0, min(room, bytes.count)), space = room
        flow.note { state in
            guard let last = state.body.segments.last else { return }
            last.write(part, at: last.capacity - space)
            state.body.count += part.count
        }
        room -= part.count
        count += part.count
        return bytes.part(part.count, bytes.count - part.count)
    }

    private func addPiece(for wanted: Int) -> Bool {
        let known = length.map { $0 - count } ?? max(CacheFill.firstPiece, min(count, CacheFill.largestPiece))
        let size = min(CacheFill.largestPiece, max(known, min(wanted, CacheFill.largestPiece)))
        guard let piece = store.segment(size) else { return false }
        flow.note { $0.body.segments.append(piece) }
        room = size
        return true
    }

    /// Passes on what is too large to be stored, or finds no room: those who read already get it, nobody else may join.
    private func passUnkept(_ bytes: UnsafeRawBufferPointer) -> Bool {
        if mode != .passing {
            mode = .passing
            leader?.note.stored = count + bytes.count > store.largestObject ? .tooLarge : .noRoom
            let source = CacheFlow.Source(loop: gateway.loop, fill: LoopBound(self, on: gateway.loop))
            flow.note { state in
                state.line.ended()
                state.source = source
            }
            store.leave(flow)
        }
        // The last piece may have room, and was charged already.
        var rest = bytes
        while !rest.isEmpty {
            if room == 0 {
                let piece = CacheSegment(capacity: max(rest.count, 16_384), ledger: nil)
                flow.note { $0.body.segments.append(piece) }
                room = piece.capacity
            }
            rest = append(rest)
        }
        isNews = true
        return true
    }

    /// A reader of what is not kept has moved or gone: pieces that nobody needs any more go, and the origin is read on.
    func readersMoved() {
        guard mode == .passing, !isOver else { return }
        let left = flow.note { state in
            state.dropRead()
            return state.readers.count
        }
        if left == 0 { return abandon() }
        if waiting <= Exchange.window { exchange?.clientDrained() }
    }

    func flush() {
        if case .direct = mode { leader?.exchange.passFlush() }
        guard isNews else { return }
        isNews = false
        flow.tellReaders()
    }

    func watchWriting() { if case .direct = mode { leader?.exchange.client?.watchWriting() } }

    /// The whole answer has come.
    func endBody() {
        switch mode {
        case .direct: leader?.exchange.passEnd()
        case .keeping: storeAnswer()
        case .passing: finish { $0.outcome = .passed }
        case .asking, .dropping, .again: break
        }
    }

    private func storeAnswer() {
        let now = MonotonicTime.now
        guard let head = flow.view.head else { return finish { $0.outcome = .passed } }
        let body = flow.view.body
        let (entry, why) = store.store(head.content, body, flow, now: now)
        if let visit = leader, visit.flow === flow { visit.note.stored = why }
        guard let entry else { return finish { $0.outcome = .passed } }
        finish { $0.outcome = .whole(entry) }
    }

    /// The answer broke off.
    func reset() {
        switch mode {
        case .direct: leader?.exchange.passBroken()
        case .keeping, .passing: finish { $0.outcome = .cut }
        case .asking, .dropping, .again: break
        }
        end()
    }

    /// The exchange is over.
    func release() {
        if case .again = mode { return ask(conditional: false) }
        end()
    }

    func giveBack(_ used: Exchange) {
        if exchange === used { exchange = nil }
        gateway.takeBack(used)
    }

    /// The leader gets its answer directly, and has taken what waited for it.
    func leaderDrained() { if case .direct = mode { exchange?.clientDrained() } }

    /// The leader is gone. What it alone would have got is not fetched any further.
    func leaderLeft() {
        leader = nil
        if case .direct = mode { abandon() }
    }

    /// Ends a fetch that nobody wants, in a turn of its own: it may be in the middle of a call from its backend's connection.
    private func abandon() {
        mode = .dropping
        let bound = LoopBound(self, on: gateway.loop)
        gateway.loop.execute { bound.value.exchange?.clientGone() }
        end()
    }

    private func finish(_ change: (inout CacheFlow.State) -> Void) {
        store.leave(flow)
        flow.change { state in
            change(&state)
            state.source = nil
        }
    }

    private func end() {
        if isOver { return }
        isOver = true
        store.leave(flow)
        leader?.fill = nil
        leader = nil
        flow.note { $0.source = nil }
    }
}

extension CacheFill.Origin {
    /// A field's form in the head that goes to the backend.
    func form(_ name: [UInt8], _ cache: RouteCache) -> SelectingField? {
        if cache.hides(name) { return SelectingField(name: name, value: nil) }
        let value: [UInt8]? = head.withUnsafeBytes { head in
            var lines: [UnsafeRawBufferPointer] = []
            name.withUnsafeBytes { name in
                CacheLines.each(head) { other, value, _ in if equalIgnoringCase(other, name) { lines.append(value) } }
            }
            return lines.isEmpty ? nil : FieldForm.of(name, lines)
        }
        return SelectingField(name: name, value: value)
    }
}
