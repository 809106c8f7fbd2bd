import Basics
import Testing

@testable import StackFile
@testable import StackModel

/// What stands in a file is taken as it stands there, or refused with its line: never something near it.
@Suite struct ExactReadingTests {
    private func problems(_ text: String) -> [Problem] {
        do throws(Problems) { _ = try Stack.read(Array(text.utf8), path: "t.yaml") { ["B": "b", "SET": "set"][$0] } } catch {
            return error.list
        }
        return []
    }

    private func service(_ line: String) -> String { "services:\n  a:\n    command: [x]\n    \(line)\n" }
    private func route(_ keys: String) -> String {
        "gateway:\n  listen: 8010\n  routes:\n    - { path: /, backends: [127.0.0.1:1], \(keys) }\n"
    }

    // MARK: one document

    @Test(arguments: [
        "stack: a\n---\nstack: b\n", "---\nstack: a\n---\n", "stack: a\n---\n[unclosed\n", "stack: a\n...\n---\nstack: b\n",
        "stack: a\n---\n\t???\n", "stack: a\n...\nstack: b\n",
    ])
    func whatStandsBehindTheDocumentIsTold(text: String) {
        let found = problems(text + "services:\n  s:\n    command: [x]\n")
        #expect(found.first.map { $0.line > 1 } ?? false, "\(found)")
    }

    @Test(arguments: ["---\n", "%YAML 1.1\n---\n", "# first\n\n---\n"]) func oneDocumentMayBeMarked(head: String) {
        #expect(problems(head + "services:\n  s:\n    command: [x]\n...\n# last\n").isEmpty)
    }

    @Test func aTabIsCalledByItsName() {
        let found = problems("services:\n  a:\n\tcommand: [x]\n")
        #expect(found.first?.message.contains("a tab") == true && found.first?.line == 3, "\(found)")
        let accented = problems("services:\n  é:\n\tcommand: [x]\n")
        #expect(accented.first?.message.contains("a tab") == true, "\(accented)")
    }

    @Test(arguments: ["\"a\\0b\"", "\"\\x00\"", "!!binary aGVsbG8=", "!secret x", "!include other.yaml", "~", "null", "NULL"])
    func textsThatWouldBecomeOthersAreRefused(value: String) {
        let found = problems(service("environment: { A: \(value) }"))
        #expect(found.first?.line == 4, "\(value): \(found)")
    }

    @Test(arguments: ["'~'", "\"null\"", "!!str 5", "''", "nullable", "\"a\\tb\""]) func textsThatStandForThemselves(value: String) {
        #expect(problems(service("environment: { A: \(value) }")).isEmpty)
    }

    @Test func aPortOfItsOwnIsNotOverwritten() {
        let found = problems(service("http: {}\n    environment: { PORT: \"80\" }"))
        #expect(found.first?.line == 5 && found.first?.message.contains("PORT") == true)
        #expect(problems(service("environment: { PORT: \"80\" }")).isEmpty)
    }

    // MARK: variables

    @Test(arguments: [
        ("${A:-${B}}", "b"), ("${SET:-${B}}", "set"), ("${A:-{\"k\":1}}", "{\"k\":1}"), ("${SET:-{\"k\":1}}", "set"),
        ("${A:-${C:-${B}}}", "b"), ("${A:-x${B}y${SET}z}", "xbysetz"), ("${A:-$${B}}", "${B}"), ("${A:-{{}}}-${B}", "{{}}-b"),
        ("$B", "b"), ("$$B", "$B"), ("$$$$", "$$"), ("${SET}}", "set}"), ("a$", "a$"), ("${A:-$}", "$"), ("${A:-:-}", ":-"),
        ("${A:-${B}}${A:-${SET}}", "bset"),
    ])
    func variablesAreFilledWhole(text: String, expected: String) throws {
        #expect(try Interpolation.expand(text) { ["B": "b", "SET": "set"][$0] } == expected)
    }

