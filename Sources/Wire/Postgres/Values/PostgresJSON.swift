/// A text of JSON for a parameter or from a column of json or jsonb, checked by the server only.
public struct PostgresJSON: Hashable, Sendable, PostgresDecodable, PostgresEncodable {
    public static var wanted: String { "JSON" }

    public let text: String

    public init(_ text: String) { self.text = text }

    public init?(cell: PostgresCell) {
        guard let text = String(cell: cell) else { return nil }
        self.text = text
    }

    public var postgresValue: PostgresValue { .text(text) }
}
