// The clock of Basics, which nothing here reads.
func muster_monotonic_ns() -> Int64 { 0 }
func muster_realtime_ns() -> Int64 { 0 }

@_silgen_name("__lsan_disable") func leaksAreFine()
@_silgen_name("__lsan_enable") func leaksAreFaults()

/// The schema is made once and kept. The leak checker does not find it behind the bits that Swift keeps in its pointers.
@_cdecl("LLVMFuzzerInitialize")
public func startStack(_ count: UnsafeMutablePointer<CInt>, _ arguments: OpaquePointer) -> CInt {
    leaksAreFine()
    defer { leaksAreFaults() }
    return StackSchema.stack.key("gateway") == nil ? 1 : 0
}

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzStack(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let began = clock()
    if let wrong = checkStack(Array(UnsafeBufferPointer(start: start, count: count))) { fatalError(wrong) }
    // Of the processor's time, with the sanitizer; the largest files here have 8 KiB.
    let milliseconds = (clock() - began) * 1000 / CLOCKS_PER_SEC
    if milliseconds > 2000 { fatalError("\(milliseconds) ms for \(count) bytes") }
    return 0
}
