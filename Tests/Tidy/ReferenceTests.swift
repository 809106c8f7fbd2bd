import Basics
import Testing

/// `docs/reference/api.md` has a row for each route of the admin port and the control socket, and for nothing else.
@Suite struct ReferenceTests {
    /// `GET /api/state`, from `router.get("/api/state")` and `router.add("PUT", "/api/backends")`.
    private static func routes(_ file: SourceFile) -> Set<String> {
        var found: Set<String> = []
        for line in file.lines {
            for (mark, method) in [
                ("router.get(\"", "GET"), ("router.post(\"", "POST"), ("router.put(\"", "PUT"), ("router.delete(\"", "DELETE"),
            ] {
                guard let place = line.firstRange(of: mark) else { continue }
                found.insert("\(method) \(line[place.upperBound...].prefix { $0 != "\"" })")
            }
            guard let place = line.firstRange(of: "router.add(\"") else { continue }
            let parts = line[place.upperBound...].split(separator: "\"", omittingEmptySubsequences: false)
            if parts.count >= 3 { found.insert("\(parts[0]) \(parts[2])") }
        }
        return found
    }

    @Test func everyRouteHasARow() {
        let files = SourceFile.sources.filter {
            $0.path.hasPrefix("Sources/Runtime/Gateway/") || $0.path.hasPrefix("Sources/Runtime/Supervision/")
        }
        let declared = files.reduce(into: Set<String>()) { $0.formUnion(Self.routes($1)) }
        let text = Files.text("\(SourceFile.root)/docs/reference/api.md") ?? ""
        let rows = text.split(separator: "\n").compactMap { line -> String? in
            guard line.hasPrefix("| `"), let word = line.dropFirst(3).split(separator: "`").first, word.contains(" /") else { return nil }
            return String(word)
        }
        #expect(rows.count > 15 && Set(rows).count == rows.count)
        // Its three spellings are a list in the source.
        #expect(declared.union(["GET /stats"]).subtracting(rows) == [], "without a row")
        #expect(Set(rows).subtracting(declared).subtracting(["GET /stats"]) == [], "without a route")
    }
}
