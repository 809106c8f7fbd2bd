/// The statements by which the catalog of a database is read, and what their rows say. Whoever runs them sends `begin`, the queries,
/// `end`; all columns come as text, a null as nil.
public enum CatalogReading {
    /// The definitions of views are written with the names of other schemas qualified, and all queries see one state.
    public static let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog"
    public static let end = "COMMIT"

    /// Rows of schema, name, volatility: one for each name, over all overloads. An aggregate is as volatile as the functions it calls.
    public static let functions = """
        WITH parts AS (
            SELECT a.aggfnoid::oid AS oid, max(CASE q.provolatile WHEN 'v' THEN 2 WHEN 's' THEN 1 ELSE 0 END) AS rank
            FROM pg_aggregate a
            CROSS JOIN LATERAL unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
                                            a.aggminvtransfn, a.aggmfinalfn]::oid[]) AS part
            JOIN pg_proc q ON q.oid = part
            GROUP BY 1)
        SELECT n.nspname, p.proname,
               (ARRAY['i', 's', 'v'])[1 + max(greatest(CASE p.provolatile WHEN 'v' THEN 2 WHEN 's' THEN 1 ELSE 0 END,
                                                       CASE WHEN n.nspname <> 'pg_catalog' THEN parts.rank END))]
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace LEFT JOIN parts ON parts.oid = p.oid
        WHERE n.nspname !~ '^pg_(temp|toast)'
        GROUP BY 1, 2
        """

    /// Rows of schema, name, kind, whether it or a partition or child is unlogged (`t` or `f`), and a view's definition. System views come
    /// without one: they have rules by name.
    public static let relations = """
        WITH RECURSIVE heirs AS (
            SELECT c.oid AS top, c.oid AS part FROM pg_class c WHERE c.relkind IN ('r', 'p', 'f')
            UNION SELECT h.top, i.inhrelid FROM heirs h JOIN pg_inherits i ON i.inhparent = h.part)
        SELECT n.nspname, c.relname, c.relkind,
               c.relpersistence = 'u' OR EXISTS (
                   SELECT FROM heirs h JOIN pg_class k ON k.oid = h.part WHERE h.top = c.oid AND k.relpersistence = 'u'),
               CASE WHEN c.relkind = 'v' AND n.nspname NOT IN ('pg_catalog', 'information_schema') THEN pg_get_viewdef(c.oid) END
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_(temp|toast)'
        """

    /// Rows of a table's schema and name, a column, and the schema and name of the sequence that the column's default (or identity) takes
    /// values from.
    public static let serials = """
        SELECT n.nspname, c.relname, a.attname, sn.nspname, s.relname
        FROM pg_depend d
        LEFT JOIN pg_attrdef def ON d.classid = 'pg_attrdef'::regclass AND def.oid = d.objid
        JOIN pg_class s ON s.relkind = 'S' AND s.oid = CASE WHEN def.oid IS NULL THEN d.objid ELSE d.refobjid END
        JOIN pg_namespace sn ON sn.oid = s.relnamespace
        JOIN pg_class c ON c.oid = coalesce(def.adrelid, d.refobjid) AND c.relkind IN ('r', 'p', 'f')
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = coalesce(def.adnum, d.refobjsubid)
        WHERE d.refclassid = 'pg_class'::regclass
          AND (def.oid IS NOT NULL OR d.classid = 'pg_class'::regclass AND d.deptype = 'i')
        """

    /// Whether the session of this connection holds an advisory lock: a row `t` or `f`. Asked outside of a transaction, when only those
    /// of the session are left.
    public static let holdsAdvisoryLocks =
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid())"

    /// The catalog that these rows describe. A row with other columns than its query has is left out: what is not known goes to the primary
    /// (functions) or is ordinary (relations).
    public static func catalog(
        functions: [[String?]], relations: [[String?]], serials: [[String?]], declared: DeclaredFunctions = DeclaredFunctions(),
        after previous: RoutingCatalog? = nil
    ) -> RoutingCatalog {
        var serialsOf: [QualifiedName: [RoutingCatalog.Relation.Serial]] = [:]
        for row in serials {
            let known = row.compactMap { $0 }
            guard known.count == 5 else { continue }
            serialsOf[QualifiedName(known[0], known[1]), default: []].append(
                .init(column: known[2], sequence: QualifiedName(known[3], known[4])))
        }
        let functionList = functions.compactMap { row -> RoutingCatalog.Function? in
            let known = row.compactMap { $0 }
            guard known.count == 3, let volatility = RoutingCatalog.Function.Volatility(rawValue: known[2]) else { return nil }
            return .init(QualifiedName(known[0], known[1]), volatility)
        }
        let relationList = relations.compactMap { row -> RoutingCatalog.Relation? in
            guard row.count == 5, let schema = row[0], let name = row[1], let kind = row[2].flatMap(RoutingCatalog.Relation.Kind.init)
            else { return nil }
            let qualified = QualifiedName(schema, name)
            return .init(
                qualified, kind, isUnlogged: row[3] == "t", definition: row[4],
                serials: (serialsOf[qualified] ?? []).sorted { ($0.column, $0.sequence.description) < ($1.column, $1.sequence.description) }
            )
        }
        return RoutingCatalog(functions: functionList, relations: relationList, declared: declared, after: previous)
    }
}
