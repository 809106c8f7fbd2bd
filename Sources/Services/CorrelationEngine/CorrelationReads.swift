import Basics
import EventLoops
import HTTP
import JSONCoding
import Observability

/// What is asked of correlations: lists, single ones, the stream of new ones, the ledger.
extension Engine {
    func one(_ id: String) async throws -> HTTPResponse {
        let missing = APIError(404, "no_such_correlation", "no correlation has this id; it may have expired", field: "id")
        guard let key = CorrelationKey(id: id) else { throw missing }
        guard let stored = try await reading({ () throws(StoreFailure) in try await store.correlation(key) }),
            let json = await inTurn(stored, { $0.json(limit: Correlation.single) })
        else {
            throw missing
        }
        return .json(json)
    }

    func list(_ request: HTTPRequest) async throws -> HTTPResponse {
        let query = try CorrelationQuery(request, others: CorrelationQuery.paging)
        if let key = query.trace {
            let stored = try await reading { () throws(StoreFailure) in try await store.correlation(key) }
            var json: [UInt8]?
            if let stored { json = await inTurn(stored) { query.matches($0) ? $0.json(limit: Correlation.single) : nil } ?? nil }
            let found = json
            return .json { out in
                out.key("correlations")
                out.beginArray()
                if let found { out.raw(found) }
                out.endArray()
                out.key("next_cursor")
                out.null()
            }
        }
        let first = try await reading { () throws(StoreFailure) in try await store.list(query) }
        let headers = [("Content-Type", "application/json")]
        return HTTPResponse(headers: headers, body: .stream({ [self] writer in try await write(query, first, writer) }))
    }

    /// Writes a page step by step, as the client reads it: a page may be megabytes, and clients that do not read may be many. Where the store
    /// fails on the way, the page ends there, and its cursor goes on from there.
    private func write(_ query: CorrelationQuery, _ first: CorrelationPage, _ writer: HTTPBodyWriter) async throws {
        var query = query, page = first
        var examined = 0, bytes = 0, left = query.limit
        try await writer.write("{\"correlations\":[")
        while true {
            left -= page.items.count
            examined += page.examined
            page.items.reverse()
            while let item = page.items.popLast() {
                try await writer.write(bytes == 0 ? item : [44] + item)
                bytes += item.count
            }
            guard let next = page.next, left > 0, examined < CorrelationQuery.examineLimit, bytes < CorrelationQuery.pageBytes else {
                break
            }
            query.cursor = next
            query.limit = left
            await pause()
            do throws(StoreFailure) { page = try await store.list(query) } catch {
                logger.error("correlation_store_failed", .init("error", error.reason))
                break
            }
        }
        var end = JSONWriter()
        if let next = page.next { end.string(next.text) } else { end.null() }
        try await writer.write(Array("],\"next_cursor\":".utf8) + end.bytes + Array("}\n".utf8))
    }

    /// The fleet's ledger, or with `scope=instance` this instance's own rows.
    func ledger(_ request: HTTPRequest) async throws -> HTTPResponse {
        let parameters = try QueryParameters(request.query, known: ["scope"])
        let scope = parameters["scope"] ?? "fleet"
        guard ["fleet", "instance"].contains(scope) else { throw parameters.wrong("scope", "must be fleet or instance") }
        let rows = try await reading { () throws(StoreFailure) in try await store.ledger() }
        let ledger = scope == "fleet" ? rows.values.reduce(Ledger(), +) : rows[configuration.instanceID] ?? Ledger()
        return .json { json in
            for column in Ledger.columns { json.member(column.name, ledger[keyPath: column.path]) }
            json.member("imbalance", ledger.imbalance)
        }
    }

    /// Reads a correlation; a large one in a turn of its own.
    private func inTurn<T>(_ stored: StoredCorrelation, _ body: (Correlation) -> T) async -> T? {
        if stored.text.count > Pace.piece { await pause() }
        return stored.read(body)
    }

    func reading<T>(_ body: () async throws(StoreFailure) -> T) async throws(APIError) -> T {
        do throws(StoreFailure) { return try await body() } catch {
            logger.error("correlation_store_failed", .init("error", error.reason))
            throw Engine.unavailable(error, "ask again")
        }
    }

    // MARK: the stream

    /// Streams open at a time: each asks the store four times a second.
    static let streamLimit = 100
    /// Emissions read at a time.
    static let streamStep = 256

    /// A place among the streams: taken before anything is waited for, given back when nobody holds it any more.
    private final class Seat: Sendable {
        private let streams: Gauge
        init(_ streams: Gauge) {
            self.streams = streams
            streams.add(1)
        }
        deinit { streams.add(-1) }
    }

