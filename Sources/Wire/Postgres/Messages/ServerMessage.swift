/// An error or a notice of the server, with every field that it sent, in the order of the fields.
public struct ServerMessage: Hashable, Sendable, CustomStringConvertible {
    public struct Field: Hashable, Sendable {
        /// The field's letter, as PostgreSQL's manual lists them.
        public let kind: UInt8
        public let value: WireText

        public init(kind: UInt8, value: WireText) {
            self.kind = kind
            self.value = value
        }
    }

    public var fields: [Field]

    public init(fields: [Field]) { self.fields = fields }

    /// A message of our own, for a server's end of the protocol.
    public init(severity: String, state: String, _ text: String, detail: String? = nil, hint: String? = nil) {
        let parts: [(UInt8, String?)] = [(83, severity), (86, severity), (67, state), (77, text), (68, detail), (72, hint)]
        fields = parts.compactMap { kind, value in value.map { Field(kind: kind, value: WireText($0)) } }
    }

    /// The first field of this letter.
    public func field(_ kind: UInt8) -> String? { fields.first { $0.kind == kind }?.value.string }

    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`, `DEBUG`, `INFO` or `LOG`: the form that is never translated, where the server sends it.
    public var severity: String { field(86) ?? field(83) ?? "" }
    /// The five letters of SQLSTATE; empty where the server sent none.
    public var state: String { field(67) ?? "" }
    public var text: String { field(77) ?? "" }
    public var detail: String? { field(68) }
    public var hint: String? { field(72) }
    /// Where in the statement the error is, in characters from 1.
    public var position: Int? { field(80).flatMap { Int($0) } }
    public var schema: String? { field(115) }
    public var table: String? { field(116) }
    public var column: String? { field(99) }
    public var dataType: String? { field(100) }
    public var constraint: String? { field(110) }
    /// Call stack of the server's own, such as the lines of a function.
    public var context: String? { field(87) }
    /// The place in the server's sources that reported the error.
    public var routine: String? { field(82) }

    /// Whether the server ends the session, or itself, after it.
    public var endsSession: Bool { severity == "FATAL" || severity == "PANIC" }

    public var description: String {
        var out = "\(severity) \(state): \(text)"
        if let detail { out += "; \(detail)" }
        if let hint { out += "; hint: \(hint)" }
        return out
    }

    init(_ reader: inout MessageReader) throws(ProtocolFailure) {
        fields = []
        while true {
            let kind = try reader.byte()
            if kind == 0 { break }
            // The manual lists 18; a server of later days may have some more.
            guard fields.count < 64 else { throw reader.failure("more than 64 fields") }
            fields.append(Field(kind: kind, value: try reader.text()))
        }
        try reader.end()
    }

    func write(_ writer: inout MessageWriter) {
        for field in fields where field.kind != 0 {
            writer.put(field.kind)
            writer.put(field.value)
        }
        writer.put(UInt8(0))
    }
}
