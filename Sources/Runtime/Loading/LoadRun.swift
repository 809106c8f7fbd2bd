import Basics
import EventLoops
import LoadPlanning
import Synchronization

/// A load test as a library: `run` sends what the scenario says and returns what came of it.
///
/// Everything happens on `loop`, which should have nothing else to do: its other work would be measured too. Not on the loop of the server
/// under test.
public final class LoadRun: Sendable {
    private let scenario: Scenario
    private let endpoint: Endpoint
    private let loop: EventLoop
    private let onSecond: (@Sendable (LoadSecond) -> Void)?
    private let state = Mutex(State())

    private struct State {
        var engine: LoopBound<LoadEngine>?
        var isStopping = false
    }

    /// `onSecond` is called on the loop after each second of the run.
    public init(_ scenario: Scenario, to endpoint: Endpoint, on loop: EventLoop, onSecond: (@Sendable (LoadSecond) -> Void)? = nil) {
        self.scenario = scenario
        self.endpoint = endpoint
        self.loop = loop
        self.onSecond = onSecond
    }

    /// Returns when every request has ended, each at most the scenario's timeout after it was sent. Once for each `LoadRun`. Cancelling it,
    /// like `stop`, ends the schedule: what is under way is waited for, and the report tells of what was until then.
    ///
    /// Throws before anything is sent when the machine has too few descriptors or ports.
    public func run() async throws(LoadFailure) -> LoadReport {
        try LoadRoom.prepare(scenario)
        return await withTaskCancellationHandler(operation: { await conduct() }, onCancel: { stop() })
    }

    private func conduct() async -> LoadReport {
        await withUnsafeContinuation { continuation in
            loop.execute { [self] in
                let engine = LoadEngine(scenario, to: endpoint, on: loop, onSecond: onSecond) { continuation.resume(returning: $0) }
                let bound = LoopBound(engine, on: loop)
                let stops = state.withLock { state in
                    state.engine = bound
                    return state.isStopping
                }
                engine.begin()
                if stops { engine.stop() }
            }
        }
    }

    /// Ends the schedule; `run` returns soon. From any thread, also before `run`.
    public func stop() {
        let engine = state.withLock { state in
            state.isStopping = true
            return state.engine
        }
        if let engine { loop.execute { engine.value.stop() } }
    }
}
