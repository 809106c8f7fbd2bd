import Balancing
import HTTP

/// The key of a request's trace, for `balance: hash(trace)`: the trace id of `traceparent` (W3C Trace Context), else `X-Trace-Id`, else the
/// parameter `trace_id` of the query. nil when the request names no trace: the body is not looked into.
///
/// A batch of many traces has no one trace. A sender that wants its batches placed sorts them by trace (the OpenTelemetry Collector's
/// `loadbalancing` exporter does) and names one of them in `X-Trace-Id`.
func traceKey(_ table: HeadTable) -> UInt64? {
    var named: UnsafeRawBufferPointer?
    for field in table.fields {
        let name = table.text(field.name)
        if name.equals("traceparent") {
            let value = table.text(field.value)
            // 00-<32 hex digits>-<16>-<2>
            if value.count >= 55, value[2] == 45, value[35] == 45 { return RendezvousHash.key(value[3..<35]) }
        } else if name.equals("x-trace-id") {
            named = table.text(field.value)
        }
    }
    if let named, !named.isEmpty { return RendezvousHash.key(named) }
    let target = table.targetText
    guard let question = target.firstIndex(of: 63) else { return nil }
    for pair in target[(question + 1)...].split(separator: 38) where pair.starts(with: "trace_id=".utf8) && pair.count > 9 {
        return RendezvousHash.key(pair.dropFirst(9))
    }
    return nil
}
