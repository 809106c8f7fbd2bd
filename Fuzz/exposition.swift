@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzExposition(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    if let wrong = checkExposition(Array(UnsafeBufferPointer(start: start, count: count))) { fatalError(wrong) }
    return 0
}
