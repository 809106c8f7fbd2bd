import JSONCoding
import Testing

@Suite struct JSONTests {
    private func parse<T>(_ text: String, _ body: (JSONElement) throws -> T) throws -> T {
        try JSONDocument().parse(Array(text.utf8), body)
    }

    @Test func readsEveryKind() throws {
        try parse(#"{"s":"a\nü","i":-5,"u":18446744073709551615,"d":1.5,"b":true,"n":null,"a":[1,2],"o":{"x":1}}"#) { root in
            #expect(root["s"]?.string == "a\nü")
            #expect(root["i"]?.int == -5)
            #expect(root["u"]?.int == nil)
            #expect(root["u"]?.double == 18_446_744_073_709_551_616)
            #expect(root["d"]?.double == 1.5)
            #expect(root["b"]?.bool == true)
            #expect(root["n"]?.isNull == true)
            #expect(root["a"]?.array?.compactMap(\.int) == [1, 2])
            #expect(root["o"]?["x"]?.int == 1)
            #expect(root["absent"] == nil)
            #expect(root["s"]?.int == nil)
            #expect(root.members?.map(\.key) == ["s", "i", "u", "d", "b", "n", "a", "o"])
        }
    }

    @Test(arguments: ["", "{", "{\"a\":}", "[1,]", "nul", "{\"a\":1}x", "\"\u{1}\"", "[01]", "'a'"])
    func refusesWhatIsNotJSON(text: String) {
        #expect(throws: JSONFailure.self) { try parse(text) { _ in } }
    }

    @Test func refusesInvalidUTF8AndDepth() {
        #expect(throws: JSONFailure.self) { try JSONDocument().parse([34, 0xFF, 34]) { _ in } }
        let deep = String(repeating: "[", count: 300) + String(repeating: "]", count: 300)
        #expect(throws: JSONFailure.self) { try parse(deep) { _ in } }
    }

    @Test func aDocumentSurvivesAFailureAndIsReused() throws {
        let document = JSONDocument()
        #expect(throws: JSONFailure.self) { try document.parse(Array("{".utf8)) { _ in } }
        #expect(try document.parse(Array("[7]".utf8)) { $0.array?.first?.int } == 7)
    }

    @Test func readsWhatItWrites() throws {
        let odd = "quote \" backslash \\ newline \n tab \t bell \u{7} ü 🎈"
        var json = JSONWriter()
        json.beginObject()
        json.member("odd \" key", odd)
        json.member("list", ["a", "b"])
        json.key("numbers")
        json.beginArray()
        json.int(.min)
        json.double(0.1)
        json.double(.nan)
        json.endArray()
        json.endObject()
        try parse(json.text) { root in
            #expect(root.members?.first?.value.string == odd)
            #expect(root.members?.first?.key == "odd \" key")
            #expect(root["list"]?.array?.compactMap(\.string) == ["a", "b"])
            #expect(root["numbers"]?.array?[0].int == .min)
            #expect(root["numbers"]?.array?[1].double == 0.1)
            #expect(root["numbers"]?.array?[2].isNull == true)
        }
    }
}
