import Basics
import EventLoops
import Glibc
import PostgresFailover
import StackModel
import StoreKinds

/// A declared PostgreSQL store as it is run: its nodes, what it remembers of who leads, and the passwords of its roles.
///
/// In its folder: `record` (see `StoreRecord`), `node-N`, `passwords/ROLE` and, of the first role, `passfile`, which libpq reads.
final class PostgresStore: Store {
    let name: String
    let spec: PostgresSettings
    let folder: String
    let servers: [PostgresNode]
    let nodes: [NodePlan]
    let place = ""
    /// By role, the first of which services use.
    let passwords: [String: Secret]
    let record: StoreRecord
    private unowned let host: any StoreHost
    private lazy var kept = PostgresKeeper(self, host: host)

    init(_ plan: StorePlan, _ spec: PostgresSettings) throws(StoreFailure) {
        let name = plan.spec.name, folder = plan.folder
        (self.name, self.spec, self.folder) = (name, spec, folder)
        host = plan.host
        let owner = try NodeOwner.find(spec.user, store: name)
        let programs = try PostgresPrograms.find(for: name, wanted: try PostgresStore.version(in: folder, spec, name)) {
            plan.host.program($0)
        }
        if programs.version != PostgresPrograms.tested {
            plan.host.tell(
                "store \(name): PostgreSQL \(programs.version) runs it; Muster is tested with \(PostgresPrograms.tested), and here some things "
                    + "may be otherwise")
        }
        do throws(SystemError) {
            try Files.makeFolder(folder, mode: 0o700)
            record = try PostgresStore.readRecord(folder, spec, name)
            passwords = try PostgresStore.passwords(folder, spec)
            var servers: [PostgresNode] = []
            for number in 1...spec.nodes {
                let place = "\(folder)/node-\(number)"
                let port = try PostgresStore.port(number, place, spec, taken: servers.map(\.port))
                servers.append(
                    PostgresNode(number: number, folder: place, port: port, owner: owner, programs: programs, nodes: spec.nodes))
            }
            self.servers = servers
            nodes = servers.map(\.plan)
        } catch { throw StoreFailure("store \(name): \(error)") }
        // The folder `.muster` is the topmost that is Muster's own: .muster/STACK/stores/NAME.
        try owner.reach(folder, below: Files.folder(of: Files.folder(of: Files.folder(of: folder))), store: name)
        for server in servers where server.socket.utf8.count > PostgresNode.socketLimit {
            throw StoreFailure(
                "store \(name): the path \(server.socket) is \(server.socket.utf8.count - PostgresNode.socketLimit) bytes too long for a "
                    + "server's socket: move the stack file to a folder with a shorter path, or give the store a shorter name")
        }
        do throws(SystemError) {
            for server in servers { try server.prepare(spec, store: name) }
            try writePassfile()
        } catch { throw StoreFailure("store \(name): \(error)") }
    }

    // MARK: what lies on the disk

    var recordFile: String { folder + "/record" }

    /// The version that wrote the data of the nodes; nil: there is none. Throws when it is of several.
    private static func version(in folder: String, _ spec: PostgresSettings, _ name: String) throws(StoreFailure) -> Int? {
        var found: Set<Int> = []
        for number in 1...spec.nodes {
            let file = "\(folder)/node-\(number)/data/PG_VERSION"
            let text: String?
            do throws(SystemError) { text = try Files.firstLine(file) } catch { throw StoreFailure("store \(name): \(error)") }
            guard let text else { continue }
            guard let version = Int(text) else {
                throw StoreFailure("store \(name): \(file) says '\(text.prefix(40))', which is no version")
            }
            found.insert(version)
        }
        if found.count > 1 {
            throw StoreFailure(
                "store \(name): its nodes in \(folder) have data of several versions of PostgreSQL (\(found.sorted().map(String.init).joined(separator: ", "))): "
                    + "put the folders aside that are not the primary's")
        }
        return found.first
    }

