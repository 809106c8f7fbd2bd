import CAdminPage

/// The admin port's page: plain HTML that reads `/api/state` and `/api/why` every second, and `/api/scaling` where services scale by
/// themselves. The page loads no code from elsewhere, and writes what comes from outside as text, never as markup.
///
/// Its files are in `Sources/System/CAdminPage/page`, and compiled in.
enum AdminPage {
    /// The files that go into `page.html`, each where a line `{{its name}}` stands.
    static let parts = ["page.css", "scaling.css", "figures.js", "units.js", "scaling.js", "decisions.js"]

    /// The whole page, in one piece. Made once.
    static let html = parts.reduce(file("page.html")) { $0.replacing("{{\($1)}}\n", with: file($1)) }

    private static func file(_ name: String) -> String {
        var count = 0
        guard let bytes = admin_page_file(name, &count) else { preconditionFailure("\(name) is not compiled in: see CAdminPage.c") }
        return String(decoding: UnsafeBufferPointer(start: bytes, count: count), as: UTF8.self)
    }
}
