import EventLoops
import Gateway
import Observability

/// What the parts of a running stack have in common. Used on the control loop.
struct StackContext {
    let loop: EventLoop
    let folder: StackFolder
    /// The folder of the stack file: programs are looked for beside it, and processes run in it.
    let fileFolder: String
    let mark: ProcessMark
    /// The supervisor before this one has crashed: a unit that does not start now is no reason to stop the rest.
    let isRestart: Bool
    /// nil: the stack has no gateway.
    let gateway: Gateway?
    let journal: Journal
    /// What outlives this process.
    let record: StackJournal
    let metrics: MetricsRegistry
    /// Takes a line for whoever watches.
    let tell: (String) -> Void
}
