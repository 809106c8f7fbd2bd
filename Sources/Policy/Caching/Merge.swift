/// Renews stored fields by those of a 304 (RFC 9111, 3.2): each name that the 304 has replaces all stored lines of that name. What
/// describes the stored bytes stays as it was stored.
public enum FieldMerge {
    public struct Field: Sendable, Equatable {
        public var name: [UInt8]
        public var value: [UInt8]

        public init(name: [UInt8], value: [UInt8]) {
            self.name = name
            self.value = value
        }
    }

    /// Names, in lower case, that a 304 does not renew.
    static let kept = ["content-length", "content-encoding", "content-range", "transfer-encoding"].map { Array($0.utf8) }

    public static func renewed(_ stored: [Field], by new: [Field]) -> [Field] {
        let lower = { (field: Field) in field.name.map(lowered) }
        let usable = new.filter { !kept.contains(lower($0)) }
        let names = Set(usable.map(lower))
        return stored.filter { !names.contains(lower($0)) } + usable
    }
}
