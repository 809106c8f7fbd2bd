import Balancing
import Basics
import EventLoops
import Gateway
import HTTP
import StoreKinds

/// What a replica's runner needs from the stack around it. All on the control loop.
protocol ReplicaHost: AnyObject {
    var loop: EventLoop { get }
    var httpClient: HTTPClient { get }
    func eject(_ service: String) -> PassiveHealth.Settings
    /// A number for the next process; each is given once.
    func nextLife() -> Int
    func spawned(_ runner: ReplicaRunner)
    /// Its process has ended by a SIGKILL that did not come from here.
    func killedByOthers(_ runner: ReplicaRunner)
    /// The process that was life `life` of the runner has ended: what it has started elsewhere is to end, too.
    func ended(_ runner: ReplicaRunner, _ pid: Int32, life: Int)
    /// Sends a signal to processes of that life outside of its process group.
    func signalStrays(_ runner: ReplicaRunner, life: Int, _ signal: Int32)
    func serving(_ runner: ReplicaRunner, _ isServing: Bool)
    /// The keeper of its store does not let it start, for this reason, which is not the one that was told last.
    func held(_ runner: ReplicaRunner, _ why: String)
    /// Figures of a store's node; none that were not read this time.
    func measured(_ unit: String, _ number: Int, isUp: Bool, _ figures: [StoreFigure])
    func failedToStart(_ runner: ReplicaRunner)
    /// Its process has ended by itself and is not started again. `failure`: nil when it ended with success.
    func completed(_ runner: ReplicaRunner, failure: String?)
    func finished(_ runner: ReplicaRunner)
    /// The set of replicas that the gateway may use has changed.
    func membershipChanged()
    func drainingBegan()
    func decided(_ record: DecisionRecord)
}
