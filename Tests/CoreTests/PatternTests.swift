import Patterns
import Testing

/// Expressions and what takes the place of what they match.
@Suite struct PatternTests {
    private func groups(_ pattern: Pattern, _ text: String) -> [String?]? {
        let bytes = Array(text.utf8)
        return bytes.withUnsafeBytes { raw in
            guard case .found(let match) = pattern.match(raw) else { return nil }
            return match.map { $0.map { String(decoding: bytes[$0], as: UTF8.self) } }
        }
    }

    @Test func aMatchTellsItsGroups() throws {
        let pattern = try Pattern("^/u/([0-9]+)(?:/(x)|/(y))?$")
        #expect(pattern.groups == 3)
        #expect(groups(pattern, "/u/42/y") == ["/u/42/y", "42", nil, "y"])
        #expect(groups(pattern, "/u/42/x") == ["/u/42/x", "42", "x", nil] && groups(pattern, "/u/7") == ["/u/7", "7", nil, nil])
        #expect(groups(pattern, "/u/") == nil && groups(pattern, "") == nil)
        let inside = try Pattern("b+")
        #expect(groups(inside, "aabbbcc") == ["bbb"])
    }

    @Test func theEndIsTheEndAndBytesAreBytes() throws {
        let pattern = try Pattern("^/a$")
        #expect(pattern.matches("/a") == .yes && pattern.matches("/a\n") == .no && pattern.matches("/a\n/a") == .no)
        let any = try Pattern("^.$")
        let odd: [UInt8] = [0xFF], nul: [UInt8] = [0], two: [UInt8] = [0xC3, 0xA9]
        #expect(
            odd.withUnsafeBytes { any.matches($0) } == .yes && nul.withUnsafeBytes { any.matches($0) } == .yes
                && two.withUnsafeBytes { any.matches($0) } == .no)
        let empty = try Pattern("^$")
        #expect(empty.matches("") == .yes && empty.matches(UnsafeRawBufferPointer(start: nil, count: 0)) == .yes)
    }

    /// A step limit, not a clock: without it these take longer than anybody waits. What it cuts off is no answer.
    @Test(arguments: ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "^(.*)*x$", "(x+x+)+y"]) func noExpressionRunsWithoutEnd(text: String) throws {
        let pattern = try Pattern(text)
        for letter in ["a", "x"] { #expect(pattern.matches(String(repeating: letter, count: 5000) + "!") != .yes) }
        let all = ["a", "x"].map { pattern.matches(String(repeating: $0, count: 5000) + "!") }
        // Where a letter that is needed is not there, nothing is tried.
        #expect(all.contains(.undecided) || text.hasSuffix("y"), "\(all)")
    }

    /// A long path needs more stack than PCRE2 takes by itself; that alone leaves nothing undecided.
    @Test func lengthAloneDecidesNothing() throws {
        let admin = try Pattern("^/admin(/[^/]+)*$"), export = try Pattern("^/api/(.|/)*export")
        for count in [1, 1500, 4000] {
            let parts = String(repeating: "/a", count: count)
            #expect(admin.matches("/admin" + parts) == .yes && admin.matches("/admin" + parts + "/") == .no, "\(count)")
            #expect(export.matches("/api/" + String(repeating: "a", count: 2 * count) + "export") == .yes, "\(count)")
        }
        // Few bytes can be many steps.
        let folders = try Pattern("^/(.*/)*private(/|$)"), deep = "/private" + String(repeating: "/a", count: 20)
        let groups = Array(deep.utf8).withUnsafeBytes { folders.match($0) }
        guard case .undecided = groups else {
            Issue.record("\(groups)")
            return
        }
        #expect(folders.matches(deep) == .undecided && folders.matches("/x/private/a") == .yes && folders.matches("/privat") == .no)
    }

    @Test func whatIsUndecidedOutweighsWhatWasNotFound() {
        #expect(MatchVerdict.no.or(.undecided) == .undecided && MatchVerdict.undecided.or(.no) == .undecided)
        #expect(MatchVerdict.undecided.or(.yes) == .yes && MatchVerdict.yes.or(.undecided) == .yes && MatchVerdict.no.or(.no) == .no)
        #expect(MatchVerdict.yes.and(.undecided) == .undecided && MatchVerdict.undecided.and(.yes) == .undecided)
        #expect(MatchVerdict.undecided.and(.no) == .no && MatchVerdict.no.and(.undecided) == .no && MatchVerdict.yes.and(.yes) == .yes)
    }

    @Test(arguments: ["(", "[", "a{2,1}", "(?<n", "*", "\\", "(?P>x)"]) func whatIsNoExpressionIsTold(text: String) {
        let failure = #expect(throws: Pattern.Failure.self) { try Pattern(text) }
        #expect(failure?.description.contains(" at character ") == true)
    }

    @Test func anExpressionHasABound() throws {
        let longest = try Pattern(String(repeating: "a", count: 1024))
        #expect(longest.groups == 0)
        #expect(throws: Pattern.Failure.self) { try Pattern(String(repeating: "a", count: 1025)) }
    }

    @Test func oneExpressionServesManyAtOnce() async throws {
        let pattern = try Pattern("^/([a-z]+)/([0-9]+)$")
        let found = await withTaskGroup(of: Int.self) { group in
            for i in 0..<4 {
                group.addTask { (0..<500).count { pattern.matches("/abc/\($0)") == .yes && pattern.matches("/abc/\(i)x") == .no } }
            }
            return await group.reduce(0, +)
        }
        #expect(found == 2000)
    }

    // MARK: replacements

    private func replaced(_ text: String, _ pattern: String, by replacement: String) throws -> String? {
        let pattern = try Pattern(pattern)
        guard let replacement = Replacement(replacement, groups: pattern.groups) else { return nil }
        let bytes = Array(text.utf8)
        return bytes.withUnsafeBytes { raw in
            guard case .found(let match) = pattern.match(raw) else { return nil }
            return String(decoding: replacement.fill(match, of: raw), as: UTF8.self)
        }
    }

    @Test(arguments: [
        ("/v2/$1", "/v2/42"), ("$2$1", "x42"), ("[$0]", "[/u/42/x]"), ("$$1", "$1"), ("$$$1", "$42"), ("", ""), ("plain", "plain"),
        ("$12", "422"), ("$3|", "|"),
        ("é$1", "é42"), ("a$", "a$"),
    ]) func groupsAreFilledIn(replacement: String, result: String) throws {
        let made = try replaced("/u/42/x", "^/u/([0-9]+)/(x)(y)?$", by: replacement)
        #expect(made == result)
    }

    @Test(arguments: ["$4", "$9", "$x", "$ ", "a$-b", "${1}"]) func aGroupThatIsNotThereIsRefused(replacement: String) throws {
        let made = try replaced("/u/42/x", "^/u/([0-9]+)/(x)(y)?$", by: replacement)
        #expect(made == nil)
    }
}
