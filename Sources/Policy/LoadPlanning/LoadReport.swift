/// Why a request has no answer.
public enum LoadError: String, Sendable, CaseIterable {
    /// No connection was made: refused, unreachable, or not in time.
    case connect
    /// No whole answer came within the scenario's timeout after the request was sent.
    case timeout
    /// The connection ended before a byte of the answer.
    case closed
    /// The connection ended in the middle of the answer.
    case cut
    /// The answer breaks the rules of HTTP.
    case malformed
    /// The request was due and never sent: all connections were taken until the run was over.
    case unsent
    /// The connection was not made, or ended, because this machine or process lacked something of its own: a descriptor, a local port,
    /// memory. That says nothing of the service: it is no error of it and no latency, and a run that has one measures nothing.
    case own
}

/// How a request ended.
public enum LoadOutcome: Sendable, Equatable {
    case status(Int)
    case failed(LoadError)

    /// Whether the request failed. A status of 400 and above is an error, as for k6 (`http_req_failed`); so is a request without an answer.
    public var isError: Bool {
        switch self {
        case .status(let status): !(200...399).contains(status)
        case .failed(let error): error != .own
        }
    }
}

/// The figures of one second of a run.
public struct LoadSecond: Sendable, Equatable {
    /// The number of the second; 0 is the run's first.
    public let second: Int
    /// Requests that were sent in this second.
    public let sent: Int
    /// Requests that ended in this second, and how many of these were errors.
    public let ended: Int
    public let errors: Int
    /// Quantiles of the requests that ended in this second, in nanoseconds from when they were due; 0 when none ended.
    public let p50: Int64
    public let p95: Int64
    /// Requests under way, and users, at the end of this second.
    public let inFlight: Int
    public let users: Int
    /// Requests that are due and not sent at the end of this second, because all connections are taken.
    public let waiting: Int
}

/// The results of a run; while the run goes on, its results so far.
public struct LoadReport: Sendable {
    /// The figures that are counted of all requests together and of each kind.
    public struct Part: Sendable {
        /// The time from when a request was due to its end. In the open model this is corrected for coordinated omission: a server that
        /// stands still is charged with the requests that had to wait meanwhile.
        public internal(set) var response = LatencyDistribution()
        public internal(set) var errors = 0
        public var ended: Int { response.count }
    }

    public let name: String
    public let isOpen: Bool
    public let isClosed: Bool
    /// The names of the kinds of requests, `METHOD path`.
    public let labels: [String]
    public private(set) var total = Part()
    public private(set) var parts: [Part]
    /// The time from when a request was sent to its end, as a load generator that waits for its answers would measure it. Requests that
    /// were never sent are left out.
    public private(set) var service = LatencyDistribution()
    /// The time from when a request was due to when it was sent.
    public private(set) var delay = LatencyDistribution()
    /// The number of answers by status: 200, 404 and so on.
    public private(set) var statuses: [Int: Int] = [:]
    public private(set) var failures: [LoadError: Int] = [:]
    /// The first failure in words; nil while there is none.
    public private(set) var firstFailure: String?
    /// What this machine lacked first, in words; nil while it lacked nothing.
    public private(set) var firstWant: String?
    public private(set) var seconds: [LoadSecond] = []
    /// Requests that were sent once more on a fresh connection, because a kept one was closed at that moment. They are no errors.
    public private(set) var repeated = 0
    public private(set) var connectionsMade = 0
    public private(set) var bytesSent = 0
    public private(set) var bytesReceived = 0
    public private(set) var sent = 0
    /// The length of the run in nanoseconds, from the start to the last answer (or the end of the schedule, if that is later).
    public private(set) var elapsed: Int64 = 0
    /// Whether the run was stopped before its schedule was over.
    public private(set) var endedEarly = false
    /// Processor time of this process during the run, nanoseconds.
    public private(set) var processorTime: Int64 = 0
    private var inSecond = LatencyDistribution()
    private var sentInSecond = 0
    private var errorsInSecond = 0

    public init(_ scenario: Scenario) {
        name = scenario.name
        isOpen = scenario.isOpen
        isClosed = scenario.isClosed
        labels = scenario.requests.map(\.label)
        parts = Array(repeating: Part(), count: scenario.requests.count)
    }

    public var ended: Int { total.ended }
    public var errors: Int { total.errors }
    /// The share of errors among the requests that ended, from 0 to 1; 0 when nothing ended.
    public var errorShare: Double { ended == 0 ? 0 : Double(errors) / Double(ended) }
    /// Answers a second, without errors.
    public var rate: Double { elapsed == 0 ? 0 : Double(ended - errors) / (Double(elapsed) / 1e9) }

    // MARK: events

    public mutating func sent(bytes: Int) {
        sent += 1
        sentInSecond += 1
        bytesSent += bytes
    }

    public mutating func repeats(bytes: Int) {
        repeated += 1
        bytesSent += bytes
    }

    public mutating func connected() { connectionsMade += 1 }
    public mutating func received(bytes: Int) { bytesReceived += bytes }

    /// Notes that a request of kind `request` has ended. Times are nanoseconds of one clock; `begun` is nil for a request that was never
    /// sent.
    public mutating func ended(
        _ request: Int, _ outcome: LoadOutcome, due: Int64, begun: Int64?, at now: Int64, why: @autoclosure () -> String
    ) {
        if outcome == .failed(.own) {
            failures[.own, default: 0] += 1
            if firstWant == nil { firstWant = why() }
            return
        }
        let latency = now - due
        total.response.add(latency)
        parts[request].response.add(latency)
        inSecond.add(latency)
        if let begun {
            service.add(now - begun)
            delay.add(begun - due)
        }
        switch outcome {
        case .status(let status): statuses[status, default: 0] += 1
        case .failed(let error): failures[error, default: 0] += 1
        }
        guard outcome.isError else { return }
        total.errors += 1
        parts[request].errors += 1
        errorsInSecond += 1
        if firstFailure == nil { firstFailure = why() }
    }

    /// Ends a second, and adds its row.
    public mutating func closeSecond(inFlight: Int, users: Int, waiting: Int) {
        seconds.append(
            LoadSecond(
                second: seconds.count, sent: sentInSecond, ended: inSecond.count, errors: errorsInSecond, p50: inSecond.quantile(0.5),
                p95: inSecond.quantile(0.95),
                inFlight: inFlight, users: users, waiting: waiting))
        inSecond.clear()
        sentInSecond = 0
        errorsInSecond = 0
    }

    /// Ends the run. The rest that has not made a whole second becomes one more row, if anything happened in it.
    public mutating func finish(elapsed: Int64, endedEarly: Bool, processorTime: Int64) {
        if inSecond.count > 0 || sentInSecond > 0 { closeSecond(inFlight: 0, users: 0, waiting: 0) }
        self.elapsed = elapsed
        self.endedEarly = endedEarly
        self.processorTime = processorTime
    }
}