    @Test(arguments: [
        "${A:-${B}", "${A:-{}", "${SET:-${}}", "${SET:-${a b}}", "${A-x}", "${SET?x}", "${A:?x}", "${SET:+x}", "${!A}", "${A:-${C}}",
        "${A:",
        String(repeating: "${A:-", count: 40) + "x" + String(repeating: "}", count: 40),
    ])
    func whatIsNotUnderstoodIsRefused(text: String) {
        #expect(throws: Interpolation.Failure.self) { try Interpolation.expand(text) { ["B": "b", "SET": "set"][$0] } }
        let found = problems(service("environment: { A: '\(text)' }"))
        #expect(found.first?.line == 4, "\(found)")
    }

    @Test func bytesThatAreNoTextAreRefused() {
        #expect(throws: Interpolation.Failure.self) { try Interpolation.expand("${X}") { _ in "a\u{FFFD}b" } }
    }

    // MARK: numbers, times, sizes

    @Test(arguments: [
        "replicas: 3...5", "replicas: 3..5..", "replicas: ..5", "replicas: 3..", "replicas: 3.5", "replicas: +3", "replicas: 3..+5",
        "replicas: 5..3", "resources: { cpu: 0x2 }", "resources: { cpu: 1e1 }", "resources: { cpu: 0.0015 }", "resources: { cpu: +1 }",
        "resources: { cpu: .5 }", "resources: { cpu: 1. }", "resources: { cpu: nan }", "resources: { cpu: +500m }",
        "resources: { memory: 1.5Gi }", "resources: { memory: +5Mi }", "resources: { memory: 0 }", "resources: { memory: 0x10 }",
        "resources: { memory: 99999999999Gi }", "grace: 1.5.2s", "grace: .5s", "grace: 5.s", "grace: 5", "grace: -1s", "grace: 0.0000001ms",
        "grace: 1us", "grace: 5 s", "grace: 5S", "start: 0s", "start: 1ms", "http: { port: 0 }", "http: { port: 80.0 }",
    ])
    func scalarsOfServicesAreExact(line: String) {
        let found = problems(service(line))
        #expect(found.first?.line == 4, "\(line): \(found)")
    }

    @Test(arguments: [
        "probe: { interval: 0s }", "probe: { interval: 1us }", "probe: { timeout: 0s }", "timeout: { total: 0s }",
        "timeout: { response: 0s }",
        "timeout: { connect: 0s }", "timeout: { tunnel: 0s }", "retry: { hedge: 0s }", "eject: { within: 0s }", "eject: { for: 0s }",
        "breaker: { recovery: 0s }", "cors: { origins: '*', max-age: 1ms }", "cors: { origins: '*', max-age: 1500ms }", "slow-start: 10us",
        "retry: { body: 2Gi }", "body: 0", "panic: 1e1%", "panic: 0x10%", "panic: +5%", "panic: 33.3333%", "panic: 101%",
        "limit: [{ rate: 0/s }]", "limit: [{ rate: +5/s }]", "limit: [{ rate: 1.5/s }]",
    ])
    func scalarsOfRoutesAreExact(keys: String) {
        let found = problems(route(keys))
        #expect(found.first?.line == 4, "\(keys): \(found)")
    }

    @Test(arguments: [
        "limits: { head: 3Gi }", "limits: { head: 17Mi }", "limits: { head: 10 }", "limits: { head-time: 0s }", "limits: { idle-time: 0s }",
        "tracing: { otlp: 'http://' }", "tracing: { otlp: 'http://a b/x' }", "tracing: { otlp: 'http://:4318/v1/traces' }",
    ])
    func scalarsOfTheGatewayAreExact(line: String) {
        let found = problems("gateway:\n  listen: 8010\n  \(line)\n  routes: [{ path: /, backends: [127.0.0.1:1] }]\n")
        #expect(found.first?.line == 3, "\(line): \(found)")
    }

