/// The clocks are C's, and no message asks for the time.
func muster_monotonic_ns() -> Int64 { 0 }
func muster_realtime_ns() -> Int64 { 0 }

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzPostgres(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    if let wrong = checkMessages(Array(UnsafeBufferPointer(start: start, count: count))) { fatalError(wrong) }
    return 0
}
