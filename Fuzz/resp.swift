@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzRESP(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = UnsafeRawBufferPointer(start: start, count: count)
    if let (_, used) = (try? RESPParser.parse(bytes)) ?? nil { precondition(used > 0 && used <= count) }
    return 0
}
