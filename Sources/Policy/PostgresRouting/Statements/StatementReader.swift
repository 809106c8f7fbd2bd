/// Says what one statement of a syntax tree does. The rules are those of docs/reference/postgres-routing.md; what has no rule is `unknown`.
struct StatementReader {
    let tree: SyntaxTree
    let catalog: RoutingCatalog
    let path: SearchPath
    /// What statements before this one in the same text took from sequences.
    var made: MadeValues
    var profile = StatementProfile()

    init(_ tree: SyntaxTree, _ catalog: RoutingCatalog, _ path: SearchPath, made: MadeValues = MadeValues()) {
        self.tree = tree
        self.catalog = catalog
        self.path = path
        self.made = made
    }

    /// Reads the statement at `item`, a node of the tree.
    mutating func read(_ item: Int) {
        switch tree.items[item].node {
        case .select, .insert, .update, .delete, .merge: walk(item)
        case .copy: copy(item)
        case .explain: readQuery(.query, of: item)
        case .createTableAs: createTableAs(item)
        case .transaction: transaction(item)
        case .set: set(item)
        case .call:
            profile.add(.code, .calls)
            profile.makesValues = true
            made.anything()
            if let call = tree.field(.funccall, of: item), let arguments = tree.field(.args, of: call) { walk(arguments) }
        case .doBlock:
            profile.add(.code, .runsBlock)
            profile.makesValues = true
            made.anything()
        case .declareCursor: declareCursor(item)
        default: readCommand(item)
        }
    }

    /// Statements without a query in them.
    private mutating func readCommand(_ item: Int) {
        switch tree.items[item].node {
        case .show: show(item)
        case .fetch: profile.add(.local, .cursor)
        case .close:
            profile.add(.local, .cursor)
            if tree.field(.portalname, of: item) == nil { profile.action = .closeAll }
        case .prepare:
            let name = tree.text(.name, of: item) ?? ""
            profile.action = .prepare(name)
            profile.pin(.prepared, name)
        case .execute:
            profile.add(.unknown, .notPrepared, tree.text(.name, of: item) ?? "")
            profile.makesValues = true
            made.anything()
            if let arguments = tree.field(.params, of: item) { walk(arguments) }
        case .deallocate:
            let name = tree.text(.name, of: item)
            profile.action = .deallocate(name)
            if let name { profile.add(.local, .sessionCommand, name) } else { profile.effects.insert(.needsNoServer) }
        case .discard: discard(item)
        case .listen: profile.pin(.listen, tree.text(.conditionname, of: item) ?? "")
        case .unlisten:
            profile.add(.local, .sessionCommand)
            if tree.field(.conditionname, of: item) == nil { profile.action = .unlistenAll }
        case .notify: profile.add(.primaryOnly, .notify)
        case .load: profile.pin(.library)
        case .lock:
            // Up to ROW EXCLUSIVE (3) a standby takes it.
            if (tree.int(.mode, of: item) ?? 8) <= 3 { profile.add(.local, .lockTable) } else { profile.add(.primaryOnly, .lockTable) }
        case .vacuum, .reindex, .cluster, .checkpoint: profile.add(.primaryOnly, .maintenance)
        case .alterSystem: profile.add(.primaryOnly, .alterSystem)
        case .setConstraints: profile.add(.local, .constraints)
        case .unknown where !StatementReader.changesCatalog(tree.kindName(item)):
            profile.add(.unknown, .unknownStatement, tree.kindName(item))
        default: definition(item)
        }
    }

    private mutating func readQuery(_ name: Field, of item: Int) {
        if let query = tree.node(name, of: item) { read(query) } else { profile.add(.unknown, .unknownStatement, tree.kindName(item)) }
        // EXPLAIN EXECUTE and EXPLAIN DECLARE do nothing to the session.
        profile.action = .none
        profile.effects.remove(.needsNoServer)
    }

    /// `CREATE`, `ALTER`, `DROP` and their kin, by the beginnings of their types' names.
    private static func changesCatalog(_ kind: String) -> Bool {
        let beginnings = [
            "Create", "Alter", "Drop", "Grant", "Revoke", "Comment", "SecLabel", "Truncate", "Rename", "Rule", "Index", "Refresh",
            "Reassign",
            "ImportForeignSchema", "Define", "View", "CompositeType",
        ]
        return kind.hasSuffix("Stmt") && beginnings.contains { kind.hasPrefix($0) }
    }

    private mutating func copy(_ item: Int) {
        let isFrom = tree.flag(.isFrom, of: item)
        if isFrom {
            profile.add(.writes, .copiesIn)
            profile.makesValues = true
            if let target = tree.field(.relation, of: item) { made.inserted(into: relationOf(target), columns: columns(.names, item)) }
            if let condition = tree.field(.whereClause, of: item) { walk(condition) }
        } else if tree.flag(.isProgram, of: item) || tree.field(.filename, of: item) != nil {
            profile.add(.primaryOnly, .copiesToFile)
        }
        if !isFrom, let relation = tree.field(.relation, of: item) { walk(relation, as: .relation) }
        if let query = tree.node(.query, of: item) { walk(query) }
    }

    private mutating func createTableAs(_ item: Int) {
        profile.add(.writes, .makesTable)
        profile.changesCatalog = true
        if let into = tree.field(.into, of: item) { temporary(into) }
        // Of CREATE TABLE … AS EXECUTE nothing more is known, and what it makes is a table all the same.
        if let query = tree.node(.query, of: item), tree.items[query].node != .execute { walk(query) }
    }

