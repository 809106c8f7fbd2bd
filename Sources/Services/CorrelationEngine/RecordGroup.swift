import Basics
import CXXHash
import OpenTelemetry
import ProtobufCoding

/// Records of one delivery that belong to one correlation, in the form in which they are stored.
///
/// The piece is a protobuf message of these fields, repeated in this order: 1 an OTLP Resource, 5 its schema URL if it has one, 2 an
/// InstrumentationScope, 6 its schema URL if it has one, which hold for what follows; 3 a Span, 4 a LogRecord. Pieces are stored one after
/// the other, which is again such a message.
public struct RecordGroup: Sendable, Equatable {
    public let key: CorrelationKey
    public internal(set) var piece: [UInt8] = []
    /// One mark a record, in their order.
    public internal(set) var marks = Marks()
    /// Among the spans is one without a parent.
    public internal(set) var hasRoot = false

    public init(key: CorrelationKey) { self.key = key }

    enum Field { static let resource = 1, scope = 2, span = 3, log = 4, resourceSchema = 5, scopeSchema = 6 }
}

/// What identifies and classes each record of a correlation, nine bytes each: eight of a hash, one for its kind (in this order: a search
/// for a mark among thousands is a search for its first byte, which must be a rare one). All that is counted is counted here, so that
/// counts stay right where a record itself is no longer kept.
public struct Marks: Sendable, Equatable {
    public static let width = 9
    public internal(set) var bytes: [UInt8] = []

    public init() {}
    public init(bytes: [UInt8]) { self.bytes = bytes }

    public var count: Int { bytes.count / Marks.width }

    /// `0`…`5`: a log of this severity. `S`: a span; `E`: a span with an error.
    static func kind(log severity: Severity) -> UInt8 { 48 + UInt8(severity.rank) }
    static func kind(spanWithError: Bool) -> UInt8 { spanWithError ? 69 : 83 }

    /// Room for so many more and no doubling, while there are few.
    mutating func reserve(_ more: Int) {
        if count < 1000 { bytes.reserveCapacity(bytes.count + more * Marks.width) }
    }

    mutating func add(_ kind: UInt8, _ hash: UInt64) {
        withUnsafeBytes(of: hash.littleEndian) { bytes.append(contentsOf: $0) }
        bytes.append(kind)
    }

    struct Mark: Hashable {
        let kind: UInt8
        let hash: UInt64
    }

    subscript(_ i: Int) -> Mark {
        bytes.withUnsafeBytes {
            Mark(
                kind: $0[i * Marks.width + 8],
                hash: UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: i * Marks.width, as: UInt64.self)))
        }
    }

    /// For many searches. O(marks).
    var set: Set<Mark> {
        var set = Set<Mark>(minimumCapacity: 2 * count)
        for i in 0..<count { set.insert(self[i]) }
        return set
    }

    /// O(marks): a group of one delivery is small.
    func contains(_ kind: UInt8, _ hash: UInt64) -> Bool {
        bytes.withUnsafeBytes { raw in
            var at = 0
            while at + Marks.width <= raw.count {
                if UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: at, as: UInt64.self)) == hash, raw[at + 8] == kind { return true }
                at += Marks.width
            }
            return false
        }
    }

    /// Spans, and logs by severity.
    var tally: (spans: Int, failedSpans: Int, logs: [Severity: Int]) {
        var spans = 0, failed = 0
        var logs = [Int](repeating: 0, count: Severity.allCases.count)
        for at in stride(from: 0, to: bytes.count - Marks.width + 1, by: Marks.width) {
            switch bytes[at + 8] {
            case 48...53: logs[Int(bytes[at + 8] - 48)] += 1
            case 69:
                spans += 1
                failed += 1
            default: spans += 1
            }
        }
        return (spans, failed, Dictionary(uniqueKeysWithValues: zip(Severity.allCases, logs).filter { $0.1 > 0 }))
    }
}

