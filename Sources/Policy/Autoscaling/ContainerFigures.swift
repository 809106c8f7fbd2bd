import Basics

/// Turns figures of containers into figures of replicas: the amount that a replica requests, and the amount that it uses.
public enum ContainerFigures {
    /// A container as it is declared; the request is nil where it requests nothing.
    public struct Container: Sendable, Equatable {
        public let name: String
        public let request: Int?
        /// Whether this is an init container that goes on running beside the others.
        public let isRestartable: Bool

        public init(name: String, request: Int?, isRestartable: Bool = false) {
            self.name = name
            self.request = request
            self.isRestartable = isRestartable
        }
    }

    /// The amount that one replica requests, in thousandths: the sum of its containers and of those init containers that stay. `whole`, the
    /// request of the replica as such, takes the place of that sum. With `container`, it is that container's request alone.
    public static func request(
        containers: [Container], initContainers: [Container] = [], whole: Int? = nil, container: String? = nil
    ) throws(MetricFault) -> Int {
        let staying = containers + initContainers.filter(\.isRestartable)
        if let container {
            guard let named = staying.first(where: { $0.name == container }) else { throw .containerNotFound(container) }
            guard let request = named.request else { throw .missingRequest }
            return request
        }
        if let whole { return whole }
        var sum = 0
        for one in staying {
            guard let request = one.request else { throw .missingRequest }
            sum.addClamped(request)
        }
        return sum
    }

    /// The amount that one replica uses: the sum of the figures that its containers report, or the named container's figure. nil when
    /// nothing was reported of it, or when a container reported nothing (nil in `reported`).
    public static func usage(_ reported: [(name: String, value: Int?)], container: String? = nil) -> Int? {
        if let container { return reported.first { $0.name == container }?.value }
        if reported.isEmpty { return nil }
        var sum = 0
        for one in reported {
            guard let value = one.value else { return nil }
            sum.addClamped(value)
        }
        return sum
    }
}

extension Int {
    /// A count of replicas from a computed one: rounded up, within what 32 bits hold; 0 for what is no number.
    static func replicas(_ computed: Double) -> Int {
        Int(Int32(clamped: computed.rounded(.up)))
    }
}
