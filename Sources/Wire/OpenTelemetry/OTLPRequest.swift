import Basics
import ProtobufCoding

extension OTLP {
    /// What stands around a record. The buffers live as long as the request's bytes, and at least during the visit.
    public struct Surroundings {
        public let resource: UnsafeRawBufferPointer
        public let scope: UnsafeRawBufferPointer
        /// Changes with each resource; records of one resource have the same number.
        public let resourceNumber: Int
        /// The same of scopes.
        public let scopeNumber: Int

        public init(resource: UnsafeRawBufferPointer, scope: UnsafeRawBufferPointer, resourceNumber: Int, scopeNumber: Int) {
            self.resource = resource
            self.scope = scope
            self.resourceNumber = resourceNumber
            self.scopeNumber = scopeNumber
        }
    }

    /// Visits every record of an export request in its order. Envelopes, resources and scopes are checked here to their innermost field;
    /// what is in a record is the visitor's to check, so that one bad record does not cost the others.
    public static func visit(
        _ request: UnsafeRawBufferPointer, _ signal: Signal, _ body: (Surroundings, UnsafeRawBufferPointer) throws(ProtobufFailure) -> Void
    ) throws(ProtobufFailure) {
        var outer = ProtobufReader(request)
        var number = 0
        while let field = try outer.next() {
            guard field.number == 1 else { continue }
            guard field.wire == .bytes else {
                throw ProtobufFailure("resource\(signal == .traces ? "Spans" : "Logs") has the wrong wire type")
            }
            try visitResource(field.bytes, signal, number, body)
            number += 1
        }
    }

    private static func visitResource(
        _ bytes: UnsafeRawBufferPointer, _ signal: Signal, _ number: Int,
        _ body: (Surroundings, UnsafeRawBufferPointer) throws(ProtobufFailure) -> Void
    ) throws(ProtobufFailure) {
        // A message that comes in parts is the parts one after the other: that is how protobuf merges. It may also come last.
        let resource = try part(1, of: bytes, as: Message.resource, "resource")
        defer { resource.free() }
        var reader = ProtobufReader(bytes)
        var scopes = 0
        while let field = try reader.next() {
            guard field.number == 2 else { continue }
            guard field.wire == .bytes else { throw ProtobufFailure("the list of scopes has the wrong wire type") }
            let scope = try part(1, of: field.bytes, as: Message.scope, "scope")
            defer { scope.free() }
            let around = Surroundings(resource: resource.bytes, scope: scope.bytes, resourceNumber: number, scopeNumber: scopes)
            scopes += 1
            var inner = ProtobufReader(field.bytes)
            while let record = try inner.next() {
                guard record.number == 2 else { continue }
                guard record.wire == .bytes else { throw ProtobufFailure("the list of records has the wrong wire type") }
                try body(around, record.bytes)
            }
        }
    }

    private struct Part {
        let bytes: UnsafeRawBufferPointer
        let owned: UnsafeMutableRawBufferPointer?
        func free() { owned?.deallocate() }
    }

    private static func part(_ number: Int, of message: UnsafeRawBufferPointer, as kind: Int, _ name: String) throws(ProtobufFailure)
        -> Part
    {
        var found: [UnsafeRawBufferPointer] = []
        var reader = ProtobufReader(message)
        while let field = try reader.next() {
            guard field.number == number else { continue }
            guard field.wire == .bytes else { throw ProtobufFailure("\(name) has the wrong wire type") }
            found.append(field.bytes)
        }
        let part: Part
        if found.count == 1 {
            part = Part(bytes: found[0], owned: nil)
        } else if found.isEmpty {
            part = Part(bytes: UnsafeRawBufferPointer(start: nil, count: 0), owned: nil)
        } else {
            let whole = UnsafeMutableRawBufferPointer.allocate(byteCount: found.reduce(0) { $0 + $1.count }, alignment: 1)
            var at = 0
            for piece in found {
                UnsafeMutableRawBufferPointer(rebasing: whole[at..<at + piece.count]).copyMemory(from: piece)
                at += piece.count
            }
            part = Part(bytes: UnsafeRawBufferPointer(whole), owned: whole)
        }
        do throws(ProtobufFailure) { try schema.check(part.bytes, as: kind) } catch {
            part.free()
            throw error
        }
        return part
    }
}
