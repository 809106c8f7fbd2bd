import Basics
import Caching
import EventLoops
import HTTP

/// What a route with a cache does not send to its backend.
struct CacheForwarding {
    let cache: RouteCache
    /// Whether the request is made for everybody: then the client's own conditions, ranges and times stay here.
    let isFetch: Bool

    func leavesOut(_ name: UnsafeRawBufferPointer) -> Bool {
        if isFetch {
            switch name.count {
            case 5: if name.equals("range") { return true }
            case 8: if name.equals("if-range") { return true }
            case 13: if name.equals("if-none-match") { return true }
            case 17: if name.equals("if-modified-since") { return true }
            default: break
            }
        }
        guard let first = name.first, [97, 102, 120].contains(first | 32) else { return false }
        return cache.hides(name.map { $0 &- 65 < 26 ? $0 | 32 : $0 })
    }
}

/// The request's way through the cache: what is stored is served, one fetch serves many, and what is not for the cache is passed by.
extension Exchange {
    // MARK: looking

    /// Looks for a stored answer, and decides what becomes of the request. The table need not outlive this call.
    func lookInCache(_ cache: RouteCache, _ table: HeadTable, _ scheme: StaticString, trusted: Bool) {
        let visit = visit ?? CacheVisit(self)
        self.visit = visit
        usesCache = true
        visit.begin(table, cache, scheme: scheme, trusted: trusted)
        // What a backend answers to one client's certificate is not for another, and `Vary` would look for it among the client's own fields.
        let isKnown = client.map { !$0.certificateLines.isEmpty } ?? false
        if let why = visit.facts.bypass ?? (table.asksForItsSession ? .session : isKnown ? .certificate : nil) {
            visit.plan = .bypass(why)
            return
        }
        look(visit, cache)
        switch visit.plan {
        case .serve(_, _, _, let refreshes): answer.ready = .stored(refreshes: refreshes)
        case .fetch, .bypass: if visit.facts.directives.onlyIfCached { answer.ready = .failure(.onlyIfCached) }
        }
    }

    private func look(_ visit: CacheVisit, _ cache: RouteCache) {
        let now = loop.now, found = cache.store.find(visit, front: gateway.front, now: now)
        visit.note.variants = UInt8(clamping: found.variants)
        guard let entry = found.entry else {
            if visit.facts.isHead {
                visit.plan = .bypass(.head)
                return
            }
            if visit.facts.hasRange {
                visit.plan = .bypass(.range)
                return
            }
            visit.plan = .fetch(found.isVaryMiss ? .varyMiss : .uriMiss, validating: nil)
            return
        }
        if visit.facts.hasAuthorization, !Storability.mayShareAuthorized(entry.facts) {
            visit.plan = visit.facts.isGet && !visit.facts.hasRange ? .fetch(.authorization, validating: nil) : .bypass(.authorization)
            return
        }
        let (action, why) = entry.reuse(trusted: cache.spec.trustsStale).verdict(visit.facts.directives, now: now)
        switch action {
        case .serve(let isStale, let refreshes): visit.plan = .serve(entry, why, isStale: isStale, refreshes: refreshes)
        case .validate: visit.plan = .fetch(why, validating: entry)
        }
    }

    /// Says what of the client's head does not go to the backend.
    func prepare(_ forwarding: inout Forwarding) {
        guard let visit, let cache = visit.cache else { return }
        let isFetch = if case .bypass = visit.plan { false } else { true }
        forwarding.cached = CacheForwarding(cache: cache, isFetch: isFetch)
    }

    // MARK: serving what is stored

    /// Serves what was found, and has it refreshed if need be.
    func serveFromCache() {
        guard let visit, case .serve(let entry, let why, let isStale, let refreshes) = visit.plan else { return }
        if refreshes { refresh(visit, entry) }
        visit.note.result = isStale ? .stale : .hit
        visit.note.why = why
        serve(entry, CacheStatus(), detail: isStale ? why : nil)
    }

