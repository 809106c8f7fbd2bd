import Basics

/// What a client sends once a connection is begun, in version 3.0 of the protocol: every message, in both directions. The first messages of
/// a connection are `OpeningMessage`.
public enum FrontendMessage: Hashable, Sendable {
    case bind(Bind)
    case close(Subject)
    case copyData([UInt8])
    case copyDone
    case copyFail(WireText)
    case describe(Subject)
    /// `rows`: most rows to be sent before the portal is suspended; 0 is all.
    case execute(portal: WireText, rows: Int32)
    case flush
    case functionCall(FunctionCall)
    case parse(name: WireText, text: WireText, types: [UInt32])
    /// The answer to a question for a proof: a password with a zero byte behind it, or SASL's or GSS's bytes. Which of them it is follows
    /// from the question; see `SASLFirst`.
    case proof([UInt8])
    case query(WireText)
    case sync
    case terminate

    /// A prepared statement or a portal.
    public enum Subject: Hashable, Sendable {
        case statement(WireText)
        case portal(WireText)
    }

    public struct Bind: Hashable, Sendable {
        public var portal: WireText
        public var statement: WireText
        /// None: all are text. One: it holds for all. Else one for each.
        public var formats: [Int16]
        public var values: [[UInt8]?]
        /// As `formats`, for the columns of the answer.
        public var resultFormats: [Int16]

        public init(
            portal: WireText = "", statement: WireText = "", formats: [Int16] = [], values: [[UInt8]?] = [], resultFormats: [Int16] = []
        ) {
            self.portal = portal
            self.statement = statement
            self.formats = formats
            self.values = values
            self.resultFormats = resultFormats
        }
    }

    /// A call of a function by its OID, which the protocol keeps for old clients.
    public struct FunctionCall: Hashable, Sendable {
        public var function: UInt32
        public var formats: [Int16]
        public var values: [[UInt8]?]
        public var resultFormat: Int16

        public init(function: UInt32, formats: [Int16], values: [[UInt8]?], resultFormat: Int16) {
            self.function = function
            self.formats = formats
            self.values = values
            self.resultFormat = resultFormat
        }
    }

    /// The first word of SASL: the mechanism that the client chose, and what it begins with.
    public struct SASLFirst: Hashable, Sendable {
        public var mechanism: WireText
        public var data: [UInt8]?

        public init(mechanism: WireText, data: [UInt8]?) {
            self.mechanism = mechanism
            self.data = data
        }

        /// Reads the bytes of a `proof`.
        public init(_ proof: [UInt8]) throws(ProtocolFailure) {
            self = try proof.withUnsafeBytesOfMessage { (bytes) throws(ProtocolFailure) in
                var reader = MessageReader(bytes, "SASLInitialResponse")
                let first = SASLFirst(mechanism: try reader.text(), data: try reader.value())
                try reader.end()
                return first
            }
        }

        /// The bytes of a `proof`.
        public var proof: [UInt8] {
            var writer = MessageWriter()
            writer.put(mechanism)
            writer.put(value: data)
            return Array(writer.bytes)
        }
    }

    /// The message of this kind with this body.
    public init(kind: UInt8, _ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        switch kind {
        case 66: self = .bind(try Bind(body))
        case 67, 68:
            var reader = MessageReader(body, kind == 67 ? "Close" : "Describe")
            let letter = try reader.byte(), name = try reader.text()
            guard letter == 83 || letter == 80 else { throw reader.failure("it is of \(letter), neither a statement nor a portal") }
            try reader.end()
            let subject: Subject = letter == 83 ? .statement(name) : .portal(name)
            self = kind == 67 ? .close(subject) : .describe(subject)
        case 100: self = .copyData(Array(body))
        case 102, 81:
            var reader = MessageReader(body, kind == 102 ? "CopyFail" : "Query")
            let text = try reader.text()
            try reader.end()
            self = kind == 102 ? .copyFail(text) : .query(text)
        case 69:
            var reader = MessageReader(body, "Execute")
            self = .execute(portal: try reader.text(), rows: try reader.int32())
            try reader.end()
        case 70: self = .functionCall(try FunctionCall(body))
        case 80:
            var reader = MessageReader(body, "Parse")
            let name = try reader.text(), text = try reader.text()
            var types: [UInt32] = []
            for _ in 0..<(try reader.count(ofAtLeast: 4)) { types.append(try reader.oid()) }
            try reader.end()
            self = .parse(name: name, text: text, types: types)
        case 112: self = .proof(Array(body))
        case 99, 72, 83, 88:
            try MessageReader(body, "a message without a body").end()
            self = kind == 99 ? .copyDone : kind == 72 ? .flush : kind == 83 ? .sync : .terminate
        default: throw ProtocolFailure("a client sends no message \(MessageFrame.name(kind))")
        }
    }

