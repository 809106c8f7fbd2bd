import TestSupport
import Testing

@testable import HTTP

/// The fuzz targets' properties, over their committed corpora and seeded mutations of them. (`Fuzz/run` does it for hours.)
@Suite struct FuzzReplayTests {
    @Test(arguments: ["http1", "http2", "proxy", "cookies"]) func thereIsACorpus(target: String) throws {
        #expect(try FuzzReplay.corpus(target).count >= 20)
    }

    /// Whatever comes, parsing ends in a value or a failure, uses no more bytes than there are, and says the same however the bytes are
    /// split.
    @Test func http1() throws { #expect(try FuzzReplay.faults("http1", mutations: 80, checkHTTP1) == []) }

    /// Whatever frames come, what is told of them fits together, and what is taken for a request is one to HTTP/1's parser as well.
    @Test func http2() throws {
        let faults = try FuzzReplay.faults("http2", mutations: 60, checkHTTP2)
        #expect(faults == [])
    }

    @Test func proxyHeaders() throws { #expect(try FuzzReplay.faults("proxy", mutations: 25, checkProxyHeader) == []) }

    @Test func cookiesPathsAndTraces() throws { #expect(try FuzzReplay.faults("cookies", mutations: 60, checkCookiesAndPaths) == []) }
}
