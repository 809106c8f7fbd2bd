import Basics
import CLinux
import Glibc

/// Asks a name server and returns the records with their time to live, which the C library's `getaddrinfo` hides. The C library's resolver
/// makes and reads the messages; it blocks, so each question has a thread of its own.
public enum NameQuery {
    /// One question for addresses, and its result. A name has two questions: for A and for AAAA records.
    public struct Part: Sendable {
        /// The question's kind and name, such as `A app.internal`: the same for the same question at another time.
        public let question: String
        /// The port to use with the addresses: the one that was asked for, or the one of an SRV record.
        public let port: UInt16
        public let priority: Int
        public let weight: Int
        /// The addresses (none when there is no record of the kind), or why there is no answer, which says nothing about addresses.
        public let hosts: Result<[String], Failure>
    }

    public struct Answer: Sendable {
        public let parts: [Part]
        /// The shortest time to live of all records that came.
        public let lifetime: Duration
    }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    /// An answer with more records than this counts as no answer: a part of them would look like all.
    private static let limit = 1024
    /// Time limit for all questions of one call; a question that was not asked by then counts as not answered.
    private static let patience = Duration.seconds(30)

    /// Asks for A and AAAA records or, with `srv`, for SRV records, whose names are asked for in turn. `server`: an IPv4 address and a
    /// port; nil: the system's. Fails only when nothing was answered; of a part that fails, `Part.hosts` says why.
    public static func ask(_ name: String, srv: Bool, port: UInt16, server: String?) async -> Result<Answer, Failure> {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Result<Answer, Failure>, Never>) in
            let question = Unmanaged.passRetained(
                Question { continuation.resume(returning: answer(name, srv: srv, port: port, server: server)) })
            var thread = pthread_t()
            let failed = pthread_create(
                &thread, nil,
                { raw in
                    Unmanaged<Question>.fromOpaque(raw!).takeRetainedValue().work()
                    return nil
                }, question.toOpaque())
            if failed == 0 {
                pthread_detach(thread)
            } else {
                question.release()
                continuation.resume(returning: .failure(Failure(description: "no thread for the resolver: \(errorText(failed))")))
            }
        }
    }

    private final class Question {
        let work: () -> Void
        init(_ work: @escaping () -> Void) { self.work = work }
    }

    private static func answer(_ name: String, srv: Bool, port: UInt16, server: String?) -> Result<Answer, Failure> {
        var address: SocketAddress?
        if let server {
            guard case .address(let found)? = Endpoint(server, defaultPort: 53) else {
                return .failure(Failure(description: "'\(server)' is no address of a name server"))
            }
            address = found
        }
        do throws(Failure) {
            var questions = Questions(server: address, deadline: .now + patience)
            if srv {
                for service in try query(name, Int32(MUSTER_DNS_SRV), address) {
                    let target = text(service.name)
                    questions.note(service.ttl)
                    // A single dot says that the service is not there (RFC 2782).
                    if target.isEmpty || target == "." { continue }
                    questions.ask(target, service.port, Int(service.priority), max(1, Int(service.weight)))
                }
            } else {
                questions.ask(name, port, 0, 1)
            }
            // The SRV records are an answer by themselves: which names and ports there are, also when no address of them is known now.
            if !srv, let failure = questions.failure { throw failure }
            return .success(Answer(parts: questions.parts, lifetime: questions.lifetime))
        } catch { return .failure(error) }
    }

    /// The questions for addresses of one call, each asked once.
    private struct Questions {
        let server: SocketAddress?
        let deadline: MonotonicTime
        private(set) var parts: [Part] = []
        private(set) var lifetime = Duration.seconds(3600)
        private var known: [String: Result<[String], Failure>] = [:]

        init(server: SocketAddress?, deadline: MonotonicTime) {
            self.server = server
            self.deadline = deadline
        }

        /// Why there is no answer at all; nil when a part has one.
        var failure: Failure? {
            var first: Failure?
            for part in parts {
                guard case .failure(let failure) = part.hosts else { return nil }
                first = first ?? failure
            }
            return first
        }

        mutating func note(_ ttl: UInt32) { lifetime = min(lifetime, .seconds(Int(ttl))) }

        mutating func ask(_ name: String, _ port: UInt16, _ priority: Int, _ weight: Int) {
            for (kind, type) in [("A", Int32(MUSTER_DNS_A)), ("AAAA", Int32(MUSTER_DNS_AAAA))] {
                let question = "\(kind) \(name)"
                let hosts = known[question] ?? addresses(name, type)
                known[question] = hosts
                parts.append(Part(question: question, port: port, priority: priority, weight: weight, hosts: hosts))
            }
        }

        private mutating func addresses(_ name: String, _ type: Int32) -> Result<[String], Failure> {
            guard MonotonicTime.now < deadline else { return .failure(Failure(description: "\(name): the name servers took too long")) }
            do throws(Failure) {
                let records = try query(name, type, server)
                for record in records { note(record.ttl) }
                return .success(records.map { text($0.name) })
            } catch { return .failure(error) }
        }
    }

    private static func query(_ name: String, _ type: Int32, _ server: SocketAddress?) throws(Failure) -> [muster_dns_record] {
        var records = [muster_dns_record](repeating: muster_dns_record(), count: limit)
        var v4: UInt32 = 0, port: UInt16 = 0
        if let server {
            guard case .ipv4(let value, let number) = server else {
                throw Failure(description: "\(server): a name server is given by its IPv4 address")
            }
            (v4, port) = (value, number)
        }
        let count = muster_dns_query(name, type, v4, port, &records, Int32(limit))
        if count < 0 {
            let reasons: [Int32: String] = [
                -1: "no such name", -2: "the name server did not answer", -3: "the name server failed", -4: "no record of this kind",
                -6: "more than \(limit) records",
            ]
            if count == -4 { return [] }
            throw Failure(description: "\(name): \(reasons[count] ?? "the answer could not be read")")
        }
        return Array(records[..<Int(count)])
    }

    private static func text(_ name: muster_dns_name) -> String {
        withUnsafeBytes(of: name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
