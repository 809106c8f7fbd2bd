import Basics
import EventLoops
import Glibc
import PostgresFailover
import StackModel
import StoreKinds

/// One server of a store: its folders, files and port. What it does to files blocks: not for the control loop.
///
/// In its folder are `data`, which PostgreSQL calls the data directory, `socket`, and beside them the configuration: what stands in the data
/// directory is replaced by pg_rewind and pg_basebackup with the primary's.
struct PostgresNode: Sendable {
    let number: Int
    let folder: String
    let port: UInt16
    let owner: NodeOwner
    let programs: PostgresPrograms
    /// How many nodes the store has.
    let nodes: Int

    var data: String { folder + "/data" }
    var socket: String { folder + "/socket" }
    /// The folder in which a new copy is made before it takes the place of `data`.
    var fresh: String { folder + "/data.new" }
    /// What was set aside last, when a new copy was made.
    var aside: String { folder + "/data.aside" }
    /// Where the steps before a start write what they say.
    var stepLog: String { folder + "/step.log" }
    private var signalFile: String { data + "/standby.signal" }

    /// The name of its slot, and that by which the primary knows it.
    static func name(_ number: Int) -> String { "node_\(number)" }
    var name: String { PostgresNode.name(number) }

    /// A folder with something in it that was a data directory once. What cannot be looked at may be one.
    var hasData: Bool { !Files.isAbsent(data + "/PG_VERSION") }

    /// How another node, or a program of PostgreSQL, reaches this one: over its socket, where the kernel says who it is.
    func connection(as application: String) -> String {
        "host='\(socket.replacing("\\", with: "\\\\").replacing("'", with: "\\'"))' port=\(port) user=postgres dbname=postgres "
            + "application_name=\(application)"
    }

    /// Longest path of a socket's folder: `/.s.PGSQL.65535` follows, and 107 bytes are all a socket may have.
    static let socketLimit = 107 - 15

    // MARK: what it is started with

    var plan: NodePlan {
        NodePlan(
            number: number, program: programs.path("postgres"), arguments: ["-D", data, "-c", "config_file=\(folder)/postgresql.conf"],
            folder: folder, port: port, startTime: .seconds(600), user: owner.user, stopSignal: SIGINT,
            environment: [("LC_ALL", "C.UTF-8"), ("PGDATA", data)])
    }

    /// Its folders, and the files that do not change while it runs.
    func prepare(_ spec: PostgresSettings, store: String) throws(SystemError) {
        try owner.makeFolder(folder)
        try owner.makeFolder(socket)
        try KeptPort.keep(port, in: folder)
        try write("postgresql.conf", configuration(spec, store: store))
        try write("pg_hba.conf", PostgresNode.access)
        try write("pg_ident.conf", identities)
        if Files.isAbsent(folder + "/dynamic.conf") { try writeDynamic(following: nil, isStrict: false, spec) }
    }

    private func write(_ name: String, _ text: String) throws(SystemError) {
        try Files.replace("\(folder)/\(name)", with: Array(text.utf8), mode: 0o600)
        try owner.own("\(folder)/\(name)")
    }

    /// A value in a configuration file.
    static func quoted(_ text: String) -> String { "'" + text.replacing("\\", with: "\\\\").replacing("'", with: "''") + "'" }

    private func configuration(_ spec: PostgresSettings, store: String) -> String {
        let quoted = PostgresNode.quoted
        var lines = [
            "# Written by Muster at each start. Settings of your own: the key 'settings' of the store.",
            "listen_addresses = '127.0.0.1'", "port = \(port)", "unix_socket_directories = \(quoted(socket))",
            "unix_socket_permissions = 0700", "hba_file = \(quoted(folder + "/pg_hba.conf"))",
            "ident_file = \(quoted(folder + "/pg_ident.conf"))", "cluster_name = \(quoted("\(store)/\(number)"))",
            "wal_level = replica", "wal_log_hints = on", "hot_standby = on", "hot_standby_feedback = on",
            "max_wal_senders = \(nodes + 8)", "max_replication_slots = \(nodes + 8)",
            // With the default of 5 s a promotion right after the primary's death waits for it.
            "wal_retrieve_retry_interval = '200ms'", "wal_receiver_timeout = '5s'", "wal_sender_timeout = '5s'",
            "recovery_init_sync_method = syncfs", "max_slot_wal_keep_size = '4GB'", "wal_keep_size = '64MB'",
            "password_encryption = 'scram-sha-256'", "logging_collector = off", "log_destination = 'stderr'", "timezone = 'UTC'",
            "synchronous_commit = \(spec.acknowledge == .applied ? "remote_apply" : "on")",
        ]
        lines += spec.settings.map { "\($0.name) = \(quoted($0.value))" }
        lines.append("include = \(quoted(folder + "/dynamic.conf"))")
        return lines.joined(separator: "\n") + "\n"
    }

