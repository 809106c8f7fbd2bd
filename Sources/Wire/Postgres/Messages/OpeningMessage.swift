import Basics

/// What a client sends first on a connection: these messages have no letter, only a length and a number.
public enum OpeningMessage: Hashable, Sendable {
    /// The protocol's version and the session's parameters: `user`, `database`, `options` and settings by their names.
    case startup(Startup)
    /// Asks for TLS: the server answers with the single byte `S` or `N`.
    case tlsRequest
    /// Asks for encryption by GSSAPI: the single byte `G` or `N`.
    case gssRequest
    /// Asks the server, on a connection of its own, to cancel what the session with this key does.
    case cancel(process: Int32, secret: Int32)

    public struct Startup: Hashable, Sendable {
        public struct Parameter: Hashable, Sendable {
            public let name: WireText
            public let value: WireText

            public init(name: WireText, value: WireText) {
                self.name = name
                self.value = value
            }
        }

        public var major: Int16
        public var minor: Int16
        public var parameters: [Parameter]

        public init(major: Int16 = 3, minor: Int16 = 0, parameters: [Parameter]) {
            self.major = major
            self.minor = minor
            self.parameters = parameters
        }

        /// The value of the last parameter of this name.
        public subscript(name: String) -> WireText? { parameters.last { $0.name.string == name }?.value }
    }

    /// Most bytes of such a message, as PostgreSQL itself takes (MAX_STARTUP_PACKET_LENGTH).
    public static let limit = 10_000

    private static let cancelCode: Int32 = 80_877_102
    private static let tlsCode: Int32 = 80_877_103
    private static let gssCode: Int32 = 80_877_104

    /// The message with this body.
    public init(_ body: UnsafeRawBufferPointer) throws(ProtocolFailure) {
        var reader = MessageReader(body, "the first message")
        let code = try reader.int32()
        switch code {
        case OpeningMessage.tlsCode: self = .tlsRequest
        case OpeningMessage.gssCode: self = .gssRequest
        case OpeningMessage.cancelCode: self = .cancel(process: try reader.int32(), secret: try reader.int32())
        default:
            var startup = Startup(
                major: Int16(truncatingIfNeeded: code >> 16), minor: Int16(truncatingIfNeeded: code), parameters: [])
            guard startup.major == 3 else {
                throw reader.failure("version \(startup.major).\(startup.minor) of the protocol; 3.0 is known")
            }
            while true {
                let name = try reader.text()
                if name.bytes.isEmpty { break }
                startup.parameters.append(Startup.Parameter(name: name, value: try reader.text()))
            }
            self = .startup(startup)
        }
        try reader.end()
    }

    /// The whole message as it goes over the wire.
    public var encoded: [UInt8] {
        var writer = MessageWriter()
        writer.begin(0)
        switch self {
        case .startup(let startup):
            writer.put(startup.major)
            writer.put(startup.minor)
            for parameter in startup.parameters where !parameter.name.bytes.isEmpty {
                writer.put(parameter.name)
                writer.put(parameter.value)
            }
            writer.put(UInt8(0))
        case .tlsRequest: writer.put(OpeningMessage.tlsCode)
        case .gssRequest: writer.put(OpeningMessage.gssCode)
        case .cancel(let process, let secret):
            writer.put(OpeningMessage.cancelCode)
            writer.put(process)
            writer.put(secret)
        }
        writer.end()
        return Array(writer.bytes)
    }
}
