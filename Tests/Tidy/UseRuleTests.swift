import Basics
import Testing

/// Nothing stands in the sources that no source calls: a policy that only its tests know is no policy of the product.
@Suite struct UseRuleTests {
    /// What nothing in `Sources` mentions, and stays. It must still be so: this list may only get shorter.
    struct Kept: Sendable {
        /// A name, or a folder that ends in a slash.
        let what: String
        let why: String
    }

    static let kept: [Kept] = [
        Kept(what: "Sources/Policy/Lag/", why: "waits for a service that reads Kafka; ARCHITECTURE.md does not claim it until then"),
        Kept(
            what: "Sources/Policy/PostgresRouting/",
            why: "waits for the client and the wire endpoint of PostgreSQL stores, which are being built on it"),
        Kept(
            what: "ContainerFigures", why: "the sum over a pod's containers: a service here is one process, only the conformance tests ask"),
        Kept(
            what: "Sources/Wire/Postgres/",
            why:
                "the client and both ends of the protocol, for the stores of a stack and for the wire endpoint, which are being built on it"
        ),
        Kept(
            what: "fromReplica",
            why: "a choice of whoever uses the Redis client; RedisClusterTests holds it against a real cluster"),
        Kept(what: "queryValue", why: "MusterHTTP is a library: whoever serves with it reads a query by its names"),
        Kept(what: "enqueue", why: "the concurrency runtime calls it: an EventLoop is an executor"),
    ]

    /// Names of functions and types, and how often each is mentioned beside its declarations.
    @Test func everyFunctionAndTypeIsMentionedSomewhere() {
        var mentions: [String: Int] = [:]
        // The fuzzer's programs call checks that stand in the sources.
        for file in SourceFile.sources + SourceFile.all("Fuzz") {
            for (index, token) in file.tokens.enumerated() where token.kind == .word && !file.isWord(index - 1, "import") {
                mentions[token.text, default: 0] += 1
            }
        }
        var declared: [String: [(path: String, line: Int, isPrivate: Bool)]] = [:]
        for file in SourceFile.sources {
            for one in file.functions where one.name.first?.isLetter == true && !["init", "deinit", "subscript"].contains(one.name) {
                declared[one.name, default: []].append((file.path, file.tokens[one.start].line, one.isPrivate))
            }
            for one in file.kinds { declared[one.name, default: []].append((file.path, one.line, one.isPrivate)) }
            // An extension is no use of a type.
            for (index, token) in file.tokens.enumerated() where token.text == "extension" && index + 1 < file.tokens.count {
                mentions[file.tokens[index + 1].text, default: 0] -= 1
            }
        }
        var used: Set<String> = []
        for (name, places) in declared.sorted(by: { $0.key < $1.key }) where (mentions[name] ?? 0) <= places.count {
            for place in places where !place.isPrivate {
                if let one = Self.kept.first(where: { $0.what == name || $0.what.hasSuffix("/") && place.path.hasPrefix($0.what) }) {
                    used.insert(one.what)
                } else {
                    Issue.record("\(place.path):\(place.line): nothing in Sources mentions \(name): call it, or take it out")
                }
            }
        }
        for one in Self.kept { #expect(used.contains(one.what) && !one.why.isEmpty, "\(one.what) is in use or gone: take it off the list") }
    }

    /// The package manager says so of a target that names another twice, and builds all the same.
    @Test func noTargetNamesAnotherTwice() {
        let file = SourceFile(path: "Package.swift", text: Files.text("\(SourceFile.root)/Package.swift") ?? "")
        let text = Files.text("\(SourceFile.root)/Package.swift") ?? ""
        #expect(file.tokens.count > 500)
        for part in text.split(separator: "uses: [").dropFirst() {
            let pieces = part.prefix { $0 != "]" }.split(separator: "\"", omittingEmptySubsequences: false)
            let names = pieces.indices.filter { $0 % 2 == 1 }.map { pieces[$0] }
            #expect(Set(names).count == names.count, "\(names.joined(separator: ", "))")
        }
    }
}
