import Basics

/// What a server sends, in version 3.0 of the protocol: every message, in both directions. A client decodes them, a server's end of the
/// protocol (the wire endpoint) encodes them.
public enum BackendMessage: Hashable, Sendable {
    case authentication(Authentication)
    /// The key with which this session's statements can be cancelled.
    case backendKeyData(process: Int32, secret: Int32)
    case bindComplete
    case closeComplete
    case commandComplete(WireText)
    case copyBothResponse(CopyFormat)
    case copyData([UInt8])
    case copyDone
    case copyInResponse(CopyFormat)
    case copyOutResponse(CopyFormat)
    case dataRow(DataRow)
    case emptyQueryResponse
    case errorResponse(ServerMessage)
    case functionCallResponse([UInt8]?)
    /// The newest minor version that the server speaks, and options of the startup message that it does not know.
    case negotiateProtocolVersion(minor: Int32, unknown: [WireText])
    case noData
    case noticeResponse(ServerMessage)
    case notificationResponse(process: Int32, channel: WireText, payload: WireText)
    case parameterDescription([UInt32])
    case parameterStatus(name: WireText, value: WireText)
    case parseComplete
    case portalSuspended
    case readyForQuery(TransactionStatus)
    case rowDescription([Column])

    public enum Authentication: Hashable, Sendable {
        case ok
        case kerberosV5
        case cleartextPassword
        case md5Password(salt: UInt32)
        case gss
        case gssContinue([UInt8])
        case sspi
        case sasl(mechanisms: [WireText])
        case saslContinue([UInt8])
        case saslFinal([UInt8])
        /// One that this protocol's version does not know, with what came with it.
        case other(Int32, [UInt8])
    }

    /// Whether the session is in a transaction.
    public enum TransactionStatus: UInt8, Hashable, Sendable {
        case idle = 73
        case open = 84
        /// An error came in the transaction: everything but its end is refused.
        case failed = 69
    }

    /// How the data of a COPY is written: the whole, and each column.
    public struct CopyFormat: Hashable, Sendable {
        public var isBinary: Bool
        public var columns: [Int16]

        public init(isBinary: Bool, columns: [Int16]) {
            self.isBinary = isBinary
            self.columns = columns
        }
    }

    /// A column of an answer, as the server describes it.
    public struct Column: Hashable, Sendable {
        public var name: WireText
        /// The table's OID, and the column's number in it; 0 where it is no column of a table.
        public var table: UInt32
        public var number: Int16
        public var type: UInt32
        public var size: Int16
        public var modifier: Int32
        /// 0: text, 1: binary.
        public var format: Int16

        public init(
            name: WireText, table: UInt32 = 0, number: Int16 = 0, type: UInt32 = 25, size: Int16 = -1, modifier: Int32 = -1,
            format: Int16 = 0
        ) {
            self.name = name
            self.table = table
            self.number = number
            self.type = type
            self.size = size
            self.modifier = modifier
            self.format = format
        }
    }

    /// The message of this kind with this body.
    public init(kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        switch kind {
        case 82: self = .authentication(try Authentication(body))
        case 83, 65, 75: self = try BackendMessage.status(kind, body)
        case 84, 116, 68, 86: self = try BackendMessage.data(kind, body)
        case 71, 72, 87, 100: self = try BackendMessage.copy(kind, body)
        case 69, 78:
            var reader = MessageReader(body, kind == 69 ? "ErrorResponse" : "NoticeResponse")
            let message = try ServerMessage(&reader)
            self = kind == 69 ? .errorResponse(message) : .noticeResponse(message)
        case 67:
            var reader = MessageReader(body, "CommandComplete")
            self = .commandComplete(try reader.text())
            try reader.end()
        case 90:
            var reader = MessageReader(body, "ReadyForQuery")
            let letter = try reader.byte()
            guard let status = TransactionStatus(rawValue: letter) else { throw reader.failure("a transaction's status of \(letter)") }
            try reader.end()
            self = .readyForQuery(status)
        case 118:
            var reader = MessageReader(body, "NegotiateProtocolVersion")
            let minor = try reader.int32(), count = Int(try reader.int32())
            guard count >= 0, count <= reader.left else { throw reader.failure("a count of \(count)") }
            var unknown: [WireText] = []
            for _ in 0..<count { unknown.append(try reader.text()) }
            try reader.end()
            self = .negotiateProtocolVersion(minor: minor, unknown: unknown)
        default:
            guard let empty = BackendMessage.empty(kind) else {
                throw ProtocolFailure("a server sends no message \(MessageFrame.name(kind))")
            }
            try MessageReader(body, "a message without a body").end()
            self = empty
        }
    }

