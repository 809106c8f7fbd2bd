import Basics

/// The columns of an answer, shared by all its rows.
public final class PostgresColumns: Sendable {
    public let all: [BackendMessage.Column]
    public let names: [String]
    private let places: [String: Int]

    public init(_ columns: [BackendMessage.Column]) {
        all = columns
        names = columns.map(\.name.string)
        var places: [String: Int] = [:]
        for (i, name) in names.enumerated() where places[name] == nil { places[name] = i }
        self.places = places
    }

    /// The first column of this name.
    public func place(of name: String) -> Int? { places[name] }

    static let none = PostgresColumns([])

    /// The same columns, as they come when all are asked for in this format.
    func with(format: Int16) -> PostgresColumns {
        if all.allSatisfy({ $0.format == format }) { return self }
        return PostgresColumns(
            all.map { column in
                var column = column
                column.format = format
                return column
            })
    }
}

/// What a statement answered: its rows, and what the server says that it did. The rows are kept as the bytes that came, in one piece.
public struct PostgresResult: Sendable, RandomAccessCollection {
    public let columns: PostgresColumns
    /// The server's word for what was done: `SELECT 3`, `INSERT 0 1`; empty for an empty text.
    public internal(set) var tag = ""
    /// Notices and warnings that came with the statement, at most 32.
    public internal(set) var notices: [ServerMessage] = []
    private(set) var storage: [UInt8] = []
    private(set) var starts: [Int] = []

    init(columns: PostgresColumns) { self.columns = columns }

    public var startIndex: Int { 0 }
    public var endIndex: Int { starts.count }
    public subscript(place: Int) -> PostgresRow { PostgresRow(columns: columns, storage: storage, start: starts[place]) }

    /// The first value of the first row as text, for answers of one value; nil for NULL and for no row.
    public var text: String? { first?.text(0) }

    /// How many rows were changed or fetched, as the tag says; nil where it names no number.
    public var affected: Int? { tag.split(separator: " ").last.flatMap { Int($0) } }

    /// Bytes of the rows.
    var size: Int { storage.count }

    /// Adds a row whose body was checked.
    mutating func add(_ body: UnsafeRawBufferPointer) {
        starts.append(storage.count)
        storage.append(contentsOf: body)
    }

    mutating func removeRows() {
        storage = []
        starts = []
    }
}

/// One row. Reading a value walks over the values before it.
public struct PostgresRow: Sendable {
    public let columns: PostgresColumns
    private let storage: [UInt8]
    private let start: Int

    init(columns: PostgresColumns, storage: [UInt8], start: Int) {
        self.columns = columns
        self.storage = storage
        self.start = start
    }

    /// Hands the bytes of the value in column `place` to `body`; nil is NULL, or no such column.
    public func withValue<T, E: Error>(_ place: Int, _ body: (UnsafeRawBufferPointer?) throws(E) -> T) throws(E) -> T {
        guard place >= 0, place < columns.all.count else { return try body(nil) }
        let result: Result<T, E> = storage.withUnsafeBytes { bytes in
            // Lengths were checked when the row came.
            var at = start + 2
            for _ in 0..<place {
                let count = Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: Int32.self)))
                at += 4 + Swift.max(count, 0)
            }
            let count = Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: Int32.self)))
            do throws(E) { return .success(try body(count < 0 ? nil : bytes.part(at + 4, count))) } catch { return .failure(error) }
        }
        return try result.get()
    }

    /// The value's bytes; nil is NULL.
    public func bytes(_ place: Int) -> [UInt8]? { withValue(place) { value in value.map { Array($0) } } }

    /// The value as the server writes it as text, with U+FFFD for what is not UTF-8; nil is NULL. Meant for columns that came as text.
    public func text(_ place: Int) -> String? { withValue(place) { value in value?.string } }

    /// The same of the first column of this name; nil also where there is none.
    public func text(_ name: String) -> String? { columns.place(of: name).flatMap { text($0) } }

    /// Every value as text, in the order of the columns.
    public var texts: [String?] { (0..<columns.all.count).map { text($0) } }
}
