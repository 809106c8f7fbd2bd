import Balancing
import Testing

@Suite struct BalanceMethodTests {
    @Test(arguments: [
        ("round-robin", BalanceMethod.roundRobin), ("weighted", .weighted), ("least-connections", .leastConnections),
        ("two-choices", .twoChoices), ("ip-hash", .ipHash),
        ("hash(trace)", .hash(.trace)), ("hash(path)", .hash(.path)), ("hash(client-ip)", .hash(.clientAddress)),
        ("hash(header:x-user)", .hash(.header("x-user"))),
        ("hash(cookie:SID)", .hash(.cookie("SID"))), ("hash(header:!#$%&'*+-.^_`|~09az)", .hash(.header("!#$%&'*+-.^_`|~09az"))),
    ])
    func aWordIsReadAndWritten(word: String, method: BalanceMethod) {
        #expect(BalanceMethod(rawValue: word) == method)
        #expect(method.rawValue == word)
    }

    @Test func synonymsAndCases() {
        #expect(BalanceMethod(rawValue: "weighted-least-connections") == .leastConnections)
        #expect(BalanceMethod(rawValue: "hash(header:X-User)") == .hash(.header("x-user")))
        #expect(BalanceMethod(rawValue: "hash(cookie:X-User)") == .hash(.cookie("X-User")))
        #expect(
            BalanceMethod.hashTrace == .hash(.trace) && BalanceMethod.hash(.path) != .ipHash
                && BalanceMethod.hash(.cookie("a")) != .hash(.header("a")))
    }

    @Test(arguments: [
        "", "Round-Robin", " weighted", "hash", "hash()", "hash(trace", "hash(trace) ", "hash(header:)", "hash(header:a b)",
        "hash(header:a:b)", "hash(header:a))",
        "hash(header:a",
        "hash(cookie:)", "hash(cookie:a;b)", "hash(cookie:ä)", "hash(cookie:a\0)", "hash(cookie:a\r\n)", "hash(query:a)", "hash(HEADER:a)",
    ])
    func anythingElseIsRefused(word: String) { #expect(BalanceMethod(rawValue: word) == nil) }

    @Test func namesHaveAtMost64Bytes() {
        #expect(BalanceMethod(rawValue: "hash(header:\(String(repeating: "a", count: 64)))") != nil)
        #expect(BalanceMethod(rawValue: "hash(header:\(String(repeating: "a", count: 65)))") == nil)
    }
}

@Suite struct ClientAddressKeyTests {
    private let high: UInt64 = 0x2001_0DB8_0001_0200

    @Test func neighboursShareAKey() {
        let key = ClientAddressKey.network(ipv4: 0x0A01_0203)
        #expect(ClientAddressKey.network(ipv4: 0x0A01_02FF) == key)
        #expect(ClientAddressKey.network(ipv4: 0x0A01_0303) != key)
        let wide = ClientAddressKey.network(ipv6High: high, low: 1)
        #expect(ClientAddressKey.network(ipv6High: high | 0xFF, low: .max) == wide)
        #expect(ClientAddressKey.network(ipv6High: high ^ 0x100, low: 1) != wide)
    }

    @Test func mappedCountsAsIPv4() {
        #expect(ClientAddressKey.network(ipv6High: 0, low: 0xFFFF_0A01_0203) == ClientAddressKey.network(ipv4: 0x0A01_0203))
        #expect(ClientAddressKey.address(ipv6High: 0, low: 0xFFFF_0A01_0203) == ClientAddressKey.address(ipv4: 0x0A01_0203))
        // The deprecated ::a.b.c.d, and ::1, are IPv6.
        #expect(ClientAddressKey.network(ipv6High: 0, low: 0x0A01_0203) != ClientAddressKey.network(ipv4: 0x0A01_0203))
        #expect(ClientAddressKey.network(ipv6High: 0, low: 1) == ClientAddressKey.network(ipv6High: 0, low: 2))
    }

    @Test func addressesDifferInEveryBit() {
        let four = ClientAddressKey.address(ipv4: 0x0A01_0203), six = ClientAddressKey.address(ipv6High: high, low: 7)
        for bit in 0..<32 { #expect(ClientAddressKey.address(ipv4: 0x0A01_0203 ^ 1 << UInt32(bit)) != four) }
        for bit in 0..<64 {
            #expect(ClientAddressKey.address(ipv6High: high ^ 1 << UInt64(bit), low: 7) != six)
            #expect(ClientAddressKey.address(ipv6High: high, low: 7 ^ 1 << UInt64(bit)) != six)
        }
    }

    /// 3 replicas, 6000 networks one after the other: each gets a third, within five standard deviations (36 each).
    @Test func networksSpread() {
        let candidates = ["a", "b", "c"].map { Candidate(identity: RendezvousHash.key($0.utf8)) }
        var pool = Pool(.ipHash, seed: 1)
        var counts = [0, 0, 0]
        for network in 0..<6000 {
            let pick = pool.pick(candidates, tried: TriedSet(), key: ClientAddressKey.network(ipv4: UInt32(network) << 8))!
            #expect(pick.reason == .home)
            counts[pick.index] += 1
        }
        for count in counts { #expect(abs(count - 2000) < 180, "\(counts)") }
    }
}
