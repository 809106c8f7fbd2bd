import Balancing
import EventLoops
import Gateway
import StackModel

/// What became of routes that were given to the gateway.
enum Publication: Equatable {
    /// Every loop of the gateway has them.
    case taken
    /// The gateway keeps the routes that it had, for this reason; the same routes may be given to it again when the reason is gone.
    case refused(String)
}

/// Tells the gateway which replicas serve, and which routes there are. On the control loop.
///
/// A replica counts as ready only when every loop of the gateway has its route; only then may an old one stop. One publication of replicas
/// runs at a time; changes meanwhile make one more.
final class Publisher {
    private let context: StackContext
    private let admitted: () -> [String: [Replica]]
    private let taken: (ReplicaRunner) -> Void
    private var isPublishing = false
    private var publishAgain = false
    /// Replicas that serve, and of which the gateway is yet to be told.
    private var awaiting: [ReplicaRunner] = []
    private var underWay: [ReplicaRunner] = []
    /// Called when the gateway has taken routes: probes and discovery follow them.
    var onRoutes: () -> Void = {}

    /// `admitted`: the replicas that serve now, by service. `taken` is called with a replica when the gateway sends requests to it.
    init(_ context: StackContext, admitted: @escaping () -> [String: [Replica]], taken: @escaping (ReplicaRunner) -> Void) {
        self.context = context
        self.admitted = admitted
        self.taken = taken
    }

    /// A replica serves now: `taken` is called with it when the gateway has it, if it still serves then.
    func serves(_ runner: ReplicaRunner) {
        awaiting.append(runner)
        membershipChanged()
    }

    /// A replica begins to drain: connections to it that are idle are closed.
    func drainingBegan() { context.gateway?.replicasChanged() }

    /// Replicas have come or gone.
    func membershipChanged() {
        context.gateway?.replicasChanged()
        if isPublishing {
            publishAgain = true
            return
        }
        publish()
    }

    /// Gives the gateway the replicas that serve now. The gateway reads no file for it and always takes them, so that what is told after it
    /// (an old replica may go) has happened.
    private func publish() {
        guard let gateway = context.gateway else { return }
        isPublishing = true
        underWay = awaiting
        awaiting = []
        let published = admitted()
        let bound = LoopBound(self, on: context.loop)
        // Ends when every loop of the gateway has taken the routes.
        Task(executorPreference: context.loop) {
            await gateway.apply { published[$0] ?? [] }
            bound.value.onRoutes()
            bound.value.published()
        }
    }

    private func published() {
        isPublishing = false
        let told = underWay
        underWay = []
        for runner in told where runner.machine.isServing { taken(runner) }
        if publishAgain, !isPublishing {
            publishAgain = false
            publish()
        }
    }

    /// Gives the gateway the routes of a changed configuration, and returns when every loop has them, or when the gateway refuses them (a file
    /// that a route names cannot be read): then nothing has changed.
    func publish(_ spec: GatewaySpec) async -> Publication {
        guard let gateway = context.gateway else { return .refused("the stack was started without a gateway") }
        let lists = admitted()
        do throws(Gateway.Failure) { try await gateway.apply(spec) { lists[$0] ?? [] } } catch {
            context.tell("the gateway keeps the routes that it has: \(error)")
            return .refused("\(error)")
        }
        onRoutes()
        // Whoever came or went while the routes were taken.
        membershipChanged()
        return .taken
    }
}
