// The clocks of Basics, which nothing here reads.
func muster_monotonic_ns() -> Int64 { 0 }
func muster_realtime_ns() -> Int64 { 0 }

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzCache(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    if let wrong = checkCacheFields(Array(UnsafeBufferPointer(start: start, count: count))) { fatalError(wrong) }
    return 0
}
