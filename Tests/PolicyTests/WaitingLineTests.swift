import Basics
import Resilience
import Testing

@Suite struct WaitingLineTests {
    private func at(_ seconds: Int64) -> MonotonicTime { MonotonicTime(nanoseconds: seconds * 1_000_000_000) }

    @Test func whoCameFirstStandsFirst() {
        var line = WaitingLine<String>()
        let a = line.join("a", until: at(9)), b = line.join("b", until: at(5)), c = line.join("c", until: at(7))
        #expect(line.places.map(\.element) == ["a", "b", "c"] && line.places.map(\.number) == [a, b, c] && line.earliest == at(5))
        let left = line.leave(b)
        #expect(left)
        #expect(line.places.map(\.element) == ["a", "c"] && line.earliest == at(7) && line.count == 2)
    }

    @Test func aPlaceIsGivenUpOnce() {
        var line = WaitingLine<Int>()
        let number = line.join(1, until: at(1))
        let left = [line.leave(number), line.leave(number), line.leave(99)]
        #expect(left == [true, false, false])
        #expect(line.isEmpty && line.earliest == nil)
        // The number of one who has gone is nobody's.
        let next = line.join(2, until: at(1))
        #expect(next != number)
    }

    /// The deadline itself is too late, and who is overdue stands there until he leaves.
    @Test func overdueFromTheDeadlineOn() {
        var line = WaitingLine<String>()
        _ = line.join("late", until: at(3))
        _ = line.join("later", until: at(4))
        _ = line.join("early", until: at(2))
        #expect(line.overdue(MonotonicTime(nanoseconds: 1_999_999_999)).isEmpty)
        #expect(line.overdue(at(2)).map(\.element) == ["early"])
        #expect(line.overdue(at(3)).map(\.element) == ["late", "early"])
        #expect(line.count == 3)
    }
}
