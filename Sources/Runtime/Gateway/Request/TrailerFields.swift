import Basics
import HTTP

/// Fields that follow a body, on their way through the gateway. What frames a message, routes it or grants something has been decided when
/// they come, so these names pass in neither direction (RFC 9110, 6.5.1).
enum TrailerFields {
    static func mayPass(_ field: HeaderField, _ table: HeadTable) -> Bool {
        switch field.known {
        case .other, .date, .via, .contentType: break
        default: return false
        }
        let name = table.text(field.name)
        return !name.equals("authorization") && !name.equals("cookie") && !name.equals("set-cookie") && !name.equals("cache-control")
            && !name.equals("content-encoding") && !name.equals("content-range") && !name.equals("age") && !name.equals("expires")
    }

    /// Writes them as lines.
    static func write<Sink: FieldSink & ~Copyable>(_ table: HeadTable, into out: inout Sink) {
        for field in table.fields where mayPass(field, table) { out.field(table.text(field.name), table.text(field.value)) }
    }
}
