import EventLoops
import Synchronization

/// A fetch and whether it is still wanted, between its task and its loop.
final class FetchBox: Sendable {
    private struct State {
        var fetch: LoopBound<PageFetch>?
        var isCancelled = false
    }

    private let state = Mutex(State())

    func hold(_ fetch: LoopBound<PageFetch>) { state.withLock { $0.fetch = fetch } }
    func cancel() { state.withLock { $0.isCancelled = true } }
    var held: LoopBound<PageFetch>? { state.withLock { $0.fetch } }
    var isCancelled: Bool { state.withLock { $0.isCancelled } }
}
