import Basics
import Glibc
import Synchronization

/// A name server of one test: A, AAAA and SRV records over UDP on 127.0.0.1, with a TTL of one second unless it is
/// told otherwise.
public final class NameServer: Sendable {
    public enum Record: Sendable, Equatable {
        case a(String)
        /// `::1` with another last byte.
        case aaaa(last: UInt8)
        /// A CNAME with a time to live of its own, which comes before the addresses that it leads to.
        case alias(ttl: UInt8)
        case srv(target: String, port: UInt16, priority: UInt16, weight: UInt16)
    }

    public let port: UInt16
    /// Questions that were answered.
    public let asked = Tally()
    private let fd: Int32
    private let ttl: UInt8
    private let records: Mutex<[String: [Record]]>
    private let isSilent = Atomic<Bool>(false)
    private let lateness = Atomic<Int>(0)
    /// Questions that fail, as `KIND name` with the kind's number.
    private let failing = Mutex<Set<String>>([])

    public init(_ first: [String: [Record]], ttl: UInt8 = 1) throws {
        self.ttl = ttl
        records = Mutex(first)
        fd = socket(AF_INET, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in(), length = socklen_t(MemoryLayout<sockaddr_in>.size)
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let descriptor = fd
        let bound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        guard bound else { throw SystemError("bind") }
        port = UInt16(bigEndian: address.sin_port)
        startThread { [self] in serve() }
    }

    /// Other answers from now on.
    public func change(_ name: String, _ new: [Record]) { records.withLock { $0[name] = new } }

    /// Questions that it fails to answer (SERVFAIL) from now on, such as `1 app.test` for A records.
    public func fail(_ questions: Set<String>) { failing.withLock { $0 = questions } }

    /// Each answer comes so many milliseconds late from now on.
    public func delay(_ milliseconds: Int) { lateness.store(milliseconds, ordering: .relaxed) }

    /// As if it were gone.
    public func silence() { isSilent.store(true, ordering: .relaxed) }

    /// Its thread ends.
    public func stop() { shutdown(fd, Int32(SHUT_RDWR)) }

    private func serve() {
        var buffer = [UInt8](repeating: 0, count: 2048)
        while true {
            var from = sockaddr_storage(), length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let got = withUnsafeMutablePointer(to: &from) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { recvfrom(fd, &buffer, buffer.count, 0, $0, &length) }
            }
            if got <= 0 { break }
            if isSilent.load(ordering: .relaxed) { continue }
            let answer = answer(Array(buffer[..<got]))
            usleep(UInt32(lateness.load(ordering: .relaxed)) * 1000)
            asked.add()
            _ = withUnsafePointer(to: &from) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { sendto(fd, answer, answer.count, 0, $0, length) }
            }
        }
        close(fd)
    }

    private func answer(_ question: [UInt8]) -> [UInt8] {
        var at = 12
        var labels: [String] = []
        while at < question.count, question[at] > 0 {
            let end = at + 1 + Int(question[at])
            labels.append(String(decoding: question[(at + 1)..<min(end, question.count)], as: UTF8.self))
            at = end
        }
        let kind = UInt16(question[at + 1]) << 8 | UInt16(question[at + 2])
        let name = labels.joined(separator: ".").lowercased()
        let known = records.withLock { $0[name] }, fails = failing.withLock { $0.contains("\(kind) \(name)") }
        let fitting = (fails ? [] : known ?? []).filter { record in
            switch record {
            case .a: kind == 1
            case .aaaa: kind == 28
            case .alias: kind != 33
            case .srv: kind == 33
            }
        }
        // The question again; 2 is "failed", 3 "no such name".
        var out =
            Array(question[..<2]) + [0x81, fails ? 0x82 : known == nil ? 0x83 : 0x80, 0, 1, 0, UInt8(fitting.count), 0, 0, 0, 0]
            + question[12..<(at + 5)]
        for record in fitting {
            var data: [UInt8] = [], kind = kind, ttl = ttl
            switch record {
            case .aaaa(let last): data = Array(repeating: 0, count: 15) + [last]
            case .alias(let own): (data, kind, ttl) = ([0xC0, 12], 5, own)
            case .a(let address): data = address.split(separator: ".").map { UInt8($0)! }
            case .srv(let target, let port, let priority, let weight):
                for number in [priority, weight, port] { data += [UInt8(number >> 8), UInt8(number & 255)] }
                for label in target.split(separator: ".") { data += [UInt8(label.utf8.count)] + Array(label.utf8) }
                data.append(0)
            }
            out += [0xC0, 12, UInt8(kind >> 8), UInt8(kind & 255), 0, 1, 0, 0, 0, ttl, 0, UInt8(data.count)] + data
        }
        return out
    }
}