/// XXH3 over bytes, 64 bits: two records of one correlation of 10,000 look alike by chance once in 10^11.
func hash64(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> UInt64 { XXH3_64bits_withSeed(bytes.baseAddress, bytes.count, seed) }

func hash64(_ text: String, seed: UInt64 = 0) -> UInt64 {
    var text = text
    return text.withUTF8 { hash64(UnsafeRawBufferPointer($0), seed: seed) }
}

/// What one request brought, sorted by correlation.
public struct Delivery: Sendable {
    public internal(set) var groups: [RecordGroup] = []
    /// Records that came twice within the request.
    public internal(set) var duplicates = 0
    /// Records that were wrong.
    public internal(set) var rejected = 0
    /// Trace ids that are not the 32 hex digits of W3C: taken all the same, and counted.
    public internal(set) var irregularTraceIDs = 0
    public init() {}

    var recordCount: Int { groups.reduce(0) { $0 + $1.marks.count } }
    var received: Int { recordCount + duplicates + rejected }
    /// What it takes in memory until it is stored.
    var bytes: Int { groups.reduce(0) { $0 + $1.piece.count + $1.marks.bytes.count + 128 } }
}

/// Sorts records into groups as they are read.
struct DeliveryBuilder {
    /// Records and bytes of one group; a further one of the same key goes on. A store applies a group as a whole, in one bounded step.
    static let groupRecords = 500
    static let groupBytes = 512 << 10

    private(set) var delivery = Delivery()
    /// Of all pieces so far. A resource is repeated for each correlation under it, so this may be many times what came.
    private(set) var bytes = 0
    private var places: [CorrelationKey: Int] = [:]
    /// The resource and scope that the last record of each group stands under.
    private var under: [(resource: Int, scope: Int)] = []
    /// The hashes of keys with many records.
    private var large: [CorrelationKey: Set<UInt64>] = [:]
    private static let searched = 32

    mutating func reject() { delivery.rejected += 1 }
    mutating func sawIrregularTrace() { delivery.irregularTraceIDs += 1 }

    /// The numbers of `around` tell whether the resource and scope are those of the record before.
    mutating func add(
        _ key: CorrelationKey, _ kind: UInt8, hash: UInt64, record: UnsafeRawBufferPointer, isSpan: Bool, isRoot: Bool = false,
        around: OTLP.Surroundings
    ) {
        var place = places[key]
        if let known = place, isKnown(kind, hash, in: key, newest: known) {
            delivery.duplicates += 1
            return
        }
        if let known = place,
            delivery.groups[known].marks.count >= DeliveryBuilder.groupRecords
                || delivery.groups[known].piece.count >= DeliveryBuilder.groupBytes
        {
            place = nil
        }
        let at = place ?? open(key)
        let before = delivery.groups[at].piece.count
        defer { bytes += delivery.groups[at].piece.count - before }
        if under[at].resource != around.resourceNumber {
            ProtobufWriter.append(RecordGroup.Field.resource, around.resource, to: &delivery.groups[at].piece)
            if !around.resourceSchema.isEmpty {
                ProtobufWriter.append(RecordGroup.Field.resourceSchema, around.resourceSchema, to: &delivery.groups[at].piece)
            }
            under[at] = (around.resourceNumber, -1)
        }
        if under[at].scope != around.scopeNumber {
            if !around.scope.isEmpty || !around.scopeSchema.isEmpty || under[at].scope >= 0 {
                ProtobufWriter.append(RecordGroup.Field.scope, around.scope, to: &delivery.groups[at].piece)
            }
            if !around.scopeSchema.isEmpty {
                ProtobufWriter.append(RecordGroup.Field.scopeSchema, around.scopeSchema, to: &delivery.groups[at].piece)
            }
            under[at].scope = around.scopeNumber
        }
        ProtobufWriter.append(isSpan ? RecordGroup.Field.span : RecordGroup.Field.log, record, to: &delivery.groups[at].piece)
        delivery.groups[at].marks.add(kind, hash)
        if isRoot { delivery.groups[at].hasRoot = true }
    }

    private mutating func open(_ key: CorrelationKey) -> Int {
        places[key] = delivery.groups.count
        delivery.groups.append(RecordGroup(key: key))
        under.append((-1, -1))
        return delivery.groups.count - 1
    }

    /// Whether this record came before in this request. Small groups are searched, larger ones have a set.
    private mutating func isKnown(_ kind: UInt8, _ hash: UInt64, in key: CorrelationKey, newest: Int) -> Bool {
        if large[key] != nil { return !large[key]!.insert(hash).inserted }
        let marks = delivery.groups[newest].marks
        if marks.count >= DeliveryBuilder.searched {
            var set = Set((0..<marks.count).map { marks[$0].hash })
            defer { large[key] = set }
            return !set.insert(hash).inserted
        }
        return marks.contains(kind, hash)
    }
}

extension RecordGroup {
    /// The piece without the records that are not to be kept; what stands around them stays.
    static func cut(_ piece: [UInt8], _ keep: [Bool]) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(piece.count)
        piece.withUnsafeBytes { bytes in
            var reader = ProtobufReader(bytes)
            var record = 0
            while let field = try? reader.next() {
                if field.number == Field.span || field.number == Field.log {
                    record += 1
                    if !keep[record - 1] { continue }
                }
                ProtobufWriter.append(field.number, field.bytes, to: &out)
            }
        }
        return out
    }
}
