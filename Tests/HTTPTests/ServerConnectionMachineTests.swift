import Basics
import EventLoops
import Testing

@testable import HTTP

/// The life of a server's connection, driven without sockets.
@Suite struct ServerConnectionMachineTests {
    private typealias Machine = ServerConnectionMachine
    private let start = MonotonicTime(nanoseconds: 1_000_000_000_000)
    private let limits = HTTPLimits()

    private enum Where: CaseIterable { case proxyHeader, idle, headBegun, fixedBody, chunkedBody, answering, leaving, tunnel }

    /// A machine brought to a place by what a connection would tell it.
    private func machine(_ place: Where) -> Machine {
        var machine = Machine()
        machine.start(expectsProxyHeader: place == .proxyHeader, start, limits)
        switch place {
        case .proxyHeader, .idle: break
        case .headBegun: machine.tookPartOfHead(start, limits)
        case .fixedBody: take(.length(100), start, &machine)
        case .chunkedBody: take(.chunked, start, &machine)
        case .answering: take(.none, start, &machine)
        case .leaving: machine.leave()
        case .tunnel:
            take(.none, start, &machine)
            machine.beginTunnel()
        }
        return machine
    }

    /// A machine cannot be copied into a macro's closure, so what it says is compared here.
    private func check<Value: Equatable>(
        _ value: Value, _ expected: Value, _ note: Comment? = nil, at place: SourceLocation = #_sourceLocation
    ) {
        #expect(value == expected, note, sourceLocation: place)
    }

    private func take(
        _ framing: BodyFraming, keepsAlive: Bool = true, expectsContinue: Bool = false, _ now: MonotonicTime, _ machine: inout Machine
    ) {
        do throws(HTTPFailure) {
            try machine.took(framing: framing, keepsAlive: keepsAlive, expectsContinue: expectsContinue, now, limits)
        } catch { Issue.record("\(error)") }
    }

    private func label(_ state: Machine.State) -> String {
        switch state {
        case .proxyHeader: "proxy header"
        case .head(let begun): begun ? "head begun" : "idle"
        case .fixedBody(let remaining): "body \(remaining)"
        case .chunkedBody: "chunks"
        case .answering: "answering"
        case .leaving: "leaving"
        case .tunnel: "tunnel"
        }
    }

    @Test func whatTheEndOfThePeersSideMeans() {
        let expected: [Where: Machine.Action] = [
            .proxyHeader: .close(.endOfFile), .idle: .close(.endOfFile), .headBegun: .close(.endOfFile), .fixedBody: .close(.endOfFile),
            .chunkedBody: .close(.endOfFile), .answering: .requesterEnded, .leaving: .close(.endOfFile), .tunnel: .tunnelEnded,
        ]
        for place in Where.allCases {
            var machine = machine(place)
            check(machine.peerEnds(input: 0), expected[place], "\(place)")
            check(machine.peerEnded, true)
        }
        // Whole requests that wait here are still answered.
        var machine = machine(.idle)
        check(machine.peerEnds(input: 10), .nothing)
    }

    @Test func whatAHangUpMeansWhileThePeerIsNotRead() {
        let expected: [Where: Machine.Action] = [
            .fixedBody: .close(.endOfFile), .chunkedBody: .requesterEnded, .answering: .requesterEnded,
        ]
        for place in Where.allCases {
            let machine = machine(place)
            check(machine.hungUp(seen: 99, isExact: true), expected[place] ?? .nothing, "\(place)")
        }
        let machine = machine(.fixedBody)
        check(machine.hungUp(seen: 100, isExact: true), .requesterEnded, "all of it is here")
        check(machine.hungUp(seen: 0, isExact: false), .requesterEnded, "what is here is not known")
    }

