import Basics
import EventLoops

@testable import HTTP

/// What the fuzzer and the replay check of the PROXY header: nil when all is well, else what was wrong.
///
/// Properties: no trap; a header is never longer than what was given, nor than the limit; what is said of a piece of the bytes is said of
/// the whole, or it was "more must come"; nothing behind a header changes it; an address taken from the input survives rendering and
/// parsing.
func checkProxyHeader(_ input: [UInt8]) -> String? {
    let whole = proxyOutcome(input, input.count)
    if case .parsed(let parsed) = whole, parsed.length < 8 || parsed.length > min(input.count, ProxyHeader.limit) {
        return "a length of \(parsed.length)"
    }
    if whole == .more, input.count >= ProxyHeader.limit { return "more must come beyond the limit" }
    // All pieces of short inputs; of long ones the first, and some.
    for count in 0..<input.count where count < 128 || count % 61 == 0 || count + 20 > input.count {
        let piece = proxyOutcome(input, count)
        if piece != .more, piece != whole { return "\(count) bytes say \(piece), all say \(whole)" }
    }
    if case .parsed(let parsed) = whole {
        if proxyOutcome(input, parsed.length) != whole || proxyOutcome(input, parsed.length - 1) != .more {
            return "the header does not end where it says"
        }
        if let source = parsed.source, let wrong = roundTrip(source) { return wrong }
    }
    return addresses(in: input).lazy.compactMap(roundTrip).first
}

private enum ProxyOutcome: Equatable {
    case more
    case failed(ProxyHeader.Failure)
    case parsed(ProxyHeader.Parsed)
}

private func proxyOutcome(_ input: [UInt8], _ count: Int) -> ProxyOutcome {
    // A copy of just these bytes, so that the sanitizer sees one read beyond them.
    Array(input[..<count]).withUnsafeBytes { bytes in
        do throws(ProxyHeader.Failure) { return try ProxyHeader.parse(bytes).map(ProxyOutcome.parsed) ?? .more } catch {
            return .failed(error)
        }
    }
}

/// The input's first bytes as addresses of each family.
private func addresses(in input: [UInt8]) -> [SocketAddress] {
    let bytes = input + [UInt8](repeating: 0, count: max(0, 18 - input.count))
    func number(_ at: Int, _ count: Int) -> UInt64 { bytes[at..<at + count].reduce(0) { $0 << 8 | UInt64($1) } }
    let port = UInt16(number(16, 2))
    return [
        .ipv4(UInt32(number(0, 4)), port: port), SocketAddress(IPAddress(high: number(0, 8), low: number(8, 8)), port: port),
        // With zeros in the middle the text form is short, or has an IPv4 address at its end.
        SocketAddress(IPAddress(high: number(0, 2) << 48, low: number(8, 4)), port: port),
        SocketAddress(IPAddress(high: 0, low: number(8, 8)), port: port),
        .unix("/\(port)"),
    ]
}

private func roundTrip(_ source: SocketAddress) -> String? {
    for version in [ProxyHeader.Version.one, .two] {
        var out = ByteBuffer()
        ProxyHeader.render(version, source: source, into: &out)
        out.append([71, 69, 84])
        let expected = ProxyHeader.Parsed(source: source.ip == nil ? nil : source, length: out.count - 3)
        let back = proxyOutcome(Array(out.bytes), out.count)
        if back != .parsed(expected) { return "\(source) rendered as \(version) is read as \(back)" }
    }
    return nil
}
