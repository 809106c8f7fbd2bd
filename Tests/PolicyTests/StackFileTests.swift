import Balancing
import JSONCoding
import Testing

@testable import StackFile
@testable import StackModel

@Suite struct StackReaderTests {
    private func read(_ text: String, environment: [String: String] = [:]) throws -> Stack {
        try Stack.read(Array(text.utf8), path: "s.yaml") { environment[$0] }
    }

    private let small = """
        stack: demo
        services:
          api:
            command: api --fast
            replicas: 3..20
            http: {}
            uses: state
            environment: { A: "${A:-1}", B: yes, C: "$$x" }
        stores:
          state:
            redis: { role: state, memory: 1Gi }
        gateway:
          listen: 8080
          admin: 8404
          routes:
            - { path: /, service: api, retry: { attempts: 3, budget: 25% }, timeout: { connect: 250ms } }
        """

    @Test func readsAWholeStack() throws {
        let stack = try read(small)
        let api = try #require(stack.service("api"))
        #expect(stack.name == "demo")
        #expect(api.replicas == 3...20)
        #expect(api.process.environment == [.init(name: "A", value: "1"), .init(name: "B", value: "yes"), .init(name: "C", value: "$x")])
        #expect(api.http?.ready == "/health/ready")
        #expect(
            stack.stores == [
                StoreSpec(
                    name: "state", kind: .redis,
                    form: .run(
                        .redis(
                            RedisSettings(role: .state, memory: 1 << 30, port: nil, masters: 1, replicas: 0, failover: .seconds(3)))),
                    place: SourcePlace(file: "", line: 0, column: 0))
            ])
        #expect(stack.gateway?.listen.host == "0.0.0.0")
        #expect(stack.gateway?.admin?.host == "127.0.0.1")
        let route = try #require(stack.gateway?.routes.first)
        #expect(route.retry.attempts == 3 && route.retry.budget == 0.25 && route.timeout.connect == .milliseconds(250))
    }

    @Test func theEnvironmentFillsIn() throws {
        #expect(try read(small, environment: ["A": "7"]).service("api")?.process.environment.first?.value == "7")
    }

    @Test func theContractsGatewayFileReads() throws {
        let stack = try read(
            """
            gateway:
              listen: 127.0.0.1:8010
              admin: 127.0.0.1:8404
              threads: 1
              routes:
                - path: /
                  balance: least-connections
                  backends: [127.0.0.1:9001, { address: 127.0.0.1:9002, weight: 3 }]
            """)
        #expect(
            stack.gateway?.routes.first?.target
                == .backends([BackendSpec(address: "127.0.0.1:9001", weight: 1), BackendSpec(address: "127.0.0.1:9002", weight: 3)]))
    }

    /// One address, or several that do not take each other's connections.
    @Test func aGatewayListensOnSeveralAddresses() throws {
        func listeners(_ text: String) throws -> [String] {
            try read("gateway:\n  listen: \(text)\n  routes: [{ path: /, backends: [127.0.0.1:1] }]").gateway!.listeners.map(\.description)
        }
        #expect(try listeners("8080") == ["0.0.0.0:8080"])
        #expect(try listeners("[8080, '[::1]:8080', 127.0.0.1:8081]").count == 3)
        for clash in ["[8080, 127.0.0.1:8080]", "['[::]:80', 80]", "[127.0.0.1:1, localhost:1]", "['[::1]:5', '[0:0::1]:5']", "[]"] {
            #expect(throws: Problems.self, "\(clash)") { _ = try listeners(clash) }
        }
    }

    @Test func allProblemsAreTold() throws {
        let problems = try #require(throws: Problems.self) {
            try read("services: { a: { command: x, replicas: many, prot: 1 } }\ngatway: 1")
        }
        #expect(problems.list.count == 3)
    }

    @Test func aBombOfAliasesIsRefused() {
        var text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        for i in 1...9 { text += "a\(i): &a\(i) [\(Array(repeating: "*a\(i - 1)", count: 10).joined(separator: ", "))]\n" }
        #expect(throws: Problems.self) { try read(text) }
    }

    @Test func nothingFromOutsideTraps() {
        let pieces = [
            "services:", " a:", "  command: x", "gateway:", " listen: 1", " routes:", "  - path: /", "    backends: [a]", "{", "}", "[",
            "]", "&x", "*x", ": ", "- ",
            "\"", "'", "|", ">", "!!", "%", "\t", "\u{0}", "---", "...", "é",
        ]
        var random = SystemRandomNumberGenerator()
        for _ in 0..<3000 {
            let text = (0..<Int.random(in: 0...12, using: &random)).map { _ in
                pieces.randomElement(using: &random)! + (Bool.random() ? "\n" : "")
            }.joined()
            do { _ = try read(text) } catch { #expect(error is Problems) }
        }
    }
}

@Suite struct SchemaTests {
    @Test func everyWordForBalanceHasItsMethod() {
        for word in RouteSpec.balanceMethods { #expect(BalanceMethod(rawValue: word) != nil, "\(word)") }
    }

    /// The schema is JSON, closed everywhere, and has every key that the reader knows.
    @Test func namesEveryKey() throws {
        func keys(_ spec: ObjectSpec) -> [String] { spec.keys.flatMap { [$0.name] + keys($0.type) } }
        func keys(_ type: ValueType) -> [String] {
            switch type {
            case .object(let spec), .objectOr(let spec, _): keys(spec)
            case .list(let inner), .map(let inner): keys(inner)
            default: []
            }
        }
        let text = stackJSONSchema()
        try JSONDocument().parse(Array(text.utf8)) { root in
            #expect(root["additionalProperties"]?.bool == false)
            #expect(root["properties"]?["gateway"]?["properties"]?["routes"] != nil)
        }
        for key in keys(StackSchema.stack) { #expect(text.contains("\"\(key)\":{")) }
    }
}

@Suite struct InterpolationTests {
    private func expand(_ text: String) throws(Interpolation.Failure) -> String {
        try Interpolation.expand(text) { ["SET": "v", "EMPTY": ""][$0] }
    }

    @Test(arguments: [
        ("a${SET}b", "avb"), ("${NOT:-d}", "d"), ("${EMPTY:-d}", "d"), ("${EMPTY}", ""), ("$$SET", "$SET"), ("a$SET-b", "av-b"),
        ("a$5$", "a$5$"),
        ("${NOT:-}", ""),
    ])
    func fillsIn(text: String, result: String) throws { #expect(try expand(text) == result) }

    @Test(arguments: ["${NOT}", "$NOT", "a$b", "${", "${}", "${a b}", "${SET:?x}"])
    func refuses(text: String) { #expect(throws: Interpolation.Failure.self) { try expand(text) } }
}
