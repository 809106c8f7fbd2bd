// The clock of Basics, which nothing here reads.
func muster_monotonic_ns() -> Int64 { 0 }
func muster_realtime_ns() -> Int64 { 0 }

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzHTTP2(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    if let wrong = checkHTTP2(Array(UnsafeBufferPointer(start: start, count: count))) { fatalError(wrong) }
    return 0
}