    private static func empty(_ kind: UInt8) -> BackendMessage? {
        switch kind {
        case 49: .parseComplete
        case 50: .bindComplete
        case 51: .closeComplete
        case 73: .emptyQueryResponse
        case 99: .copyDone
        case 110: .noData
        case 115: .portalSuspended
        default: nil
        }
    }

    private static func status(_ kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) -> BackendMessage {
        switch kind {
        case 83:
            var reader = MessageReader(body, "ParameterStatus")
            let name = try reader.text(), value = try reader.text()
            try reader.end()
            return .parameterStatus(name: name, value: value)
        case 65:
            var reader = MessageReader(body, "NotificationResponse")
            let process = try reader.int32(), channel = try reader.text(), payload = try reader.text()
            try reader.end()
            return .notificationResponse(process: process, channel: channel, payload: payload)
        default:
            var reader = MessageReader(body, "BackendKeyData")
            let process = try reader.int32(), secret = try reader.int32()
            try reader.end()
            return .backendKeyData(process: process, secret: secret)
        }
    }

    private static func data(_ kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) -> BackendMessage {
        switch kind {
        case 84: return .rowDescription(try Column.all(body))
        case 68: return .dataRow(try DataRow(body))
        case 86:
            var reader = MessageReader(body, "FunctionCallResponse")
            let value = try reader.value()
            try reader.end()
            return .functionCallResponse(value)
        default:
            var reader = MessageReader(body, "ParameterDescription")
            var types: [UInt32] = []
            for _ in 0..<(try reader.count(ofAtLeast: 4)) { types.append(try reader.oid()) }
            try reader.end()
            return .parameterDescription(types)
        }
    }

    private static func copy(_ kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) -> BackendMessage {
        if kind == 100 { return .copyData(Array(body)) }
        var reader = MessageReader(body, "CopyResponse")
        let format = try reader.byte()
        guard format <= 1 else { throw reader.failure("a format of \(format)") }
        var columns: [Int16] = []
        for _ in 0..<(try reader.count(ofAtLeast: 2)) { columns.append(try reader.int16()) }
        try reader.end()
        let all = CopyFormat(isBinary: format == 1, columns: columns)
        return kind == 71 ? .copyInResponse(all) : kind == 72 ? .copyOutResponse(all) : .copyBothResponse(all)
    }

    /// The message's letter.
    public var kind: UInt8 {
        switch self {
        case .authentication: 82
        case .backendKeyData: 75
        case .bindComplete: 50
        case .closeComplete: 51
        case .commandComplete: 67
        case .copyBothResponse: 87
        case .copyData: 100
        case .copyDone: 99
        case .copyInResponse: 71
        case .copyOutResponse: 72
        case .dataRow: 68
        case .emptyQueryResponse: 73
        case .errorResponse: 69
        case .functionCallResponse: 86
        case .negotiateProtocolVersion: 118
        case .noData: 110
        case .noticeResponse: 78
        case .notificationResponse: 65
        case .parameterDescription: 116
        case .parameterStatus: 83
        case .parseComplete: 49
        case .portalSuspended: 115
        case .readyForQuery: 90
        case .rowDescription: 84
        }
    }

    /// The whole message as it goes over the wire.
    public var encoded: [UInt8] {
        var writer = MessageWriter()
        write(&writer)
        return Array(writer.bytes)
    }

