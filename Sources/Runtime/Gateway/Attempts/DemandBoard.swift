import Basics
import Synchronization

/// What all loops together know of the demand for services: whom to tell that a service is wanted, and when each was last wanted. Touched
/// only when a request finds no replica and when routes change, never for a request that finds one.
final class DemandBoard: Sendable {
    private let state = Mutex(State())

    private struct State {
        var onDemand: (@Sendable (String) -> Void)?
        var services: [String: Service] = [:]
    }

    private struct Service {
        var lastRequest: MonotonicTime?
        /// Time until which the wake under way needs no further record; nil: no wake is under way.
        var recordedUntil: MonotonicTime?
    }

    var onDemand: (@Sendable (String) -> Void)? {
        get { state.withLock { $0.onDemand } }
        set { state.withLock { $0.onDemand = newValue } }
    }

    /// Notes that a request waits for the service. Returns true when the caller should journal this request: it is the first to wake the
    /// service, or the last wake is older than `patience`.
    func held(_ service: String, at now: MonotonicTime, patience: Duration) -> Bool {
        state.withLock { state in
            state.services[service, default: Service()].lastRequest = now
            if let until = state.services[service]?.recordedUntil, now < until { return false }
            state.services[service]?.recordedUntil = now + patience
            return true
        }
    }

    /// Ends the wake of a service, which has a replica now.
    func woke(_ service: String) { state.withLock { $0.services[service]?.recordedUntil = nil } }

    /// The later of `time` and the service's last known request; the result is remembered.
    func latest(_ service: String, and time: MonotonicTime?) -> MonotonicTime? {
        state.withLock { state in
            let known = state.services[service]?.lastRequest
            guard let time, known == nil || known! < time else { return known }
            state.services[service, default: Service()].lastRequest = time
            return time
        }
    }
}
