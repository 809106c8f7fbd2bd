import Basics
import Caching
import Testing

/// What a cache reads in fields: directives, dates, ages, tags, ranges, `Vary`.
struct CacheFieldTests {
    static func response(_ lines: String...) -> ResponseDirectives {
        var out = ResponseDirectives()
        for line in lines { Array(line.utf8).withUnsafeBytes { out.take($0) } }
        return out
    }

    static func request(_ lines: String...) -> RequestDirectives {
        var out = RequestDirectives()
        for line in lines { Array(line.utf8).withUnsafeBytes { out.take($0) } }
        return out
    }

    static func facts(_ status: Int = 200, _ fields: [(String, String)]) -> ResponseFacts {
        var out = ResponseFacts(status: status)
        for (name, value) in fields {
            Array(name.utf8).withUnsafeBytes { name in Array(value.utf8).withUnsafeBytes { out.take(name, $0) } }
        }
        return out
    }

    @Test(arguments: [
        ("max-age=100", 100), ("MAX-AGE=100", 100), ("max-age=\"100\"", 100), ("public, max-age=7 , x", 7), ("max-age=5, max-age=9", 5),
        ("max-age=9,max-age=5", 5), ("max-age=", 0), ("max-age", 0), ("max-age=-1", 0), ("max-age=1.5", 0), ("max-age=1a", 0),
        ("max-age='100'", 0), ("max-age = 100", 0), ("max-age =100", 0), ("max-age= 100", 0), ("max-age=100 100", 0),
        ("max-age=99999999999999999999", 1 << 31), ("max-age=2147483649", 1 << 31), (",, ,max-age=3,", 3), ("max-age=\"1\"2", 0),
        ("max-age=\"10", 0), ("max-age=0x10", 0), ("max-age=+5", 0), ("max-age=007", 7),
    ])
    func maxAge(_ line: String, _ seconds: Int) { #expect(Self.response(line).maxAge == seconds) }

    @Test(arguments: [
        "community=\"UCI, max-age=100\"", "x=\"a\\\", max-age=100\"", "xmax-age=100", "max-age-x=100", "x=\"max-age=100", "max_age=100",
    ])
    func whatStandsElsewhereIsNoMaxAge(_ line: String) { #expect(Self.response(line).maxAge == nil) }

    @Test func linesCountTogether() {
        let found = Self.response("max-age=100", "no-transform, max-age=50", "s-maxage=10, s-maxage=20")
        #expect(found.maxAge == 50)
        #expect(found.sharedMaxAge == 10)
        #expect(found.noTransform)
    }

    @Test func fieldNamesInDirectivesDoNotWeakenThem() {
        let found = Self.response("private=\"set-cookie\", no-cache=\"x\", no-store=1")
        #expect(found.isPrivate && found.noCache && found.noStore)
        #expect(!Self.response("public=\"x\"").isPublic)
        #expect(Self.response("Public").isPublic)
        #expect(Self.response("must-revalidate, proxy-revalidate, must-understand").mustRevalidate)
        #expect(Self.response("stale-while-revalidate=x, stale-if-error=60").staleWhileRevalidate == 0)
        #expect(Self.response("stale-while-revalidate=x, stale-if-error=60").staleIfError == 60)
    }

    @Test func whatCannotBeReadInARequestIsTheStricterWish() {
        #expect(Self.request("max-age=x").maxAge == 0)
        #expect(Self.request("min-fresh=x").minFresh == 1 << 31)
        #expect(Self.request("max-stale").maxStale == .max)
        #expect(Self.request("max-stale=x").maxStale == 0)
        #expect(Self.request("max-stale=5, max-stale=3").maxStale == 3)
        #expect(Self.request("only-if-cached, no-store, no-cache, no-transform").onlyIfCached)
    }

    @Test func pragmaCountsOnlyWithoutCacheControl() {
        func facts(_ fields: [(String, String)]) -> RequestFacts {
            var out = RequestFacts()
            for (name, value) in fields {
                Array(name.utf8).withUnsafeBytes { name in Array(value.utf8).withUnsafeBytes { out.take(name, $0) } }
            }
            out.settle()
            return out
        }
        #expect(facts([("Pragma", "no-cache")]).directives.noCache)
        #expect(!facts([("Pragma", "no-cache"), ("Cache-Control", "max-age=1")]).directives.noCache)
    }

    @Test(arguments: [
        ("5", 5), ("5, 9", 5), ("x", 0), ("-1", 0), ("", 0), ("9999999999999", 1 << 31), ("1.5", 0), ("\"5\"", 0),
    ])
    func age(_ value: String, _ seconds: Int) {
        #expect(Self.facts(200, [("Age", value)]).age == seconds)
        #expect(Self.facts(200, [("Age", value), ("Age", "77")]).age == seconds)
    }

    @Test func datesInThreeForms() {
        let time = WallTime(milliseconds: 784_111_777_000)
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "sun, 06 nov 1994 08:49:37 gmt",
        ] {
            #expect(Self.facts(200, [("Expires", text)]).expires == .at(time))
        }
        for text in [
            "0", "-1", "", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994  08:49:37 GMT", "06 Nov 1994",
            "Sun, 36 Nov 1994 08:49:37 GMT",
        ] {
            #expect(Self.facts(200, [("Expires", text)]).expires == .over, "\(text)")
        }
        #expect(Self.facts(200, [("Expires", "0"), ("Expires", "Sun, 06 Nov 1994 08:49:37 GMT")]).expires == .over)
    }

    @Test func vary() {
        #expect(Self.facts(200, [("Vary", "Accept, *")]).variesByAnything)
        #expect(Self.facts(200, [("Vary", "a b")]).variesByAnything)
        #expect(
            Self.facts(200, [("Vary", "Accept"), ("vary", "accept,Accept-Encoding , ")]).vary
                == ["accept", "accept-encoding"].map { Array($0.utf8) })
        #expect(Self.facts(200, [("Vary", (0..<17).map { "x\($0)" }.joined(separator: ","))]).variesByAnything)
    }

