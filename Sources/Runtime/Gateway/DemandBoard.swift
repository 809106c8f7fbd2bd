import Basics
import Synchronization

/// What all loops know of the demand for services: whom to tell that one is wanted, and when it was wanted last. Touched only when a
/// request finds no replica and when routes change, never for a request that finds one.
final class DemandBoard: Sendable {
    private let state = Mutex(State())

    private struct State {
        var onDemand: (@Sendable (String) -> Void)?
        var services: [String: Service] = [:]
    }

    private struct Service {
        var lastRequest: MonotonicTime?
        /// Until when the wake that is under way needs no further record; nil: none is under way.
        var recordedUntil: MonotonicTime?
    }

    var onDemand: (@Sendable (String) -> Void)? {
        get { state.withLock { $0.onDemand } }
        set { state.withLock { $0.onDemand = newValue } }
    }

    /// A request waits for the service. True for the first of a wake: it is written down. A wake that does not succeed within `patience` is
    /// written down again.
    func held(_ service: String, at now: MonotonicTime, patience: Duration) -> Bool {
        state.withLock { state in
            state.services[service, default: Service()].lastRequest = now
            if let until = state.services[service]?.recordedUntil, now < until { return false }
            state.services[service]?.recordedUntil = now + patience
            return true
        }
    }

    /// The service has a replica: the wake is over.
    func woke(_ service: String) { state.withLock { $0.services[service]?.recordedUntil = nil } }

    /// The latest of what was known and `time`.
    func latest(_ service: String, and time: MonotonicTime?) -> MonotonicTime? {
        state.withLock { state in
            let known = state.services[service]?.lastRequest
            guard let time, known == nil || known! < time else { return known }
            state.services[service, default: Service()].lastRequest = time
            return time
        }
    }
}
