import Basics
import EventLoops
import Glibc
import Observability
import StackModel
import Synchronization

/// The gateway's certificates as they were last read, and whether their files have changed since.
///
/// Reading is all or nothing: when one file is wrong, the ones before go on, and it is said once. What has expired is served, loudly: a
/// client may judge for itself, a closed port tells nobody anything.
final class Certificates: Sendable {
    /// Where the gateway's own authority is kept; nil: there can be none.
    private let folder: String?
    private let logger: Logger
    private let journal: Journal
    let tickets: TicketKeys
    private let state = Mutex(State())

    private struct State {
        var spec: TLSSpec?
        var server: TLSServer?
        /// The files as they stood before they were last read.
        var stamps: [String: String] = [:]
        /// As they stood at the look before this one.
        var seen: [String: String] = [:]
        var told: MonotonicTime?
        var ticketStamp = ""
    }

    /// Warnings about certificates that end are repeated this often.
    private static let reminder = Duration.seconds(86400)
    /// A certificate that ends sooner than this is warned of: Let's Encrypt's own mail came three weeks before, and renewals begin at a third of
    /// the life.
    private static let soon: Int64 = 14 * 86400

    init(folder: String?, rotation: Duration, logger: Logger, journal: Journal) {
        self.folder = folder
        self.logger = logger
        self.journal = journal
        tickets = TicketKeys(rotation: rotation)
    }

    /// What was configured last.
    var spec: TLSSpec? { state.withLock { $0.spec } }
    /// The certificates that are in force.
    var current: [ServerCertificate] { state.withLock { $0.server?.certificates ?? [] } }

    /// Reads what a configuration names. Nothing is in force before `use`.
    func read(_ spec: TLSSpec, takesHTTP2: Bool) throws(Gateway.Failure) -> TLSServer {
        let stamps = Certificates.stamps(spec)
        state.withLock { ($0.stamps, $0.seen) = (stamps, stamps) }
        do throws(TLSFailure) {
            if let file = spec.tickets.file { try readTickets(file, .now) }
            var certificates: [ServerCertificate] = []
            for one in spec.certificates {
                switch one {
                case .files(let certificate, let key): certificates.append(try ServerCertificate(certificate: certificate, key: key))
                case .own(let names): certificates.append(try own(names))
                }
            }
            var settings = TLSServer.Settings(certificates: certificates)
            settings.isStrict = spec.isStrict
            // What is offered by ALPN: each needs its case in `GatewayLoop.begin(_:)`.
            settings.protocols = takesHTTP2 ? [.http2, .http1] : [.http1]
            settings.tickets = tickets
            for one in spec.clients {
                settings.clients.append(
                    try ClientAuthorities(
                        authorities: one.authorities, revoked: one.revoked, isNeeded: one.isNeeded, names: one.names,
                        tellsSubject: one.tellsSubject, tellsFingerprint: one.tellsFingerprint))
            }
            return try TLSServer(settings)
        } catch { throw Gateway.Failure(description: "gateway.tls: \(error.reason)") }
    }

    /// Puts what `read` gave in force.
    func use(_ server: TLSServer?, _ spec: TLSSpec?) {
        state.withLock { state in
            (state.server, state.spec) = (server, spec)
            state.told = nil
        }
    }

    /// A certificate of the own authority.
    private func own(_ names: [String]) throws(TLSFailure) -> ServerCertificate {
        guard let folder else {
            throw TLSFailure(.settings, "certificates: auto needs a folder of the gateway's own, and there is none here")
        }
        let authority = OwnAuthority(folder: folder)
        let (certificate, news) = try authority.certificate(for: names)
        if let news {
            logger.warning(
                "own_certificate", .init("names", names.joined(separator: " ")), .init("reason", news),
                .init(
                    "next", "for development only: clients trust it with \(authority.file) (curl --cacert FILE, or the browser's settings)")
            )
        }
        return certificate
    }

    // MARK: what changes with time

    /// The specification whose files have changed since they were read and have stood still since the look before; nil: nothing is to be read.
    /// Called about once a second, off the loops that serve.
    func changed(_ now: MonotonicTime) -> TLSSpec? {
        guard let spec = state.withLock({ $0.spec }) else { return nil }
        keepTickets(spec, now)
        remind(now)
        let stamps = Certificates.stamps(spec)
        let hasChanged = state.withLock { state in
            let isSettled = stamps == state.seen
            state.seen = stamps
            return isSettled && stamps != state.stamps
        }
        if hasChanged { return spec }
        return isOwnDue(now) ? spec : nil
    }

    /// Whether a certificate of the own authority is to be renewed.
    private func isOwnDue(_ now: MonotonicTime) -> Bool {
        guard let spec = state.withLock({ $0.spec }), let folder else { return false }
        let today = WallTime.now.milliseconds / 1000
        return spec.certificates.contains { one in
            guard case .own(let names) = one else { return false }
            // Files are looked at only when the time of one that is in force comes near.
            let ends = current.filter { $0.path.hasPrefix(folder) }.map(\.ends).min() ?? 0
            return ends - today <= OwnAuthority.renewal && OwnAuthority(folder: folder).isDue(names)
        }
    }

