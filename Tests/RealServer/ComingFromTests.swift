import Basics
import Observability
import StackFile
import StackModel
import TestSupport
import Testing

/// Muster's side of the tables in `docs/guides/coming-from.md`: each part of a stack file that they show is one, each key is a key, and each verb
/// has the options that are shown.
@Suite struct ComingFromTests {
    /// What stands in backquotes in the last column of the tables.
    private func examples() throws -> [String] {
        let text = String(decoding: try Files.read("\(projectFolder)/docs/guides/coming-from.md"), as: UTF8.self)
        var found: [String] = []
        for line in text.split(separator: "\n") where line.hasPrefix("| ") {
            let cells = line.split(separator: "|").map(String.init)
            guard cells.count == 2, !cells[1].contains("---") else { continue }
            for (i, part) in cells[1].split(separator: "`", omittingEmptySubsequences: false).enumerated() where i % 2 == 1 {
                found.append(String(part))
            }
        }
        return found
    }

    /// Whether `part` is right in one of the places where it may stand in a stack file.
    private func isPartOfAStack(_ part: String) -> Bool {
        let stores = "stores: { cache: { memcached: {} } }\n", tasks = "tasks: { migrate: { command: x } }\n"
        let web = "command: x", http = "http: { port: 8000, live: /, ready: / }"
        let gateway = "gateway: { listen: 8080, routes: [{ path: /, service: web }] }\n"
        let places = [
            "\(part)\nservices: { web: { \(web), \(http) } }\n",
            "services: { web: { \(web), \(http), \(part) } }\n\(gateway)\(stores)\(tasks)",
            "services: { web: { \(part) } }\n", "services: { web: { \(web), \(part) } }\n\(stores)\(tasks)",
            "services: { web: { \(web), \(part) } }\n\(gateway)",
            "services: { web: { \(web), \(http), \(part), scale: { idle: 10m, metrics: [{ cpu: 50% }] }, resources: { cpu: 1000m } } }\n\(gateway)",
            "services: { web: { \(web), \(http), replicas: 0..1, resources: { cpu: 1000m, memory: 64Mi }, \(part) } }\n\(gateway)",
            "services: { web: { \(web), \(http), replicas: 1..4, resources: { cpu: 1000m, memory: 64Mi }, scale: { metrics: [{ cpu: 50% }], "
                + "\(part.hasPrefix("scale: {") ? String(part.dropFirst(8).dropLast(1)) : part) } } }\n\(gateway)",
        ]
        let files = StackFiles(read: { path, _ in path.hasSuffix(".env") ? .bytes(Array("A=1\n".utf8)) : .absent }, flaw: { _ in nil })
        return places.contains {
            (try? Stack.read(Array(("stack: s\n" + $0).utf8), path: "s.yaml", files: files, environment: { _ in nil })) != nil
        }
    }

    @Test func whatTheTablesShowIsThere() async throws {
        let schema = try await run(builtProgram("muster"), ["schema"]).output
        var parts = 0, verbs = 0, keys = 0
        for example in try examples() {
            let words = example.split(separator: " ").map(String.init)
            if words.first == "muster" {
                verbs += 1
                let help = try await run(builtProgram("muster"), [words[1], "--help"])
                #expect(help.status == 0, "\(example)")
                for option in words where option.hasPrefix("-") && option != "--" {
                    #expect(help.output.contains(option), "\(example): \(option)")
                }
            } else if example.contains(": ") {
                parts += 1
                #expect(isPartOfAStack(example), "\(example)")
            } else if example.wholeMatch(of: #/[a-z][a-z-]*/#) != nil, !["down", "ps", "never", "on-failure"].contains(example) {
                keys += 1
                #expect(schema.contains("\"\(example)\""), "\(example) is no key of the stack file")
            }
        }
        #expect(parts > 20 && verbs > 15 && keys > 15, "\(parts) parts, \(verbs) verbs, \(keys) keys")
    }
}
