import Basics
import Topology

/// The stack as its autoscalers see it.
extension StackRunner {
    /// The services have changed, or have all started, before which there is no load to scale by: what they use is recorded even where none
    /// scales.
    func followScaling() {
        let scales = stack.services.contains { $0.scaling != nil }
        // The first that scale by themselves set the pace of the meters, so these begin anew; what was recorded is kept and read again.
        if let scaling, scaling.scalesAny || !scales { return scaling.follow(stack.services) }
        guard phase == "running" else { return }
        endScaling()
        startScaling()
    }

    func killedByOthers(_ runner: ReplicaRunner) { scaling?.killedByOthers(runner.unit, runner.number) }

    func size(of service: String) -> (desired: Int, surge: Int?)? {
        guard phase == "running", let machine = serviceMachine(service) else { return nil }
        return (machine.desired, machine.surge)
    }

    func autoscale(_ service: String, to count: Int, work: [Int: Int], because record: DecisionRecord) -> Bool {
        // The machine sets no size while the stack is starting its stores or ending.
        guard size(of: service) != nil else { return false }
        journal.append(record)
        tell("scale: \(record.sentence)")
        setSize(service, count, work)
        return true
    }
}
