import Basics
import EventLoops
import JSONCoding

/// A whole request, as a service's handler gets it.
public struct HTTPRequest: Sendable {
    public let method: String
    /// The path as sent, undecoded, without the query.
    public let path: String
    /// The segments of the path, each percent-decoded, once; `%2F` becomes a slash inside its segment.
    public let segments: [String]
    /// The query as sent, undecoded.
    public let query: String
    public let headers: [(name: String, value: String)]
    public let body: [UInt8]
    public let peer: SocketAddress

    public func header(_ name: String) -> String? {
        let lower = name.lowercased()
        return headers.first { $0.name == lower }?.value
    }

    /// A parameter of the query, decoded; nil when absent, and when it cannot be decoded. The first one counts. For a parameter that filters,
    /// use `QueryParameters`, which is strict.
    public func queryValue(_ name: String) -> String? {
        for pair in query.split(separator: "&") {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if percentDecoded(parts[0], plusIsSpace: true) == name {
                return parts.count == 2 ? percentDecoded(parts[1], plusIsSpace: true) : ""
            }
        }
        return nil
    }
}

/// Writes a streamed body; `write` waits while the client is slow.
public struct HTTPBodyWriter: Sendable {
    let send: @Sendable ([UInt8]) async throws -> Void
    /// Writes in parts, so that a client that does not read makes the writer wait with little in its connection.
    public func write(_ bytes: [UInt8]) async throws {
        if bytes.count <= HTTPBodyWriter.part {
            if !bytes.isEmpty { try await send(bytes) }
            return
        }
        for start in stride(from: 0, to: bytes.count, by: HTTPBodyWriter.part) {
            try await send(Array(bytes[start..<min(start + HTTPBodyWriter.part, bytes.count)]))
        }
    }
    private static let part = 128 << 10
    public func write(_ text: String) async throws { try await write(Array(text.utf8)) }
}

public struct HTTPResponse: Sendable {
    public enum Body: Sendable {
        case bytes([UInt8])
        /// A body that is sent in chunks as it is made; an error ends the connection, so that a client sees it is incomplete.
        case stream(@Sendable (HTTPBodyWriter) async throws -> Void)
    }

    public var status: Int
    public var headers: [(name: String, value: String)]
    public var body: Body

    public init(status: Int = 200, headers: [(name: String, value: String)] = [], body: Body = .bytes([])) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    public static func json(_ bytes: [UInt8], status: Int = 200) -> HTTPResponse {
        HTTPResponse(status: status, headers: [("Content-Type", "application/json")], body: .bytes(bytes))
    }

    public static func json(status: Int = 200, _ write: (inout JSONWriter) -> Void) -> HTTPResponse {
        var json = JSONWriter()
        json.beginObject()
        write(&json)
        json.endObject()
        return .json(json.bytes + [10], status: status)
    }

    public static func text(_ text: String, type: String = "text/plain; charset=utf-8", status: Int = 200) -> HTTPResponse {
        HTTPResponse(status: status, headers: [("Content-Type", type)], body: .bytes(Array(text.utf8)))
    }
}

/// An error as a client reads it: `{"error":{"code","message","field"}}` with the right status.
public struct APIError: Error, Sendable, Equatable {
    public let status: Int
    public let code: String
    public let message: String
    public let field: String?
    public let retryAfter: Int?
    public let allow: String?

    public init(_ status: Int, _ code: String, _ message: String, field: String? = nil, retryAfter: Int? = nil, allow: String? = nil) {
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.retryAfter = retryAfter
        self.allow = allow
    }

    public var response: HTTPResponse {
        var response = HTTPResponse.json(status: status) { json in
            json.key("error")
            json.beginObject()
            json.member("code", code)
            json.member("message", message)
            if let field { json.member("field", field) }
            json.endObject()
        }
        if let retryAfter { response.headers.append(("Retry-After", String(retryAfter))) }
        if let allow { response.headers.append(("Allow", allow)) }
        return response
    }
}