    func write(_ writer: inout MessageWriter) {
        writer.begin(kind)
        switch self {
        case .authentication(let authentication): authentication.write(&writer)
        case .backendKeyData(let process, let secret):
            writer.put(process)
            writer.put(secret)
        case .bindComplete, .closeComplete, .copyDone, .emptyQueryResponse, .noData, .parseComplete, .portalSuspended: break
        case .commandComplete(let tag): writer.put(tag)
        case .copyBothResponse(let format), .copyInResponse(let format), .copyOutResponse(let format):
            writer.put(UInt8(format.isBinary ? 1 : 0))
            writer.put(count: format.columns.count)
            for column in format.columns { writer.put(column) }
        case .copyData(let bytes): writer.put(bytes)
        case .dataRow(let row): writer.put(row.bytes)
        case .errorResponse(let message), .noticeResponse(let message): message.write(&writer)
        case .functionCallResponse(let value): writer.put(value: value)
        case .negotiateProtocolVersion(let minor, let unknown):
            writer.put(minor)
            writer.put(Int32(clamping: unknown.count))
            for name in unknown { writer.put(name) }
        case .notificationResponse(let process, let channel, let payload):
            writer.put(process)
            writer.put(channel)
            writer.put(payload)
        case .parameterDescription(let types):
            writer.put(count: types.count)
            for type in types { writer.put(oid: type) }
        case .parameterStatus(let name, let value):
            writer.put(name)
            writer.put(value)
        case .readyForQuery(let status): writer.put(status.rawValue)
        case .rowDescription(let columns):
            writer.put(count: columns.count)
            for column in columns { column.write(&writer) }
        }
        writer.end()
    }
}

extension BackendMessage.Column {
    /// The columns of a RowDescription's body.
    static func all(_ body: UnsafeRawBufferPointer) throws(ProtocolFailure) -> [Self] {
        var reader = MessageReader(body, "RowDescription")
        var columns: [Self] = []
        // A name's end and 18 bytes of figures.
        for _ in 0..<(try reader.count(ofAtLeast: 19)) {
            columns.append(
                Self(
                    name: try reader.text(), table: try reader.oid(), number: try reader.int16(), type: try reader.oid(),
                    size: try reader.int16(), modifier: try reader.int32(), format: try reader.int16()))
        }
        try reader.end()
        return columns
    }

    func write(_ writer: inout MessageWriter) {
        writer.put(name)
        writer.put(oid: table)
        writer.put(number)
        writer.put(oid: type)
        writer.put(size)
        writer.put(modifier)
        writer.put(format)
    }
}

extension BackendMessage.Authentication {
    init(_ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        var reader = MessageReader(body, "Authentication")
        let code = try reader.int32()
        switch code {
        case 0: self = .ok
        case 2: self = .kerberosV5
        case 3: self = .cleartextPassword
        case 5: self = .md5Password(salt: try reader.oid())
        case 7: self = .gss
        case 8: self = .gssContinue(reader.rest())
        case 9: self = .sspi
        case 10:
            var mechanisms: [WireText] = []
            while true {
                let name = try reader.text()
                if name.bytes.isEmpty { break }
                mechanisms.append(name)
            }
            self = .sasl(mechanisms: mechanisms)
        case 11: self = .saslContinue(reader.rest())
        case 12: self = .saslFinal(reader.rest())
        default: self = .other(code, reader.rest())
        }
        try reader.end()
    }

    func write(_ writer: inout MessageWriter) {
        switch self {
        case .ok: writer.put(Int32(0))
        case .kerberosV5: writer.put(Int32(2))
        case .cleartextPassword: writer.put(Int32(3))
        case .md5Password(let salt):
            writer.put(Int32(5))
            writer.put(oid: salt)
        case .gss: writer.put(Int32(7))
        case .gssContinue(let bytes):
            writer.put(Int32(8))
            writer.put(bytes)
        case .sspi: writer.put(Int32(9))
        case .sasl(let mechanisms):
            writer.put(Int32(10))
            for name in mechanisms where !name.bytes.isEmpty { writer.put(name) }
            writer.put(UInt8(0))
        case .saslContinue(let bytes):
            writer.put(Int32(11))
            writer.put(bytes)
        case .saslFinal(let bytes):
            writer.put(Int32(12))
            writer.put(bytes)
        case .other(let code, let bytes):
            writer.put(code)
            writer.put(bytes)
        }
    }
}
