import Basics
import EventLoops
import Observability
import Provisioning
import TestSupport
import Testing

@testable import Redis

@Suite struct RESPTests {
    private func parse(_ text: String) throws -> (RESPValue, Int)? {
        var bytes = Array(text.utf8)
        return try bytes.withUnsafeMutableBytes { try RESPParser.parse(UnsafeRawBufferPointer($0)).map { ($0.value, $0.used) } }
    }

    static let values: [(String, RESPValue)] = [
        ("+OK\r\n", .simple("OK")), ("-ERR no\r\n", .error("ERR no")), (":-12\r\n", .int(-12)),
        ("$5\r\nhe\r\no\r\n", .bulk(Array("he\r\no".utf8))),
        ("$0\r\n\r\n", .bulk([])),
        ("$-1\r\n", .null), ("*-1\r\n", .null), ("_\r\n", .null), ("#t\r\n", .bool(true)), ("#f\r\n", .bool(false)),
        (",1.5\r\n", .double(1.5)),
        ("*2\r\n:1\r\n*1\r\n+a\r\n", .array([.int(1), .array([.simple("a")])])), ("%1\r\n+k\r\n:1\r\n", .array([.simple("k"), .int(1)])),
        ("~1\r\n:1\r\n", .array([.int(1)])),
        (">2\r\n+a\r\n+b\r\n", .push([.simple("a"), .simple("b")])), ("=7\r\ntxt:abc\r\n", .bulk(Array("abc".utf8))),
        ("!3\r\nERR\r\n", .error("ERR")),
        ("|1\r\n+a\r\n+b\r\n+OK\r\n", .simple("OK")), ("(123456789012345678901\r\n", .simple("123456789012345678901")),
    ]

    @Test(arguments: values) func reads(text: String, value: RESPValue) throws {
        let result = try parse(text + "+next\r\n")
        #expect(result?.0 == value)
        #expect(result?.1 == text.utf8.count)
    }