    @Test func whatTheDeadlineMeans() {
        let expected: [Where: Machine.Action] = [
            .proxyHeader: .close(.ours), .idle: .close(.ours), .headBegun: .refuse(.headTimeout), .fixedBody: .refuse(.bodyTimeout),
            .chunkedBody: .refuse(.bodyTimeout), .answering: .nothing, .leaving: .close(.ours), .tunnel: .nothing,
        ]
        for place in Where.allCases {
            var machine = machine(place)
            if place == .leaving { check(machine.drained(start), .farewell) }
            check(machine.timePassed(.init(), machine.deadline ?? start, limits), expected[place], "\(place)")
        }
    }

    /// A client that reads something in a minute keeps its connection; one that reads nothing loses it.
    @Test func whoeverReadsKeepsItsConnection() {
        for place in [Where.answering, .leaving, .tunnel] {
            var machine = machine(place)
            machine.watchWriting(.init(waiting: 1000), start, limits)
            check(machine.deadline, start + limits.writeTime)
            // What is added to what waits gives no more time; what has left does.
            machine.watchWriting(.init(waiting: 2000), start + .seconds(30), limits)
            check(machine.deadline, start + limits.writeTime)
            check(machine.timePassed(.init(waiting: 2000, left: 1), start + limits.writeTime, limits), .nothing)
            check(machine.deadline, start + limits.writeTime + limits.writeTime)
            check(machine.timePassed(.init(waiting: 2000, left: 1), start + .seconds(120), limits), .close(.ours))
            machine.watchWriting(.init(waiting: 1000, left: 2), start + .seconds(90), limits)
            check(machine.deadline, start + .seconds(90) + limits.writeTime)
        }
        // The same of a client whose body is not read; that its body's time stands still gives it no more to read in.
        var machine = machine(.fixedBody)
        machine.holdBody(true, start, limits)
        check(machine.deadline, nil)
        check(machine.timePassed(.init(), start, limits), .nothing)
        machine.watchWriting(.init(waiting: 10), start, limits)
        check(machine.timePassed(.init(waiting: 10), start + limits.writeTime, limits), .close(.ours))
    }

    /// What a client sends, and that its body is held or read again, buys it no time to read in.
    @Test func theBodysTimeIsNotThatOfWriting() {
        let end = start + limits.writeTime
        for place in [Where.fixedBody, .chunkedBody] {
            var held = machine(place)
            _ = held.beginAnswer(isDraining: false)
            held.watchWriting(.init(waiting: 10), start, limits)
            held.holdBody(true, start + .seconds(1), limits)
            check(held.deadline, end, "\(place)")
            held.holdBody(false, start + .seconds(20), limits)
            check(held.deadline, end, "\(place)")
            check(held.timePassed(.init(waiting: 10), end, limits), .close(.ours), "\(place)")
            check(held.cuts(waiting: 10), true)
        }
        // The last byte of its body comes while the answer waits for it.
        var last = machine(.fixedBody)
        _ = last.beginAnswer(isDraining: false)
        last.watchWriting(.init(waiting: 10), start, limits)
        let (part, isLast) = last.tookBody(100, start + .seconds(5), limits)
        #expect(part == 100 && isLast)
        check(last.deadline, end)
        check(last.bodyEnded(.init(waiting: 10), start + .seconds(5), limits), .endRequest)
        check(last.deadline, end)
        check(last.timePassed(.init(waiting: 10), end, limits), .close(.ours))
        // A further request, whose answer is not there yet, changes nothing about those before.
        var next = machine(.answering)
        check(next.finishAnswer(close: false, .init(input: 10, waiting: 10), start, limits), .next)
        next.tookHead()
        take(.none, start + .seconds(1), &next)
        check(next.deadline, end)
        // The earlier of the two counts, and the other one is kept.
        var body = machine(.fixedBody)
        body.watchWriting(.init(waiting: 10), start + .seconds(10), limits)
        check(body.deadline, start + limits.bodyTime)
        body.watchWriting(.init(waiting: 10, left: 1), start + .seconds(-10), limits)
        check(body.deadline, start + .seconds(50))
        _ = body.takeDeadline()
        check(body.timePassed(.init(waiting: 9, left: 2), start + .seconds(50), limits), .nothing)
        check(body.takeDeadline(), .some(start + limits.bodyTime))
        check(body.timePassed(.init(waiting: 9), start + limits.bodyTime, limits), .refuse(.bodyTimeout))
        // When all has left, nobody watches.
        var left = machine(.answering)
        left.watchWriting(.init(waiting: 10), start, limits)
        check(left.answersLeft(.init(waiting: 1), start, limits), .nothing)
        check(left.deadline, end)
        check(left.answersLeft(.init(), start, limits), .nothing)
        check(left.deadline, nil)
    }

