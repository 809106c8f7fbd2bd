@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzProxy(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    if let wrong = checkProxyHeader(Array(UnsafeBufferPointer(start: start, count: count))) { fatalError(wrong) }
    return 0
}
