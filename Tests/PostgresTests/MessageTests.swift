import Basics
import TestSupport
import Testing

@testable import Postgres

/// Every message of both directions: written and read back, cut short, and changed by chance.
@Suite struct MessageTests {
    static let backend: [BackendMessage] = [
        .authentication(.ok), .authentication(.kerberosV5), .authentication(.cleartextPassword),
        .authentication(.md5Password(salt: 0xDEAD_BEEF)), .authentication(.gss), .authentication(.gssContinue([1, 2])),
        .authentication(.sspi),
        .authentication(.sasl(mechanisms: ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])), .authentication(.saslContinue([114, 61])),
        .authentication(.saslFinal([])), .authentication(.other(99, [7])), .backendKeyData(process: 4711, secret: -1), .bindComplete,
        .closeComplete, .commandComplete("INSERT 0 1"), .copyBothResponse(.init(isBinary: false, columns: [])), .copyData([0, 255]),
        .copyDone, .copyInResponse(.init(isBinary: true, columns: [1, 1])), .copyOutResponse(.init(isBinary: false, columns: [0])),
        .dataRow(DataRow([[1], nil, []])), .dataRow(DataRow([])), .emptyQueryResponse,
        .errorResponse(ServerMessage(severity: "ERROR", state: "42601", "no", detail: "d", hint: "h")), .functionCallResponse([3]),
        .functionCallResponse(nil), .negotiateProtocolVersion(minor: 0, unknown: ["_pq_.x"]), .noData,
        .noticeResponse(ServerMessage(severity: "NOTICE", state: "00000", "so")),
        .notificationResponse(process: 1, channel: "c", payload: WireText(bytes: [255, 254])), .parameterDescription([23, 25]),
        .parameterStatus(name: "TimeZone", value: "UTC"), .parseComplete, .portalSuspended, .readyForQuery(.idle), .readyForQuery(.open),
        .readyForQuery(.failed), .rowDescription([.init(name: "a", table: 5, number: 1, type: 23, size: 4), .init(name: "")]),
    ]

    static let frontend: [FrontendMessage] = [
        .bind(.init(portal: "p", statement: "s", formats: [0, 1], values: [[49], nil], resultFormats: [1])), .bind(.init()),
        .bind(.init(values: Array(repeating: nil, count: 65_535))), .close(.statement("s")), .close(.portal("")), .copyData([1]), .copyDone,
        .copyFail("why"), .describe(.statement("")), .describe(.portal("p")), .execute(portal: "", rows: 7), .flush,
        .functionCall(.init(function: 5, formats: [1], values: [[1], nil], resultFormat: 1)),
        .parse(name: "n", text: "SELECT $1", types: [0, 23]),
        .proof(Array("secret\0".utf8)), .query("SELECT 1; \u{fc}"), .query(WireText(bytes: [0xFC])), .sync, .terminate,
    ]

    static let opening: [OpeningMessage] = [
        .startup(.init(parameters: [.init(name: "user", value: "u"), .init(name: "database", value: "")])),
        .startup(.init(minor: 2, parameters: [])),
        .tlsRequest, .gssRequest, .cancel(process: 7, secret: .min),
    ]

    private func read(backend bytes: [UInt8]) throws -> BackendMessage? {
        try bytes.withUnsafeBytesOfMessage { (all) throws(ProtocolFailure) in
            guard let frame = try MessageFrame.next(all, limit: 1 << 20) else { return nil }
            #expect(frame.body.upperBound == all.count)
            return try BackendMessage(kind: frame.kind, all.part(frame.body.lowerBound, frame.body.count))
        }
    }

    private func read(frontend bytes: [UInt8]) throws -> FrontendMessage? {
        try bytes.withUnsafeBytesOfMessage { (all) throws(ProtocolFailure) in
            guard let frame = try MessageFrame.next(all, limit: 1 << 20) else { return nil }
            return try FrontendMessage(kind: frame.kind, all.part(frame.body.lowerBound, frame.body.count))
        }
    }

    @Test(arguments: backend) func aServersMessageIsReadAsItWasWritten(message: BackendMessage) throws {
        let bytes = message.encoded
        #expect(try read(backend: bytes) == message)
        // Cut short: nothing has come whole. With the length that fits the cut: a failure, or another message that is written the same way.
        for end in 0..<bytes.count { #expect(try read(backend: Array(bytes[..<end])) == nil) }
        for end in 5..<bytes.count {
            var cut = Array(bytes[..<end])
            withUnsafeBytes(of: UInt32(end - 1).bigEndian) { cut.replaceSubrange(1..<5, with: $0) }
            if let other = try? read(backend: cut) { #expect(other.encoded == cut) }
        }
    }

    @Test(arguments: frontend) func aClientsMessageIsReadAsItWasWritten(message: FrontendMessage) throws {
        let bytes = message.encoded
        #expect(try read(frontend: bytes) == message)
        for end in 0..<min(bytes.count, 100) { #expect(try read(frontend: Array(bytes[..<end])) == nil) }
    }

    @Test(arguments: opening) func aFirstMessageIsReadAsItWasWritten(message: OpeningMessage) throws {
        let bytes = message.encoded
        let read = try bytes.withUnsafeBytesOfMessage { (all) throws(ProtocolFailure) in
            let frame = try MessageFrame.opening(all, limit: OpeningMessage.limit)
            return try OpeningMessage(all.part(frame!.body.lowerBound, frame!.body.count))
        }
        #expect(read == message)
    }

    @Test func lengthsAreRefusedAsSoonAsTheyCome() {
        func frame(_ bytes: [UInt8]) throws -> MessageFrame? {
            try bytes.withUnsafeBytesOfMessage { (all) throws(ProtocolFailure) in try MessageFrame.next(all, limit: 1000) }
        }
        for (length, isTooLarge) in [
            (UInt32(3), false), (0, false), (.max, false), (0x8000_0000, false), (0x7FFF_FFFF, true), (1005, true),
        ] {
            let bytes = withUnsafeBytes(of: length.bigEndian) { [68] + Array($0) }
            let failure = #expect(throws: ProtocolFailure.self) { try frame(bytes) }
            #expect(failure?.isTooLarge == isTooLarge && failure?.reason.contains("'D'") == true)
        }
        #expect(throws: Never.self) { try frame([68, 0, 0, 3, 236]) }
    }

    @Test func aTextEndsAtItsFirstZeroByte() throws {
        #expect(FrontendMessage.query(WireText(bytes: [65, 0, 66])).encoded == FrontendMessage.query("A").encoded)
    }

    @Test func theFirstWordOfSASLIsInsideAProof() throws {
        let first = FrontendMessage.SASLFirst(mechanism: "SCRAM-SHA-256", data: [110, 44])
        #expect(try FrontendMessage.SASLFirst(first.proof) == first)
        #expect(throws: ProtocolFailure.self) { try FrontendMessage.SASLFirst([65, 0, 0, 0, 0, 9]) }
    }
}
