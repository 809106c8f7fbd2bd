import Basics
import CLinux
import Glibc

/// Asks a name server and tells the records with their time to live, which the C library's `getaddrinfo` hides. The C library's resolver
/// makes and reads the messages; it blocks, so each question has a thread of its own.
public enum NameQuery {
    public struct Record: Sendable, Equatable {
        /// An address, or the name that an SRV record points to.
        public let host: String
        public let port: UInt16
        public let priority: Int
        public let weight: Int
    }

    public struct Answer: Sendable {
        public let records: [Record]
        /// The shortest of all records that were needed.
        public let lifetime: Duration
    }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    /// More records than this are not taken.
    private static let limit = 256

    /// A and AAAA records, or with `srv` SRV records, whose names are asked for in turn. `server`: host:port, nil: the system's.
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
            guard srv else {
                let found = try addresses(name, address)
                return .success(
                    Answer(records: found.hosts.map { Record(host: $0, port: port, priority: 0, weight: 1) }, lifetime: found.lifetime))
            }
            var records: [Record] = [], lifetime = Duration.seconds(3600)
            for service in try query(name, Int32(MUSTER_DNS_SRV), address) {
                let found = try addresses(text(service.name), address)
                lifetime = min(lifetime, .seconds(Int(service.ttl)), found.lifetime)
                for host in found.hosts {
                    records.append(
                        Record(host: host, port: service.port, priority: Int(service.priority), weight: max(1, Int(service.weight))))
                }
            }
            return .success(Answer(records: records, lifetime: lifetime))
        } catch { return .failure(error) }
    }

    private static func addresses(_ name: String, _ server: SocketAddress?) throws(Failure) -> (hosts: [String], lifetime: Duration) {
        var hosts: [String] = [], lifetime = Duration.seconds(3600)
        var problem: Failure?
        for type in [Int32(MUSTER_DNS_A), Int32(MUSTER_DNS_AAAA)] {
            do throws(Failure) {
                for record in try query(name, type, server) {
                    hosts.append(text(record.name))
                    lifetime = min(lifetime, .seconds(Int(record.ttl)))
                }
            } catch { problem = error }
        }
        if hosts.isEmpty { throw problem ?? Failure(description: "\(name): no address") }
        return (hosts, lifetime)
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
