import Basics
import StackModel

/// The keys of a PostgreSQL store.
enum PostgresSyntax: StoreSyntax {
    static let about = "a PostgreSQL primary with standbys that take over from it"
    static let variable = "DATABASE_URL"
    static let hasPassword = true
    static let schemes = ["postgresql", "postgres"]

    static let keys = ObjectSpec(
        "a PostgreSQL",
        [
            KeySpec("replicas", .integer(0...5), "standbys beside the primary, each with a copy of all data; default 2"),
            KeySpec(
                "port", .integer(1...65535),
                "where the first node listens; the others take the following ones; default: free ones, kept "
                    + "from then on"),
            KeySpec(
                "acknowledge", .choice(PostgresSettings.Acknowledge.allCases.map(\.rawValue)),
                "what has a write before it is acknowledged: a replica on its disk; the same and shows it (applied); the primary alone, and "
                    + "a failover may lose it; default replica"),
            KeySpec(
                "relax", .string,
                "after this time without any standby the primary acknowledges writes alone, until one is back; 'never': they wait; default 10s"
            ),
            KeySpec("max-lag", .time(from: .milliseconds(1)), "a standby that is further behind gets no reads; default 5s"),
            KeySpec(
                "failover", .time(from: .milliseconds(1500), to: .seconds(600)),
                "from the primary's death to the first acknowledged write; default 3s"),
            KeySpec("max-loss", .size(0...1 << 40), "a standby takes over that is at most so far behind; default 16Mi"),
            KeySpec("databases", .list(.string), "databases to make; the first is in DATABASE_URL; default app"),
            KeySpec(
                "roles", .list(.string), "roles to make, with passwords; the first owns the databases and is in DATABASE_URL; default app"),
            KeySpec("extensions", .list(.string), "extensions of every database"),
            KeySpec("settings", .map(.string), "settings of the servers, such as shared_buffers; not those that Muster decides"),
            KeySpec("functions", .object(functions), "what functions do, where the catalog does not say it"),
            KeySpec(
                "password", .choice(PostgresSettings.PasswordPlace.allCases.map(\.rawValue)),
                "file: DATABASE_URL names a file with it, as libpq knows; url: it stands in DATABASE_URL; default file"),
            KeySpec(
                "url", .choice(PostgresSettings.Servers.allCases.map(\.rawValue)),
                "all: DATABASE_URL names all nodes, and the driver finds the primary; primary: only the one that leads at the service's start; "
                    + "default all"),
            KeySpec("user", .string, "whose processes the servers are when root starts the stack; default postgres"),
        ])

    static let functions = ObjectSpec(
        "what functions do",
        [
            KeySpec("read-only", .list(.string), "functions that only read, though they are volatile"),
            KeySpec("writes", .list(.string), "functions that write, though they are not volatile"),
        ])

    /// The file with the password comes along.
    static func variables(_ variable: String) -> [String] { [variable, passwordVariable(variable)] }

    /// `DATABASE_PASSWORD_FILE` beside `DATABASE_URL`.
    static func passwordVariable(_ variable: String) -> String {
        (variable.hasSuffix("_URL") ? String(variable.dropLast(4)) : variable) + "_PASSWORD_FILE"
    }

    static func settings(_ object: CheckedObject, _ report: (_ key: String, _ reason: String) -> Void) -> StoreSettings {
        let replicas = object.integer("replicas") ?? 2
        if replicas == 0 {
            for key in ["acknowledge", "relax", "max-lag", "failover", "max-loss"] where object.places[key] != nil {
                report(key, "without standbys (replicas: 0) it means nothing")
            }
        }
        if object.string("acknowledge") == "primary", object.places["relax"] != nil {
            report("relax", "with acknowledge: primary no write waits for a standby")
        }
        let port = object.integer("port").map(UInt16.init)
        if let port, Int(port) + replicas > 65_535 { report("port", "\(port) leaves no room for \(replicas + 1) nodes") }
        let databases = names("databases", object, report), roles = names("roles", object, report)
        let functions = object.object("functions")
        return .postgres(
            PostgresSettings(
                replicas: replicas, port: port,
                acknowledge: PostgresSettings.Acknowledge(rawValue: object.string("acknowledge") ?? "") ?? .replica,
                relax: relax(object, report), maxLag: object.duration("max-lag") ?? .seconds(5),
                failover: object.duration("failover") ?? .seconds(3), maxLoss: object.integer("max-loss") ?? 16 << 20,
                databases: databases.isEmpty ? ["app"] : databases, roles: roles.isEmpty ? ["app"] : roles,
                extensions: extensions(object, report), settings: given(object, report),
                readOnlyFunctions: functions?.strings("read-only") ?? [], writingFunctions: functions?.strings("writes") ?? [],
                password: PostgresSettings.PasswordPlace(rawValue: object.string("password") ?? "") ?? .file,
                url: PostgresSettings.Servers(rawValue: object.string("url") ?? "") ?? .all, user: user(object, report)))
    }