    @Test(arguments: [
        ("accept", ["a, b"], "a,b"), ("accept", ["a ,\tb"], "a,b"), ("accept", ["a", "b"], "a,b"), ("accept", ["  a   b "], "a b"),
        ("accept", ["A"], "A"), ("accept-encoding", ["gzip, br"], "br,gzip"), ("accept-encoding", ["br;q=1.0,GZIP"], "br,gzip"),
        ("accept-encoding", ["x-gzip"], "gzip"), ("accept-encoding", ["gzip;q=0, br"], "br"), ("accept-encoding", ["gzip;q=0.000"], ""),
        ("accept-encoding", ["identity"], ""), ("accept-encoding", ["identity;q=0, br"], "!identity,br"),
        ("accept-encoding", ["br", "gzip, br"], "br,gzip"), ("accept-encoding", ["*;q=0"], "!*"),
    ])
    func fieldForms(_ name: String, _ lines: [String], _ form: String) {
        let bytes = lines.map { Array($0.utf8) }
        func with(_ i: Int, _ so: [UnsafeRawBufferPointer]) -> [UInt8] {
            i == bytes.count ? FieldForm.of(Array(name.utf8), so) : bytes[i].withUnsafeBytes { with(i + 1, so + [$0]) }
        }
        #expect(String(decoding: with(0, []), as: UTF8.self) == form)
    }

    @Test(arguments: [
        ("bytes=0-3", ByteRange.part(0..<4)), ("bytes=2-", .part(2..<10)), ("bytes=-3", .part(7..<10)), ("bytes=-30", .part(0..<10)),
        ("bytes=9-9", .part(9..<10)), ("bytes=5-100", .part(5..<10)), ("bytes=10-", .unsatisfiable), ("bytes=-0", .unsatisfiable),
        ("bytes=3-2", .whole), ("bytes=0-1,3-4", .whole), ("items=0-1", .whole), ("bytes=a-b", .whole), ("bytes=", .whole),
        ("bytes=-", .whole), ("bytes=99999999999999999999-", .unsatisfiable), ("bytes=0-99999999999999999999", .part(0..<10)),
        ("BYTES=1-1", .part(1..<2)), ("bytes=--1", .whole), ("bytes 0-1", .whole),
    ])
    func ranges(_ field: String, _ range: ByteRange) {
        #expect(Array(field.utf8).withUnsafeBytes { ByteRange($0, length: 10) } == range)
        #expect(Array("bytes=0-".utf8).withUnsafeBytes { ByteRange($0, length: 0) } == .unsatisfiable)
    }

    @Test(arguments: [
        ("\"a\"", "\"a\"", true), ("W/\"a\"", "\"a\"", true), ("\"a\"", "\"b\", \"a\"", true), ("\"a\"", "*", true),
        ("\"a,b\"", "\"a,b\"", true),
        ("\"b\"", "\"a,b\"", false), ("\"a\"", "\"A\"", false), ("\"a\"", "", false),
    ])
    func tags(_ stored: String, _ field: String, _ same: Bool) {
        let facts = Self.facts(200, [("ETag", stored)])
        #expect(Array(field.utf8).withUnsafeBytes { Conditional.isNotModified(ifNoneMatch: [$0], ifModifiedSince: nil, facts) } == same)
    }

    @Test func datesAreComparedWhereThereIsNoTag() {
        let facts = Self.facts(200, [("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")])
        func since(_ text: String) -> Bool {
            Array(text.utf8).withUnsafeBytes { Conditional.isNotModified(ifNoneMatch: [], ifModifiedSince: $0, facts) }
        }
        #expect(since("Sun, 06 Nov 1994 08:49:37 GMT") && since("Mon, 07 Nov 1994 08:49:37 GMT"))
        #expect(!since("Sat, 05 Nov 1994 08:49:37 GMT") && !since("x"))
    }

    @Test func aNotModifiedMustBeAboutWhatIsStored() {
        let stored = Self.facts(200, [("ETag", "\"a\""), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")])
        #expect(Conditional.fits(Self.facts(304, [("ETag", "\"a\"")]), stored: stored))
        #expect(Conditional.fits(Self.facts(304, [("ETag", "W/\"a\"")]), stored: stored))
        #expect(!Conditional.fits(Self.facts(304, [("ETag", "\"b\"")]), stored: stored))
        #expect(Conditional.fits(Self.facts(304, []), stored: stored))
        #expect(!Conditional.fits(Self.facts(304, [("Last-Modified", "Sun, 06 Nov 1994 08:49:38 GMT")]), stored: stored))
    }

    @Test func aNotModifiedRenewsFieldsButNotWhatDescribesTheBody() {
        func field(_ name: String, _ value: String) -> FieldMerge.Field { .init(name: Array(name.utf8), value: Array(value.utf8)) }
        let out = FieldMerge.renewed(
            [field("X", "1"), field("x", "2"), field("Content-Encoding", "gzip"), field("A", "a")],
            by: [
                field("x", "3"), field("Content-Length", "0"), field("content-encoding", "br"), field("Content-Range", "x"),
                field("B", "b"),
            ])
        #expect(out == [field("Content-Encoding", "gzip"), field("A", "a"), field("x", "3"), field("B", "b")])
    }
}
