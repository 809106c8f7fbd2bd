import EventLoops
import HTTP
import StackModel

/// TLS to the backends of a route: each is verified by the authority and by its name, always. Files are read when this is made.
struct UpstreamTLS: Sendable {
    private let context: TLSContext
    private let name: String?

    init(_ spec: BackendTLSSpec, route: String) throws(Gateway.Failure) {
        name = spec.name
        do throws(TLSFailure) {
            context = try TLSContext(authorities: spec.authorities, certificate: spec.certificate, key: spec.key)
        } catch { throw Gateway.Failure(description: "route \(route): backend-tls: \(error.reason)") }
    }

    /// How a backend is asked by others than clients' requests.
    func place(of endpoint: Endpoint) -> SecurePlace { SecurePlace(context, name: name ?? endpoint.hostAndPort.0) }

    /// A connection's end of TLS. The name that is asked for is the route's or the address's, never the request's.
    func session(to endpoint: Endpoint) -> TLSSession {
        let (host, port) = endpoint.hostAndPort
        return context.session(to: name ?? host, port: port, offering: [.http1])
    }
}
