import Basics
import Caching
import Testing

/// When an answer is stored, and when it is used again.
struct CacheRuleTests {
    static let start = MonotonicTime(nanoseconds: 1_000_000_000_000)
    static let wall = WallTime(milliseconds: 784_111_777_500)
    static let date = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")

    static func facts(_ fields: [(String, String)], status: Int = 200) -> ResponseFacts { CacheFieldTests.facts(status, fields) }

    static func freshness(_ facts: ResponseFacts, delay: Duration = .zero) -> Freshness {
        Freshness(facts, asked: start, came: start + delay, cameWall: wall)
    }

    static func request(_ fields: [(String, String)] = [], change: (inout RequestFacts) -> Void = { _ in }) -> RequestFacts {
        var out = RequestFacts()
        out.isGet = true
        for (name, value) in fields {
            Array(name.utf8).withUnsafeBytes { name in Array(value.utf8).withUnsafeBytes { out.take(name, $0) } }
        }
        out.settle()
        change(&out)
        return out
    }

    static func stored(_ fields: [(String, String)], status: Int = 200, _ request: RequestFacts = request()) -> CacheReason {
        let facts = facts(fields + [date], status: status)
        return Storability.verdict(request, facts, freshness(facts), now: start)
    }

    @Test func lifetimesInTheirOrder() {
        let expires = ("Expires", "Sun, 06 Nov 1994 08:50:37 GMT")
        #expect(Self.freshness(Self.facts([Self.date, expires])).lifetime == 60)
        #expect(Self.freshness(Self.facts([expires])).lifetime == 60)
        #expect(Self.freshness(Self.facts([Self.date, expires, ("Cache-Control", "max-age=5")])).lifetime == 5)
        #expect(Self.freshness(Self.facts([Self.date, expires, ("Cache-Control", "max-age=5, s-maxage=7")])).lifetime == 7)
        #expect(Self.freshness(Self.facts([Self.date, ("Expires", "0")])).lifetime == 0)
        #expect(Self.freshness(Self.facts([Self.date])).source == .none)
        // An unreadable max-age outweighs a readable Expires.
        #expect(Self.freshness(Self.facts([Self.date, expires, ("Cache-Control", "max-age=x")])).lifetime == 0)
    }

    @Test func agesByTheRule() {
        #expect(Self.freshness(Self.facts([Self.date])).initialAge == 0)
        #expect(Self.freshness(Self.facts([("Date", "Sun, 06 Nov 1994 08:49:30 GMT")])).initialAge == 7)
        #expect(Self.freshness(Self.facts([("Date", "Sun, 06 Nov 1994 09:49:30 GMT")])).initialAge == 0)
        #expect(Self.freshness(Self.facts([Self.date, ("Age", "9")]), delay: .seconds(2)).initialAge == 11)
        #expect(Self.freshness(Self.facts([("Date", "Sun, 06 Nov 1994 08:49:30 GMT"), ("Age", "3")])).initialAge == 7)
        let fresh = Self.freshness(Self.facts([Self.date, ("Age", "9"), ("Cache-Control", "max-age=10")]))
        #expect(fresh.left(Self.start + .milliseconds(999)) > .zero)
        #expect(fresh.left(Self.start + .seconds(1)) == .zero)
        #expect(fresh.age(Self.start + .milliseconds(2500)) == 11)
        let huge = Self.freshness(Self.facts([("Age", "99999999999"), ("Cache-Control", "max-age=99999999999")]))
        #expect(huge.left(MonotonicTime(nanoseconds: .max)) < .zero)
    }