    /// Tells what became of a change of files.
    func tell(_ result: Result<Void, Gateway.Failure>) {
        switch result {
        case .success:
            let ends = current.map { "\($0.names.first ?? $0.subject): \(Certificates.day($0.ends))" }.joined(separator: ", ")
            logger.info("certificates_reloaded", .init("end", ends))
            journal.append(
                DecisionRecord(
                    .certificate, subject: "gateway", inputs: [.init("certificates", current.count)], raw: "changed", outcome: "taken",
                    sentence: "Files of certificates have changed and were read again; new connections get them (\(ends)).",
                    flip: "files that do not belong together"))
        case .failure(let error):
            logger.error("certificates_kept", .init("error", error.description), .init("kept", "the certificates before"))
            journal.append(
                DecisionRecord(
                    .certificate, subject: "gateway", inputs: [], raw: "changed", outcome: "kept",
                    sentence: "Files of certificates have changed and were not taken, those before go on: \(error.description).",
                    flip: "files that belong together"))
        }
    }

    /// Warns of certificates that end soon or have ended, at once and then once a day.
    private func remind(_ now: MonotonicTime) {
        let isDue = state.withLock { state in
            if let told = state.told, now - told < Certificates.reminder { return false }
            state.told = now
            return true
        }
        guard isDue else { return }
        let today = WallTime.now.milliseconds / 1000
        for one in current where one.ends - today < Certificates.soon {
            logger.warning(
                one.ends <= today ? "certificate_expired" : "certificate_expires", .init("certificate", one.path),
                .init("names", one.names.prefix(8).joined(separator: " ")), .init("ends", Certificates.day(one.ends)),
                .init("next", "renew it: the gateway takes the new file by itself"))
        }
    }

    /// A day as `2026-12-01`.
    static func day(_ seconds: Int64) -> String {
        String(CalendarTime.render(WallTime(milliseconds: seconds.multipliedClamped(by: 1000))).prefix(10))
    }

    // MARK: tickets

    private func keepTickets(_ spec: TLSSpec, _ now: MonotonicTime) {
        guard let file = spec.tickets.file else {
            tickets.timePassed(now)
            return
        }
        let stamp = FileWatch.stamp(file)
        if stamp != state.withLock({ $0.ticketStamp }) {
            do throws(TLSFailure) { try readTickets(file, now) } catch {
                state.withLock { $0.ticketStamp = stamp }
                logger.error("ticket_keys_kept", .init("error", error.reason), .init("kept", "the keys before"))
            }
        } else if tickets.age(now) >= tickets.rotation {
            rotate(file, now)
        }
    }

    /// Reads the shared file of keys; makes it when there is none.
    private func readTickets(_ file: String, _ now: MonotonicTime) throws(TLSFailure) {
        let stamp = FileWatch.stamp(file)
        var info = stat()
        guard stat(file, &info) == 0 else {
            guard errno == ENOENT else { throw TLSFailure(.settings, "tickets.file: \(SystemError("stat \(file)"))") }
            return try writeTickets(file)
        }
        guard info.st_mode & S_IFMT == S_IFREG, info.st_mode & 0o077 == 0 else {
            throw TLSFailure(.settings, "tickets.file: others may read \(file): chmod 600 \(file), or remove it and it is made anew")
        }
        let text: [UInt8]
        do throws(SystemError) { text = try Files.read(file, limit: 4096) } catch {
            throw TLSFailure(.settings, "tickets.file: \(error)")
        }
        let age = WallTime.now.milliseconds - Int64(info.st_mtim.tv_sec) * 1000
        guard tickets.take(text, age: .milliseconds(max(0, min(age, 1 << 40))), now: now) else {
            throw TLSFailure(.settings, "tickets.file: \(file) holds no keys of tickets; remove it and it is made anew")
        }
        state.withLock { $0.ticketStamp = stamp }
    }

    /// Writes the keys for all who share the file. A moment later they know the new one; a ticket that they do not know yet is a full handshake.
    private func writeTickets(_ file: String) throws(TLSFailure) {
        do throws(SystemError) { try Files.replace(file, with: tickets.text(), mode: 0o600) } catch {
            throw TLSFailure(.settings, "tickets.file: \(error)")
        }
        state.withLock { $0.ticketStamp = FileWatch.stamp(file) }
    }

    /// Makes a new key, if no other gateway that shares the file is about to.
    private func rotate(_ file: String, _ now: MonotonicTime) {
        let lock = open(file + ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard lock >= 0 else {
            return logger.error("ticket_keys_old", .init("error", "\(SystemError("open \(file).lock"))"))
        }
        defer { close(lock) }
        guard flock(lock, LOCK_EX | LOCK_NB) == 0, FileWatch.stamp(file) == state.withLock({ $0.ticketStamp }) else { return }
        tickets.timePassed(now)
        do throws(TLSFailure) { try writeTickets(file) } catch {
            logger.error("ticket_keys_not_shared", .init("error", error.reason))
        }
    }

    // MARK: files

    private static func stamps(_ spec: TLSSpec) -> [String: String] {
        var files: [String] = []
        for one in spec.certificates {
            if case .files(let certificate, let key) = one { files += [certificate] + (key.map { [$0] } ?? []) }
        }
        for one in spec.clients { files += [one.authorities] + (one.revoked.map { [$0] } ?? []) }
        return Dictionary(files.map { ($0, FileWatch.stamp($0)) }) { first, _ in first }
    }
}