    /// An end in good order would make a part of an answer look whole to a client of HTTP/1.0.
    @Test func whatAnEndCutsOff() {
        for place in Where.allCases {
            let machine = machine(place)
            check(machine.cuts(waiting: 0), false, "\(place)")
            check(machine.cuts(waiting: 1), (place == .leaving), "\(place)")
        }
        var begun = machine(.answering)
        _ = begun.beginAnswer(isDraining: false)
        check(begun.cuts(waiting: 0), true)
        check(begun.finishAnswer(close: true, .init(), start, limits), .leave)
        check(begun.cuts(waiting: 0), false)
        check(begun.cuts(waiting: 1), true)
    }

    @Test func aRefusalDependsOnHowFarTheAnswerIs() {
        for place in Where.allCases {
            let fresh = machine(place)
            check(fresh.refusal, (place == .leaving ? .nothing : place == .tunnel ? .close : .answer), "\(place)")
        }
        for place in [Where.fixedBody, .chunkedBody] {
            var machine = machine(place)
            _ = machine.beginAnswer(isDraining: false)
            check(machine.refusal, .reset, "a part of an answer is there: \(place)")
            check(machine.finishAnswer(close: false, .init(), start, limits), .leave, "its body is not whole")
        }
    }

    @Test func oneRequestAfterTheOther() {
        var machine = machine(.idle)
        check(machine.deadline, start + limits.headTime)
        for round in 0..<3 {
            let now = start + .seconds(round)
            machine.tookPartOfHead(now, limits)
            machine.tookPartOfHead(now + .seconds(5), limits)
            check(machine.deadline, now + limits.headTime, "the clock starts with the first byte")
            machine.tookHead()
            take(.none, keepsAlive: true, expectsContinue: false, now, &machine)
            check(machine.deadline, nil)
            check(label(machine.state), "answering")
            check(machine.beginAnswer(isDraining: false), false)
            check(machine.finishAnswer(close: false, .init(), now, limits), .next)
            check(machine.deadline, now + limits.idleTime)
            check(label(machine.state), "idle")
            check(machine.answer, .none)
        }
    }

    @Test func whatEndsAfterAnAnswer() {
        // What the client asked for, what whoever answers asks for, a server that drains, a peer that has ended.
        var machine = machine(.idle)
        take(.none, keepsAlive: false, expectsContinue: false, start, &machine)
        check(machine.beginAnswer(isDraining: false), true)
        check(machine.finishAnswer(close: false, .init(), start, limits), .leave)
        var asked = self.machine(.answering)
        check(asked.finishAnswer(close: true, .init(), start, limits), .leave)
        var draining = self.machine(.answering)
        check(draining.beginAnswer(isDraining: true), true)
        check(draining.finishAnswer(close: false, .init(isDraining: true), start, limits), .leave)
        var ended = self.machine(.answering)
        _ = ended.peerEnds(input: 0)
        check(ended.finishAnswer(close: false, .init(), start, limits), .leave)
        var pipelined = self.machine(.answering)
        _ = pipelined.peerEnds(input: 10)
        check(pipelined.finishAnswer(close: false, .init(input: 10), start, limits), .next)
        check(pipelined.deadline, start + limits.headTime)
    }