    @Test func storing() {
        let rows: [([(String, String)], Int, CacheReason)] = [
            ([("Cache-Control", "max-age=10")], 200, .stored), ([("Cache-Control", "max-age=10")], 404, .stored),
            ([("Cache-Control", "max-age=10")], 500, .stored), ([("Cache-Control", "max-age=10")], 299, .stored),
            ([("Cache-Control", "max-age=10")], 206, .status), ([("Cache-Control", "max-age=10")], 304, .status),
            ([("Cache-Control", "max-age=10")], 101, .status), ([("Cache-Control", "max-age=10, no-store")], 200, .noStore),
            ([("Cache-Control", "max-age=10, private")], 200, .isPrivate),
            ([("Cache-Control", "max-age=10, private=\"x\"")], 200, .isPrivate),
            ([("Cache-Control", "max-age=10"), ("Set-Cookie", "a=b")], 200, .setCookie),
            ([("Cache-Control", "max-age=10"), ("Vary", "*")], 200, .varyAny), ([], 200, .noLifetime), ([], 500, .noLifetime),
            ([("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("ETag", "\"x\"")], 200, .noLifetime),
            ([("Cache-Control", "public")], 200, .noLifetime), ([("Cache-Control", "max-age=0")], 200, .useless),
            ([("Cache-Control", "max-age=0"), ("ETag", "\"x\"")], 200, .stored),
            ([("Cache-Control", "max-age=10"), ("Age", "10")], 200, .useless),
            ([("Cache-Control", "max-age=0, stale-while-revalidate=5")], 200, .stored),
            ([("Cache-Control", "no-cache"), ("ETag", "\"x\"")], 200, .stored), ([("Cache-Control", "no-cache")], 200, .noLifetime),
            ([("Cache-Control", "no-cache, max-age=10")], 200, .useless),
            ([("Cache-Control", "max-age=10, must-understand")], 299, .mustUnderstand),
            ([("Cache-Control", "max-age=10, must-understand")], 200, .stored), ([("Expires", "0")], 200, .useless),
        ]
        for (fields, status, verdict) in rows { #expect(Self.stored(fields, status: status) == verdict, "\(fields) \(status)") }
    }

    @Test func whoAskedDecidesToo() {
        let auth = Self.request([("Authorization", "Basic x")])
        #expect(Self.stored([("Cache-Control", "max-age=10")], auth) == .authorization)
        for word in ["public", "s-maxage=10", "must-revalidate"] {
            #expect(Self.stored([("Cache-Control", "max-age=10, \(word)")], auth) == .stored)
        }
        #expect(Self.stored([("Cache-Control", "max-age=10")], Self.request([("Cache-Control", "no-store")])) == .requestNoStore)
        #expect(Self.stored([("Cache-Control", "max-age=10")], Self.request([("Range", "bytes=0-1")])) == .range)
        #expect(Self.stored([("Cache-Control", "max-age=10")], Self.request { $0.hasBody = true }) == .requestBody)
        #expect(Self.stored([("Cache-Control", "max-age=10")], Self.request { $0.isGet = false }) == .method)
        #expect(Self.stored([("Cache-Control", "max-age=10")], Self.request([("Cookie", "a=b")])) == .stored)
        #expect(Self.request([("If-Match", "\"x\"")]).bypass == .originsCondition)
    }

    static func reuse(_ control: String, after: Duration, _ request: String = "", change: (inout Reuse) -> Void = { _ in })
        -> (ReuseAction, CacheReason)
    {
        let facts = facts([date, ("Cache-Control", control)])
        var reuse = Reuse(facts, freshness(facts))
        change(&reuse)
        let (action, why) = reuse.verdict(CacheFieldTests.request(request), now: start + after)
        return (action, why)
    }

    @Test func using() {
        let serve = ReuseAction.serve(isStale: false, refreshes: false)
        let rows: [(String, Int, String, ReuseAction, CacheReason)] = [
            ("max-age=10", 9, "", serve, .fresh), ("max-age=10", 10, "", .validate, .stale),
            ("no-cache, max-age=10", 0, "", .validate, .noCache),
            ("max-age=10", 1, "no-cache", .validate, .requestDirective), ("max-age=10", 5, "max-age=4", .validate, .requestDirective),
            ("max-age=10", 5, "max-age=5", serve, .fresh), ("max-age=10", 5, "min-fresh=6", .validate, .requestDirective),
            ("max-age=10", 5, "min-fresh=5", serve, .fresh),
            ("max-age=10", 12, "max-stale", .serve(isStale: true, refreshes: false), .maxStale),
            ("max-age=10", 12, "max-stale=2", .serve(isStale: true, refreshes: false), .maxStale),
            ("max-age=10", 13, "max-stale=2", .validate, .stale), ("max-age=10, must-revalidate", 12, "max-stale", .validate, .stale),
            ("s-maxage=10", 12, "max-stale", .validate, .stale), ("max-age=10, proxy-revalidate", 12, "max-stale", .validate, .stale),
            ("max-age=10, stale-while-revalidate=5", 15, "", .serve(isStale: true, refreshes: true), .staleWhileRevalidate),
            ("max-age=10, stale-while-revalidate=5", 16, "", .validate, .stale),
            ("s-maxage=10, stale-while-revalidate=5", 12, "", .validate, .stale),
            ("max-age=10, must-revalidate, stale-while-revalidate=5", 12, "", .validate, .stale),
            ("max-age=10, stale-if-error=50", 12, "", .validate, .stale),
            ("max-age=10", 12, "max-stale=99999999999999", .serve(isStale: true, refreshes: false), .maxStale),
        ]
        for (control, after, request, action, why) in rows {
            let found = Self.reuse(control, after: .seconds(after), request)
            #expect(found.0 == action && found.1 == why, "\(control) after \(after) s, \(request): \(found)")
        }
        #expect(Self.reuse("s-maxage=10, stale-while-revalidate=5", after: .seconds(12)) { $0.trusted = true }.1 == .staleWhileRevalidate)
        #expect(Self.reuse("max-age=10", after: .seconds(2)) { $0.staleSince = Self.start + .seconds(1) }.0 == .validate)
    }

    @Test func afterAFailureTheOriginIsLeftAlone() {
        let pause: (inout Reuse) -> Void = { $0.pausedUntil = Self.start + .seconds(13) }
        #expect(Self.reuse("max-age=10, stale-if-error=50", after: .seconds(12), change: pause).1 == .refreshPaused)
        #expect(Self.reuse("max-age=10, stale-if-error=50", after: .seconds(13), change: pause).0 == .validate)
        #expect(
            Self.reuse("max-age=10, stale-while-revalidate=50", after: .seconds(12), change: pause).0
                == .serve(isStale: true, refreshes: false))
        #expect((1...8).map { RefreshPause.after(failures: $0) } == [1, 2, 4, 8, 16, 30, 30, 30].map { .seconds($0) })
    }