    private static func relax(_ object: CheckedObject, _ report: (_ key: String, _ reason: String) -> Void) -> Duration? {
        guard let text = object.string("relax") else { return .seconds(10) }
        if text == "never" { return nil }
        guard let time = Duration(text: text), time > .zero else {
            report("relax", "expected a time with its unit, such as 10s, or never; found '\(text)'")
            return nil
        }
        return time
    }

    /// Names of databases and roles: what needs no quotes in SQL, and nothing that PostgreSQL or Muster has for itself.
    private static func names(
        _ key: String, _ object: CheckedObject, _ report: (_ key: String, _ reason: String) -> Void
    ) -> [String] {
        let names = object.strings(key)
        if object.places[key] != nil, names.isEmpty { report(key, "expected at least one name") }
        var seen: Set<String> = []
        for name in names {
            let isTaken =
                name.hasPrefix("pg_") || ["postgres", "template0", "template1", "replication", "all", "none", "public"].contains(name)
            if !isWord(name) || name.utf8.count > 63 {
                report(key, "'\(name)' is no name for it: lower-case letters, digits and _, no digit first, at most 63 characters")
            } else if isTaken {
                report(key, "'\(name)' is PostgreSQL's or Muster's own: choose another name")
            } else if !seen.insert(name).inserted {
                report(key, "'\(name)' stands here twice")
            }
        }
        return names
    }

    private static func isWord(_ name: String) -> Bool {
        guard let first = name.utf8.first, first &- 97 < 26 || first == 95 else { return false }
        return name.utf8.allSatisfy { $0 &- 97 < 26 || $0 &- 48 < 10 || $0 == 95 }
    }

    /// `uuid-ossp` has a dash.
    private static func extensions(_ object: CheckedObject, _ report: (_ key: String, _ reason: String) -> Void) -> [String] {
        let names = object.strings("extensions")
        for name in names where !isWord(name.replacing("-", with: "_")) || name.utf8.count > 63 {
            report("extensions", "'\(name)' is no name of an extension: lower-case letters, digits, _ and -")
        }
        return names
    }

    private static func user(_ object: CheckedObject, _ report: (_ key: String, _ reason: String) -> Void) -> String {
        let user = object.string("user") ?? "postgres"
        if user == "root" || user == "0" { report("user", "PostgreSQL refuses to run as root: name another user") }
        return user
    }

    // MARK: settings that are given through

    /// What Muster decides, and why another value would break what it promises.
    private static func owner(of setting: String) -> String? {
        switch setting {
        case "port": "the key 'port' of the store says it"
        case "listen_addresses", "unix_socket_directories", "unix_socket_permissions", "data_directory", "hba_file", "ident_file",
            "config_file", "external_pid_file", "cluster_name":
            "Muster decides where the servers are and who reaches them"
        case "synchronous_standby_names", "synchronous_commit": "the keys 'acknowledge' and 'relax' of the store say it"
        case "primary_conninfo", "primary_slot_name", "promote_trigger_file", "restore_command", "hot_standby", "hot_standby_feedback",
            "wal_level", "wal_log_hints", "max_wal_senders", "max_replication_slots", "wal_retrieve_retry_interval", "archive_mode",
            "archive_command", "archive_library", "restart_after_crash":
            "replication and failover need Muster's own value"
        case "fsync", "full_page_writes", "data_sync_retry", "zero_damaged_pages", "ignore_checksum_failure":
            "another value than PostgreSQL's own loses data"
        case "logging_collector", "log_destination", "log_directory", "log_filename": "'muster logs' shows what the servers write"
        case "include", "include_dir", "include_if_exists": "settings stand here, where they can be seen"
        case "password_encryption": "roles log in with scram-sha-256"
        case _ where setting.hasPrefix("recovery_"): "replication and failover need Muster's own value"
        case _ where setting.hasPrefix("ssl"): "the servers listen on this machine only"
        default: nil
        }
    }

    private static func given(
        _ object: CheckedObject, _ report: (_ key: String, _ reason: String) -> Void
    ) -> [PostgresSettings.Setting] {
        var settings: [PostgresSettings.Setting] = []
        for entry in object.map("settings") {
            guard case .string(let value) = entry.value else { continue }
            if !isWord(entry.name.replacing(".", with: "_")) || entry.name.utf8.count > 63 {
                report("settings", "'\(entry.name)' is no name of a setting: lower-case letters, digits, _ and .")
            } else if let why = owner(of: entry.name) {
                report("settings", "'\(entry.name)' cannot be given through: \(why)")
            } else if value.utf8.count > 1000 || !value.unicodeScalars.allSatisfy({ $0.value >= 32 && $0.value != 127 }) {
                report("settings", "the value of '\(entry.name)' is longer than 1000 bytes, or has a line break in it")
            } else {
                settings.append(.init(entry.name, value))
            }
        }
        return settings
    }
}