    @Test func leavingTakesItsTimeAndNoMore() {
        var machine = machine(.leaving)
        check(machine.drained(start), .farewell)
        check(machine.deadline, start + Machine.lingerTime)
        check(machine.timePassed(.init(), start + Machine.lingerTime, limits), .close(.ours))
        var ended = self.machine(.answering)
        _ = ended.peerEnds(input: 0)
        ended.leave()
        check(ended.drained(start), .close(.ours))
        for place in Where.allCases where place != .leaving {
            var other = self.machine(place)
            check(other.drained(start), .nothing, "\(place)")
        }
    }

    @Test func aBodyHasItsTime() {
        var machine = machine(.fixedBody)
        check(machine.deadline, start + limits.bodyTime)
        // A second more for each KiB, and never longer than `bodyTime` without a byte.
        let later = start + .seconds(50)
        let (part, isLast) = machine.tookBody(60, later, limits)
        check(part, 60)
        check(isLast, false)
        check(label(machine.state), "body 40")
        check(machine.deadline, start + limits.bodyTime)
        // While it is held, its time stands still.
        machine.holdBody(true, later, limits)
        check(machine.deadline, nil)
        check(machine.holdsReading, true)
        machine.holdBody(false, later + .seconds(100), limits)
        check(machine.deadline, later + .seconds(100) + limits.bodyTime)
        check(machine.holdsReading, false)
        let (rest, ends) = machine.tookBody(1000, later + .seconds(101), limits)
        #expect(rest == 40 && ends)
        check(machine.deadline, start + .seconds(100) + limits.bodyTime)
        check(machine.bodyEnded(.init(), later, limits), .endRequest)
        check(machine.deadline, nil)
        check(label(machine.state), "answering")
    }

    @Test func framingIsNoProgress() {
        var machine = machine(.chunkedBody)
        machine.tookChunks(ChunkDecoder(), data: 0, start + .seconds(30), limits)
        check(machine.deadline, start + limits.bodyTime)
        machine.tookChunks(ChunkDecoder(), data: 4096, start + .seconds(30), limits)
        check(machine.deadline, start + .seconds(64))
    }

