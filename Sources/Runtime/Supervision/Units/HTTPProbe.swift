import Basics
import EventLoops
import HTTP
import StackModel

/// Asks a replica of a service whether it is ready, and one that gives no answer whether it lives.
struct HTTPProbe {
    /// GET of a path, within a time.
    typealias Ask = (_ path: String, _ timeout: Duration) async throws(HTTPClientError) -> HTTPClientResponse

    private let http: HTTPInterface
    private let port: UInt16
    private let get: Ask

    private static let readyTime = Duration.seconds(2)
    /// For a second question, of one that gave no answer to the first.
    private static let liveTime = Duration.seconds(1)

    init(_ http: HTTPInterface, port: UInt16, get: @escaping Ask) {
        self.http = http
        self.port = port
        self.get = get
    }

    init(_ http: HTTPInterface, port: UInt16, _ client: HTTPClient) {
        let place = Endpoint.address(.loopback(port: port))
        self.init(http, port: port) { path, timeout async throws(HTTPClientError) in
            try await client.send("GET", path, to: place, timeout: timeout)
        }
    }

    func ask() async -> ReplicaMachine.Probe {
        let question = "GET \(http.ready) on 127.0.0.1:\(port)"
        do throws(HTTPClientError) {
            let response = try await get(http.ready, HTTPProbe.readyTime)
            guard (200..<300).contains(response.status) else { return .unready("\(question) was answered with status \(response.status)") }
            return response.text.contains("\"status\":\"degraded\"") ? .degraded("\(question) says that it is degraded") : .ready
        } catch {
            let words = "\(question): \(error.underlying)"
            if error.isOwnWant { return .unasked(words) }
            if HTTPProbe.isAnswer(error) { return .unready(words) }
            guard error.code == .timeout, http.live != http.ready else { return .failed(words) }
            return await askLive(words)
        }
    }

    /// Its readiness may wait for something else, a database say. Whether it lives is another question, and any answer will do.
    private func askLive(_ silence: String) async -> ReplicaMachine.Probe {
        let alive = ReplicaMachine.Probe.unready("\(silence), while \(http.live) is answered")
        do throws(HTTPClientError) {
            _ = try await get(http.live, HTTPProbe.liveTime)
            return alive
        } catch {
            if error.isOwnWant { return .unasked("\(silence), and \(http.live) cannot be asked: \(error.underlying)") }
            return HTTPProbe.isAnswer(error) ? alive : .failed(silence)
        }
    }

    /// Nonsense, too much, or a connection that the server ends itself: it does something.
    private static func isAnswer(_ error: HTTPClientError) -> Bool { [.malformed, .tooLarge, .lost].contains(error.code) }
}
