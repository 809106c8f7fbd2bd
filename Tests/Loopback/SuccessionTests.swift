import Testing

@testable import Gateway

/// The names of sockets that a process leaves to the next one.
@Suite struct SuccessionTests {
    private func sockets(_ addresses: Int, each: Int, _ place: (Int) -> String = { "127.0.0.1:\(20_000 + $0)" }) -> [Succession.Socket] {
        var all: [Succession.Socket] = []
        for i in 0..<addresses {
            for _ in 0..<each { all.append(.init(name: "listen", address: place(i), descriptor: Int32(3 + all.count))) }
        }
        all.append(.init(name: "admin", address: "127.0.0.1:8404", descriptor: Int32(3 + all.count)))
        return all
    }

    private func words(_ sockets: [Succession.Socket]) -> [String] { sockets.map { "\($0.name) \($0.address) \($0.descriptor)" } }

    /// As many as the largest number of threads makes of a hundred of the longest numeric addresses.
    @Test(arguments: [(1, 1), (2, 4), (46, 4), (100, 64), (1000, 16)]) func whatIsWrittenIsReadBack(addresses: Int, each: Int) throws {
        for place in [{ "127.0.0.1:\(20_000 + $0)" }, { "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:\(1000 + $0)]:65535" }] {
            let all = sockets(addresses, each: each, place)
            let text = try #require(Succession.text(of: all))
            #expect(words(Succession.read(text)) == words(all))
        }
    }

    /// As long as it is short, it is what earlier programs read.
    @Test func theFormOfBeforeStays() {
        #expect(Succession.text(of: sockets(1, each: 2)) == "listen=127.0.0.1:20000 listen=127.0.0.1:20000 admin=127.0.0.1:8404")
    }

    @Test func whatDoesNotFitIsNotWritten() { #expect(Succession.text(of: sockets(10_000, each: 1)) == nil) }

    @Test(arguments: [
        ("", []), ("listen", []), ("listen*0=a:1 listen=b:2", []), ("listen*x=a:1 listen=b:2", []), ("listen*-1=a:1", []),
        ("listen*9223372036854775807=a:1", []), ("listen*=a:1", []), ("listen*70000=a:1", []),
        ("listen=a:1 nonsense listen=b:2", ["listen a:1 3", "listen b:2 5"]),
        ("listen*2=a:1 admin=b:2", ["listen a:1 3", "listen a:1 4", "admin b:2 5"]), ("a=1 b*99999999999999999999=2 c=3", ["a 1 3"]),
    ])
    func whatCannotBeReadIsNobodys(text: String, expected: [String]) { #expect(words(Succession.read(text)) == expected) }

    @Test func aTextWithoutEndIsNotRead() { #expect(Succession.read(String(repeating: "listen=a:1 ", count: 20_000)).isEmpty) }
}
