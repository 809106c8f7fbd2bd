import Basics
import Glibc
import PostgresFailover
import Provisioning
import StackModel
import StoreKinds

/// Backups of a PostgreSQL store: whole copies of a node that runs, checked against their manifest, with the passwords of the store's roles.
///
/// A backup is a folder: `data` (a data directory, with the log that it needs), `passwords`, and `backup`, which says what it is and is
/// written last: what was cut off is no backup. Everything here blocks.
public enum PostgresBackup {
    /// Takes a backup of a node into `target`, a folder that is not there yet. Returns how many bytes it has.
    public static func take(of store: String, in folder: String, node: Int, port: Int, to target: String) throws(StoreFailure) -> Int {
        guard Files.isAbsent(target) else { throw StoreFailure("\(target) is there already: a backup goes into a folder of its own") }
        let part = target + ".part", place = "\(folder)/node-\(node)"
        let version = try self.version(of: place + "/data"), programs = try PostgresPrograms.find(for: store, wanted: version) { _ in nil }
        do {
            Files.remove(part)
            try Files.makeFolder(part, mode: 0o700)
            let source = "host='\(place)/socket' port=\(port) user=postgres dbname=postgres application_name=muster_backup"
            _ = try Command.run(
                programs.path("pg_basebackup"), ["-D", part + "/data", "-d", source, "-X", "stream", "-c", "fast", "--no-password"])
            _ = try Command.run(programs.path("pg_verifybackup"), ["-q", part + "/data"])
            try Files.makeFolder(part + "/passwords", mode: 0o700)
            for role in try Files.entries(folder + "/passwords") {
                try Files.replace("\(part)/passwords/\(role)", with: try Files.read("\(folder)/passwords/\(role)"), mode: 0o600)
            }
            let text = "muster postgres backup 1\nstore \(store)\nversion \(version)\ntaken \(CalendarTime.render(.now))\nnode \(node)\n"
            try Files.replaceDurably(part + "/backup", with: Array(text.utf8), mode: 0o600)
            guard rename(part, target) == 0 else { throw SystemError("rename \(part)") }
            return size(of: target + "/data")
        } catch {
            Files.remove(part)
            throw StoreFailure("the backup of \(store)/\(node) failed, and nothing of it was kept: \(error)")
        }
    }

    /// Makes the first node of a store of a backup. The store must not run and have no data; its standbys are copied when it is started.
    public static func restore(_ spec: PostgresSettings, of store: String, in folder: String, from source: String) throws(StoreFailure) {
        guard let text = Files.text(source + "/backup"), text.hasPrefix("muster postgres backup 1\n") else {
            throw StoreFailure(
                "\(source) is no whole backup of 'muster postgres backup': the file 'backup' in it is missing or of another version")
        }
        guard Files.isAbsent(folder) else {
            throw StoreFailure("\(folder) is there: a backup is restored into a store without data. Move that folder away first")
        }
        let version = try self.version(of: source + "/data"), programs = try PostgresPrograms.find(for: store, wanted: version) { _ in nil }
        let owner = try NodeOwner.find(spec.user, store: store), node = folder + "/node-1"
        do {
            _ = try Command.run(programs.path("pg_verifybackup"), ["-q", source + "/data"])
            try Files.makeFolder(node, mode: 0o700)
            try Files.makeFolder(folder + "/passwords", mode: 0o700)
            for role in try Files.entries(source + "/passwords") {
                try Files.replace("\(folder)/passwords/\(role)", with: try Files.read("\(source)/passwords/\(role)"), mode: 0o600)
            }
            _ = try Command.run("cp", ["-a", source + "/data", node + "/data.new"])
            if let user = owner.user { _ = try Command.run("chown", ["-R", "\(user):\(owner.gid)", node]) }
            guard rename(node + "/data.new", node + "/data") == 0 else { throw SystemError("rename \(node)/data.new") }
            var record = StoreRecord.first
            record.hasServed = true
            try Files.replaceDurably(folder + "/record", with: Array(record.text.utf8), mode: 0o600)
        } catch {
            // Without its record it would be refused at the next start.
            Files.remove(folder)
            throw StoreFailure("the store \(store) was not restored, and nothing of it was kept: \(error)")
        }
    }

    private static func version(of data: String) throws(StoreFailure) -> Int {
        guard let line = (try? Files.firstLine(data + "/PG_VERSION")) ?? nil, let version = Int(line) else {
            throw StoreFailure("\(data) has no PG_VERSION: it is no data directory")
        }
        return version
    }

    private static func size(of folder: String) -> Int {
        ((try? Files.entries(folder)) ?? []).map { name -> Int in
            let path = "\(folder)/\(name)"
            var info = stat()
            guard lstat(path, &info) == 0 else { return 0 }
            return info.st_mode & S_IFMT == S_IFDIR ? size(of: path) : Int(info.st_size)
        }.sumClamped()
    }
}
