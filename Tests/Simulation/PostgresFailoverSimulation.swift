import Basics
import PostgresFailover
import Testing

/// Thousands of histories of kills, hangs, orders and crashes of the supervisor between any two steps. A failing seed repeats exactly.
@Suite struct PostgresFailoverSimulation {
    private static func settings(quorum: Int, relax: Duration?, nodes: Int = 3) -> FailoverMachine.Settings {
        .init(name: "db", nodes: nodes, quorum: quorum, relax: relax, maxLoss: 1 << 20, failover: .seconds(3))
    }

    /// Runs a history and returns what was wrong in it.
    private func run(_ seed: UInt64, _ settings: FailoverMachine.Settings) -> (faults: [String], world: PostgresWorld) {
        let world = PostgresWorld(seed: seed, settings: settings)
        // Until it has formed.
        for _ in 0..<100 { world.step() }
        for _ in 0..<Int.random(in: 1...8, using: &world.random) {
            world.harm(Int.random(in: 0...5, using: &world.random))
            for _ in 0..<Int.random(in: 0...60, using: &world.random) {
                world.step()
            }
            if world.machine == nil { world.startSupervisor() }
            world.checkAll()
        }
        world.isCalm = true
        if world.machine == nil { world.startSupervisor() }
        var isWell = false
        for _ in 0..<3000 where !isWell {
            world.step()
            isWell = world.machine?.state == .serving
        }
        world.checkAll()
        var faults = world.faults
        if !isWell, let machine = world.machine {
            let states = (1...settings.nodes).map { machine.state(of: $0).rawValue }
            faults.append("it does not serve again: \(machine.phase), \(states), \(machine.record), \(world.runs) \(world.state)")
        }
        let before = world.acknowledged
        for _ in 0..<40 { world.step() }
        if isWell, world.acknowledged == before { faults.append("it serves and acknowledges nothing") }
        return (faults, world)
    }

    @Test func nothingAcknowledgedIsLostAndItServesAgain() {
        var promotions = 0, acknowledged = 0
        for seed in 0..<1000 as Range<UInt64> {
            let (faults, world) = run(seed, Self.settings(quorum: 1, relax: nil))
            promotions += world.promotions
            acknowledged += world.guarded.count
            #expect(faults.isEmpty, "seed \(seed): \(Set(faults).sorted())")
            if !faults.isEmpty { break }
        }
        // The histories have what they are to be about.
        #expect(promotions > 200)
        #expect(acknowledged > 50_000)
    }

    @Test(arguments: [(1, Duration?.some(.seconds(1))), (0, nil)]) func whereWritesMayBeLostThereIsStillOnePrimary(
        quorum: Int, relax: Duration?
    ) {
        for seed in 0..<250 as Range<UInt64> {
            let (faults, _) = run(seed, Self.settings(quorum: quorum, relax: relax))
            // Only what was acknowledged alone may be lost, which the world does not count.
            #expect(faults.isEmpty, "seed \(seed): \(Set(faults).sorted())")
            if !faults.isEmpty { break }
        }
    }

    @Test func twoNodesAndOneNodeServeAgain() {
        for nodes in [1, 2] {
            for seed in 0..<150 as Range<UInt64> {
                let (faults, _) = run(seed, Self.settings(quorum: 1, relax: nil, nodes: nodes))
                #expect(faults.isEmpty, "\(nodes) nodes, seed \(seed): \(Set(faults).sorted())")
                if !faults.isEmpty { break }
            }
        }
    }
}
