enum HeadRewriter {
    // The real one stands among what needs the whole gateway. The replay in the tests takes the real one.
    static func hex(_ value: UInt64, into out: inout ByteBuffer) {
        let digits = String(value, radix: 16)
        out.append(text: String(repeating: "0", count: 16 - digits.count) + digits)
    }
}

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzCookies(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    if let wrong = checkCookiesAndPaths(Array(UnsafeBufferPointer(start: start, count: count))) { fatalError(wrong) }
    return 0
}
