/// A name with its schema.
public struct QualifiedName: Hashable, Sendable, CustomStringConvertible {
    public let schema: String
    public let name: String

    public init(_ schema: String, _ name: String) {
        self.schema = schema
        self.name = name
    }

    public var description: String { "\(schema).\(name)" }
}

/// What the stack file says of functions: `functions: {read-only: [...], writes: [...]}`. A name without a schema means pg_catalog's
/// function if it has one of that name, else the one in `public`.
public struct DeclaredFunctions: Sendable, Equatable {
    public let readOnly: Set<String>
    public let writes: Set<String>

    public init(readOnly: some Sequence<String> = [String](), writes: some Sequence<String> = [String]()) {
        self.readOnly = Set(readOnly)
        self.writes = Set(writes)
    }
}

/// What routing knows of a database: its functions with their volatility, its relations with their kinds, and what the stack file declares.
/// A value that never changes; a newer one replaces it.
///
/// A verdict that was made from a catalog holds only as long as its `number`: a catalog with other content has another number, and one
/// with the same content keeps its predecessor's, so that reading it again every 30 s costs no verdict.
public final class RoutingCatalog: Sendable {
    public struct Function: Sendable, Equatable {
        /// The most that an overload of this name may do: `i`mmutable, `s`table or `v`olatile, as `pg_proc.provolatile` has it. An
        /// aggregate has that of the functions it is made of.
        public enum Volatility: String, Sendable, Comparable {
            case immutable = "i"
            case stable = "s"
            case volatile = "v"

            private var rank: Int { self == .immutable ? 0 : self == .stable ? 1 : 2 }
            public static func < (a: Self, b: Self) -> Bool { a.rank < b.rank }
        }

        public let name: QualifiedName
        public let volatility: Volatility

        public init(_ name: QualifiedName, _ volatility: Volatility) {
            self.name = name
            self.volatility = volatility
        }
    }

    public struct Relation: Sendable, Equatable {
        public enum Kind: String, Sendable {
            case table = "r"
            case partitioned = "p"
            case view = "v"
            case materializedView = "m"
            case foreignTable = "f"
            case sequence = "S"
        }

        /// A column whose default takes the next value of a sequence.
        public struct Serial: Sendable, Equatable {
            public let column: String
            public let sequence: QualifiedName

            public init(column: String, sequence: QualifiedName) {
                self.column = column
                self.sequence = sequence
            }
        }

        public let name: QualifiedName
        public let kind: Kind
        /// Whether it, or a partition or child of it, is unlogged: a replica has no content of these.
        public let isUnlogged: Bool
        /// A view's definition, with every name but pg_catalog's qualified.
        public let definition: String?
        public let serials: [Serial]

        public init(_ name: QualifiedName, _ kind: Kind, isUnlogged: Bool = false, definition: String? = nil, serials: [Serial] = []) {
            self.name = name
            self.kind = kind
            self.isUnlogged = isUnlogged
            self.definition = definition
            self.serials = serials
        }
    }

    public let number: Int
    public let declared: DeclaredFunctions
    /// By name, then by schema.
    private let functions: [String: [String: Function]]
    private let relations: [String: [String: Relation]]

    /// - Parameter previous: the catalog that this one replaces; with the same content its number stays.
    public init(
        functions: some Sequence<Function>, relations: some Sequence<Relation>, declared: DeclaredFunctions = DeclaredFunctions(),
        after previous: RoutingCatalog? = nil
    ) {
        var functionTable: [String: [String: Function]] = [:]
        for one in functions {
            let known = functionTable[one.name.name]?[one.name.schema]
            if let known, known.volatility >= one.volatility { continue }
            functionTable[one.name.name, default: [:]][one.name.schema] = one
        }
        var relationTable: [String: [String: Relation]] = [:]
        for one in relations { relationTable[one.name.name, default: [:]][one.name.schema] = one }
        self.functions = functionTable
        self.relations = relationTable
        self.declared = declared
        guard let previous else {
            number = 1
            return
        }
        let isSame = previous.declared == declared && previous.functions == functionTable && previous.relations == relationTable
        number = isSame ? previous.number : previous.number &+ 1
    }