    @Test func aBodyThatIsTooLargeIsRefused() {
        var machine = machine(.idle)
        do throws(HTTPFailure) {
            try machine.took(framing: .length(limits.body + 1), keepsAlive: true, expectsContinue: false, start, limits)
            Issue.record("it was taken")
        } catch { #expect(error == .bodyTooLarge) }
        check(machine.refusal, .answer)
    }

    @Test func continueIsSaidOnceAndOnlyWhereABodyIsWanted() {
        var machine = machine(.idle)
        take(.length(5), keepsAlive: true, expectsContinue: true, start, &machine)
        check(machine.wantsContinue, true)
        let first = machine.saysContinue(), second = machine.saysContinue()
        #expect(first && !second)
        for framing in [BodyFraming.none, .length(5)] {
            var other = self.machine(.idle)
            take(framing, keepsAlive: true, expectsContinue: true, start, &other)
            _ = other.beginAnswer(isDraining: false)
            _ = other.finishAnswer(close: false, .init(), start, limits)
            check(other.saysContinue(), false)
        }
    }

    /// Of requests that wait for the one before them, 64 KiB are read.
    @Test func aPipelineIsBounded() {
        for place in Where.allCases {
            var machine = machine(place)
            machine.holdPipeline(Machine.pipelineLimit + 1)
            check(machine.holdsReading, (place == .answering), "\(place)")
        }
        var machine = machine(.answering)
        machine.holdPipeline(Machine.pipelineLimit)
        check(machine.holdsReading, false)
        machine.holdPipeline(Machine.pipelineLimit + 1)
        _ = machine.finishAnswer(close: false, .init(input: Machine.pipelineLimit + 1), start, limits)
        machine.holdPipeline(Machine.pipelineLimit + 1)
        check(machine.holdsReading, true, "it goes on being held until enough was taken")
        machine.holdPipeline(Machine.pipelineLimit)
        check(machine.holdsReading, false)
    }

    /// A peer that does not read gets no further answers: its next request waits, is bounded, and its time begins when all has left.
    @Test func answersThatWaitHoldTheNextRequest() {
        let much = Machine.answerLimit + 1
        check(Machine.takesHead(much), false)
        check(Machine.takesHead(Machine.answerLimit), true)
        var machine = machine(.answering)
        check(machine.finishAnswer(close: false, .init(input: 10, waiting: much), start, limits), .next)
        check(machine.deadline, start + limits.writeTime)
        machine.holdPipeline(Machine.pipelineLimit + 1, waiting: much)
        check(machine.holdsReading, true)
        check(machine.timePassed(.init(waiting: much, left: 1), start + limits.writeTime, limits), .nothing)
        check(machine.answersLeft(.init(input: 10), start, limits), .next)
        check(machine.deadline, start + limits.headTime)
        machine.holdPipeline(10)
        check(machine.holdsReading, false)
        // The beginning of a large head is no request that waits.
        machine.tookPartOfHead(start, limits)
        machine.holdPipeline(Machine.pipelineLimit + 1)
        check(machine.holdsReading, false)
        check(machine.answersLeft(.init(input: 10), start + .seconds(1), limits), .nothing)
        check(machine.deadline, start + limits.headTime)
    }

    /// What waits for a peer leaves, also when the peer sends no more.
    @Test func whatWaitsLeavesBeforeTheEnd() {
        for place in [Where.idle, .headBegun] {
            var machine = machine(place)
            check(machine.peerEnds(input: place == .idle ? 0 : 10, waiting: 1), .leave, "\(place)")
        }
        var leaving = machine(.leaving)
        check(leaving.peerEnds(input: 0, waiting: 1), .nothing)
        check(leaving.drained(start), .close(.ours))
        var pipelined = machine(.idle)
        check(pipelined.peerEnds(input: 10, waiting: Machine.answerLimit + 1), .nothing)
        check(pipelined.inputLookedAt(.init(input: 10, waiting: Machine.answerLimit + 1)), .nothing)
        check(pipelined.inputLookedAt(.init(input: 0, waiting: 1)), .leave)
        var read = machine(.idle)
        _ = read.peerEnds(input: 10)
        check(read.inputLookedAt(.init()), .close(.endOfFile))
    }

    @Test func idleConnectionsEndWhenTheServerDrains() {
        for place in Where.allCases {
            var machine = machine(place)
            // It has not asked yet: it gets a second, once.
            check(machine.closeIfIdle(gently: false, .init(), start), .nothing)
            check(machine.isHurried, (place == .idle), "\(place)")
            if place == .idle { check(machine.deadline, start + Machine.hurryTime) }
            check(machine.closeIfIdle(gently: false, .init(), start + .milliseconds(500)), .nothing)
            if place == .idle { check(machine.deadline, start + Machine.hurryTime) }
        }
        var served = machine(.answering)
        _ = served.finishAnswer(close: false, .init(), start, limits)
        check(served.closeIfIdle(gently: false, .init(input: 1), start), .nothing)
        check(served.closeIfIdle(gently: false, .init(waiting: 1), start), .nothing)
        check(served.closeIfIdle(gently: false, .init(), start), .readOnce)
        check(served.closeIfIdle(gently: true, .init(), start), .nothing)
        check(served.isHurried, true)
    }

    @Test func theTimerIsToldOfEachDeadlineOnce() {
        var machine = machine(.idle)
        check(machine.takeDeadline(), .some(start + limits.headTime))
        check(machine.takeDeadline(), nil)
        take(.none, keepsAlive: true, expectsContinue: false, start, &machine)
        let told = machine.takeDeadline()
        #expect(told != nil && told! == nil, "there is none any more, and that is news")
    }
}