    @Test(arguments: values) func isIncompleteUntilItsLastByte(text: String, value: RESPValue) throws {
        let bytes = Array(text.utf8)
        for end in 0..<bytes.count { #expect(try parse(String(decoding: bytes[..<end], as: UTF8.self)) == nil) }
    }

    @Test(arguments: [
        "x\r\n", "$x\r\n", "$99999999999\r\n", "*9999999999\r\n", "$-2\r\n", ":1a\r\n", ":\r\n", "$1\r\nab\r\n", "+a\rb\r\n",
        ":99999999999999999999\r\n", "%-9223372036854775808\r\n", "|-9223372036854775808\r\n", "%-2\r\n", "|-2\r\n", "*-2\r\n",
        "~-9223372036854775808\r\n", "$-9223372036854775808\r\n", "%4611686018427387904\r\n", "*1\r\n%-9223372036854775808\r\n",
    ])
    func refuses(text: String) { #expect(throws: RESPFailure.self) { try parse(text) } }

    @Test func depthIsBounded() { #expect(throws: RESPFailure.self) { try parse(String(repeating: "*1\r\n", count: 40)) } }

    @Test func anythingEndsInAValueAFailureOrMore() throws {
        let folder = Files.folder(of: Files.folder(of: Files.folder(of: #filePath))) + "/Fuzz/corpus/resp"
        let names = Files.list(folder)
        #expect(names.count >= 15)
        var random = SeededRandom(seed: 1)
        for name in names {
            let seed = try Files.read("\(folder)/\(name)")
            for _ in 0..<300 {
                var bytes = seed
                for _ in 0..<Int.random(in: 0...3, using: &random) {
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
                let used = bytes.withUnsafeBytes { (try? RESPParser.parse($0))??.used ?? 0 }
                #expect(used <= bytes.count)
            }
        }
    }
}

@Suite struct RedisURLTests {
    /// Whatever a password has in it: printed, dumped or in an error it does not show.
    @Test(arguments: ["pa/ss", "a?b", "a#b", "a@b", "a:b", "%2Fx", "/", "=="])
    func thePasswordIsNeverPrinted(password: String) throws {
        for form in [
            "redis://:\(password)@h:1", "redis://u:\(password)@h/3", "redis+cluster://:\(password)@h:1,i:2",
            "redis+sentinel://u:\(password)@h,i/name/2",
        ] {
            let url = try RedisURL(form)
            #expect(url.password != nil && url.password != "")
            var dumped = ""
            dump(url, to: &dumped)
            for text in ["\(url)", String(reflecting: url), dumped, redacted(url: form)] {
                #expect(!text.contains(":\(password)@") && text.contains(":***@"), "\(text)")
            }
        }
        for wrong in ["x\(password)://h", "redis://:\(password)@h:port", "redis://:\(password)@h,i", "redis://:\(password)@h/a/b"] {
            let failure = #expect(throws: RedisURL.Failure.self) { try RedisURL(wrong) }
            #expect(
                password == "/" || password == "==" || failure?.description.contains(password) == false, "\(failure?.description ?? "")")
        }
        let credentials = RedisCredentials(user: "u", password: password)
        #expect("\(credentials)" == "u:***")
    }

    @Test func reads() throws {
        let url = try RedisURL("redis://me:p%40ss@[::1]:7000/3")
        #expect(url.user == "me" && url.password == "p@ss" && url.database == 3 && url.endpoint.description == "[::1]:7000")
        #expect(try RedisURL("redis://redis").endpoint.description == "redis:6379")
        #expect(try RedisURL("redis://:s@h").password == "s")
    }

    @Test func readsClustersSentinelsAndTLS() async throws {
        let cluster = try RedisURL("redis+cluster://:s@127.0.0.1:7001,[::1],c")
        #expect(
            cluster.topology == .cluster(seeds: ["127.0.0.1:7001", "[::1]:6379", "c:6379"].map { Endpoint($0)! }) && cluster.password == "s"
                && cluster.tls == nil)
        try await withFolder { folder in
            let file = folder + "/p", place = "redis+sentinel://a,b:5000/my%20master/2?sentinel-user=u&sentinel-password-file="
            try Files.replace(file, with: Array("secret\r\nmore\n".utf8))
            let sentinel = try RedisURL(place + file)
            #expect(sentinel.topology == .sentinel(sentinels: ["a:26379", "b:5000"].map { Endpoint($0)! }, master: "my master"))
            #expect(sentinel.database == 2 && sentinel.sentinelUser == "u" && sentinel.sentinelPasswordFile == file)
            #expect(sentinel.sentinelPassword == "secret")
            // What cannot be read, or has nothing in it, is no URL without a password.
            for wrong in ["/no/such", folder] {
                let failure = #expect(throws: RedisURL.Failure.self) { try RedisURL(place + wrong) }
                #expect(failure?.description.contains("sentinel-password-file") == true)
            }
            try Files.replace(file, with: Array("\nsecret\n".utf8))
            #expect(throws: RedisURL.Failure.self) { try RedisURL(place + file) }
        }
        #expect(try RedisURL("rediss+cluster://h").tls == RedisURL.TLS())
        // Its files are read at once.
        let failure = #expect(throws: RedisURL.Failure.self) { try RedisURL("rediss://h?ca=/no/such.pem") }
        #expect(failure?.description.contains("/no/such.pem") == true)
    }

    @Test(arguments: [
        "", "h:1", "http://h", "redis://", "redis://h:99999", "redis://h/x", "redis://a b", "redis://a,b", "redis+cluster://a,b/1",
        "redis+cluster://a,,b",
        "redis+ring://a",
        "redis+sentinel://a,b", "redis+sentinel://a/m/x", "redis://h/1/2", "redis://h?ca=/x", "rediss://h?ca=", "rediss://h?cert=/x",
        "rediss://h?verify=no",
    ])
    func refuses(text: String) { #expect(throws: RedisURL.Failure.self) { try RedisURL(text) } }
}

@Suite struct RedisCommandTests {
    @Test func argumentsAreCountedAndMeasured() {
        let command = RedisCommand("SET", "k", "ü")
        #expect(String(decoding: command.prefix + command.body, as: UTF8.self) == "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nü\r\n")
    }

    @Test func aScriptIsSentInFullWithTheSameArguments() {
        let script = RedisScript("return ARGV[1]")
        #expect(script.digest == "098e0f0d1448c0a81dafe820f66d460eb09263da")
        var call = script.call(keys: ["k"])
        call.add("a")
        let full = script.withSource(call)
        #expect(
            String(decoding: full.prefix + full.body, as: UTF8.self)
                == "*5\r\n$4\r\nEVAL\r\n$14\r\nreturn ARGV[1]\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\na\r\n")
    }
}