    /// Knows nothing: every function is unknown, every relation ordinary. What there is before the catalog was read.
    public static let unread = RoutingCatalog(functions: [], relations: [])

    func function(_ schema: String, _ name: String) -> Function? { functions[name]?[schema] }
    func relation(_ schema: String, _ name: String) -> Relation? { relations[name]?[schema] }

    /// The functions that a name may mean. Without a schema: pg_catalog's if it has one, else those of the search path; where the path
    /// names pg_catalog itself and not first, the schemas before it hide its functions, so all of them are meant.
    func functions(_ schema: String?, _ name: String, path: SearchPath) -> [QualifiedName] {
        guard let named = functions[name] else { return [] }
        if let schema { return named[schema] == nil ? [] : [QualifiedName(schema, name)] }
        if !path.namesCatalogLate, named["pg_catalog"] != nil { return [QualifiedName("pg_catalog", name)] }
        return path.schemas.filter { named[$0] != nil }.map { QualifiedName($0, name) }
    }

    /// The relation that a name means: the first schema that has one of it, pg_catalog's before all others unless the path says where it
    /// stands.
    func relation(_ schema: String?, _ name: String, path: SearchPath) -> Relation? {
        guard let named = relations[name] else { return nil }
        if let schema { return named[schema] }
        if !path.namesCatalog, let one = named["pg_catalog"] { return one }
        for schema in path.schemas { if let one = named[schema] { return one } }
        return nil
    }

    enum Declaration { case readOnly, writes, none }

    /// What the stack file says of a function. `writes` wins over `read-only` where a name is in both.
    func declaration(_ name: QualifiedName) -> Declaration {
        let isPlain = name.schema == "pg_catalog" || name.schema == "public" && functions[name.name]?["pg_catalog"] == nil
        func names(_ set: Set<String>) -> Bool { set.contains(name.description) || isPlain && set.contains(name.name) }
        if names(declared.writes) { return .writes }
        return names(declared.readOnly) ? .readOnly : .none
    }
}

/// A session's `search_path`, with `$user` replaced by the user's name.
public struct SearchPath: Sendable, Hashable {
    public let schemas: [String]
    /// Whether pg_catalog is named in it, so that it does not stand before all others.
    let namesCatalog: Bool
    /// Whether a schema stands before a pg_catalog that is named.
    let namesCatalogLate: Bool

    public init(_ schemas: [String], user: String = "") {
        self.schemas = schemas.map { $0 == "$user" ? user : $0 }
        namesCatalog = self.schemas.contains("pg_catalog")
        namesCatalogLate = namesCatalog && self.schemas.first != "pg_catalog"
    }

    /// A database's own: `"$user", public`.
    public static func standard(user: String) -> SearchPath { SearchPath(["$user", "public"], user: user) }

    /// What views' definitions are read with.
    static let catalogOnly = SearchPath(["pg_catalog"])

    /// Whether a thing that is made without a schema becomes temporary.
    var makesTemporary: Bool { schemas.first == "pg_temp" }

    /// Whether two paths are one; O(1) when they are copies of each other, and without an allocation.
    public static func == (a: Self, b: Self) -> Bool { a.schemas == b.schemas }

    public func hash(into hasher: inout Hasher) { hasher.combine(schemas) }

    /// The schemas of a `search_path` as a server reports it, such as `"$user", public`.
    public static func parse(_ text: String) -> [String] {
        var out: [String] = []
        var name: [UInt8] = []
        var isQuoted = false, hasName = false
        let bytes = Array(text.utf8)
        var at = 0
        while at < bytes.count {
            let byte = bytes[at]
            if byte == UInt8(ascii: "\"") {
                if isQuoted, at + 1 < bytes.count, bytes[at + 1] == byte {
                    name.append(byte)
                    at += 1
                } else {
                    isQuoted.toggle()
                    hasName = true
                }
            } else if isQuoted {
                name.append(byte)
            } else if byte == UInt8(ascii: ",") {
                if hasName { out.append(String(decoding: name, as: UTF8.self)) }
                name = []
                hasName = false
            } else if byte > 32 {
                name.append(byte &- 65 < 26 ? byte | 32 : byte)
                hasName = true
            }
            at += 1
        }
        if hasName { out.append(String(decoding: name, as: UTF8.self)) }
        return out
    }
}