    @Test func failuresOfTheOrigin() {
        func may(_ control: String, _ after: Int, _ request: String = "") -> Bool {
            let facts = Self.facts([Self.date, ("Cache-Control", control)])
            return Reuse(facts, Self.freshness(facts)).mayServeOnError(CacheFieldTests.request(request), now: Self.start + .seconds(after))
        }
        #expect(may("max-age=10, stale-if-error=5", 15) && !may("max-age=10, stale-if-error=5", 16))
        #expect(!may("max-age=10, must-revalidate, stale-if-error=5", 12) && !may("s-maxage=10, stale-if-error=5", 12))
        #expect(!may("no-cache, max-age=10, stale-if-error=5", 12) && !may("max-age=10", 12))
        #expect(may("max-age=10", 12, "stale-if-error=5"))
        #expect((200...599).filter(Reuse.isFailure) == [500, 502, 503, 504])
    }

    @Test func cacheStatusTexts() {
        #expect(CacheStatus(ttl: 5).text == "muster; hit; ttl=5")
        var status = CacheStatus(forward: .uriMiss)
        status.isStored = true
        status.isCollapsed = true
        status.forwardStatus = 304
        status.detail = .noStore
        #expect(status.text == "muster; fwd=uri-miss; fwd-status=304; stored; collapsed; detail=no-store")
        for why in CacheReason.allCases {
            #expect(CacheStatus.Forward.allCases.contains(CacheStatus.Forward(why)) && !why.sentence.isEmpty)
        }
    }
}
