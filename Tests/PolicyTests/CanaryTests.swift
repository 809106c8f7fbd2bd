import Balancing
import Basics
import Testing

@Suite struct CanaryTests {
    private func decide(_ canary: Canary, header: String? = nil, cookie: String? = nil, draw: Double = 0.5) -> Canary.Verdict {
        let header = header.map { Array($0.utf8) }, cookie = cookie.map { Array($0.utf8) }
        return (header ?? []).withUnsafeBytes { headerBytes in
            (cookie ?? []).withUnsafeBytes { cookieBytes in
                canary.decide(headerValue: header == nil ? nil : headerBytes, cookieValue: cookie == nil ? nil : cookieBytes, draw: draw)
            }
        }
    }

    @Test func wordsOverrideTheShare() {
        let canary = Canary(share: 0, header: "X-Canary", cookie: "canary")
        #expect(canary.header == "x-canary")
        #expect(decide(canary, header: "always") == .init(toCanary: true, reason: .header))
        #expect(decide(canary, header: "ALWAYS", cookie: "never") == .init(toCanary: true, reason: .header))
        #expect(decide(canary, cookie: "Always") == .init(toCanary: true, reason: .cookie))
        let all = Canary(share: 1, header: "x-canary", cookie: "canary")
        #expect(decide(all, header: "Never", cookie: "always") == .init(toCanary: false, reason: .header))
        #expect(decide(all, header: "maybe", cookie: "nevER") == .init(toCanary: false, reason: .cookie))
    }

    @Test(arguments: ["", "alway", "always ", "always1", "1", "true", "nev\0r", "\u{E1}lways"])
    func otherWordsAreNone(word: String) {
        #expect(decide(Canary(share: 0.4, header: "h", cookie: "c"), header: word, cookie: word) == .init(toCanary: false, reason: .share))
    }

    @Test func whatIsNotNamedIsNotRead() {
        #expect(decide(Canary(share: 0), header: "always", cookie: "always") == .init(toCanary: false, reason: .share))
    }

    @Test func theShareIsExactAtItsEdges() {
        #expect(decide(Canary(share: 0.25), draw: 0.249).toCanary && !decide(Canary(share: 0.25), draw: 0.25).toCanary)
        #expect(!decide(Canary(share: 0), draw: 0).toCanary && decide(Canary(share: 1), draw: 1.0.nextDown).toCanary)
        #expect([-1, .nan, 3].map { Canary(share: $0).share } == [0, 0, 1])
    }

    /// 10,000 draws, within four standard deviations (each at most 0.005).
    @Test(arguments: [0.01, 0.1, 0.5, 0.99])
    func theShareIsKept(share: Double) {
        var random = SeededRandom(seed: 4)
        let canary = Canary(share: share)
        let count = (0..<10_000).count { _ in decide(canary, draw: Double.random(in: 0..<1, using: &random)).toCanary }
        #expect(abs(Double(count) / 10_000 - share) < 4 * (share * (1 - share) / 10_000).squareRoot(), "\(count)")
    }
}
