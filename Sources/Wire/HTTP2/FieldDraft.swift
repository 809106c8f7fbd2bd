import Basics
import HTTP

/// Gathers the fields of one message as they come out of HPACK, checks them, and fills the table that the parser of HTTP/1 fills: whoever
/// routes, limits and rewrites knows no difference.
///
/// The rules are RFC 9113's (8.2, 8.3) and those of the HTTP/1 that the message may become. Their order is that of the fields: the first
/// fault stays. After a fault, and beyond the size limit, nothing more is kept.
///
/// Size: name, value and 32 bytes for each field (RFC 9113, 6.5.2), counted for every field, kept or not. O(bytes), no allocation once its
/// buffers have grown.
public struct FieldDraft: ~Copyable {
    public enum Kind: Sendable { case request, answer, trailers }

    /// What became of the list.
    public enum Verdict: Equatable, Sendable {
        /// The table is filled.
        case taken
        /// Reset the stream.
        case refused(FieldFault)
        /// Answer with this failure: the list is well-formed and still not taken.
        case answer(HTTPFailure)
    }

    private var text = ByteBuffer()
    private var fields: [HeaderField] = []
    private var crumbs: [HeadRange] = []
    private var kind = Kind.request
    private var method: HeadRange?
    private var scheme: HeadRange?
    private var authority: HeadRange?
    private var path: HeadRange?
    private var connectProtocol: HeadRange?
    private var host: HeadRange?
    private var contentLength: Int?
    private var status: Int?
    private var head = FilledHead()
    private var sawField = false
    private var isTooLarge = false
    private var badExpectation = false
    private var sizeLimit = 0
    private var fieldLimit = 0
    public private(set) var fault: FieldFault?
    /// Bytes of all fields so far.
    public private(set) var size = 0

    public init() {}

    /// Whether the list is more than four times as large as is taken: whoever sends it does not mean a request.
    public var isFlood: Bool { size > sizeLimit.multipliedClamped(by: 4) }

    /// Begins a list. `sizeLimit`: the most bytes that are taken, with 32 for each field.
    public mutating func begin(_ kind: Kind, sizeLimit: Int, fieldLimit: Int) {
        self.kind = kind
        self.sizeLimit = sizeLimit
        self.fieldLimit = fieldLimit
        text.clear(keeping: 65_536)
        fields.removeAll(keepingCapacity: true)
        crumbs.removeAll(keepingCapacity: true)
        method = nil
        scheme = nil
        authority = nil
        path = nil
        connectProtocol = nil
        host = nil
        contentLength = nil
        status = nil
        head = FilledHead()
        sawField = false
        isTooLarge = false
        badExpectation = false
        fault = nil
        size = 0
    }

    /// Gives the memory back, for a connection that becomes idle.
    public mutating func releaseMemory() {
        text.clear(keeping: 0)
        fields = []
        crumbs = []
    }

    /// Notes a fault that somebody else has found.
    public mutating func refuse(_ fault: FieldFault) { if self.fault == nil { self.fault = fault } }

    /// Takes the next field.
    public mutating func add(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        size += name.count + value.count + 32
        if size > sizeLimit { isTooLarge = true }
        if fault != nil || isTooLarge { return }
        do throws(FieldFault) {
            if name.first == 58 { try addPseudo(name, value) } else { try addField(name, value) }
        } catch {
            fault = error
        }
    }

    private mutating func keep(_ bytes: UnsafeRawBufferPointer) -> HeadRange {
        let start = text.count
        text.append(bytes)
        return HeadRange(start, text.count)
    }

    private mutating func keep(_ word: StaticString) -> HeadRange {
        let start = text.count
        text.append(word)
        return HeadRange(start, text.count)
    }

    private func part(_ range: HeadRange) -> UnsafeRawBufferPointer { text.bytes.part(Int(range.start), Int(range.count)) }

    // MARK: pseudo-fields

