/// The walk through queries and expressions. Iterative: what is still to be looked at stands in a list, so that the depth of a text costs
/// no stack.
extension StatementReader {
    /// An item to look at, with the names that common table expressions hide there.
    fileprivate struct Place {
        let item: Int
        let scope: Int
        /// What a field without a type of its own is: an arm of a UNION is a SELECT.
        let kind: NodeKind
        /// The tree it is of: the text's, or a view's definition.
        let source: Int
    }

    /// A name that a WITH clause gives, and the scope around it.
    fileprivate struct Scope {
        let name: String
        let parent: Int
    }

    fileprivate struct Source {
        let tree: SyntaxTree
        let path: SearchPath
    }

    fileprivate struct Walk {
        var sources: [Source]
        var open: [Place]
        var scopes: [Scope] = []
        var views: Set<QualifiedName> = []
    }

    /// Looks at `item` and all below it, and at the definitions of the views it names, each once. O(tree).
    mutating func walk(_ item: Int, as kind: NodeKind? = nil) {
        var walk = Walk(
            sources: [Source(tree: tree, path: path)], open: [Place(item: item, scope: -1, kind: kind ?? tree.items[item].node, source: 0)])
        while let place = walk.open.popLast() { look(place, &walk) }
    }

    private mutating func look(_ place: Place, _ walk: inout Walk) {
        let tree = walk.sources[place.source].tree
        switch place.kind {
        case .select: select(place, &walk)
        case .insert, .update, .delete, .merge:
            profile.add(.writes, .changesData)
            profile.makesValues = true
            if place.kind == .insert { inserts(place, &walk) } else if place.kind == .merge { made.anything() }
            let main = body(place, &walk)
            push(main, &walk, without: [.relation, .withClause])
            pushCommonTables(place, main.scope, &walk)
        case .functionCall: function(place, &walk)
        case .relation: relation(place, &walk)
        case .sample:
            let method = tree.names(.method, of: place.item)
            if !(method.last.map { FunctionRules.samplingMethods.contains($0) } ?? false) {
                profile.add(.unknownFunction, .samplingMethod, method.joined(separator: "."))
            }
            push(place, &walk, without: [.method])
        case .setToDefault: made.anything()
        case .none: push(place, &walk, without: [])
        case let kind where kind.isTransparent: push(place, &walk, without: [.typeName])
        default: profile.add(.unknown, .unknownNode, tree.kindName(place.item))
        }
    }

    /// Puts what is below an item on the list, so that the first comes first.
    private func push(_ place: Place, _ walk: inout Walk, without fields: [Field]) {
        let tree = walk.sources[place.source].tree
        let start = walk.open.count
        for child in tree.children(place.item) {
            let item = tree.items[child]
            if item.form == .string || item.form == .scalar || fields.contains(item.field) { continue }
            var kind = item.node
            if place.kind == .select, item.field == .larg || item.field == .rarg { kind = .select }
            walk.open.append(Place(item: child, scope: place.scope, kind: kind, source: place.source))
        }
        walk.open[start...].reverse()
    }

    private mutating func select(_ place: Place, _ walk: inout Walk) {
        let tree = walk.sources[place.source].tree
        if let into = tree.field(.intoClause, of: place.item) {
            profile.add(.writes, .makesTable)
            profile.changesCatalog = true
            if place.source == 0 { temporary(into) }
        }
        if tree.field(.lockingClause, of: place.item) != nil { profile.add(.writes, .locksRows) }
        let main = body(place, &walk)
        push(main, &walk, without: [.intoClause, .lockingClause, .withClause])
        // What stands in the WITH is looked at first: it stands first in the text.
        pushCommonTables(place, main.scope, &walk)
    }

    /// The place of a statement's body: what its WITH clause names is hidden there.
    private func body(_ place: Place, _ walk: inout Walk) -> Place {
        let tree = walk.sources[place.source].tree
        guard let with = tree.field(.withClause, of: place.item), let list = tree.field(.ctes, of: with) else { return place }
        var scope = place.scope
        for entry in tree.children(list) {
            guard let one = tree.node(in: entry) else { continue }
            walk.scopes.append(Scope(name: tree.text(.ctename, of: one) ?? "", parent: scope))
            scope = walk.scopes.count - 1
        }
        return Place(item: place.item, scope: scope, kind: place.kind, source: place.source)
    }

