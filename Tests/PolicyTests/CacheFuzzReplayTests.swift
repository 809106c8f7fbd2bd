import TestSupport
import Testing

/// The fuzz target's properties over its committed corpus and seeded mutations of it.
@Suite struct CacheFuzzReplayTests {
    @Test func corpusAndMutations() throws {
        #expect(try FuzzReplay.corpus("cache").count >= 20)
        #expect(try FuzzReplay.faults("cache", mutations: 150, checkCacheFields) == [])
    }
}
