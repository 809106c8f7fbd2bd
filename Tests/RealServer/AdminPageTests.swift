import Basics
import TestSupport
import Testing

@testable import Gateway

/// The files of the admin port's page, as a linter reads them: that what is compiled in is what lies in the folder, that nothing names what
/// is not there, that no text from outside can become markup, and that a browser can parse every file.
@Suite struct AdminPageTests {
    private static let folder = "\(projectFolder)/Sources/System/CAdminPage/page"

    private func file(_ name: String) throws -> String { try #require(Files.text("\(Self.folder)/\(name)"), "\(name)") }
    private var scripts: [String] { AdminPage.parts.filter { $0.hasSuffix(".js") } }
    private var styles: [String] { AdminPage.parts.filter { $0.hasSuffix(".css") } }

    /// The first group of each match.
    private func found(_ pattern: String, in text: String) throws -> [String] {
        let regex = try Regex(pattern)
        return text.matches(of: regex).compactMap { $0.output[1].substring.map(String.init) }
    }

    @Test func whatIsCompiledInIsWhatLiesThere() throws {
        #expect(Files.list(Self.folder).sorted() == (AdminPage.parts + ["page.html"]).sorted())
        var page = try file("page.html")
        for part in AdminPage.parts {
            let place = "{{\(part)}}\n"
            #expect(page.ranges(of: place).count == 1, "\(part) has one place in page.html")
            page = page.replacing(place, with: try file(part))
        }
        #expect(page == AdminPage.html, "the program has other files in it than the folder: build it again")
        #expect(!page.contains("{{") && page.hasPrefix("<!doctype html>\n") && page.hasSuffix("</html>\n"))
        // Each language keeps to its element.
        #expect(page.ranges(of: "<script").count == 1 && page.ranges(of: "</script").count == 1)
        #expect(page.ranges(of: "<style").count == 1 && page.ranges(of: "</style").count == 1)
    }

    /// An id is unique, and whoever names one finds it.
    @Test func everyIdIsThereOnceAndUsed() throws {
        let html = try file("page.html")
        let ids = try found(#"\sid="([^"]+)""#, in: html)
        #expect(ids.count > 15 && Set(ids).count == ids.count, "\(ids)")
        var used: [String] = []
        for name in scripts { used += try found(#"(?:\$|getElementById)\('([^']*)'\)"#, in: file(name)) }
        for name in styles {
            // Without the declarations, whose colours look like ids.
            let selectors = try file(name).replacing(#/\{[^{}]*\}/#, with: "{}")
            used += try found(##"#([a-zA-Z][\w-]*)"##, in: selectors)
        }
        #expect(used.count > 20)
        for pattern in [##"href="#([^"]*)""##, #"\sfor="([^"]*)""#] { used += try found(pattern, in: html) }
        for list in try found(#"aria-(?:labelledby|describedby|controls)="([^"]*)""#, in: html) {
            used += list.split(separator: " ").map(String.init)
        }
        for id in used { #expect(ids.contains(id), "nothing has the id '\(id)'") }
        for id in ids { #expect(used.contains(id), "nobody uses the id '\(id)'") }
    }

    /// Handlers are set by the script, text is set as text, and nothing is loaded from elsewhere: so the page's policy may forbid the rest.
    @Test func nothingFromOutsideBecomesCode() throws {
        let html = try file("page.html")
        #expect(html.contains("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"))
        #expect(try found(#"\s(on[a-z]+)\s*="#, in: html).isEmpty && !html.contains("javascript:") && !html.contains(" style="))
        for name in scripts {
            let text = try file(name)
            for word in [
                "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "createContextualFragment",
                "DOMParser", "javascript:", "import(", "setAttribute('on", "attribute(node, 'on", ", 'on", "setTimeout('", "setInterval('",
            ] {
                #expect(!text.contains(word), "\(name): \(word)")
            }
        }
        for name in AdminPage.parts + ["page.html"] {
            let text = try file(name)
            // SVG's own vocabulary is a name and no address.
            let addresses = try found(#"(https?://[^'"\s]*)"#, in: text).filter { $0 != "http://www.w3.org/2000/svg" }
            #expect(addresses.isEmpty && !text.contains("@import") && !text.contains("url("), "\(name): \(addresses)")
            #expect(!text.contains("\t") && !text.contains(" \n") && text.hasSuffix("\n") && !text.hasSuffix("\n\n"), "\(name)")
            #expect(text.split(separator: "\n").count <= 600, "\(name)")
        }
    }

    /// In the browser that the page is shown in by other tests: each script is a script, alone and together, each selector selects, and each
    /// property takes its value.
    @Test func aBrowserParsesEveryFile() async throws {
        #expect(try await problems(try scripts.map { ($0, try file($0)) }, try styles.map { ($0, try file($0)) }) == [])
        // It sees what is wrong.
        let seen = try await problems(
            [("a.js", "let x = ;"), ("b.js", "let y = 1;"), ("c.js", "let y = 2;")],
            [("a.css", "b{colour:red}"), ("b.css", "b{color:rde}"), ("c.css", "b:hovver{color:red}"), ("d.css", "b{color:red")])
        #expect(
            seen.map { $0.prefix { $0 != ":" } } == ["a.js", "all scripts together", "a.css", "b.css", "c.css", "d.css"], "\(seen)")
    }

    private func problems(_ scripts: [(String, String)], _ styles: [(String, String)]) async throws -> [String] {
        func literal(_ files: [(String, String)]) -> String {
            // As numbers: no text of the files can end the string, or the script.
            let list = files.map { "['\($0.0)', \(Array($0.1.utf8))]" }
            return "[\(list.joined(separator: ","))]"
        }
        let page = """
            <!doctype html><meta charset="utf-8"><pre id="told">not run</pre><script>
            const told = [], read = list => list.map(([name, bytes]) => [name, new TextDecoder().decode(new Uint8Array(bytes))]);
            const parse = (name, text) => { try { new Function(text); } catch (error) { told.push(name + ': ' + error); } };
            const scripts = read(\(literal(scripts))), styles = read(\(literal(styles)));
            for (const [name, text] of scripts) parse(name, text);
            parse('all scripts together', scripts.map(([, text]) => text).join('\\n'));
            for (const [name, text] of styles) {
              let rest = text.replace(/\\/\\*[^]*?\\*\\//g, ''), before;
              do {
                before = rest;
                rest = rest.replace(/([^{};]*)\\{([^{}]*)\\}/, (all, selector, body) => {
                  if (!selector.includes('@') && selector.trim()) {
                    try { document.querySelector(selector); } catch (error) { told.push(name + ': the selector ' + selector.trim()); }
                  }
                  for (const one of body.split(';').filter(s => s.trim())) {
                    const at = one.indexOf(':'), property = one.slice(0, at).trim(), value = one.slice(at + 1).replace('!important', '').trim();
                    if (at < 0 || !CSS.supports(property, value)) told.push(name + ': ' + one.trim());
                  }
                  return '';
                });
              } while (rest !== before);
              if (rest.trim()) told.push(name + ': left over: ' + rest.trim());
            }
            document.getElementById('told').textContent = told.map(t => 'told ' + t.replace(/\\n/g, ' ')).join('\\n') + '\\nend of list';
            </script>
            """
        return try await withFolder { folder in
            try Files.replace(folder + "/lint.html", with: Array(page.utf8))
            let (status, dom) = try await run(
                try systemProgram("chromium"),
                [
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=\(folder)/chromium",
                    "--dump-dom", "file://\(folder)/lint.html",
                ])
            let list = dom.split(separator: "<pre id=\"told\">", maxSplits: 1).last?.split(separator: "</pre>").first ?? ""
            #expect(status == 0 && list.hasSuffix("end of list"), "\(dom.prefix(2000))")
            return list.split(separator: "\n").filter { $0.hasPrefix("told ") }.map { String($0.dropFirst(5)) }
        }
    }
}