    /// A record that cannot be read is told: a guess could make two primaries.
    private static func readRecord(_ folder: String, _ spec: PostgresSettings, _ name: String) throws(SystemError) -> StoreRecord {
        let file = folder + "/record"
        if Files.isAbsent(file) {
            // Without a record nobody knows who leads; where there is data, somebody does.
            for number in 1...spec.nodes where !Files.isAbsent("\(folder)/node-\(number)/data/PG_VERSION") {
                throw SystemError("\(file) is missing, and node-\(number) has data: put the file back", 0)
            }
            return .first
        }
        let text = String(decoding: try Files.read(file, limit: 65_536), as: UTF8.self)
        do throws(StoreRecord.Flaw) { return try StoreRecord(text: text, nodes: spec.nodes) } catch {
            throw SystemError("\(file), which says who leads, cannot be read (\(error)): put it back, or raise 'replicas'", 0)
        }
    }

    private static func port(_ number: Int, _ place: String, _ spec: PostgresSettings, taken: [UInt16]) throws(SystemError) -> UInt16 {
        if let first = spec.port { return first + UInt16(number - 1) }
        if let known = try KeptPort.known(in: place), !taken.contains(known), try isFreePort(known) { return known }
        return try KeptPort.choose(besides: taken)
    }

    /// A password is drawn once and kept.
    private static func passwords(_ folder: String, _ spec: PostgresSettings) throws(SystemError) -> [String: Secret] {
        try Files.makeFolder(folder + "/passwords", mode: 0o700)
        var all: [String: Secret] = [:]
        for role in spec.roles {
            let file = "\(folder)/passwords/\(role)"
            if let known = try Files.firstLine(file) {
                all[role] = Secret(known)
            } else {
                let drawn = secretHex(bytes: 24)
                try Files.replace(file, with: Array((drawn + "\n").utf8), mode: 0o600)
                all[role] = Secret(drawn)
            }
        }
        return all
    }

    private var role: String { spec.roles[0] }
    private var passwordFile: String { "\(folder)/passwords/\(role)" }
    private var passfile: String { folder + "/passfile" }

    /// libpq's form: host:port:database:user:password. The password is of hexadecimal digits.
    private func writePassfile() throws(SystemError) {
        let lines = servers.map { "127.0.0.1:\($0.port):*:\(role):\(passwords[role]?.reveal ?? "")\n" }
        try Files.replace(passfile, with: Array(lines.joined().utf8), mode: 0o600)
    }

    // MARK: a store

    var keeper: (any StoreKeeper)? { kept }

    func probe(_ node: NodePlan?) -> any NodeProbe { PostgresProbe(kept, node?.number ?? 1) }

    func environment(for use: StoreUse) -> [(name: String, value: Secret)] {
        let named = spec.url == .primary ? servers.filter { $0.number == kept.leader } : servers
        let hosts = named.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
        let password = spec.password == .url ? ":\(passwords[role]?.reveal ?? "")" : ""
        var parameters: [String] = []
        if spec.url == .all { parameters.append("target_session_attrs=read-write") }
        if spec.password == .file { parameters.append("passfile=\(PostgresStore.escaped(passfile))") }
        let query = parameters.isEmpty ? "" : "?" + parameters.joined(separator: "&")
        let url = "postgresql://\(role)\(password)@\(hosts)/\(spec.databases[0])\(query)"
        let base = use.variable.hasSuffix("_URL") ? String(use.variable.dropLast(4)) : use.variable
        return [(use.variable, Secret(url)), (base + "_PASSWORD_FILE", Secret(passwordFile))]
    }

    /// A path in a URL's query.
    private static func escaped(_ text: String) -> String {
        text.utf8.map { byte in
            let isPlain = byte &- 48 < 10 || (byte | 32) &- 97 < 26 || [45, 46, 47, 95].contains(byte)
            let digits = String(byte, radix: 16, uppercase: true)
            return isPlain ? String(UnicodeScalar(byte)) : "%" + (byte < 16 ? "0" : "") + digits
        }.joined()
    }

    func gauge(_ length: MetricOrigin.Length) -> StoreGauge? { nil }
    func close() { kept.close() }
}