    private mutating func declareCursor(_ item: Int) {
        // Outside of a transaction one without HOLD is an error, and the primary gives it.
        profile.add(.local, .cursor)
        if let query = tree.node(.query, of: item) { walk(query) }
        // CURSOR_OPT_HOLD of parsenodes.h, PostgreSQL 15.
        if (tree.int(.options, of: item) ?? 0) & 0x20 != 0 { profile.pin(.heldCursor, tree.text(.portalname, of: item) ?? "") }
    }

    private mutating func discard(_ item: Int) {
        switch tree.text(.target, of: item) ?? "DISCARD_ALL" {
        case "DISCARD_TEMP": profile.action = .discardTemporary
        case "DISCARD_ALL": profile.action = .discardAll
        default: profile.action = .discardOther
        }
        profile.effects.insert(.needsNoServer)
    }

    private mutating func show(_ item: Int) {
        let name = tree.text(.name, of: item) ?? ""
        // These are the router's own, and it answers them.
        if name.hasPrefix("muster.") { profile.effects.insert(.needsNoServer) } else { profile.add(.server, .show, name) }
    }

    // MARK: definitions

    /// DDL: a write, and a pin where what it makes is temporary and outlives its transaction.
    private mutating func definition(_ item: Int) {
        profile.add(.writes, .changesCatalog)
        profile.changesCatalog = true
        switch tree.items[item].node {
        case .createTable: temporaryRelation(.relation, of: item, clauses: item)
        case .createForeignTable:
            if let base = tree.field(.base, of: item) { temporaryRelation(.relation, of: base, clauses: base) }
        case .createView: temporaryRelation(.view, of: item, clauses: nil)
        case .createSequence: temporaryRelation(.sequence, of: item, clauses: nil)
        case .createComposite: temporaryRelation(.typevar, of: item, clauses: nil)
        case .createFunction: temporaryName(.funcname, of: item)
        case .createDomain: temporaryName(.domainname, of: item)
        case .createEnum, .createRange: temporaryName(.typeName, of: item)
        case .define: temporaryName(.defnames, of: item)
        default: break
        }
    }

    private mutating func temporaryName(_ field: Field, of item: Int) {
        let names = tree.names(field, of: item)
        if names.count > 1 ? names.first == "pg_temp" : path.makesTemporary { temporary(names.last ?? "", isDropped: false) }
    }

    /// `clauses`: the node that may say ON COMMIT DROP.
    private mutating func temporaryRelation(_ field: Field, of item: Int, clauses: Int?) {
        guard let relation = tree.field(field, of: item), isTemporary(relation) else { return }
        let isDropped = clauses.map { tree.text(.oncommit, of: $0) == "ONCOMMIT_DROP" } ?? false
        temporary(tree.text(.relname, of: relation) ?? "", isDropped: isDropped)
    }

    /// SELECT INTO and CREATE TABLE AS.
    mutating func temporary(_ into: Int) {
        guard let relation = tree.field(.rel, of: into), isTemporary(relation) else { return }
        temporary(tree.text(.relname, of: relation) ?? "", isDropped: tree.text(.onCommit, of: into) == "ONCOMMIT_DROP")
    }

    /// What is temporary is in no catalog that others read.
    private mutating func temporary(_ name: String, isDropped: Bool) {
        profile.changesCatalog = false
        if !isDropped { profile.pin(.temporary, name) }
    }

    private func isTemporary(_ relation: Int) -> Bool {
        if tree.text(.relpersistence, of: relation) == "t" { return true }
        if let schema = tree.text(.schemaname, of: relation) { return schema == "pg_temp" }
        return path.makesTemporary
    }

    func relationOf(_ item: Int) -> RoutingCatalog.Relation? {
        catalog.relation(tree.text(.schemaname, of: item), tree.text(.relname, of: item) ?? "", path: path)
    }

    /// The columns that a statement names: of COPY as strings, of INSERT as targets.
    func columns(_ field: Field, _ item: Int) -> [String]? {
        guard let list = tree.field(field, of: item) else { return nil }
        return tree.children(list).compactMap { entry in
            guard let node = tree.node(in: entry) else { return nil }
            return tree.text(tree.items[node].node == .string ? .sval : .name, of: node)
        }
    }
}

/// What a text has taken from sequences so far, which `currval` may then read on the same connection.
struct MadeValues: Sendable, Equatable {
    private var sequences: Set<QualifiedName> = []
    private var tookAny = false
    private var tookOne = false

    /// Something ran of which nothing is known.
    mutating func anything() {
        tookAny = true
        tookOne = true
    }

    mutating func took(_ sequence: QualifiedName?, isLast: Bool) {
        if let sequence { sequences.insert(sequence) } else { tookAny = true }
        if isLast { tookOne = true }
    }

    /// Defaults took a value for every column that the statement does not give; `columns` nil: it gives all.
    mutating func inserted(into relation: RoutingCatalog.Relation?, columns: [String]?) {
        guard let relation else { return anything() }
        guard let columns else { return }
        for serial in relation.serials where !columns.contains(serial.column) { took(serial.sequence, isLast: true) }
    }

    /// Whether `currval` of that sequence (nil: one that the text does not tell) reads a value of this text.
    func has(_ sequence: QualifiedName?) -> Bool {
        guard let sequence else { return tookAny || tookOne || !sequences.isEmpty }
        return tookAny || sequences.contains(sequence)
    }

    /// Whether `lastval` does.
    var hasLast: Bool { tookOne }
}