    /// Asks the origin behind the client's back, unless somebody does already.
    private func refresh(_ visit: CacheVisit, _ entry: CacheEntry) {
        guard let cache = visit.cache, case .lead(let flow) = cache.store.join(visit, cache, validating: entry, alone: false, now: loop.now)
        else { return }
        CacheFill(gateway, flow, fetchOrigin(visit), leader: nil).begin()
    }

    private func fetchOrigin(_ visit: CacheVisit) -> CacheFill.Origin {
        // Both have been found before anybody looks into the cache.
        guard let route else { preconditionFailure("a request without a route looks into no cache") }
        var head = Array(outgoing.bytes.dropLast(2))
        if request.isHead { head = Array("GET".utf8) + head.dropFirst(4) }
        return CacheFill.Origin(
            target: Array(request.target), id: Array(request.id), client: request.clientAddress, key: request.key, route: route, pool: pool,
            head: head, directives: visit.facts.directives)
    }

    /// Serves a stored answer: whole, a part of it, its head, or 304.
    /// `isNew`: the origin has just made or confirmed it for this very request.
    func serve(_ entry: CacheEntry, _ status: CacheStatus, detail: CacheReason?, isNew: Bool = false) {
        guard let visit, let client, client.isOpen, !answer.hasBegun else { return }
        let now = loop.now
        writeStatus(visit, status, entry.freshness, now, detail, hasAge: !isNew || entry.facts.age > 0)
        if isNotModified(visit, entry.facts) { return serveNotModified(entry.lines, client) }
        var part: Range<Int>?
        if visit.facts.isGet, entry.facts.status == 200, visit.facts.hasRange, let range = visit.first("range"),
            Conditional.rangeApplies(ifRange: visit.first("if-range"), entry.facts)
        {
            switch ByteRange(range, length: entry.body.count) {
            case .whole: break
            case .part(let some): part = some
            case .unsatisfiable: return serveUnsatisfiable(entry, client)
            }
        }
        if let part { answer.fields.field("Content-Range", text: "bytes \(part.lowerBound)-\(part.upperBound - 1)/\(entry.body.count)") }
        let code = part == nil ? entry.facts.status : 206
        visit.body = entry.body
        visit.cursor = BodyCursor(at: part?.lowerBound ?? 0)
        visit.end = part?.upperBound ?? entry.body.count
        var length: Int? = part?.count ?? entry.body.count, way = additions
        if part == nil, let coding = wantedCoding(visit, entry, &way) {
            if let coded = visit.cache?.store.coded(entry, coding) {
                visit.body = coded
                visit.end = coded.count
                length = coded.count
                way.coding = coding
            } else if let coder = BodyCoder(coding, flushes: false) {
                answer.coder = request.isHead ? nil : coder
                length = nil
                way.coding = coding
            }
        }
        begin(code, visit, lines: entry.lines, length: length, way, client)
    }

    /// The coding in which a stored answer goes to the client; nil: plain.
    private func wantedCoding(_ visit: CacheVisit, _ entry: CacheEntry, _ way: inout HeadRewriter.Additions) -> ContentCoding? {
        guard visit.cache?.compresses == true, entry.isCompressible, entry.body.count >= ContentCoding.smallest else { return nil }
        way.varies = true
        return request.coding
    }

    private func isNotModified(_ visit: CacheVisit, _ facts: ResponseFacts) -> Bool {
        let tags = visit.lines("if-none-match")
        return Conditional.isNotModified(ifNoneMatch: tags, ifModifiedSince: tags.isEmpty ? visit.first("if-modified-since") : nil, facts)
    }

    private func serveNotModified(_ lines: [UInt8], _ client: ClientSide) {
        takeAnswer(304)
        CacheLines.forNotModified(lines).withUnsafeBytes { client.respond(stored(304, $0, nil, hasBody: false), additions) }
        endAnswer(client)
    }

    private func serveUnsatisfiable(_ entry: CacheEntry, _ client: ClientSide) {
        takeAnswer(416)
        answer.fields.field("Content-Range", text: "bytes */\(entry.body.count)")
        client.respond(stored(416, UnsafeRawBufferPointer(start: nil, count: 0), 0, hasBody: false), additions)
        endAnswer(client)
    }

