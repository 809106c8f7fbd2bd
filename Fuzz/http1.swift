@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzHTTP1(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    if let wrong = checkHTTP1(Array(UnsafeBufferPointer(start: start, count: count))) { fatalError(wrong) }
    return 0
}
