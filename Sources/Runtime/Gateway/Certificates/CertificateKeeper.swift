import Basics
import EventLoops
import Observability
import StackModel

/// Follows what changes about a gateway's certificates: their files, the keys of tickets, the own authority's renewals.
///
/// It looks once a second, on a loop that serves no clients: files may stand on a disk that answers slowly.
public final class CertificateKeeper: Sendable {
    private let gateway: Gateway
    private static let interval = Duration.seconds(1)

    /// Begins to look, on `loop`.
    public init(gateway: Gateway, loop: EventLoop) {
        self.gateway = gateway
        // Ends with the loop, or at the look after its keeper has gone.
        Task(executorPreference: loop) { [weak self] in
            while let keeper = self {
                await keeper.gateway.lookAfterCertificates(.now)
                await loop.sleep(CertificateKeeper.interval)
            }
        }
    }
}

extension Gateway {
    /// Reads certificates whose files have changed; those before stay when one of the new ones is wrong.
    func lookAfterCertificates(_ now: MonotonicTime) async {
        guard let spec = certificates.changed(now) else { return }
        await take(spec)
    }

    /// Reads the certificates anew, whether or not their files have changed. Throws what is wrong; then those before go on.
    public func reloadCertificates() async throws(Failure) {
        guard let spec = certificates.spec else { throw Failure(description: "gateway.tls: this gateway has no certificates") }
        if let failure = await take(spec) { throw failure }
    }

    @discardableResult
    private func take(_ spec: TLSSpec) async -> Failure? {
        do throws(Failure) {
            let server = try certificates.read(spec, takesHTTP2: settings.takesHTTP2)
            certificates.use(server, spec)
            await put(server)
            certificates.tell(.success(()))
            return nil
        } catch {
            certificates.tell(.failure(error))
            return error
        }
    }
}

extension Gateway {
    /// The keys of tickets with the age of the newest, for a successor: it opens what this process has sealed.
    func ticketKeys(_ now: MonotonicTime) -> [UInt8] {
        Array("\(certificates.tickets.age(now).milliseconds)\n".utf8) + certificates.tickets.text()
    }

    /// Takes what `ticketKeys` of a predecessor wrote. What is none of it is left: sessions then begin anew.
    func takeTicketKeys(_ text: [UInt8], _ now: MonotonicTime) {
        guard let end = text.firstIndex(of: 10), let age = Int64(String(decoding: text[..<end], as: UTF8.self)), (0...1 << 40).contains(age)
        else { return }
        _ = certificates.tickets.take(Array(text[(end + 1)...]), age: .milliseconds(age), now: now)
    }
}