    private var additions: HeadRewriter.Additions {
        HeadRewriter.Additions(id: request.id, lines: answer.fields.bytes, edits: visit?.cache?.edits)
    }

    private func stored(_ status: Int, _ lines: UnsafeRawBufferPointer, _ length: Int?, hasBody: Bool) -> StoredAnswer {
        StoredAnswer(status: status, lines: lines, length: length, hasBody: hasBody)
    }

    /// From here on the client gets this answer, and no other.
    private func takeAnswer(_ status: Int) {
        answer.hasBegun = true
        isServedByCache = true
        attempts.answeredHere()
        stopTimers()
        answer.status = status
        if request.wantsReason { writeReason() }
    }

    /// Begins an answer with its head; `visit` has its body.
    private func begin(
        _ status: Int, _ visit: CacheVisit, lines: [UInt8], length: Int?, _ way: HeadRewriter.Additions, _ client: ClientSide
    ) {
        takeAnswer(status)
        let hasBody = !request.isHead && status != 204 && status != 205 && status != 304
        let said = status == 204 || status == 304 ? nil : status == 205 ? 0 : length
        lines.withUnsafeBytes { client.respond(stored(status, $0, said, hasBody: hasBody), way) }
        guard hasBody else { return endAnswer(client) }
        visit.isSending = true
        sendFromCache()
    }

    private func endAnswer(_ client: ClientSide) {
        if answer.coder != nil { drainCoder(isLast: true, to: client) }
        client.endBody(UnsafeRawBufferPointer(start: nil, count: 0))
        finish()
        client.release()
    }

    /// Sends what there is of the body, as far as the client takes it.
    func sendFromCache() {
        guard let visit, let client else { return }
        guard visit.isSending else {
            visit.fill?.leaderDrained()
            return
        }
        let end = visit.end ?? visit.body.count
        while visit.cursor.position < end, client.waiting <= Exchange.window {
            let part = visit.body.part(&visit.cursor, most: min(end - visit.cursor.position, 65_536))
            if part.isEmpty { break }
            if !pass(part, to: client) { break }
            visit.cursor.advance(part.count)
            if client.waiting > 0 || part.count >= 16_384 { client.flush() }
        }
        if let flow = visit.flow { flow.advanced(visit.ticket, to: visit.cursor.position) }
        if answer.coder?.flushes == true, visit.end == nil { drainCoder(isLast: false, to: client) }
        if visit.end != nil, visit.cursor.position >= end { return endAnswer(client) }
        client.flush()
        client.watchWriting()
    }

    private func writeStatus(
        _ visit: CacheVisit, _ status: CacheStatus, _ freshness: Freshness, _ now: MonotonicTime, _ detail: CacheReason?,
        hasAge: Bool
    ) {
        let age = freshness.age(now), left = freshness.lifetime.subtractingClamped(age)
        visit.note.age = Int32(clamping: age)
        visit.note.left = Int32(clamping: left)
        // Age says that the origin did not make the answer for this request (RFC 9111, 5.1).
        if hasAge { answer.fields.field("Age", decimal: age) }
        if status.forward == nil, detail == nil {
            answer.fields.append("Cache-Status: muster; hit; ttl=")
            answer.fields.append(decimal: left)
            return answer.fields.append("\r\n")
        }
        var status = status
        status.detail = detail
        if status.forward == nil { status.ttl = left }
        answer.fields.field("Cache-Status", text: status.text)
    }

    // MARK: fetching

    /// Has the cache ask the origin for this request, or lets it wait for another one's fetch. False: the request goes its own way.
    func askCache() -> Bool {
        guard let visit, visit.cache != nil else { return false }
        switch visit.plan {
        case .bypass(let why):
            visit.note.result = .bypass
            visit.note.why = why
            return false
        case .serve: return false
        case .fetch(let why, _):
            visit.note.result = .miss
            visit.note.why = why
            // Nothing of it is sent by itself.
            limits.areAsked = true
            fetch(visit, alone: visit.facts.hasAuthorization)
            return true
        }
    }