    /// Zeros that mean something, and bounds themselves.
    @Test(arguments: [
        "slow-start: 0s", "cors: { origins: '*', max-age: 0s }", "limit: [{ rate: 1/h, burst: 0 }]", "panic: 0%", "panic: 33.333%",
        "probe: { interval: 10ms, timeout: 1ms }", "timeout: { total: 1ms }", "retry: { body: 1Gi, budget: 0% }",
    ])
    func whatMakesSenseIsTaken(keys: String) { #expect(problems(route(keys)).isEmpty, "\(problems(route(keys)))") }

    // MARK: places

    @Test(arguments: [
        "https://$hots/x", "", "https://$host/a b", "/a b", "$request_uri", "https://${host}", "example.org/x", "https:///x",
        "https://$1/x",
        "/$uri", "https://", "https://a b", "mailto:", "https://$hostname/", "1http://x", "https://x:99999/",
    ])
    func redirectsThatNobodyCanFollowAreRefused(to: String) {
        let found = problems("gateway:\n  listen: 8010\n  routes:\n    - { path: /, redirect: { to: '\(to)' } }\n")
        #expect(found.first?.line == 4 && found.first?.message.contains("redirect.to") == true, "\(to): \(found)")
    }

    @Test(arguments: [
        "https://$host$uri", "$scheme://$host/new$uri?from=$$host", "/new", "/new$uri", "https://a.test:8443/x#y", "//cdn.test/x", "$uri",
        "https://[::1]/x", "myapp://open", "https://a.test/?price=5$",
    ])
    func redirectsThatCanBeFollowedAreTaken(to: String) {
        let found = problems("gateway:\n  listen: 8010\n  routes:\n    - { path: /, redirect: { to: '\(to)' } }\n")
        #expect(found.isEmpty, "\(found)")
    }

    @Test(arguments: [
        "'https://*.a'", "'https://*'", "'https://'", "'https://a.test/x'", "'https://a.test?x'", "'https://u@a.test'", "'ftp://a.test'",
        "null",
        "'null'", "'https://a b'", "'https://a.test:0'", "[]", "'https://.a'",
    ])
    func originsThatNoBrowserSendsAreRefused(origin: String) {
        let found = problems(route("cors: { origins: \(origin) }"))
        #expect(found.first?.line == 4, "\(origin): \(found)")
    }

    /// Browsers send small letters and leave default ports out.
    @Test func originsAreComparedAsBrowsersSendThem() throws {
        let text = route("cors: { origins: ['HTTPS://App.Example:443', 'http://a.test:80', 'http://a.test:8080'] }")
        let stack = try Stack.read(Array(text.utf8), path: "t.yaml")
        #expect(stack.gateway?.routes[0].access.cors?.origins == ["https://app.example", "http://a.test", "http://a.test:8080"])
    }

    @Test(arguments: [
        "{ name: app.test, server: 'dns.test:53' }", "{ name: app.test, server: '[::1]:53' }", "{ name: app.test, server: '127.0.0.1:0' }",
        "{ name: app.test, server: '127.0.0.1:x' }", "{ name: 'a b' }", "{ name: '' }", "{ name: a..b }", "{ name: 'http://a.test' }",
    ])
    func nameServersAndNamesAreChecked(dns: String) {
        let found = problems("gateway:\n  listen: 8010\n  routes:\n    - { path: /, backends-dns: \(dns) }\n")
        #expect(found.first?.line == 4, "\(dns): \(found)")
    }

    // MARK: size

    /// 4,000 usual routes are read; what is too large is told as what it is.
    @Test func thousandsOfRoutesAreRead() throws {
        let one = { (i: Int) in
            "    - { path: /r\(i), hosts: [h\(i).example.org], methods: [GET, POST], timeout: { total: 5s, connect: 1s }, retry: { attempts: 2 },"
                + " limit: [{ rate: 100/s, burst: 20 }], probe: { path: /health, interval: 5s }, backends: [127.0.0.1:9001, 127.0.0.1:9002] }\n"
        }
        let text = "gateway:\n  listen: 8010\n  routes:\n" + (0..<4000).map(one).joined()
        #expect(try Stack.read(Array(text.utf8), path: "t.yaml").gateway?.routes.count == 4000)
        let many = problems("services: [" + String(repeating: "1,", count: 300_000) + "1]")
        #expect(many.first?.message.contains("more than 200000 keys and values") == true, "\(many)")
        let deep = problems(String(repeating: "[", count: 50) + String(repeating: "]", count: 50))
        #expect(deep.first?.message.contains("more than 32 levels") == true, "\(deep)")
    }
}
