import Basics
import Testing

@testable import Provisioning

/// What a node takes from another, and how long a copy is waited for.
@Suite struct CopyPatienceTests {
    private func at(_ seconds: Int) -> MonotonicTime { MonotonicTime(nanoseconds: 0) + .seconds(seconds) }

    @Test func aCopyIsWaitedForAsLongAsItMoves() {
        var patience = CopyPatience(limit: .seconds(120), now: at(0))
        var fields = ["master_sync_in_progress": "1", "master_sync_read_bytes": "0"]
        // Twenty minutes, a byte a minute; then nothing.
        var verdicts: [Bool] = []
        for minute in 1...20 {
            fields["master_sync_read_bytes"] = "\(minute)"
            verdicts.append(patience.goesOn(fields, now: at(60 * minute)))
        }
        for second in [119, 121] { verdicts.append(patience.goesOn(fields, now: at(1200 + second))) }
        #expect(verdicts == Array(repeating: true, count: 21) + [false])
        // Nothing at all: the limit counts from the beginning.
        var idle = CopyPatience(limit: .seconds(120), now: at(0))
        let none = [100, 119, 121].map { idle.goesOn([:], now: at($0)) }
        #expect(none == [true, true, false])
    }

    @Test func aNodeIsStartedLikeAnother() {
        func text(_ settings: [String: String]?) -> [String] {
            RedisConfiguration(
                port: 7007, folder: "/n", memory: 1, role: .state, cluster: .local(port: 7007, nodeTimeout: .seconds(2)),
                likeness: settings.map { RedisConfiguration.Likeness($0) }
            ).text.split(separator: "\n").map(String.init)
        }
        let like = text([
            "maxmemory-policy": "volatile-ttl", "appendonly": "no", "appendfsync": "always", "save": "60 1 300 10",
            "cluster-require-full-coverage": "no",
        ])
        for line in [
            "maxmemory-policy volatile-ttl", "appendonly no", "appendfsync always", "save 60 1 300 10", "cluster-require-full-coverage no",
        ] { #expect(like.contains(line)) }
        #expect(like.filter { $0.hasPrefix("save") }.count == 1)
        #expect(text(["save": ""]).contains("save \"\""))
        // What is not told, and what no such setting is, stays as the role has it.
        let wild = text(["maxmemory-policy": "x\nport 1", "appendonly": "maybe", "save": "1 1\nport 1"])
        #expect(wild == text(nil) && text([:]) == text(nil))
    }
}