    private func fetch(_ visit: CacheVisit, alone: Bool) {
        guard let cache = visit.cache, case .fetch(_, let validating) = visit.plan else { return }
        switch cache.store.join(visit, cache, validating: validating, alone: alone, now: loop.now) {
        case .lead(let flow):
            visit.flow = flow
            visit.isLeader = true
            visit.patience?.cancel()
            visit.ticket = flow.enter(visit, on: loop)
            let fill = CacheFill(gateway, flow, fetchOrigin(visit), leader: visit)
            visit.fill = fill
            fill.begin()
        case .follow(let flow):
            visit.flow = flow
            visit.isLeader = false
            visit.note.isCollapsed = true
            visit.waits = true
            cache.store.waiting.wrappingAdd(1, ordering: .relaxed)
            cache.store.metrics.followers.add()
            visit.ticket = flow.enter(visit, on: loop)
            if visit.joins == 0 { startPatience(visit) }
            visit.joins += 1
            flowMoved(flow)
        }
    }

    private func startPatience(_ visit: CacheVisit) {
        if visit.patience == nil { visit.patience = LoopTimer(loop: loop) { [unowned self] in patienceOver() } }
        visit.patience?.schedule(at: loop.now + CoalescingLimits.patience)
    }

    /// The other one's fetch takes too long.
    private func patienceOver() {
        guard let visit, visit.waits, visit.flow != nil else { return }
        askAlone(visit)
    }

    private func askAlone(_ visit: CacheVisit) {
        leaveFlow(visit)
        visit.note.isCollapsed = false
        fetch(visit, alone: true)
    }

    /// Looks again, after another one's fetch brought nothing for this request.
    private func joinAgain(_ visit: CacheVisit) {
        leaveFlow(visit)
        guard let cache = visit.cache else { return }
        visit.note.isCollapsed = false
        if case .fetch(let why, _) = visit.plan, visit.joins <= 3 {
            look(visit, cache)
            if case .serve = visit.plan { return serveFromCache() }
            if case .bypass = visit.plan { visit.plan = .fetch(why, validating: nil) }
            return fetch(visit, alone: false)
        }
        fetch(visit, alone: true)
    }

    private func leaveFlow(_ visit: CacheVisit) {
        stopWaiting(visit)
        guard let flow = visit.flow else { return }
        visit.flow = nil
        _ = flow.leave(visit.ticket)
        flow.readerLeft()
    }

    private func stopWaiting(_ visit: CacheVisit) {
        guard visit.waits else { return }
        visit.waits = false
        visit.cache?.store.waiting.wrappingSubtract(1, ordering: .relaxed)
    }

    /// The fetch has brought something.
    func flowMoved(_ flow: CacheFlow) {
        guard let visit, visit.flow === flow, let client, client.isOpen else { return }
        let view = flow.view
        if visit.isSending { return readOn(visit, view, client) }
        switch view.outcome {
        case .failed(let failure, let next, let leaders): fetchFailed(visit, flow, failure, next, leaders)
        case .unshared: if !visit.isLeader { askAlone(visit) }
        case .cut:
            leaveFlow(visit)
            refuse(.brokenResponse)
        case .whole(let entry):
            guard visit.fits(entry) else { return joinAgain(visit) }
            serveFetched(visit, entry, isRenewed: view.head == nil)
        case .open, .passed:
            guard let head = view.head else { return }
            guard visit.fits(head.content.selecting) else { return joinAgain(visit) }
            beginReading(visit, head, view, client)
        }
    }

    private func status(_ visit: CacheVisit, isRenewed: Bool) -> CacheStatus {
        guard case .fetch(let why, _) = visit.plan else { return CacheStatus() }
        var status = CacheStatus(forward: CacheStatus.Forward(why))
        if isRenewed { status.forwardStatus = 304 }
        status.isStored = visit.isLeader
        status.isCollapsed = !visit.isLeader
        return status
    }

    private func serveFetched(_ visit: CacheVisit, _ entry: CacheEntry, isRenewed: Bool) {
        let status = status(visit, isRenewed: isRenewed)
        if isRenewed { visit.note.result = .validated }
        visit.note.leader = entry.leader.withUnsafeBytes { RecentRequests.key($0) }
        leaveFlow(visit)
        serve(entry, status, detail: nil, isNew: visit.isLeader)
    }

