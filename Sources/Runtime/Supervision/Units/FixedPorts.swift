import Basics
import EventLoops
import StackModel

/// Ports that a stack file names for what is about to be started. One that is in use would be told in a log only, or hidden by whoever
/// answers there.
enum FixedPorts {
    /// Throws when somebody listens on one of them. `sizes`: the numbers of replicas that services really begin with, where they are other ones
    /// than the file says; of none, no port is needed.
    static func check(_ stack: Stack, sizes: [String: Int]) throws(StackFolder.Failure) {
        for service in stack.services {
            guard let http = service.http, http.isFixed, sizes[service.name] ?? service.replicas.lowerBound > 0 else { continue }
            try check(http.port, "services.\(service.name).http.port")
        }
        for store in stack.stores {
            for port in store.fixedPorts { try check(port, "\(store.key).port") }
        }
    }

    private static func check(_ port: UInt16, _ key: String) throws(StackFolder.Failure) {
        do throws(SystemError) { if try isFreePort(port) { return } } catch {
            throw StackFolder.Failure("\(key): whether port \(port) is free cannot be seen: \(error)")
        }
        throw StackFolder.Failure(
            "\(key): port \(port) is in use: stop what listens there (ss -ltnp 'sport = :\(port)'), or change it in the stack file")
    }
}
