import Autoscaling
import Basics
import Observability
import StackModel

/// The sizes that somebody has asked for, until the autoscalers run, which hold them from then on: pure.
struct AskedSizes {
    private var owners: [String: Ownership] = [:]
    /// The number of replicas that each service begins with.
    private(set) var begin: [String: Int] = [:]
    /// The services that go on from what a supervisor before this one has left.
    private(set) var recalled: [String] = []
    /// Sizes that cannot be held, with the reason, a line each.
    private(set) var refusals: [String] = []

    /// `counts`: the sizes that were asked for on the command line. `pasts`: what a supervisor before this one has left; after its crash
    /// (`isRestart`) the command line is the same, and the record is later. A service without either begins as the stack file says.
    init(_ services: [ServiceSpec], counts: [String: Int], pasts: [String: RecordedScaling.Past], isRestart: Bool) {
        for service in services {
            let name = service.name, past = pasts[name]
            let asked = past.map { isRestart || counts[name] == nil ? $0.held : counts[name] } ?? counts[name]
            if past != nil { recalled.append(name) }
            if let asked, let reason = service.refusal(of: asked) {
                refusals.append("\(name) is not held at \(asked) replicas, which somebody had asked for: \(reason)")
            } else if let asked {
                _ = set(name, asked, from: asked, now: .now)
            }
            begin[name] = [asked, past?.size].compactMap { $0 }.first { service.refusal(of: $0) == nil } ?? service.replicas.lowerBound
        }
    }

    /// By service.
    var held: [String: Int] { owners.compactMapValues(\.held) }

    /// Somebody has set the size of a service, or freed it (nil). What is to be told.
    mutating func set(_ service: String, _ count: Int?, from current: Int, now: MonotonicTime) -> DecisionRecord {
        owners[service, default: Ownership()].set(service, count, from: current, now: now)
    }
}
