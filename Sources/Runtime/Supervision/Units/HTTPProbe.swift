import Basics
import EventLoops
import Glibc
import HTTP
import StackModel

/// Asks a replica of a service whether it is ready, and one that gives no answer whether it lives.
struct HTTPProbe {
    /// GET of a path, within a time.
    typealias Ask = (_ path: String, _ timeout: Duration) async throws(HTTPClientError) -> HTTPClientResponse

    private let http: HTTPInterface
    private let place: Endpoint
    private let get: Ask
    private let rest: (Duration) async -> Void

    private static let readyTime = Duration.seconds(2)
    /// For a second question, of one that gave no answer to the first.
    private static let liveTime = Duration.seconds(1)

    /// `get` asks the replica at `place`; `rest` lets time pass.
    init(_ http: HTTPInterface, at place: Endpoint, rest: @escaping (Duration) async -> Void = { _ in }, get: @escaping Ask) {
        self.http = http
        self.place = place
        self.get = get
        self.rest = rest
    }

    init(_ http: HTTPInterface, at place: Endpoint, _ client: HTTPClient) {
        self.init(http, at: place, rest: { await client.loop.sleep($0) }) { path, timeout async throws(HTTPClientError) in
            try await client.send("GET", path, to: place, timeout: timeout)
        }
    }

    func ask() async -> ReplicaMachine.Probe {
        let question = "GET \(http.ready) on \(place)"
        do throws(HTTPClientError) {
            let response = try await get(http.ready, HTTPProbe.readyTime)
            guard (200..<300).contains(response.status) else { return .unready("\(question) was answered with status \(response.status)") }
            return response.text.contains("\"status\":\"degraded\"") ? .degraded("\(question) says that it is degraded") : .ready
        } catch {
            let words = "\(question): \(error.underlying)"
            if error.isOwnWant { return .unasked(words) }
            if HTTPProbe.isAnswer(error) { return .unready(words) }
            if case .address(.unix(let socket)) = place, error.code == .connect { return await notTaken(socket, words, error) }
            guard error.code == .timeout, http.live != http.ready else { return .failed(words) }
            return await askLive(words)
        }
    }

    /// No connection was made to its socket. One that is not there, or at which nobody listens, is as silent as a port without a listener:
    /// a process that lets it go does not get it back but by a new start.
    private func notTaken(_ socket: String, _ words: String, _ error: HTTPClientError) async -> ReplicaMachine.Probe {
        switch error.systemCode {
        case ENOENT, ECONNREFUSED: return .failed("it does not listen at its socket (SOCKET=\(socket)), as http.socket says that it does")
        case EAGAIN:
            // Its backlog is full. A port would be silent, and the question would take its time; so it does here.
            await rest(HTTPProbe.readyTime + HTTPProbe.liveTime)
            return .failed("GET \(http.ready) on \(place): more connections wait at its socket than it lets wait")
        default: return .failed(words)
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
