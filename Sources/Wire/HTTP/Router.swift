import Basics

/// The values of a route's `{name}` segments.
public struct PathParameters: Sendable {
    let values: [String: String]

    /// The segment, as it was sent (decoded). Names are the route's own, so a missing one is our mistake.
    public func string(_ name: String) -> String { values[name]! }

    public func int(_ name: String) throws(APIError) -> Int {
        guard let value = Int(values[name]!) else {
            throw APIError(400, "invalid_path", "'\(values[name]!)' is not a whole number", field: name)
        }
        return value
    }
}

public typealias HTTPHandler = @Sendable (HTTPRequest, PathParameters) async throws -> HTTPResponse

/// Finds the handler for a method and a path. Fixed segments win over parameters; HEAD is answered by GET. An unknown
/// path is 404, a known path with another method 405 with `Allow`.
public struct Router: Sendable {
    private struct Route {
        let method: String
        let pattern: String
        let segments: [String]
        let handler: HTTPHandler
    }

    private var routes: [Route] = []

    public init() {}

    public mutating func add(_ method: String, _ pattern: String, _ handler: @escaping HTTPHandler) {
        let segments = pattern.split(separator: "/").map(String.init)
        routes.append(Route(method: method, pattern: pattern, segments: segments, handler: handler))
        // Those with fewer parameters first, so that the first match is the best.
        routes.sort { $0.segments.filter { $0.hasPrefix("{") }.count < $1.segments.filter { $0.hasPrefix("{") }.count }
    }

    public mutating func get(_ pattern: String, _ handler: @escaping HTTPHandler) { add("GET", pattern, handler) }
    public mutating func post(_ pattern: String, _ handler: @escaping HTTPHandler) { add("POST", pattern, handler) }

    /// The handler, its parameters, and the pattern (for metrics: never the path itself, which is unbounded).
    func find(_ method: String, _ segments: [String]) throws(APIError) -> (HTTPHandler, PathParameters, pattern: String) {
        let wanted = method == "HEAD" ? "GET" : method
        var allowed: [String] = []
        for route in routes {
            guard let values = Router.match(route.segments, segments) else { continue }
            if route.method == wanted { return (route.handler, PathParameters(values: values), route.pattern) }
            allowed.append(route.method)
        }
        if allowed.isEmpty { throw APIError(404, "not_found", "there is nothing at this path") }
        let list = Set(allowed).union(allowed.contains("GET") ? ["HEAD"] : []).sorted().joined(separator: ", ")
        throw APIError(405, "method_not_allowed", "this path takes \(list)", allow: list)
    }

    private static func match(_ pattern: [String], _ segments: [String]) -> [String: String]? {
        guard pattern.count == segments.count else { return nil }
        var values: [String: String] = [:]
        for (part, segment) in zip(pattern, segments) {
            if part.hasPrefix("{") { values[String(part.dropFirst().dropLast())] = segment } else if part != segment { return nil }
        }
        return values
    }
}
