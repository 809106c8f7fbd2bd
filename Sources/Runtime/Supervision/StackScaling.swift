import Basics
import Topology

/// The stack as its autoscalers see it.
extension StackRunner {
    /// Once everything has started: what starts up is no load to scale by.
    func beginScaling() {
        guard stack.services.contains(where: { $0.scaling != nil }) else { return }
        followScaling()
    }

    /// The services that are scaled have changed, or are to be followed for the first time.
    func followScaling() {
        if let scaling { return scaling.follow(stack.services) }
        guard phase == "running", stack.services.contains(where: { $0.scaling != nil }) else { return }
        startScaling()
    }

    func size(of service: String) -> (desired: Int, surge: Int)? {
        guard phase == "running", let machine = serviceMachine(service) else { return nil }
        return (machine.desired, machine.surge)
    }

    func autoscale(_ service: String, to count: Int, work: [Int: Int], because record: DecisionRecord) {
        journal.append(record)
        tell("scale: \(record.sentence)")
        setSize(service, count, work)
    }
}
