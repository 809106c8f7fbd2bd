import CPGQuery

/// Why a text has no syntax tree.
public struct SyntaxFailure: Error, Equatable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

/// PostgreSQL's own syntax tree of a text, as libpg_query gives it, in one flat list.
///
/// An item's children follow it, and `next` says where they end: whoever walks the tree needs no recursion, so that no nesting, however
/// deep, uses up a stack.
///
/// - Complexity: O(tree) in time and memory; the tree of a text of 64 KiB has at most some 5 MB.
struct SyntaxTree: Sendable {
    enum Form: UInt8, Sendable { case object, array, string, scalar }

    struct Item: Sendable {
        var form: Form
        /// The node's type where the item is a node.
        var node: NodeKind
        /// The field's name where the item is a field of a node.
        var field: Field
        /// The bytes of the key in the tree's text.
        var keyStart: Int32
        var keyEnd: Int32
        /// The bytes of a text or a number in the tree's text, without quotes.
        var start: Int32
        var end: Int32
        /// The item after this one and all below it.
        var next: Int32
    }

    private(set) var items: [Item] = []
    private let bytes: [UInt8]

    /// Parses `text`.
    ///
    /// - Throws: `SyntaxFailure` with the parser's own words when the text is no SQL, holds a NUL, or nests deeper than the parser goes.
    init(parsing text: UnsafeRawBufferPointer) throws(SyntaxFailure) {
        if text.contains(0) { throw SyntaxFailure("it has a NUL byte, which no statement may have") }
        var copy = [CChar](repeating: 0, count: text.count + 1)
        copy.withUnsafeMutableBytes { $0.copyBytes(from: text) }
        let result = copy.withUnsafeBufferPointer { muster_pg_query_parse($0.baseAddress!, text.count) }
        defer { pg_query_free_parse_result(result) }
        if let error = result.error {
            throw SyntaxFailure(error.pointee.message.map { String(cString: $0) } ?? "the parser gave no reason")
        }
        guard let tree = result.parse_tree else { throw SyntaxFailure("there was no memory to parse it") }
        let text = UnsafeRawBufferPointer(start: tree, count: SyntaxTree.length(tree))
        bytes = Array(text)
        guard read(text) else { throw SyntaxFailure("its syntax tree is not well formed") }
    }

    private static func length(_ text: UnsafePointer<CChar>) -> Int {
        var end = text
        while end.pointee != 0 { end += 1 }
        return end - text
    }

    /// From the JSON text to the list of items. The text is libpg_query's own, so only what would lead astray is checked.
    private mutating func read(_ text: UnsafeRawBufferPointer) -> Bool {
        items.reserveCapacity(text.count / 12)
        var open: [Int] = []
        var key = 0..<0
        var awaitsKey = false, isInObject = false
        var at = 0
        while at < text.count {
            let byte = text[at]
            switch byte {
            case UInt8(ascii: "{"), UInt8(ascii: "["):
                isInObject = byte == UInt8(ascii: "{")
                open.append(items.count)
                append(isInObject ? .object : .array, &key, at..<at, text)
                awaitsKey = isInObject
                at += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                guard let begun = open.popLast() else { return false }
                items[begun].next = Int32(items.count)
                isInObject = open.last.map { items[$0].form == .object } ?? false
                awaitsKey = false
                at += 1
            case UInt8(ascii: ","):
                awaitsKey = isInObject
                at += 1
            case UInt8(ascii: ":"), UInt8(ascii: " "), 10: at += 1
            case UInt8(ascii: "\""):
                let start = at + 1
                at = start
                while at < text.count, text[at] != UInt8(ascii: "\"") { at += text[at] == UInt8(ascii: "\\") ? 2 : 1 }
                let range = start..<min(at, text.count)
                if awaitsKey { key = range } else { append(.string, &key, range, text) }
                awaitsKey = false
                at += 1
            default:
                let start = at
                while at < text.count, text[at] != UInt8(ascii: ","), text[at] != UInt8(ascii: "}"), text[at] != UInt8(ascii: "]") {
                    at += 1
                }
                append(.scalar, &key, start..<at, text)
            }
        }
        return open.isEmpty && !items.isEmpty
    }

