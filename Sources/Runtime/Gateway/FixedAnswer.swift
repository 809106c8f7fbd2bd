import Basics
import Topology

/// An answer that needs no replica: a maintenance page, a fixed text, a redirect.
enum FixedAnswer: Sendable {
    case page(status: Int, body: [UInt8], type: String)
    case redirect(to: String, status: Int)

    /// A page from a file has at most this many bytes.
    private static let pageLimit = 1 << 20

    /// nil when the route has something behind it.
    init?(_ target: RouteSpec.Target, route: String) throws(Gateway.Failure) {
        switch target {
        case .service, .backends: return nil
        case .redirect(let spec): self = .redirect(to: spec.to, status: spec.status)
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

    /// Where a redirect goes; nil when what the client sent cannot stand in a head.
    static func place(_ template: String, scheme: String, host: String, target: String) -> String? {
        var out = ""
        var rest = template[...]
        while let dollar = rest.firstIndex(of: "$") {
            out += rest[..<dollar]
            let tail = rest[rest.index(after: dollar)...]
            let names = [("scheme", scheme), ("host", host), ("uri", target)]
            guard let (name, value) = names.first(where: { tail.hasPrefix($0.0) }) else {
                out += "$"
                rest = tail
                continue
            }
            // HTTP/1.0 need not name a host.
            if value.isEmpty { return nil }
            out += value
            rest = tail.dropFirst(name.count)
        }
        out += rest
        return out.utf8.allSatisfy { $0 > 32 && $0 < 127 } && out.utf8.count <= 16_384 ? out : nil
    }
}