    /// The queries of a WITH clause. With RECURSIVE each sees all of its names, without it each those before it.
    private func pushCommonTables(_ place: Place, _ last: Int, _ walk: inout Walk) {
        let tree = walk.sources[place.source].tree
        guard let with = tree.field(.withClause, of: place.item), let list = tree.field(.ctes, of: with) else { return }
        let isRecursive = tree.flag(.recursive, of: with)
        var names: [Int] = []
        var scope = last
        while scope != place.scope, scope >= 0 {
            names.append(walk.scopes[scope].parent)
            scope = walk.scopes[scope].parent
        }
        let start = walk.open.count
        for (entry, before) in zip(tree.children(list), names.reversed()) {
            guard let one = tree.node(in: entry), let query = tree.node(.ctequery, of: one) else { continue }
            walk.open.append(
                Place(item: query, scope: isRecursive ? last : before, kind: tree.items[query].node, source: place.source))
        }
        walk.open[start...].reverse()
    }

    private mutating func inserts(_ place: Place, _ walk: inout Walk) {
        // A view inserts nothing.
        guard place.source == 0, let target = tree.field(.relation, of: place.item) else { return }
        let gives = tree.field(.selectStmt, of: place.item) != nil
        made.inserted(into: relationOf(target), columns: gives ? columns(.cols, place.item) : [])
    }

    // MARK: relations

    private mutating func relation(_ place: Place, _ walk: inout Walk) {
        let source = walk.sources[place.source]
        let name = source.tree.text(.relname, of: place.item) ?? ""
        let schema = source.tree.text(.schemaname, of: place.item)
        if schema == nil {
            var scope = place.scope
            while scope >= 0 {
                if walk.scopes[scope].name == name { return }
                scope = walk.scopes[scope].parent
            }
        }
        let known = catalog.relation(schema, name, path: source.path)
        let owner = known?.name.schema ?? schema ?? (source.path.namesCatalog ? nil : "pg_catalog")
        if owner == "pg_catalog", let rule = RelationRules.rule(name) {
            if rule == .server { profile.add(.server, .serverRelation, name) } else { profile.add(.primaryOnly, .sequenceRead, name) }
            return
        }
        guard let known else { return }
        if known.kind == .sequence {
            profile.add(.primaryOnly, .sequenceRead, known.name.description)
        } else if known.isUnlogged {
            profile.add(.primaryOnly, .unlogged, known.name.description)
        }
        guard known.kind == .view, let definition = known.definition, walk.views.insert(known.name).inserted else { return }
        view(known.name, definition, &walk)
    }

    /// Goes on in a view's definition. What cannot be read there is unknown.
    private mutating func view(_ name: QualifiedName, _ definition: String, _ walk: inout Walk) {
        let parsed = Array(definition.utf8).withUnsafeBytes { bytes in try? SyntaxTree(parsing: bytes) }
        guard let parsed, let list = parsed.field(.stmts, of: 0), let entry = parsed.children(list).first(where: { _ in true }),
            let query = parsed.node(.stmt, of: entry)
        else { return profile.add(.unknown, .unknownNode, "the view \(name)") }
        walk.sources.append(Source(tree: parsed, path: .catalogOnly))
        walk.open.append(Place(item: query, scope: -1, kind: parsed.items[query].node, source: walk.sources.count - 1))
    }

    // MARK: functions

    private mutating func function(_ place: Place, _ walk: inout Walk) {
        let source = walk.sources[place.source]
        let names = source.tree.names(.funcname, of: place.item)
        let name = names.last ?? ""
        let schema = names.count > 1 ? names[names.count - 2] : nil
        let meant = catalog.functions(schema, name, path: source.path)
        if meant.isEmpty {
            unresolved(schema, name, source.path)
        } else {
            for one in meant { call(one, place.item, source) }
        }
        // Arguments, ORDER BY, FILTER and OVER: evaluated before what the function does, but only `nextval` and `currval` care, and their
        // arguments call neither.
        push(place, &walk, without: [.funcname])
    }

    private mutating func unresolved(_ schema: String?, _ name: String, _ path: SearchPath) {
        let schemas = schema.map { [$0] } ?? path.schemas
        let known = catalog
        switch schemas.map({ known.declaration(QualifiedName($0, name)) }).first(where: { $0 != .none }) {
        case .readOnly: break
        case .writes: profile.add(.writes, .declaredWrites, name)
        default:
            profile.add(.unknownFunction, .unknownFunction, name)
            profile.makesValues = true
            made.anything()
        }
    }

