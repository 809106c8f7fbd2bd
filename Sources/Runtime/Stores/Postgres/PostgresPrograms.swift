import Basics
import StoreKinds

/// The programs of one version of PostgreSQL on this machine.
struct PostgresPrograms: Sendable {
    /// The folder that they are in.
    let folder: String
    /// The major version: 15.
    let version: Int

    /// What every test of this package runs with. Others are started with a warning.
    static let tested = 15

    func path(_ name: String) -> String { "\(folder)/\(name)" }

    /// Where Debian puts each version.
    private static let debian = "/usr/lib/postgresql"

    /// The programs for a store: those of `wanted`, the version of its data, or for a new store the tested version, or the newest. Throws
    /// what is missing and how to get it.
    static func find(for store: String, wanted: Int?, _ program: (String) -> String?) throws(StoreFailure) -> PostgresPrograms {
        var found = ((try? Files.entries(debian)) ?? []).compactMap { Int($0) }
            .map { PostgresPrograms(folder: "\(debian)/\($0)/bin", version: $0) }
            .filter { Files.exists($0.path("postgres")) && Files.exists($0.path("initdb")) }
        if found.isEmpty, let other = program("postgres") {
            let folder = Files.folder(of: Files.absolute(other))
            if Files.exists("\(folder)/initdb"), let version = version(of: folder) {
                found = [PostgresPrograms(folder: folder, version: version)]
            }
        }
        if let wanted {
            if let fit = found.first(where: { $0.version == wanted }) { return fit }
            let known = found.map { String($0.version) }.sorted().joined(separator: ", ")
            throw StoreFailure(
                "store \(store): its data is of PostgreSQL \(wanted), which is not installed\(known.isEmpty ? "" : " (there is \(known))"): "
                    + "apt-get install postgresql-\(wanted), or move the data by pg_dump and pg_restore into a new store")
        }
        if let fit = found.first(where: { $0.version == tested }) ?? found.max(by: { $0.version < $1.version }) { return fit }
        throw StoreFailure("store \(store) needs PostgreSQL, which is not installed: apt-get install postgresql")
    }

    /// Elsewhere than in Debian's folders the version stands in the catalog's file.
    private static func version(of folder: String) -> Int? {
        for place in ["../share/postgresql.conf.sample", "../share/postgresql/errcodes.txt"] where Files.exists("\(folder)/\(place)") {
            return tested
        }
        return nil
    }
}
