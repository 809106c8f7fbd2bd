/// Keys of the syntax tree are told apart by a hash of 64 bits. They are all libpg_query's own, never a client's, and `Dictionary`
/// refuses two of ours that would be one.
enum SyntaxWords {
    static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        // FNV-1a.
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return hash
    }

    static func hash(_ word: String) -> UInt64 {
        var word = word
        return word.withUTF8 { hash(UnsafeRawBufferPointer($0)) }
    }
}

/// The types of nodes in PostgreSQL's syntax tree that routing knows. A type that is not here has no rule, and what has no rule goes to the
/// primary.
enum NodeKind: String, CaseIterable, Sendable {
    /// No node: a field, or the root.
    case none = ""
    /// A type that routing does not know.
    case unknown = "?"

    // Statements that are read in full.
    case select = "SelectStmt"
    case insert = "InsertStmt"
    case update = "UpdateStmt"
    case delete = "DeleteStmt"
    case merge = "MergeStmt"
    case copy = "CopyStmt"
    case call = "CallStmt"
    case doBlock = "DoStmt"
    case explain = "ExplainStmt"
    case set = "VariableSetStmt"
    case show = "VariableShowStmt"
    case transaction = "TransactionStmt"
    case declareCursor = "DeclareCursorStmt"
    case fetch = "FetchStmt"
    case close = "ClosePortalStmt"
    case prepare = "PrepareStmt"
    case execute = "ExecuteStmt"
    case deallocate = "DeallocateStmt"
    case discard = "DiscardStmt"
    case listen = "ListenStmt"
    case unlisten = "UnlistenStmt"
    case notify = "NotifyStmt"
    case load = "LoadStmt"
    case lock = "LockStmt"
    case vacuum = "VacuumStmt"
    case reindex = "ReindexStmt"
    case cluster = "ClusterStmt"
    case checkpoint = "CheckPointStmt"
    case alterSystem = "AlterSystemStmt"
    case setConstraints = "ConstraintsSetStmt"
    case createTableAs = "CreateTableAsStmt"
    case createTable = "CreateStmt"
    case createForeignTable = "CreateForeignTableStmt"
    case createView = "ViewStmt"
    case createSequence = "CreateSeqStmt"
    case createFunction = "CreateFunctionStmt"
    case createDomain = "CreateDomainStmt"
    case createEnum = "CreateEnumStmt"
    case createRange = "CreateRangeStmt"
    case createComposite = "CompositeTypeStmt"
    case define = "DefineStmt"

    // Parts with a meaning of their own.
    case functionCall = "FuncCall"
    case relation = "RangeVar"
    case sample = "RangeTableSample"
    case withClause = "WithClause"
    case commonTable = "CommonTableExpr"
    case locking = "LockingClause"
    case into = "IntoClause"
    case setToDefault = "SetToDefault"
    case constant = "A_Const"
    case typeCast = "TypeCast"
    case namedArgument = "NamedArgExpr"
    case string = "String"
    case definition = "DefElem"

    // Parts whose children alone say something.
    case target = "ResTarget"
    case column = "ColumnRef"
    case star = "A_Star"
    case parameter = "ParamRef"
    case expression = "A_Expr"
    case boolean = "BoolExpr"
    case nullTest = "NullTest"
    case booleanTest = "BooleanTest"
    case subLink = "SubLink"
    case collate = "CollateClause"
    case caseExpression = "CaseExpr"
    case caseWhen = "CaseWhen"
    case coalesce = "CoalesceExpr"
    case minMax = "MinMaxExpr"
    case valueFunction = "SQLValueFunction"
    case xml = "XmlExpr"
    case xmlSerialize = "XmlSerialize"
    case grouping = "GroupingFunc"
    case groupingSet = "GroupingSet"
    case row = "RowExpr"
    case array = "A_ArrayExpr"
    case indirection = "A_Indirection"
    case indices = "A_Indices"
    case sort = "SortBy"
    case window = "WindowDef"
    case subselect = "RangeSubselect"
    case rangeFunction = "RangeFunction"
    case rangeTable = "RangeTableFunc"
    case rangeTableColumn = "RangeTableFuncCol"
    case join = "JoinExpr"
    case cteSearch = "CTESearchClause"
    case cteCycle = "CTECycleClause"
    case list = "List"
    case integer = "Integer"
    case float = "Float"
    case bitString = "BitString"
    case bool = "Boolean"
    case typeName = "TypeName"
    case alias = "Alias"
    case columnDefinition = "ColumnDef"
    case inference = "InferClause"
    case onConflict = "OnConflictClause"
    case indexElement = "IndexElem"
    case multiAssign = "MultiAssignRef"
    case mergeWhen = "MergeWhenClause"
    case currentOf = "CurrentOfExpr"

    private static let byName = Dictionary(uniqueKeysWithValues: allCases.map { (SyntaxWords.hash($0.rawValue), $0) })

    init(hash: UInt64) { self = Self.byName[hash] ?? .unknown }

    /// Whether a node of this kind only holds others, so that looking at these is enough.
    var isTransparent: Bool {
        switch self {
        case .target, .column, .star, .parameter, .expression, .boolean, .nullTest, .booleanTest, .subLink, .collate, .caseExpression,
            .caseWhen, .coalesce, .minMax, .valueFunction, .xml, .xmlSerialize, .grouping, .groupingSet, .row, .array, .indirection,
            .indices, .sort, .window, .subselect, .rangeFunction, .rangeTable, .rangeTableColumn, .join, .cteSearch, .cteCycle, .list,
            .integer, .float, .bitString, .bool, .typeName, .alias, .columnDefinition, .inference, .onConflict, .indexElement, .multiAssign,
            .mergeWhen, .currentOf, .constant, .typeCast, .namedArgument, .string, .setToDefault, .definition:
            true
        default: false
        }
    }
}

/// The fields of nodes that routing looks at by name.
enum Field: String, CaseIterable, Sendable {
    case none = ""
    case other = "?"
    case args, behavior, boolval, catalogname, chain, cols, conditionname, ctename, ctequery, ctes, defname, arg, fields, filename, funccall
    case funcname, fval, ival, into, intoClause, items, kind, larg, lockingClause, message, method, mode, name, names, objtype
    case oncommit, onCommit, options, portalname, query, rarg, recursive, rel, relation, relname, relpersistence, repeatable, schemaname
    case selectStmt, sequence, stmt, stmts, sval, target, typeName, typevar, view, whereClause, withClause, params, base, location
    case stringType = "String"
    case conditionName
    case isFrom = "is_from"
    case isLocal = "is_local"
    case isProgram = "is_program"
    case savepointName = "savepoint_name"
    case statementLength = "stmt_len"
    case statementLocation = "stmt_location"
    case domainname, defnames

    private static let byName = Dictionary(uniqueKeysWithValues: allCases.map { (SyntaxWords.hash($0.rawValue), $0) })

    init(hash: UInt64) { self = Self.byName[hash] ?? .other }
}
