import Basics
import HTTP
import StackModel

/// An answer that needs no replica: a maintenance page, a fixed text, a redirect.
enum FixedAnswer: Sendable {
    case page(status: Int, body: [UInt8], type: String)
    case redirect(to: RedirectTemplate, status: Int)

    /// Most bytes of a page from a file.
    private static let pageLimit = 1 << 20

    /// The answer to one request. `scheme` is the one that the client used.
    func ready(_ table: HeadTable, scheme: StaticString) -> ReadyAnswer {
        switch self {
        case .page(let status, let body, let type): return .page(status: status, body: body, type: type)
        case .redirect(let template, let status):
            let target = table.targetText.string, host = (table.first(.host) ?? table.targetText.part(0, 0)).string
            // HTTP/1.0 need not name a host.
            if host.isEmpty, template.names("host") { return .failure(.noHost) }
            guard let place = template.place(scheme: "\(scheme)", host: host, target: target) else { return .failure(.badPath) }
            return .redirect(to: place, status: status)
        }
    }

    /// nil when the route has something behind it.
    init?(_ target: RouteSpec.Target, route: String) throws(Gateway.Failure) {
        switch target {
        case .service, .backends: return nil
        case .redirect(let spec): self = .redirect(to: RedirectTemplate(spec), status: spec.status)
        case .answer(let spec):
            var body = Array(spec.body.utf8)
            if let file = spec.file {
                do throws(SystemError) { body = try Files.read(file, limit: FixedAnswer.pageLimit) } catch {
                    throw Gateway.Failure(description: "route \(route): answer.file: \(error)")
                }
            }
            self = .page(status: spec.status, body: body, type: spec.type)
        }
    }
}
