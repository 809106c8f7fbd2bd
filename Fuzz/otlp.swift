extension UnsafeRawBufferPointer {
    // The real one asks simdjson, which is not compiled in here.
    var isValidUTF8: Bool { String(validating: self, as: UTF8.self) != nil }
}

/// The first byte chooses the signal. What passes the check must be readable and showable.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOTLP(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 0 else { return 0 }
    let signal = start[0] % 2 == 0 ? OTLP.Signal.traces : .logs
    let body = UnsafeRawBufferPointer(start: start + 1, count: count - 1)
    try? OTLP.visit(body, signal) { (around, record) throws(ProtobufFailure) in
        guard (try? OTLP.schema.check(record, as: signal.record)) != nil else { return }
        var json = JSONWriter()
        do {
            _ = try OTLP.Resource(around.resource)
            if signal == .traces {
                let span = try OTLP.Span(record)
                OTLP.writeAttributes(span.raw, field: 9, to: &json)
            } else {
                let log = try OTLP.LogRecord(record)
                _ = OTLP.text(log.body)
                OTLP.writeAttributes(log.raw, field: OTLP.Field.logAttributes, to: &json)
            }
        } catch { preconditionFailure("what was checked cannot be read: \(error)") }
        _ = json.text
    }
    return 0
}
