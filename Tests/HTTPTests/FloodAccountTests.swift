import Basics
import HTTP2
import Testing

/// What a connection of HTTP/2 may cost, figure by figure.
@Suite struct FloodAccountTests {
    private func at(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: 1_000_000_000) + .seconds(seconds) }

    /// How many of so many are let through at a time.
    private func passed(_ count: Int, _ one: () -> Bool) -> Int { (0..<count).prefix { _ in one() }.count }

    @Test func aThousandResetsAtOnceAndAHundredASecond() {
        var account = FloodAccount()
        #expect(passed(2000) { account.resetCame(at(0)) } == 1000)
        #expect(passed(2000) { account.resetCame(at(1)) } == 100)
        #expect(passed(2000) { account.resetCame(at(100)) } == 1000)
    }

    /// Somebody who leaves page after page is no attacker.
    @Test func sixtyCancelsASecondGoOnForEver() {
        var account = FloodAccount()
        for second in 0..<600 { #expect(passed(60) { account.resetCame(at(Double(second))) } == 60) }
    }

    @Test func faultsHaveAnAccountOfTheirOwn() {
        var account = FloodAccount()
        #expect(passed(1000) { account.resetCame(at(0)) } == 1000)
        #expect(passed(2000) { account.faultFound(at(0)) } == 1000)
    }

    @Test func refusedStreamsAreBounded() {
        var account = FloodAccount()
        #expect(passed(2000) { account.streamRefused() } == 1000)
    }

    @Test func framesWithoutEffectAreBoundedBetweenRequests() {
        var account = FloodAccount()
        #expect(passed(20_000) { account.idleFrameCame() } == 10_000)
        account.requestFinished()
        #expect(passed(20_000) { account.idleFrameCame() } == 10_000)
    }

    /// A download is answered by updates of its window, which may come for each frame of it.
    @Test func bytesSentPayForFrames() {
        var account = FloodAccount()
        for _ in 0..<100_000 {
            account.sent(16_384)
            let mayGoOn = account.idleFrameCame()
            #expect(mayGoOn)
        }
        account.requestFinished()
        account.sent(.max)
        account.sent(.max)
        #expect(passed(20_000) { account.idleFrameCame() } == 10_000)
    }
}
