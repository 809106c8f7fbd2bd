/// PostgreSQL's own functions for which their volatility does not say where they belong. Sources of the lists: PostgreSQL 15's pg_proc, and
/// what a standby was measured to do with them.
enum FunctionRules {
    enum Rule: Equatable {
        /// Reads, whatever its marking.
        case harmless
        /// Writes: refused in a READ ONLY transaction.
        case writes
        /// Asks about, or acts on, the server that carries it out.
        case server
        /// Only the primary can, or only there it means something.
        case primaryOnly
        /// An advisory lock or unlock of the transaction or the session: likewise, and afterwards the session's locks are looked at.
        case advisory
        /// Leaves something in the session.
        case pins(PinReason)
        /// Moves a sequence.
        case makesValue
        /// Reads what this session took from a sequence.
        case needsValue
        /// `set_config`: by its third argument.
        case setConfig
        /// `current_setting`: by its first argument.
        case currentSetting
    }

    private static let named: [String: Rule] = {
        var rules: [String: Rule] = [:]
        func add(_ rule: Rule, _ names: String) { for name in names.split(separator: " ") { rules[String(name)] = rule } }
        add(.harmless, "random clock_timestamp timeofday gen_random_uuid pg_sleep pg_sleep_for pg_sleep_until")
        // A standby has 15's large objects refused only deep inside, with other errors than 25006.
        add(.writes, "lo_creat lo_create lo_from_bytea lo_put lo_import lo_unlink lo_truncate lo_truncate64 lowrite")
        add(.server, "pg_backend_pid pg_postmaster_start_time pg_conf_load_time pg_my_temp_schema pg_is_other_temp_schema")
        add(.server, "pg_show_all_settings pg_get_replication_slots pg_cursor pg_prepared_statement")
        add(.server, "pg_is_in_recovery pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp")
        add(.primaryOnly, "txid_current txid_current_if_assigned pg_current_xact_id pg_current_xact_id_if_assigned pg_notify")
        add(.primaryOnly, "pg_export_snapshot pg_switch_wal pg_create_restore_point pg_sequence_last_value pg_listening_channels")
        // On a replica these would act on the replica itself, or fail there with other errors than 25006.
        add(.primaryOnly, "pg_promote pg_wal_replay_pause pg_wal_replay_resume pg_logical_emit_message")
        add(.primaryOnly, "pg_create_physical_replication_slot pg_create_logical_replication_slot pg_drop_replication_slot")
        add(.primaryOnly, "pg_copy_physical_replication_slot pg_copy_logical_replication_slot pg_replication_slot_advance")
        add(.primaryOnly, "pg_replication_origin_create pg_replication_origin_drop pg_replication_origin_advance")
        add(.advisory, "pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared")
        add(.advisory, "pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all")
        add(.pins(.advisoryLock), "pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared")
        add(.pins(.seed), "setseed")
        add(.makesValue, "nextval setval")
        add(.needsValue, "currval lastval")
        add(.setConfig, "set_config")
        add(.currentSetting, "current_setting")
        return rules
    }()

    private static let prefixes: [(prefix: String, rule: Rule)] = [
        ("inet_server_", .server), ("inet_client_", .server), ("pg_stat_", .server), ("pg_current_wal_", .primaryOnly),
        ("pg_backup_", .primaryOnly),
    ]

    /// The rule for a function of pg_catalog; nil: by its volatility.
    static func rule(_ name: String) -> Rule? {
        if let rule = named[name] { return rule }
        guard name.hasPrefix("pg_") || name.hasPrefix("inet_") else { return nil }
        return prefixes.first { name.hasPrefix($0.prefix) }?.rule
    }

    /// Methods of TABLESAMPLE that PostgreSQL has itself.
    static let samplingMethods: Set<String> = ["bernoulli", "system"]
}

/// PostgreSQL's own relations whose content is another on each server.
enum RelationRules {
    enum Rule { case server, primaryOnly }

    private static let server: Set<String> = [
        "pg_locks", "pg_settings", "pg_file_settings", "pg_hba_file_rules", "pg_ident_file_mappings", "pg_replication_slots",
        "pg_replication_origin_status", "pg_cursors", "pg_shmem_allocations", "pg_backend_memory_contexts",
    ]
    private static let prefixes = ["pg_stat_", "pg_statio_", "pg_prepared_"]

    /// The rule for a relation of pg_catalog; nil: it is replicated and read like a table.
    static func rule(_ name: String) -> Rule? {
        if name == "pg_sequences" { return .primaryOnly }
        return server.contains(name) || prefixes.contains { name.hasPrefix($0) } ? .server : nil
    }
}