    private mutating func addPseudo(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) throws(FieldFault) {
        if kind == .trailers { throw .pseudoFieldInTrailers }
        if sawField { throw .latePseudoField }
        if kind == .answer {
            guard name.isExactly(":status") else { throw .unknownPseudoField }
            guard status == nil else { throw .repeatedPseudoField }
            guard value.count == 3, let code = FieldForm.decimal(value), code >= 100, code < 600 else { throw .badStatus }
            status = code
            return
        }
        if name.isExactly(":method") {
            guard FieldForm.isToken(value), value.count <= 32 else { throw .badMethod }
            method = try once(method, value)
        } else if name.isExactly(":path") {
            guard FieldForm.isPath(value) || value.isExactly("*") else { throw .badPath }
            path = try once(path, value)
        } else if name.isExactly(":scheme") {
            guard value.isExactly("http") || value.isExactly("https") else { throw .badScheme }
            scheme = try once(scheme, value)
        } else if name.isExactly(":authority") {
            guard FieldForm.isHost(value) else { throw .badAuthority }
            authority = try once(authority, value)
        } else if name.isExactly(":protocol") {
            guard FieldForm.isToken(value), value.count <= 32 else { throw .unknownPseudoField }
            connectProtocol = try once(connectProtocol, value)
        } else {
            throw .unknownPseudoField
        }
    }

    private mutating func once(_ before: HeadRange?, _ value: UnsafeRawBufferPointer) throws(FieldFault) -> HeadRange {
        guard before == nil else { throw .repeatedPseudoField }
        return keep(value)
    }

    // MARK: fields

    private mutating func addField(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) throws(FieldFault) {
        sawField = true
        let form = FieldForm.lowerToken(name)
        guard form.isValid else { throw .badName }
        guard FieldForm.isValue(value) else { throw .badValue }
        if fields.count + crumbs.count >= fieldLimit {
            isTooLarge = true
            return
        }
        let known = KnownHeader.identify(Span<UInt8>(_unsafeBytes: name))
        switch known {
        case .connection, .keepAlive, .proxyConnection, .transferEncoding, .upgrade: throw .connectionField
        case .te: guard value.equals("trailers") else { throw .badTE }
        case .host where kind != .trailers:
            if kind == .request { return try addHost(value) }
        case .contentLength where kind != .trailers:
            guard contentLength == nil, let length = FieldForm.decimal(value) else { throw .badContentLength }
            contentLength = length
        case .expect where kind == .request:
            if value.equals("100-continue") { head.expectsContinue = true } else { badExpectation = true }
        case .host, .contentLength: return
        case .other where kind == .trailers && name.equals("authorization"): return
        case .other where kind == .request && name.equals("cookie"):
            crumbs.append(keep(trimmedValue(value)))
            return
        default: break
        }
        if !form.isPlain { head.hasOddNames = true }
        let kept = keep(name)
        fields.append(HeaderField(name: kept, value: keep(trimmedValue(value)), known: known))
    }

    private func trimmedValue(_ value: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard let first = value.first, let last = value.last, first == 32 || first == 9 || last == 32 || last == 9 else { return value }
        return trimmed(value[...])
    }

    private mutating func addHost(_ value: UnsafeRawBufferPointer) throws(FieldFault) {
        guard FieldForm.isHost(value) else { throw .badAuthority }
        guard host == nil else { throw .hostDiffers }
        host = keep(value)
    }

    // MARK: the end

    /// The list is whole. `ends`: so is the message, which has no body. `key` makes the key of a WebSocket's handshake (RFC 6455, 4.1), which
    /// HTTP/1 wants and HTTP/2 has not. What the table says is valid until the next `begin`.
    public mutating func finish(ends: Bool, into table: HeadTable, key: () -> [UInt8] = { [] }) -> Verdict {
        if let fault { return .refused(fault) }
        if isTooLarge { return .answer(.headTooLarge) }
        switch kind {
        case .request:
            do throws(FieldFault) {
                if let failure = try settleRequest(ends, key) { return .answer(failure) }
            } catch {
                fault = error
                return .refused(error)
            }
        case .answer:
            guard let status else { return .refused(.missingPseudoField) }
            head.status = status
            settleLength(ends)
        case .trailers:
            if !ends { return .refused(.openTrailers) }
        }
        table.take(head, fields: fields, of: text.bytes)
        return .taken
    }

