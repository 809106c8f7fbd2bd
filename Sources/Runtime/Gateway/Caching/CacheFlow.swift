import Basics
import Caching
import EventLoops
import Synchronization

/// One fetch from the origin as all loops see it: who waits for it, and what has come. The fill on its own loop writes; requests of any loop
/// read.
final class CacheFlow: Sendable {
    let key: CacheKey
    let cache: RouteCache
    /// The request that began it.
    let request: RequestFacts
    /// The fields by which answers of this address were told apart so far.
    let known: [SelectingField]
    /// What is stored and shall be renewed.
    let validating: CacheEntry?
    let begun: MonotonicTime
    private let isOpen: Bool
    private let outdated = Atomic<Bool>(false)
    private let state: Mutex<State>

    /// The head of an answer that is for sharing.
    struct Head: Sendable {
        let content: CacheEntry.Content
        /// The body's length; nil: not known yet.
        let length: Int?
        /// Whether each piece is meant to be read at once.
        let isStream: Bool
    }

    enum Outcome: Sendable {
        /// Nothing yet, or the body is still coming.
        case open
        /// The whole body has come, or the stored answer was renewed. `entry`: what may be served.
        case whole(CacheEntry)
        /// The whole body has come, and was not kept.
        case passed
        /// Not for sharing: each asks by itself.
        case unshared
        /// No answer came.
        case failed(CacheFailure, Coalescing.Failure, leaders: Int)
        /// The body broke off.
        case cut
    }

    struct Reader: Sendable {
        let ticket: Int
        let loop: EventLoop
        let visit: LoopBound<CacheVisit>
        var position = 0
    }

    struct Source: Sendable {
        let loop: EventLoop
        let fill: LoopBound<CacheFill>
    }

    struct State: Sendable {
        var line: Coalescing
        var head: Head?
        var outcome = Outcome.open
        var body = CacheBody()
        /// Pieces at the beginning that are gone, because what comes is not kept.
        var dropped = 0
        var readers: [Reader] = []
        /// Their bytes.
        private var droppedBytes = 0
        var purgedTags: [[UInt8]] = []
        var tickets = 0
        /// Set while what comes is not kept: then the fill waits for its readers.
        var source: Source?

        init(line: Coalescing) { self.line = line }

        /// Lets go of the pieces that every reader has read.
        mutating func dropRead() {
            let least = readers.map(\.position).min() ?? body.count
            while let first = body.segments.first, droppedBytes + first.capacity <= least {
                body.segments.removeFirst()
                dropped += 1
                droppedBytes += first.capacity
            }
        }
    }

    /// What a reader sees at one moment.
    struct View: Sendable {
        let head: Head?
        let outcome: Outcome
        let body: CacheBody
        let dropped: Int
    }

    init(
        key: CacheKey, cache: RouteCache, request: RequestFacts, known: [SelectingField], validating: CacheEntry?, isOpen: Bool,
        begun: MonotonicTime, leaders: Int
    ) {
        state = Mutex(State(line: Coalescing(leaders: leaders)))
        self.key = key
        self.cache = cache
        self.request = request
        self.known = known
        self.validating = validating
        self.isOpen = isOpen
        self.begun = begun
    }

    var isOutdated: Bool { outdated.load(ordering: .acquiring) }
    /// What comes is not stored any more, and nobody new may join.
    func outdate() { outdated.store(true, ordering: .releasing) }

    /// Most tags that are remembered as purged while nobody knows the answer's own; beyond them every answer counts as purged.
    private static let mostPurgedTags = 64

    /// A purge has been asked for while this is under way. Before the head nobody knows the answer's tags: then they are looked at when it
    /// has come.
    func purged(_ what: ResponseCache.Purge) {
        state.withLock { state in
            if let head = state.head {
                if what.takes(key, tags: head.content.facts.tags) { outdate() }
            } else if case .tag(let tag) = what, state.purgedTags.count < CacheFlow.mostPurgedTags {
                state.purgedTags.append(tag)
            } else if what.takes(key, tags: nil) {
                outdate()
            }
        }
    }

    /// Whether a tag of the answer was purged while it came.
    func isPurged(_ tags: [[UInt8]]) -> Bool { state.withLock { state in tags.contains { state.purgedTags.contains($0) } } }

    /// Whether a request may join. With its shard's mutex held.
    func takes(_ visit: CacheVisit, waiting: Int) -> Bool {
        guard isOpen, !isOutdated, visit.cache?.number == cache.number, visit.fits(known) else { return false }
        guard key.bytes.withUnsafeBytes({ $0.elementsEqual(visit.key) }) else { return false }
        return state.withLock { state in
            guard state.line.arrival(waiting: waiting) == .follow, state.dropped == 0, state.purgedTags.isEmpty else { return false }
            if let head = state.head { return visit.fits(head.content.selecting) }
            return true
        }
    }

    /// Adds a reader. Returns its ticket.
    func enter(_ visit: CacheVisit, on loop: EventLoop) -> Int {
        let bound = LoopBound(visit, on: loop)
        return state.withLock { state in
            state.tickets += 1
            state.readers.append(Reader(ticket: state.tickets, loop: loop, visit: bound))
            return state.tickets
        }
    }

    /// A reader goes. Returns how many are left.
    func leave(_ ticket: Int) -> Int {
        state.withLock { state in
            state.readers.removeAll { $0.ticket == ticket }
            return state.readers.count
        }
    }

    var view: View {
        state.withLock { View(head: $0.head, outcome: $0.outcome, body: $0.body, dropped: $0.dropped) }
    }

    /// Changes what readers see, and tells them.
    func change(_ body: (inout State) -> Void) {
        let readers = state.withLock { state in
            body(&state)
            return state.readers
        }
        tell(readers)
    }

    /// Changes what readers see, without telling them yet.
    func note<T: Sendable>(_ body: (inout State) -> T) -> T { state.withLock { body(&$0) } }

    func tellReaders() { tell(state.withLock { $0.readers }) }

    private func tell(_ readers: [Reader]) {
        for reader in readers {
            if reader.loop.isCurrent {
                reader.visit.value.moved(self, reader.ticket)
            } else {
                let visit = reader.visit, ticket = reader.ticket
                reader.loop.execute { [self] in visit.value.moved(self, ticket) }
            }
        }
    }

    /// A reader has gone: a fill that waits for its readers may have waited for that one.
    func readerLeft() {
        guard let source = state.withLock({ $0.source }) else { return }
        if source.loop.isCurrent { return source.fill.value.readersMoved() }
        source.loop.execute { source.fill.value.readersMoved() }
    }

    /// Notes how far a reader has come, and wakes a fill that waits for its readers.
    func advanced(_ ticket: Int, to position: Int) {
        let source = state.withLock { state -> Source? in
            guard let place = state.readers.firstIndex(where: { $0.ticket == ticket }) else { return nil }
            state.readers[place].position = position
            return state.source
        }
        guard let source else { return }
        if source.loop.isCurrent { return source.fill.value.readersMoved() }
        source.loop.execute { source.fill.value.readersMoved() }
    }
}

/// An answer of the gateway's own in place of one that did not come.
struct CacheFailure: Sendable {
    let status: Int
    let type: String?
    let body: [UInt8]
    /// Whole lines that belong to it, such as Retry-After.
    let lines: [UInt8]
}
