import Testing

@testable import CorrelationEngine

@Suite struct IntakeLineTests {
    private func load(_ records: Int, _ bytes: Int = 0) -> IntakeLine.Load { .init(records: records, bytes: bytes) }

    /// The batch that once got in only when nobody else was there.
    @Test func aBatchBeyondTheCapacityHasItsTurn() {
        var line = IntakeLine(most: load(100, 1000))
        #expect(line.enter(load(30)) == .go)
        #expect(line.enter(load(120)) == .wait(1))
        // Those that come after it do not overtake it, though they would fit.
        #expect(line.enter(load(5)) == .refused)
        #expect(line.leave(load(30)) == [1])
        #expect(line.inside.records == 120)
        #expect(line.enter(load(5)) == .wait(2) && line.enter(load(95)) == .wait(3) && line.enter(load(1)) == .refused)
        #expect(line.leave(load(120)) == [2, 3] && line.inside.records == 100 && line.waiting == load(0))
    }

    @Test func bytesAreBoundedLikeRecords() {
        var line = IntakeLine(most: load(100, 1000))
        #expect(line.enter(load(1, 900)) == .go && line.enter(load(1, 200)) == .wait(1) && line.enter(load(1, 801)) == .refused)
        #expect(line.enter(load(1, 800)) == .wait(2))
        #expect(line.leave(load(1, 900)) == [1, 2])
    }

    /// Whoever is refused would have found a place when others have left: no load waits for ever, and no count drifts.
    @Test func everyLoadGetsInInItsOrder() {
        var line = IntakeLine(most: load(50, 5000))
        var inside: [IntakeLine.Load] = [], waiting: [(Int, IntakeLine.Load)] = [], entered = 0
        var random = SystemRandomNumberGenerator()
        for _ in 0..<5000 {
            let next = load(Int.random(in: 0...70, using: &random), Int.random(in: 0...6000, using: &random))
            switch line.enter(next) {
            case .go: inside.append(next)
            case .wait(let ticket): waiting.append((ticket, next))
            case .refused: #expect(!waiting.isEmpty)
            }
            if !inside.isEmpty, Bool.random(using: &random) {
                for ticket in line.leave(inside.removeFirst()) {
                    #expect(waiting.first?.0 == ticket)
                    inside.append(waiting.removeFirst().1)
                }
            }
            entered = max(entered, inside.count)
            #expect(inside.count <= 1 || line.inside.records <= 50 && line.inside.bytes <= 5000)
        }
        while !inside.isEmpty { for _ in line.leave(inside.removeFirst()) { inside.append(waiting.removeFirst().1) } }
        #expect(waiting.isEmpty && line.inside == load(0) && line.waiting == load(0) && entered > 1)
    }
}
