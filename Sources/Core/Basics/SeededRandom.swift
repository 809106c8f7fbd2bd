import CLinux

/// SplitMix64: small, fast, reproducible from its seed. For jitter, spreading and simulations; never for secrets.
public struct SeededRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// Bytes from the kernel's random source, as lower-case hex: for passwords and tokens.
public func secretHex(bytes count: Int) -> String {
    var bytes = [UInt8](repeating: 0, count: count)
    let filled = bytes.withUnsafeMutableBytes { muster_random($0.baseAddress, $0.count) }
    precondition(filled, "the kernel's random source failed")
    return bytes.withUnsafeBytes { hexText($0) }
}
