import Basics
import EventLoops
import HTTP
import JSONCoding

/// What is asked of correlations: lists, single ones, the stream of new ones, the ledger.
extension Engine {
    func one(_ id: String) async throws -> HTTPResponse {
        let missing = APIError(404, "no_such_correlation", "no correlation has this id; it may have expired", field: "id")
        guard let key = CorrelationKey(id: id) else { throw missing }
        guard let stored = try await reading({ () throws(StoreFailure) in try await store.correlation(key) }),
            let json = stored.read({ $0.json() })
        else {
            throw missing
        }
        return .json(json)
    }

    func list(_ request: HTTPRequest) async throws -> HTTPResponse {
        let query = try CorrelationQuery(request)
        var page = CorrelationPage()
        if let trace = request.queryValue("trace_id"), !trace.isEmpty {
            let key = CorrelationKey.trace(trace)
            if let stored = try await reading({ () throws(StoreFailure) in try await store.correlation(key) }),
                let json = stored.read({ query.matches($0) ? $0.json() : nil }), let json
            {
                page.items = [json]
            }
        } else {
            page = try await reading { () throws(StoreFailure) in try await store.list(query) }
        }
        return .json { json in
            json.key("correlations")
            json.beginArray()
            for item in page.items { json.raw(item) }
            json.endArray()
            json.key("next_cursor")
            if let next = page.next { json.string(next.text) } else { json.null() }
        }
    }

    /// The fleet's ledger, or with `scope=instance` this instance's own rows.
    func ledger(_ request: HTTPRequest) async throws -> HTTPResponse {
        let rows = try await reading { () throws(StoreFailure) in try await store.ledger() }
        let ledger: Ledger
        switch request.queryValue("scope") {
        case nil, "", "fleet"?: ledger = rows.values.reduce(Ledger(), +)
        case "instance"?: ledger = rows[configuration.instanceID] ?? Ledger()
        default: throw APIError(400, "invalid_parameter", "must be fleet or instance", field: "scope")
        }
        return .json { json in
            for column in Ledger.columns { json.member(column.name, ledger[keyPath: column.path]) }
            json.member("imbalance", ledger.imbalance)
        }
    }

    func reading<T>(_ body: () async throws(StoreFailure) -> T) async throws(APIError) -> T {
        do throws(StoreFailure) { return try await body() } catch {
            logger.error("correlation_store_failed", .init("error", error.reason))
            throw APIError(503, "state_unavailable", "the shared state does not answer; ask again", retryAfter: 1)
        }
    }

    // MARK: the stream

    /// Streams open at a time: each asks the store four times a second.
    static let streamLimit = 100
    /// Emissions read at a time.
    static let streamStep = 256

    /// Server-sent events, one for each correlation that becomes complete (or complete again): its summary, under the filters of the list.
    /// A client that comes back with `Last-Event-ID` goes on where it was, as far as the store remembers (the last 200 batches or more).
    func stream(_ request: HTTPRequest) async throws -> HTTPResponse {
        let query = try CorrelationQuery(request)
        var place = EmissionPlace.now
        if let last = request.header("last-event-id"), !last.isEmpty {
            guard let parsed = EmissionPlace(parsing: last) else {
                throw APIError(
                    400, "invalid_header", "is no event id of ours; leave it out to begin with what comes now", field: "Last-Event-ID")
            }
            place = parsed
        }
        guard streams.current < Engine.streamLimit else {
            throw APIError(503, "too_many_streams", "\(Engine.streamLimit) streams are open here; try again later", retryAfter: 5)
        }
        let start = try await reading { () throws(StoreFailure) in
            try await store.emissions(after: place, limit: place == .now ? 1 : 0).next
        }
        let begin = place == .now ? start : place
        let headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")]
        return HTTPResponse(headers: headers, body: .stream({ [self] writer in try await follow(query, from: begin, writer) }))
    }

    private func follow(_ query: CorrelationQuery, from start: EmissionPlace, _ writer: HTTPBodyWriter) async throws {
        streams.add(1)
        defer { streams.add(-1) }
        var place = start
        var written = MonotonicTime.now
        try await writer.write("retry: 1000\n\n")
        while !isDraining {
            guard let (emissions, next) = try? await store.emissions(after: place, limit: Engine.streamStep) else {
                await loop.sleep(.seconds(1))
                continue
            }
            for emission in emissions {
                guard let json = await summary(emission, query) else { continue }
                try await writer.write(Array("event: correlation\ndata: ".utf8) + json + [10, 10])
                written = .now
            }
            if next != place {
                // The place comes after all that leads to it: whoever is cut off before gets some of it twice, and misses nothing.
                try await writer.write("id: \(next.text)\n\n")
                written = .now
                place = next
            }
            // So that a client which has gone is noticed, and proxies see life.
            if MonotonicTime.now - written > .seconds(15) {
                try await writer.write(": still here\n\n")
                written = .now
            }
            if emissions.isEmpty { await loop.sleep(.milliseconds(250)) }
        }
    }

    /// nil when the filters let it not through, or it is gone. Waits for the store to come back.
    private func summary(_ emission: Emission, _ query: CorrelationQuery) async -> [UInt8]? {
        while !isDraining {
            do throws(StoreFailure) {
                return try await store.correlation(emission.key)?.read { query.matches($0) ? $0.summaryJSON() : nil } ?? nil
            } catch { await loop.sleep(.seconds(1)) }
        }
        return nil
    }
}

extension CorrelationQuery {
    /// Reads the query's parameters; a wrong one is named.
    init(_ request: HTTPRequest) throws(APIError) {
        self.init()
        func time(_ name: String) throws(APIError) -> WallTime? {
            guard let text = request.queryValue(name), !text.isEmpty else { return nil }
            do throws(CalendarTime.Failure) { return try CalendarTime.parse(text) } catch {
                throw APIError(400, "invalid_parameter", "must be an RFC 3339 time such as 2026-11-21T03:30:00Z", field: name)
            }
        }
        func whole(_ name: String, _ range: ClosedRange<Int>) throws(APIError) -> Int? {
            guard let text = request.queryValue(name), !text.isEmpty else { return nil }
            guard let value = Int(text), range.contains(value) else {
                throw APIError(
                    400, "invalid_parameter", "must be a whole number from \(range.lowerBound) to \(range.upperBound)", field: name)
            }
            return value
        }
        service = request.queryValue("service").flatMap { $0.isEmpty ? nil : $0 }
        status = request.queryValue("status").flatMap { $0.isEmpty ? nil : $0 }
        if let status, !["ok", "warning", "error"].contains(status) {
            throw APIError(400, "invalid_parameter", "must be ok, warning or error", field: "status")
        }
        from = try time("from")
        to = try time("to")
        minimumDuration = try whole("min_duration_ms", 0...Int(Int32.max)).map { .milliseconds($0) }
        limit = try whole("limit", 1...200) ?? 50
        if let text = request.queryValue("cursor"), !text.isEmpty {
            guard let parsed = Cursor(text: text) else {
                throw APIError(400, "invalid_parameter", "is no cursor of ours; take it from next_cursor", field: "cursor")
            }
            cursor = parsed
        }
    }
}
