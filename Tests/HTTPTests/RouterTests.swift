import EventLoops
import Testing

@testable import HTTP

@Suite struct RouterTests {
    private var router: Router {
        var router = Router()
        router.get("/a/{id}") { _, parameters in .text("id " + parameters.string("id")) }
        router.get("/a/list") { _, _ in .text("list") }
        router.post("/a/list") { _, _ in .text("posted") }
        router.get("/n/{n}") { _, parameters in .text("n \(try parameters.int("n"))") }
        return router
    }

    private func find(_ method: String, _ path: String) async throws -> String {
        let (handler, parameters, _) = try router.find(method, path.split(separator: "/").map(String.init))
        let request = HTTPRequest(method: method, path: path, segments: [], query: "", headers: [], body: [], peer: .loopback(port: 1))
        guard case .bytes(let bytes) = try await handler(request, parameters).body else { return "" }
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test func fixedSegmentsWinOverParameters() async throws {
        #expect(try await find("GET", "/a/list") == "list")
        #expect(try await find("HEAD", "/a/x y") == "id x y")
        #expect(try await find("POST", "/a/list") == "posted")
        #expect(try await find("GET", "/n/12") == "n 12")
    }

    @Test func unknownPathsMethodsAndTypes() async throws {
        let missing = await #expect(throws: APIError.self) { try await find("GET", "/b") }
        #expect(missing?.status == 404)
        let method = await #expect(throws: APIError.self) { try await find("DELETE", "/a/list") }
        #expect(method?.status == 405 && method?.allow == "GET, HEAD, POST")
        let type = await #expect(throws: APIError.self) { try await find("GET", "/n/x") }
        #expect(type?.status == 400 && type?.field == "n")
    }

    @Test(arguments: [("a%20b", "a b"), ("%C3%BC", "ü"), ("a+b", "a+b"), ("", "")])
    func decodes(text: String, result: String) { #expect(percentDecoded(text[...]) == result) }

    @Test(arguments: ["%", "%2", "%zz", "%FF"])
    func refusesBadEscapes(text: String) { #expect(percentDecoded(text[...]) == nil) }
}