    private mutating func append(_ form: Form, _ key: inout Range<Int>, _ range: Range<Int>, _ text: UnsafeRawBufferPointer) {
        var item = Item(
            form: form, node: .none, field: .none, keyStart: Int32(key.lowerBound), keyEnd: Int32(key.upperBound),
            start: Int32(range.lowerBound), end: Int32(range.upperBound), next: Int32(items.count + 1))
        if !key.isEmpty {
            let hash = SyntaxWords.hash(UnsafeRawBufferPointer(rebasing: text[key]))
            // Types of nodes begin with a capital, fields do not.
            if form == .object, text[key.lowerBound] &- UInt8(ascii: "A") < 26 {
                item.node = NodeKind(hash: hash)
            } else {
                item.field = Field(hash: hash)
            }
        }
        key = 0..<0
        items.append(item)
    }

    // MARK: looking at it

    /// The items right below one, in their order.
    func children(_ item: Int) -> Children { Children(items: items, at: item + 1, end: Int(items[item].next)) }

    struct Children: Sequence, IteratorProtocol {
        let items: [Item]
        var at: Int
        let end: Int

        mutating func next() -> Int? {
            guard at < end else { return nil }
            let here = at
            at = Int(items[at].next)
            return here
        }
    }

    /// The field of that name of a node; nil when it has none. O(fields).
    func field(_ name: Field, of item: Int) -> Int? {
        var at = item + 1
        let end = Int(items[item].next)
        while at < end {
            if items[at].field == name { return at }
            at = Int(items[at].next)
        }
        return nil
    }

    /// The node inside `{"Type": {…}}`; nil when the item holds no node.
    func node(in item: Int) -> Int? {
        var at = item + 1
        let end = Int(items[item].next)
        while at < end {
            if items[at].node != .none { return at }
            at = Int(items[at].next)
        }
        return nil
    }

    /// The node below a field of that name.
    func node(_ name: Field, of item: Int) -> Int? { field(name, of: item).flatMap { node(in: $0) } }

    /// The text of an item, as it was written in the statement.
    func text(_ item: Int) -> String {
        let raw = bytes[Int(items[item].start)..<Int(items[item].end)]
        guard raw.contains(UInt8(ascii: "\\")) else { return String(decoding: raw, as: UTF8.self) }
        return String(decoding: SyntaxTree.unescaped(raw), as: UTF8.self)
    }

    func text(_ name: Field, of item: Int) -> String? { field(name, of: item).map { text($0) } }

    func flag(_ name: Field, of item: Int) -> Bool { text(name, of: item) == "true" }

    /// A whole number; nil when it is none or does not fit. libpg_query leaves a field that is 0 out.
    func int(_ name: Field, of item: Int) -> Int? { text(name, of: item).flatMap { Int($0) } }

    /// The name of the node's type as the parser has it.
    func kindName(_ item: Int) -> String {
        String(decoding: bytes[Int(items[item].keyStart)..<Int(items[item].keyEnd)], as: UTF8.self)
    }

    /// The strings of a list such as `["public", "orders"]`, as names are given.
    func names(_ name: Field, of item: Int) -> [String] {
        guard let list = field(name, of: item) else { return [] }
        return children(list).compactMap { entry in
            guard let string = node(in: entry), items[string].node == .string else { return nil }
            return text(.sval, of: string) ?? ""
        }
    }

    private static func unescaped(_ raw: ArraySlice<UInt8>) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(raw.count)
        var at = raw.startIndex
        while at < raw.endIndex {
            guard raw[at] == UInt8(ascii: "\\"), at + 1 < raw.endIndex else {
                out.append(raw[at])
                at += 1
                continue
            }
            switch raw[at + 1] {
            case UInt8(ascii: "n"): out.append(10)
            case UInt8(ascii: "t"): out.append(9)
            case UInt8(ascii: "r"): out.append(13)
            case UInt8(ascii: "b"): out.append(8)
            case UInt8(ascii: "f"): out.append(12)
            case UInt8(ascii: "u"):
                // Only bytes below 32 are written so.
                let digits = String(decoding: raw[min(at + 2, raw.endIndex)..<min(at + 6, raw.endIndex)], as: UTF8.self)
                out.append(UInt8(truncatingIfNeeded: UInt16(digits, radix: 16) ?? 63))
                at += 4
            default: out.append(raw[at + 1])
            }
            at += 2
        }
        return out
    }
}