    /// The message's letter.
    public var kind: UInt8 {
        switch self {
        case .bind: 66
        case .close: 67
        case .copyData: 100
        case .copyDone: 99
        case .copyFail: 102
        case .describe: 68
        case .execute: 69
        case .flush: 72
        case .functionCall: 70
        case .parse: 80
        case .proof: 112
        case .query: 81
        case .sync: 83
        case .terminate: 88
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
        case .bind(let bind): bind.write(&writer)
        case .close(let subject), .describe(let subject):
            switch subject {
            case .statement(let name):
                writer.put(UInt8(83))
                writer.put(name)
            case .portal(let name):
                writer.put(UInt8(80))
                writer.put(name)
            }
        case .copyData(let bytes), .proof(let bytes): writer.put(bytes)
        case .copyDone, .flush, .sync, .terminate: break
        case .copyFail(let text), .query(let text): writer.put(text)
        case .execute(let portal, let rows):
            writer.put(portal)
            writer.put(rows)
        case .functionCall(let call): call.write(&writer)
        case .parse(let name, let text, let types):
            writer.put(name)
            writer.put(text)
            writer.put(count: types.count)
            for type in types { writer.put(oid: type) }
        }
        writer.end()
    }
}

extension FrontendMessage.Bind {
    init(_ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        var reader = MessageReader(body, "Bind")
        self.init(portal: try reader.text(), statement: try reader.text())
        for _ in 0..<(try reader.count(ofAtLeast: 2)) { formats.append(try reader.int16()) }
        for _ in 0..<(try reader.count(ofAtLeast: 4)) { values.append(try reader.value()) }
        for _ in 0..<(try reader.count(ofAtLeast: 2)) { resultFormats.append(try reader.int16()) }
        guard formats.count <= 1 || formats.count == values.count else {
            throw reader.failure("\(formats.count) formats for \(values.count) values")
        }
        try reader.end()
    }

    func write(_ writer: inout MessageWriter) {
        writer.put(portal)
        writer.put(statement)
        writer.put(count: formats.count)
        for format in formats { writer.put(format) }
        writer.put(count: values.count)
        for value in values { writer.put(value: value) }
        writer.put(count: resultFormats.count)
        for format in resultFormats { writer.put(format) }
    }
}

extension FrontendMessage.FunctionCall {
    init(_ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        var reader = MessageReader(body, "FunctionCall")
        self.init(function: try reader.oid(), formats: [], values: [], resultFormat: 0)
        for _ in 0..<(try reader.count(ofAtLeast: 2)) { formats.append(try reader.int16()) }
        for _ in 0..<(try reader.count(ofAtLeast: 4)) { values.append(try reader.value()) }
        resultFormat = try reader.int16()
        try reader.end()
    }

    func write(_ writer: inout MessageWriter) {
        writer.put(oid: function)
        writer.put(count: formats.count)
        for format in formats { writer.put(format) }
        writer.put(count: values.count)
        for value in values { writer.put(value: value) }
        writer.put(resultFormat)
    }
}

extension [UInt8] {
    /// `withUnsafeBytes` for a closure that throws what a message's reader does.
    func withUnsafeBytesOfMessage<T>(_ body: (UnsafeRawBufferPointer) throws(ProtocolFailure) -> T) throws(ProtocolFailure) -> T {
        let result: Result<T, ProtocolFailure> = withUnsafeBytes { bytes in
            do throws(ProtocolFailure) { return .success(try body(bytes)) } catch { return .failure(error) }
        }
        return try result.get()
    }
}