    private func beginReading(_ visit: CacheVisit, _ head: CacheFlow.Head, _ view: CacheFlow.View, _ client: ClientSide) {
        stopWaiting(visit)
        visit.patience?.cancel()
        if visit.isLeader { visit.note.stored = .stored }
        visit.note.leader = head.content.leader.withUnsafeBytes { RecentRequests.key($0) }
        let facts = head.content.facts
        writeStatus(
            visit, status(visit, isRenewed: false), head.content.freshness, loop.now, nil, hasAge: !visit.isLeader || facts.age > 0)
        if isNotModified(visit, facts) {
            leaveFlow(visit)
            return serveNotModified(head.content.lines, client)
        }
        visit.body = view.body
        visit.cursor = BodyCursor()
        visit.end = nil
        if case .passed = view.outcome { visit.end = view.body.count }
        var way = additions, length = head.length
        if visit.cache?.compresses == true, head.content.isCompressible, head.length.map({ $0 >= ContentCoding.smallest }) ?? true {
            way.varies = true
            if let coding = request.coding, let coder = BodyCoder(coding, flushes: head.isStream) {
                answer.coder = request.isHead ? nil : coder
                way.coding = coding
                length = nil
            }
        }
        begin(facts.status, visit, lines: head.content.lines, length: length, way, client)
    }

    /// Sends on what has come.
    private func readOn(_ visit: CacheVisit, _ view: CacheFlow.View, _ client: ClientSide) {
        if view.dropped > visit.dropped {
            visit.cursor.dropped(view.dropped - visit.dropped, of: visit.body)
            visit.dropped = view.dropped
        }
        visit.body = view.body
        switch view.outcome {
        case .whole, .passed: visit.end = view.body.count
        case .cut:
            // The client has a part of the answer, and must see that the rest is missing.
            client.flush()
            finish()
            return client.reset()
        case .open, .unshared, .failed: break
        }
        sendFromCache()
    }

    private func fetchFailed(
        _ visit: CacheVisit, _ flow: CacheFlow, _ failure: CacheFailure, _ next: Coalescing.Failure, _ leaders: Int
    ) {
        if let old = flow.validating,
            old.reuse(trusted: flow.cache.spec.trustsStale).mayServeOnError(visit.facts.directives, now: loop.now), visit.fits(old)
        {
            var status = status(visit, isRenewed: false)
            status.isStored = false
            status.forwardStatus = failure.status
            visit.note.result = .stale
            visit.note.why = .staleIfError
            leaveFlow(visit)
            return serve(old, status, detail: .staleIfError)
        }
        if !visit.isLeader, next == .nextLeads {
            visit.leaders = leaders
            return joinAgain(visit)
        }
        leaveFlow(visit)
        visit.note.result = .failed
        answer.fields.append(failure.lines)
        respond(failure.status, type: failure.type, body: failure.body)
    }

    /// Becomes a fetch of the cache's: asks a backend with the head of the request that wanted it, and with our own condition.
    func beginFill(_ fill: CacheFill, _ origin: CacheFill.Origin, validating: CacheEntry?) {
        reset(chunked: false)
        client = .fill(fill)
        route = origin.route
        pool = origin.pool
        request.takeFetch(origin, now: loop.now)
        outgoing.writeHead { out in
            out.append(origin.head)
            if let tag = validating?.facts.entityTag {
                tag.withUnsafeBytes { out.field("If-None-Match", $0) }
            } else if let modified = validating?.facts.lastModified {
                modified.withUnsafeBytes { out.field("If-Modified-Since", $0) }
            }
            out.append("\r\n")
            return 0
        }
        settleAttempts(origin.route.route)
        if let deadline = request.deadline { schedule(deadline) }
        if !takePlace(origin.route) { return }
        origin.route.budget.requestArrived(loop.now)
        sendOn()
    }

    // MARK: what is not for sharing

