/// What is known of a head that did not come as HTTP/1's text: fields that came one by one, over HTTP/2. Whoever fills it has checked all
/// that the parser of HTTP/1 checks.
public struct FilledHead: Sendable {
    /// Of a request; empty for an answer.
    public var method = HeadRange()
    public var target = HeadRange()
    /// Of an answer; 0 for a request.
    public var status = 0
    public var framing = BodyFraming.none
    public var expectsContinue = false
    public var wantsUpgrade = false
    public var hasOddNames = false

    public init() {}
}

extension HeadTable {
    /// Takes a head that came over HTTP/2. `fields` and the ranges in `head` lie in `bytes`, which must stay as they are until the table was
    /// used.
    public func take(_ head: FilledHead, fields: [HeaderField], of bytes: UnsafeRawBufferPointer) {
        reset(bytes)
        self.fields.append(contentsOf: fields)
        majorVersion = 2
        minorVersion = 1
        method = head.method
        target = head.target
        status = head.status
        framing = head.framing
        expectsContinue = head.expectsContinue
        wantsUpgrade = head.wantsUpgrade
        hasOddNames = head.hasOddNames
        isHead = methodText.isExactly("HEAD")
    }
}

/// The forms of names and values, for parsers of other versions of HTTP: the same rules as HTTP/1's parser has.
public enum FieldForm {
    /// A token (RFC 9110, 5.6.2) without capitals. `isPlain`: all letters, digits and dashes.
    public static func lowerToken(_ bytes: UnsafeRawBufferPointer) -> (isValid: Bool, isPlain: Bool) {
        var isPlain = true
        for byte in bytes {
            guard HeadParser.isToken(byte), byte &- 65 >= 26 else { return (false, false) }
            if !(byte &- 97 < 26 || byte &- 48 < 10 || byte == 45) { isPlain = false }
        }
        return (!bytes.isEmpty, isPlain)
    }

    public static func isToken(_ bytes: UnsafeRawBufferPointer) -> Bool { !bytes.isEmpty && bytes.allSatisfy(HeadParser.isToken) }

    /// Whether a value has no control character but the tab.
    public static func isValue(_ bytes: UnsafeRawBufferPointer) -> Bool {
        for byte in bytes where byte < 32 && byte != 9 || byte == 127 { return false }
        return true
    }

    /// A path with its query: from its `/` on printable ASCII without spaces and without `#`.
    public static func isPath(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.first == 47 else { return false }
        for byte in bytes where byte <= 32 || byte >= 127 || byte == 35 { return false }
        return true
    }

    /// A name or an address, with a port or without: no user, no path, no space.
    public static func isHost(_ bytes: UnsafeRawBufferPointer) -> Bool { HeadParser.isHost(bytes) }

    /// Digits only, at most 18 of them.
    public static func decimal(_ bytes: UnsafeRawBufferPointer) -> Int? { HeadParser.decimal(bytes) }
}
