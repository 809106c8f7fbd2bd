import Basics
import EventLoops
import Measurement
import Observability

/// Where a metrics page is, and how much of it is read.
public struct PageSource: Sendable, CustomStringConvertible {
    /// Limits of what a page may cost.
    public struct Limits: Sendable, Equatable {
        /// Most time, from the connection's beginning to the page's last byte. Below the ten seconds that Prometheus waits by default,
        /// because a figure that old is of little use to a scaler.
        public var time = Duration.seconds(5)
        /// Most bytes of the body, uncoded. A page of 8 MiB has some 60,000 series.
        public var bytes = 8 << 20

        /// The defaults: five seconds, 8 MiB.
        public init() {}

        var sizeText: String { bytes % (1 << 20) == 0 ? "\(bytes >> 20) MiB" : "\(bytes) bytes" }
    }

    /// The loop that the connection is made on.
    public let loop: EventLoop
    /// Where to connect to.
    public let endpoint: Endpoint
    /// The path to ask for: begins with a slash, and includes the query.
    public let path: String
    /// What the page may cost.
    public let limits: Limits

    /// A `path` that has blanks or control characters, or no slash at its beginning, is read as `/metrics`.
    public init(loop: EventLoop, endpoint: Endpoint, path: String = "/metrics", limits: Limits = Limits()) {
        self.loop = loop
        self.endpoint = endpoint
        let isPlain = path.utf8.first == 47 && path.utf8.count <= 2048 && path.utf8.allSatisfy { $0 > 32 && $0 < 127 }
        self.path = isPlain ? path : "/metrics"
        self.limits = limits
    }

    /// `http://127.0.0.1:9001/metrics`, or `/metrics at unix:/run/1.sock`
    public var description: String {
        if case .address(.unix) = endpoint { return "\(path) at \(endpoint)" }
        return "http://\(host)\(path)"
    }

    var host: String {
        if case .address(.unix) = endpoint { return "localhost" }
        return endpoint.description
    }

    /// Fetches the page once, by a connection of its own. Ends at once when its task is cancelled.
    func fetch(_ selectors: [SampleSelector], keepsSamples: Bool = false) async -> Result<PageFetch.Found, MeterFault> {
        let loop = loop, box = FetchBox()
        return await withTaskCancellationHandler {
            await withUnsafeContinuation { (continuation: UnsafeContinuation<Result<PageFetch.Found, MeterFault>, Never>) in
                loop.execute {
                    let fetch = PageFetch(self, selectors, keepsSamples: keepsSamples) { continuation.resume(returning: $0) }
                    box.hold(LoopBound(fetch, on: loop))
                    fetch.begin()
                    if box.isCancelled { fetch.abandon() }
                }
            }
        } onCancel: {
            box.cancel()
            loop.execute { box.held?.value.abandon() }
        }
    }
}