    /// Passes the head of an answer on that only this request gets.
    func passHead(_ table: HeadTable, _ flow: CacheFlow, _ why: CacheReason) {
        guard let visit, let client, client.isOpen, !answer.hasBegun else { return }
        stopWaiting(visit)
        visit.flow = nil
        visit.note.stored = why
        takeAnswer(table.status)
        var status = status(visit, isRenewed: false)
        status.isStored = false
        status.isCollapsed = false
        status.detail = why
        answer.fields.field("Cache-Status", text: status.text)
        var additions = HeadRewriter.Additions(id: request.id, lines: answer.fields.bytes, edits: route?.route.responseEdits)
        if visit.cache?.compresses == true { settleCoding(table, &additions) }
        client.respond(table, additions)
        if request.isHead { endAnswer(client) }
    }

    func passPart(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let client else { return false }
        return pass(bytes, to: client)
    }

    func passFlush() {
        guard let client else { return }
        if answer.coder != nil { drainCoder(isLast: false, to: client) }
        client.flush()
    }

    func passEnd() { if let client { endAnswer(client) } }

    func passBroken() {
        let client = client
        finish()
        client?.reset()
    }

    /// A backend answers a request that the cache has no part in. A change of the address makes what is stored worthless.
    func passesCache(_ table: HeadTable) {
        guard let visit, let cache = visit.cache, case .bypass(let why) = visit.plan else { return }
        var status = CacheStatus(forward: CacheStatus.Forward(why))
        status.detail = why == .method || why == .head ? nil : why
        answer.fields.field("Cache-Status", text: status.text)
        guard why == .method, (200...399).contains(table.status), !request.isSafe else { return }
        gateway.invalidate(visit, cache, table)
    }

    // MARK: the end

    /// Leaves the cache at the request's end.
    func leaveCache() {
        guard let visit, let cache = visit.cache else { return }
        leaveFlow(visit)
        let fill = visit.fill
        visit.fill = nil
        cache.results[Int(visit.note.result.rawValue)].add()
        visit.forget()
        fill?.leaderLeft()
    }
}

extension CacheVisit {
    /// The fetch has brought something for the reader with this ticket.
    func moved(_ flow: CacheFlow, _ ticket: Int) {
        guard self.flow === flow, self.ticket == ticket else { return }
        exchange.flowMoved(flow)
    }
}

extension RequestState {
    /// Whether the method is known to change nothing (RFC 9110, 9.2.1). Unknown methods may.
    var isSafe: Bool { method.isExactly("GET") || method.isExactly("HEAD") || method.isExactly("OPTIONS") || method.isExactly("TRACE") }
}

extension HeadTable {
    /// Whether the request says what it must have seen written: a stored answer may be older.
    var asksForItsSession: Bool { value(Array("muster-after".utf8)) != nil || cookie(Array("muster_after".utf8)) != nil }
}

extension GatewayLoop {
    /// A backend has changed an address: what is stored for it goes, and for the addresses on the same host that the answer names
    /// (RFC 9111, 4.4).
    func invalidate(_ visit: CacheVisit, _ cache: RouteCache, _ table: HeadTable) {
        var gone = cache.store.invalidate(visit.makeCacheKey())
        for name in ["location", "content-location"] {
            guard let value = table.value(Array(name.utf8)), let target = sameHost(value, visit) else { continue }
            gone += cache.store.invalidate(visit.key(of: target, for: cache))
        }
        if gone > 0 { cache.store.metrics.purged.add(gone) }
    }

    /// The target of a reference to the same host; nil for another host, and for a path that is relative to the request's.
    private func sameHost(_ value: UnsafeRawBufferPointer, _ visit: CacheVisit) -> UnsafeRawBufferPointer? {
        if value.first == 47, value.count < 2 || value[1] != 47 { return value }
        var rest = value
        for scheme: StaticString in ["http://", "https://"] where value.count > scheme.utf8CodeUnitCount {
            guard value.part(0, scheme.utf8CodeUnitCount).equals(scheme) else { continue }
            rest = value.part(scheme.utf8CodeUnitCount, value.count - scheme.utf8CodeUnitCount)
            let slash = rest.firstIndex(of: 47) ?? rest.count
            return equalIgnoringCase(rest.part(0, slash), visit.hostName) && slash < rest.count
                ? rest.part(slash, rest.count - slash) : nil
        }
        return nil
    }
}
