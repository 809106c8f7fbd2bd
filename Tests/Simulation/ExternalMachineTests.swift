import Basics
import StoreKinds
import Testing

@testable import Supervision

@Suite struct ExternalMachineTests {
    private static func at(_ seconds: Int) -> MonotonicTime { MonotonicTime(nanoseconds: 0) + .seconds(seconds) }

    @Test func oneThatIsAwayAtTheStartIsToldOnceAndThenGivenUp() {
        var machine = ExternalMachine(subject: "db", place: "h:1", now: Self.at(0))
        #expect(machine.probed(.failed("refused"), now: Self.at(1)) == [.waits("refused")])
        for second in 2..<10 { #expect(machine.probed(.failed("refused"), now: Self.at(second)).isEmpty) }
        #expect(machine.probed(.unready("WRONGPASS"), now: Self.at(10)) == [.isAway("WRONGPASS")])
        #expect(machine.probed(.failed("refused"), now: Self.at(11)).isEmpty && machine.state == "starting" && machine.note == "refused")
        // It comes all the same.
        #expect(machine.probed(.ready, now: Self.at(12)) == [.serves] && machine.state == "ready" && machine.note.isEmpty)
    }

    @Test func oneFailedProbeIsAnAccidentAndTwoAreNews() {
        var machine = ExternalMachine(subject: "db", place: "h:1", now: Self.at(0))
        #expect(machine.probed(.ready, now: Self.at(0)) == [.serves])
        #expect(machine.probed(.failed("silence"), now: Self.at(1)).isEmpty && machine.isServing)
        #expect(machine.probed(.unasked("descriptors"), now: Self.at(2)).isEmpty)
        let news = machine.probed(.failed("silence"), now: Self.at(3))
        guard case .decided(let record)? = news.first else {
            Issue.record("\(news)")
            return
        }
        #expect(news.count == 1 && record.kind == .store && record.outcome == "away" && record.sentence.contains("silence"))
        #expect(machine.state == "failed" && machine.probed(.failed("silence"), now: Self.at(4)).isEmpty)
        #expect(machine.probed(.degraded("slow"), now: Self.at(5)).count == 3 && machine.state == "degraded" && machine.note == "slow")
        #expect(machine.probed(.ready, now: Self.at(6)).isEmpty && machine.state == "ready")
    }
}