    private mutating func settleLength(_ ends: Bool) {
        if ends {
            head.framing = .none
        } else if let contentLength {
            head.framing = contentLength == 0 ? .none : .length(contentLength)
        } else {
            head.framing = .chunked
        }
    }

    private mutating func settleRequest(_ ends: Bool, _ key: () -> [UInt8]) throws(FieldFault) -> HTTPFailure? {
        guard let method else { throw .missingPseudoField }
        let isConnect = part(method).isExactly("CONNECT")
        if connectProtocol != nil, !isConnect { throw .unknownPseudoField }
        if isConnect, connectProtocol == nil {
            guard path == nil, scheme == nil else { throw .unknownPseudoField }
            // A tunnel to elsewhere is not what this is for; HTTP/1 answers the same.
            return .badTarget
        }
        guard let path, scheme != nil else { throw .missingPseudoField }
        if part(path).isExactly("*"), !part(method).isExactly("OPTIONS") { throw .badPath }
        if let authority, let host, !equalIgnoringCase(part(authority), part(host)) { throw .hostDiffers }
        guard let named = authority ?? host else { throw .noAuthority }
        if badExpectation { return .badExpectation }
        head.method = method
        head.target = path
        fields.insert(HeaderField(name: keep("Host"), value: named, known: .host), at: 0)
        joinCookies()
        if let connectProtocol {
            guard contentLength == nil else { throw .badContentLength }
            beginUpgrade(connectProtocol, key)
        } else {
            if ends, let contentLength, contentLength > 0 { throw .wrongLength }
            settleLength(ends)
        }
        return nil
    }

    /// `cookie` may come in pieces, for the sake of compression; HTTP/1 knows one field only (RFC 9113, 8.2.3).
    private mutating func joinCookies() {
        guard let first = crumbs.first else { return }
        let name = keep("cookie")
        guard crumbs.count > 1 else { return fields.append(HeaderField(name: name, value: first, known: .other)) }
        let start = text.count
        for (place, crumb) in crumbs.enumerated() {
            if place > 0 { text.append("; ") }
            // Its bytes may move when the buffer grows.
            withUnsafeTemporaryAllocation(byteCount: Int(crumb.count), alignment: 1) { copy in
                copy.copyMemory(from: part(crumb))
                text.append(UnsafeRawBufferPointer(copy))
            }
        }
        fields.append(HeaderField(name: name, value: HeadRange(start, text.count), known: .other))
    }

    /// An extended CONNECT (RFC 8441) becomes the upgrade that HTTP/1 knows.
    private mutating func beginUpgrade(_ wanted: HeadRange, _ key: () -> [UInt8]) {
        head.method = keep("GET")
        head.framing = .none
        head.wantsUpgrade = true
        let name = keep("upgrade")
        fields.append(HeaderField(name: name, value: wanted, known: .upgrade))
        let hasKey = fields.contains { part($0.name).isExactly("sec-websocket-key") }
        if part(wanted).isExactly("websocket"), !hasKey {
            let name = keep("sec-websocket-key")
            let made = key()
            let value = made.withUnsafeBytes { keep($0) }
            fields.append(HeaderField(name: name, value: value, known: .other))
        }
    }

    /// Whether the list is an extended CONNECT.
    public var isExtendedConnect: Bool { connectProtocol != nil }
    /// The length that the message's body is to have; nil: none was said.
    public var declaredLength: Int? { contentLength }
    public var expectsContinue: Bool { head.expectsContinue }
}
