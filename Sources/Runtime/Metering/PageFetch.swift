import Basics
import EventLoops
import HTTP
import Measurement
import Observability

/// One request for a metrics page, read while it arrives: the page is kept nowhere. Keeps itself alive until it has answered, once.
///
/// Refused are a page that is cut off or old by its own word (see `responseEnd`, `oldest`), more than `limits.bytes`, more time than
/// `limits.time` from beginning to end (so a byte a second does not help), any status but 200, a coding that was not asked for, and a type
/// that is no metrics page. Redirections are not followed.
final class PageFetch: HTTPClientConnection {
    /// What the selectors found, and when: the time is that of the page's head, which a server writes when it has its figures.
    struct Found: Sendable {
        let totals: [ExpositionReader.Total]
        /// The values behind each total, by series.
        let series: [[Int: Double]]
        /// Samples, each with the place of its selector; empty unless asked for.
        let samples: [(place: Int, sample: ExpositionSample)]
        let at: MonotonicTime
        /// The wall clock at that moment, for times that the page tells.
        let wall: WallTime

        /// Why the samples of a selector are not current: the page itself says that one is older than `PageFetch.oldest`, or as far ahead.
        func staleness(_ place: Int, called name: String) -> MeterFault? {
            let total = totals[place]
            if let oldest = total.oldest, wall - oldest > PageFetch.oldest {
                return MeterFault(
                    .stale,
                    "\(name) is of \(CalendarTime.render(oldest)) by the page's own word; at most \(PageFetch.oldest.brief) is allowed")
            }
            if let newest = total.newest, newest - wall > PageFetch.oldest {
                return MeterFault(.stale, "\(name) is of \(CalendarTime.render(newest)) by the page's own word, which is yet to come")
            }
            return nil
        }
    }

    /// Greatest age of a sample that tells its time, and of an answer that tells its `Age`. The figure is Prometheus' own: after five
    /// minutes without a newer sample a series is stale.
    static let oldest = Duration.seconds(300)

    private let source: PageSource
    private var reader: ExpositionReader
    private let keepsSamples: Bool
    private var samples: [(place: Int, sample: ExpositionSample)] = []
    private let selectors: [SampleSelector]
    private var isFramed = false
    private var isOpenMetrics = false
    private var bytes = 0
    private var headAt = MonotonicTime(nanoseconds: 0)
    private var headWall = WallTime(milliseconds: 0)
    private var answer: ((Result<Found, MeterFault>) -> Void)?
    private var timer: LoopTimer?
    private var kept: PageFetch?

    /// `answer` is called on the loop, once.
    init(_ source: PageSource, _ selectors: [SampleSelector], keepsSamples: Bool, _ answer: @escaping (Result<Found, MeterFault>) -> Void) {
        self.source = source
        self.keepsSamples = keepsSamples
        self.answer = answer
        self.selectors = selectors
        reader = ExpositionReader(selectors, format: .text)
        super.init(loop: source.loop, table: HeadTable(), limits: HTTPLimits())
    }

    func begin() {
        kept = self
        timer = LoopTimer(loop: loop) { [unowned self] in
            end(
                .failure(MeterFault(.timedOut, "\(source) did not end its answer within \(source.limits.time.brief) (\(bytes) bytes came)"))
            )
        }
        timer?.schedule(after: source.limits.time)
        begin(isHead: false)
        connect(to: source.endpoint)
    }

    /// Ends the fetch, because nobody waits for it any more.
    func abandon() { end(.failure(MeterFault(.timedOut, "\(source) was no longer waited for"))) }

    private func end(_ result: Result<Found, MeterFault>) {
        guard let answer else { return }
        self.answer = nil
        timer?.cancel()
        close()
        answer(result)
        kept = nil
    }

    private func fail(_ kind: MeterFault.Kind, _ reason: String) { end(.failure(MeterFault(kind, "\(source) \(reason)"))) }

    override func connectionReady() {
        let request = """
            GET \(source.path) HTTP/1.1\r\nHost: \(source.host)\r\nUser-Agent: muster\r\nAccept: text/plain;version=0.0.4, application/openmetrics-text;q=0.5\r
            Accept-Encoding: identity\r\nConnection: close\r\n\r\n
            """
        Array(request.utf8).withUnsafeBytes { write($0) }
    }

    override func responseHead(_ table: HeadTable) {
        headAt = .now
        headWall = .now
        isFramed = table.framing != .untilClose
        guard table.status == 200 else { return fail(.refused, "answered \(table.status); a metrics page comes with 200") }
        if let coding = table.value(Array("content-encoding".utf8))?.string.lowercased(), coding != "identity" {
            return fail(.wrongType, "answered in the coding '\(coding.prefix(40))', which was not asked for")
        }
        if let age = table.value(Array("age".utf8))?.string, let seconds = Double(age), seconds > PageFetch.oldest.secondsAsDouble {
            return fail(.stale, "answered from a cache: Age is \(age.prefix(20)) s, and at most \(PageFetch.oldest.brief) is allowed")
        }
        guard let type = table.value(Array("content-type".utf8))?.string.lowercased() else { return }
        let essence = type.prefix { $0 != ";" && $0 != " " }
        if essence != "text/plain", essence != "application/openmetrics-text" {
            return fail(.wrongType, "answered '\(essence.prefix(80))'; a metrics page is text/plain or application/openmetrics-text")
        }
        guard essence != "text/plain" else { return }
        isOpenMetrics = true
        reader = ExpositionReader(selectors, format: .openMetrics)
    }

    override func responseBody(_ bytes: UnsafeRawBufferPointer) {
        guard answer != nil else { return }
        self.bytes += bytes.count
        guard self.bytes <= source.limits.bytes else { return fail(.tooLarge, "page larger than \(source.limits.sizeText)") }
        do throws(ExpositionReader.Failure) { try reader.feed(bytes) { note($0, $1) } } catch { refuse(error) }
    }

    private func note(_ place: Int, _ sample: ExpositionSample) { if keepsSamples { samples.append((place, sample)) } }

    private func refuse(_ failure: ExpositionReader.Failure) {
        switch failure {
        case .malformed, .duplicate: fail(.malformed, failure.description)
        case .lineTooLong, .tooManySamples: fail(.tooLarge, failure.description)
        }
    }

    override func responseEnd(reusable: Bool) {
        guard answer != nil else { return }
        // OpenMetrics says itself where it ends. The text format ends each line with LF; where neither a length nor chunks told the end,
        // a line without one may be half a line, and "5" the beginning of "5000".
        if !reader.isWhole, isOpenMetrics || !isFramed {
            return fail(
                .malformed,
                "is cut off: after \(bytes) bytes it ends without \(isOpenMetrics ? "the # EOF of OpenMetrics" : "the end of its last line")"
            )
        }
        do throws(ExpositionReader.Failure) { try reader.finish { note($0, $1) } } catch { return refuse(error) }
        end(.success(Found(totals: reader.totals, series: reader.series, samples: samples, at: headAt, wall: headWall)))
    }

    override func connectionClosed(_ failure: Failure?) {
        switch failure {
        case .notConnected(let reason): fail(.unreachable, "could not be reached: \(reason)")
        case .malformed: fail(.malformed, "\(failure!.description)")
        case .lost, nil: fail(.unreachable, failure?.description ?? "closed")
        }
    }
}