    /// Server-sent events, one for each correlation that becomes complete (or complete again): its summary, under the filters of the list.
    /// A client that comes back with `Last-Event-ID` goes on where it was, as far as the store remembers (the last 200 batches or more).
    func stream(_ request: HTTPRequest) async throws -> HTTPResponse {
        let query = try CorrelationQuery(request)
        var place = EmissionPlace.now
        if let last = try request.single("Last-Event-ID"), !last.isEmpty {
            guard let parsed = EmissionPlace(parsing: last) else {
                throw APIError(
                    400, "invalid_header", "is no event id of ours; leave it out to begin with what comes now", field: "Last-Event-ID")
            }
            place = parsed
        }
        guard streams.current < Engine.streamLimit else {
            throw APIError(503, "too_many_streams", "\(Engine.streamLimit) streams are open here; try again later", retryAfter: 5)
        }
        let seat = Seat(streams)
        let given = place
        let begin = try await reading { () throws(StoreFailure) in try await store.begin(given) }
        let headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")]
        return HTTPResponse(
            headers: headers,
            body: .stream({ [self] writer in
                try await follow(query, from: begin, writer)
                withExtendedLifetime(seat) {}
            }))
    }

    private func follow(_ query: CorrelationQuery, from start: EmissionPlace, _ writer: HTTPBodyWriter) async throws {
        var place = start
        var written = MonotonicTime.now
        var pace = Pace(pause)
        try await writer.write("retry: 1000\n\n")
        while !isDraining {
            guard let (emissions, next) = try? await store.emissions(after: place, limit: Engine.streamStep) else {
                // Also while the store is away a client that has gone gives its seat back.
                try await signOfLife(writer, &written)
                await loop.sleep(.seconds(1))
                continue
            }
            for emission in emissions {
                await pace.did(emission.to)
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
            try await signOfLife(writer, &written)
            if emissions.isEmpty { await loop.sleep(.milliseconds(250)) }
        }
    }

    /// A comment after 15 s without an event, so that a client which has gone is noticed, and proxies see life.
    private func signOfLife(_ writer: HTTPBodyWriter, _ written: inout MonotonicTime) async throws {
        guard MonotonicTime.now - written > .seconds(15) else { return }
        try await writer.write(": still here\n\n")
        written = .now
    }

    /// nil when the filters let it not through, or it is gone. Waits for the store to come back.
    private func summary(_ emission: Emission, _ query: CorrelationQuery) async -> [UInt8]? {
        while !isDraining {
            do throws(StoreFailure) {
                guard let stored = try await store.correlation(emission.key) else { return nil }
                return await inTurn(stored) { query.matches($0) ? $0.summaryJSON() : nil } ?? nil
            } catch { await loop.sleep(.seconds(1)) }
        }
        return nil
    }
}

extension CorrelationQuery {
    static let filters = ["trace_id", "service", "status", "from", "to", "min_duration_ms"]
    /// What lists have besides.
    static let paging = ["limit", "cursor"]

    /// Reads the query's parameters: the filters, and `others`. A wrong one is named.
    init(_ request: HTTPRequest, others: [String] = []) throws(APIError) {
        self.init()
        let parameters = try QueryParameters(request.query, known: CorrelationQuery.filters + others)
        func time(_ name: String) throws(APIError) -> WallTime? {
            guard let text = parameters[name] else { return nil }
            do throws(CalendarTime.Failure) { return try CalendarTime.parse(text) } catch {
                throw parameters.wrong(name, "must be an RFC 3339 time such as 2026-11-21T03:30:00Z")
            }
        }
        func whole(_ name: String, _ range: ClosedRange<Int>) throws(APIError) -> Int? {
            guard let text = parameters[name] else { return nil }
            guard let value = Int(text), range.contains(value) else {
                throw parameters.wrong(name, "must be a whole number from \(range.lowerBound) to \(range.upperBound)")
            }
            return value
        }
        if let text = parameters["trace_id"] {
            guard text.utf8.count <= IngestParser.traceLimit else {
                throw parameters.wrong("trace_id", "is longer than \(IngestParser.traceLimit) characters")
            }
            trace = .trace(text)
        }
        service = parameters["service"]
        status = parameters["status"]
        if let status, !["ok", "warning", "error"].contains(status) { throw parameters.wrong("status", "must be ok, warning or error") }
        from = try time("from")
        to = try time("to")
        minimumDuration = try whole("min_duration_ms", 0...Int(Int32.max)).map { .milliseconds($0) }
        limit = try whole("limit", 1...200) ?? 50
        if let text = parameters["cursor"] {
            guard let parsed = Cursor(text: text) else {
                throw parameters.wrong("cursor", "is no cursor of ours; take it from next_cursor")
            }
            cursor = parsed
        }
    }
}