    private mutating func call(_ name: QualifiedName, _ item: Int, _ source: Source) {
        switch catalog.declaration(name) {
        case .readOnly: return
        case .writes:
            profile.makesValues = true
            made.anything()
            return profile.add(.writes, .declaredWrites, name.description)
        case .none: break
        }
        if name.schema == "pg_catalog", let rule = FunctionRules.rule(name.name) { return apply(rule, name.name, item, source) }
        guard catalog.function(name.schema, name.name)?.volatility == .volatile else { return }
        profile.add(.volatile, .volatileFunction, name.schema == "pg_catalog" ? name.name : name.description)
        profile.makesValues = true
        made.anything()
    }

    private mutating func apply(_ rule: FunctionRules.Rule, _ name: String, _ item: Int, _ source: Source) {
        switch rule {
        case .harmless: break
        case .writes: profile.add(.writes, .writingFunction, name)
        case .server: profile.add(.server, .serverFunction, name)
        case .primaryOnly: profile.add(.primaryOnly, .primaryOnlyFunction, name)
        case .advisory:
            profile.add(.primaryOnly, .advisoryLock, name)
            profile.touchesAdvisoryLocks = true
        case .pins(let reason):
            profile.pin(reason, name)
            if reason == .advisoryLock { profile.touchesAdvisoryLocks = true }
        case .makesValue:
            profile.add(.writes, .movesSequence, name)
            profile.makesValues = true
            made.took(sequence(item, source), isLast: name == "nextval")
        case .needsValue:
            let has = name == "lastval" ? made.hasLast : made.has(sequence(item, source))
            profile.add(has ? .local : [.local, .needsValue], has ? .sessionCommand : .currval, name)
        case .setConfig:
            if isConstantTrue(argument(2, "is_local", item, source.tree), source.tree) {
                profile.add(.local, .sessionCommand, name)
            } else {
                profile.pin(.setting, name)
            }
        case .currentSetting:
            let setting = argument(0, "setting_name", item, source.tree).flatMap { constant($0, source.tree) }
            if !(setting?.contains(".") ?? false) { profile.add(.server, .serverFunction, name) }
        }
    }

    /// The argument at a place, or of that name.
    private func argument(_ place: Int, _ name: String, _ call: Int, _ tree: SyntaxTree) -> Int? {
        guard let list = tree.field(.args, of: call) else { return nil }
        for (index, entry) in tree.children(list).enumerated() {
            guard let node = tree.node(in: entry) else { continue }
            if tree.items[node].node == .namedArgument {
                if tree.text(.name, of: node) == name { return tree.node(.arg, of: node) }
            } else if index == place {
                return node
            }
        }
        return nil
    }

    /// The text of a constant, with a cast around it or without.
    func constant(_ item: Int, _ tree: SyntaxTree) -> String? {
        switch tree.items[item].node {
        case .constant:
            if let value = tree.field(.sval, of: item) { return tree.text(.sval, of: value) ?? "" }
            if let value = tree.field(.ival, of: item) { return tree.text(.ival, of: value) ?? "0" }
            if let value = tree.field(.fval, of: item) { return tree.text(.fval, of: value) ?? "" }
            if let value = tree.field(.boolval, of: item) { return tree.flag(.boolval, of: value) ? "true" : "false" }
            return nil
        case .typeCast: return tree.node(.arg, of: item).flatMap { constant($0, tree) }
        default: return nil
        }
    }

    private func isConstantTrue(_ item: Int?, _ tree: SyntaxTree) -> Bool {
        item.flatMap { constant($0, tree) }.flatMap(SettingWords.bool) ?? false
    }

    /// The sequence that `nextval` or `currval` names by a constant; nil: it cannot be told.
    private func sequence(_ call: Int, _ source: Source) -> QualifiedName? {
        guard let text = argument(0, "", call, source.tree).flatMap({ constant($0, source.tree) }) else { return nil }
        let parts = SettingWords.nameParts(text)
        guard let name = parts.last else { return nil }
        return catalog.relation(parts.count > 1 ? parts[parts.count - 2] : nil, name, path: source.path)?.name
    }
}
