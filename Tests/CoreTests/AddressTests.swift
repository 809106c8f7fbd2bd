import Basics
import Testing

/// Addresses and ranges, as people write them in lists.
@Suite struct AddressTests {
    @Test(arguments: [
        ("192.0.2.1", "192.0.2.1"), ("0.0.0.0", "0.0.0.0"), ("2001:DB8:0:0::1", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1"),
        ("::", "::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:C000:0201", "192.0.2.1"),
    ]) func addressesAreRead(text: String, meaning: String) throws {
        let address = try #require(IPAddress(text))
        #expect(address.description == meaning && IPAddress(meaning) == address && address.isIPv4 == !meaning.contains(":"))
    }

    @Test(arguments: [
        "", " ", "192.0.2", "192.0.2.256", "192.0.2.1.", "192.0.2.1 ", " 192.0.2.1", "192.0.2.01", "0x7f000001", "2130706433",
        "192.0.2.1:80", "[192.0.2.1]", "[::1",
        "::1]", "[[::1]]", "fe80::1%eth0",
        ":::", "1:2:3:4:5:6:7:8:9", "localhost", "::1\0", "192.0.2.1\0x", String(repeating: "1", count: 100),
    ]) func whatIsNoAddressIsNone(text: String) { #expect(IPAddress(text) == nil) }

    @Test func ipv4IsItsMappedForm() {
        let address = IPAddress(ipv4: 0xC000_0201)
        #expect(address.ipv4 == 0xC000_0201 && address.high == 0 && address.low == 0xFFFF_C000_0201)
        #expect(IPAddress(high: 0, low: 1).ipv4 == nil && !IPAddress(high: 1, low: 0xFFFF_C000_0201).isIPv4)
    }

    @Test(arguments: [
        ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], ["9.255.255.255", "11.0.0.0", "::10.0.0.1", "a00::"]),
        ("10.1.2.3/8", ["10.9.9.9"], ["11.1.2.3"]), ("192.0.2.1", ["192.0.2.1"], ["192.0.2.0", "192.0.2.2"]),
        ("192.0.2.1/32", ["192.0.2.1"], ["192.0.2.0"]),
        ("192.0.2.0/31", ["192.0.2.0", "192.0.2.1"], ["192.0.2.2"]),
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::1", "2001:db8::1"]),
        ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"], ["2001:db7::", "2001:db9::", "10.0.0.1"]),
        ("2001:db8::/64", ["2001:db8::ffff"], ["2001:db8:0:1::"]), ("2001:db8::/65", ["2001:db8::7fff:0:0:0"], ["2001:db8::8000:0:0:0"]),
        ("2001:db8::1/128", ["2001:db8::1"], ["2001:db8::"]), ("::/0", ["::", "2001:db8::1", "10.0.0.1"], []),
        ("::1", ["::1"], ["::", "::2", "127.0.0.1"]),
    ]) func rangesHoldWhatTheySay(text: String, inside: [String], outside: [String]) throws {
        let range = try #require(AddressRange(text))
        for address in inside { #expect(range.contains(try #require(IPAddress(address))), "\(address)") }
        for address in outside { #expect(!range.contains(try #require(IPAddress(address))), "\(address)") }
        #expect(AddressRange(range.description) == range)
    }

    @Test(arguments: [
        "", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8/8", "10.0.0.0/ 8", "10.0.0.0/255.0.0.0",
        "10/8", "::/129", "::/1000",
        "::ffff:10.0.0.0/104", "example.org",
    ]) func whatIsNoRangeIsNone(text: String) { #expect(AddressRange(text) == nil) }
}