    /// Muster and the nodes reach each other over a socket in a folder of their own, where the kernel says who they are. Everybody else has a
    /// password, and is no superuser.
    private static let access = """
        local all         postgres peer map=muster
        local replication postgres peer map=muster
        host  all         postgres 127.0.0.1/32 reject
        host  all         all      127.0.0.1/32 scram-sha-256

        """

    private var identities: String {
        Set([NodeOwner.supervisor, owner.name]).sorted().map { "muster \(PostgresNode.identifier($0)) postgres\n" }.joined()
    }

    private static func identifier(_ name: String) -> String { "\"" + name.replacing("\"", with: "\"\"") + "\"" }

    /// What changes while it runs: whom it follows, and whether a commit waits for a standby.
    func writeDynamic(following primary: PostgresNode?, isStrict: Bool, _ spec: PostgresSettings) throws(SystemError) {
        let others = (1...nodes).filter { $0 != number }.map(PostgresNode.name).joined(separator: ", ")
        let isWaiting = isStrict && spec.acknowledge != .primary && nodes > 1
        try write(
            "dynamic.conf",
            """
            primary_conninfo = \(PostgresNode.quoted(primary?.connection(as: name) ?? ""))
            primary_slot_name = '\(primary == nil ? "" : name)'
            synchronous_standby_names = '\(isWaiting ? "ANY 1 (\(others))" : "")'

            """)
    }

    // MARK: the data directory

    /// From here on it starts as a standby, also when somebody starts it by hand.
    func makeStandby() throws(SystemError) {
        try Files.replace(signalFile, with: [], mode: 0o600)
        try owner.own(signalFile)
        try Files.sync(data)
        try cleanAutoConfiguration()
    }

    func makePrimary() throws(SystemError) {
        if unlink(signalFile) != 0, errno != ENOENT { throw SystemError("remove \(signalFile)") }
        try Files.sync(data)
        try cleanAutoConfiguration()
    }

    /// `ALTER SYSTEM` goes before the configuration, and pg_rewind and pg_basebackup bring the primary's: what Muster decides is taken out.
    private func cleanAutoConfiguration() throws(SystemError) {
        let file = data + "/postgresql.auto.conf"
        guard let text = Files.text(file) else { return }
        let own = [
            "primary_conninfo", "primary_slot_name", "synchronous_standby_names", "synchronous_commit", "port", "listen_addresses",
            "unix_socket_directories", "hba_file", "ident_file", "wal_level", "wal_log_hints", "restore_command", "recovery_target",
            "recovery_target_timeline", "wal_retrieve_retry_interval", "promote_trigger_file", "hot_standby", "cluster_name",
        ]
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        let kept = lines.filter { line in !own.contains { line.hasPrefix($0 + " ") || line.hasPrefix($0 + "=") } }
        if kept.count == lines.count { return }
        try Files.replace(file, with: Array(kept.joined(separator: "\n").utf8), mode: 0o600)
        try owner.own(file)
    }

    /// The new copy takes the place of the old one, which is set aside; what was set aside before it is removed.
    func takeFresh() throws(SystemError) {
        if !Files.isAbsent(data) {
            Files.remove(aside)
            guard rename(data, aside) == 0 else { throw SystemError("set \(data) aside") }
        }
        guard rename(fresh, data) == 0 else { throw SystemError("rename \(fresh)") }
        try Files.sync(folder)
    }

    /// The process of its server.
    var server: Int32? { FolderFence.server(of: data) }
}
