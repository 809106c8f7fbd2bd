import Basics
import ProtobufCoding

extension OTLP {
    /// A record's surroundings: its resource and its scope. The buffers live as long as the request's bytes, and at least during the visit.
    public struct Surroundings {
        public var resource: UnsafeRawBufferPointer
        public var scope: UnsafeRawBufferPointer
        /// Schema URLs of the resource and of the scope; empty where there is none.
        public var resourceSchema = UnsafeRawBufferPointer(start: nil, count: 0)
        public var scopeSchema = UnsafeRawBufferPointer(start: nil, count: 0)
        /// Changes with each resource; records of one resource have the same number.
        public var resourceNumber: Int
        /// Changes with each scope; records of one scope have the same number.
        public var scopeNumber: Int
        /// Why the record cannot be taken, whatever it says itself: its resource, its scope or its place is wrong.
        public var problem: ProtobufFailure?

        public init(resource: UnsafeRawBufferPointer, scope: UnsafeRawBufferPointer, resourceNumber: Int, scopeNumber: Int) {
            self.resource = resource
            self.scope = scope
            self.resourceNumber = resourceNumber
            self.scopeNumber = scopeNumber
        }

        static var none: Surroundings {
            let empty = UnsafeRawBufferPointer(start: nil, count: 0)
            return Surroundings(resource: empty, scope: empty, resourceNumber: 0, scopeNumber: 0)
        }
    }

    /// Called with each record and what stands around it.
    public typealias Visitor = (Surroundings, UnsafeRawBufferPointer) throws(ProtobufFailure) -> Void
    typealias CountingVisitor = (Surroundings, UnsafeRawBufferPointer, inout WorkBudget) throws(ProtobufFailure) -> Void

    /// The cost of opening a resource and a scope, in parts of the budget: as much time as so many fields take.
    static let resourceWork = 16
    static let scopeWork = 8

    /// Visits every record of an export request in its order, each with what stands around it. A record that something around it spoils
    /// (its resource is malformed, or it is no message) has a `problem`.
    public static func visit(_ request: UnsafeRawBufferPointer, _ signal: Signal, _ body: Visitor) throws(ProtobufFailure) {
        var work = WorkBudget()
        try visit(request, signal, &work) { (around, record, _) throws(ProtobufFailure) in try body(around, record) }
    }

    /// The same within a budget. Throws when the frame of the request is broken, so that nobody can tell where its records end, or when the
    /// budget is spent; what is wrong inside a resource, a scope or a record costs only the records that it concerns.
    public static func visit(
        _ request: UnsafeRawBufferPointer, _ signal: Signal, _ work: inout WorkBudget,
        _ body: (Surroundings, UnsafeRawBufferPointer, inout WorkBudget) throws(ProtobufFailure) -> Void
    ) throws(ProtobufFailure) {
        var outer = ProtobufReader(request)
        var number = 0
        while let field = try outer.next() {
            try work.spend()
            guard field.number == 1 else { continue }
            if field.wire == .bytes {
                try visitResource(field.bytes, signal, number, &work, body)
            } else {
                try spoilt("resource\(signal == .traces ? "Spans" : "Logs") has the wrong wire type", .none, &work, body)
            }
            number += 1
        }
    }

    private static func spoilt(_ reason: String, _ around: Surroundings, _ work: inout WorkBudget, _ body: CountingVisitor)
        throws(ProtobufFailure)
    {
        var around = around
        around.problem = around.problem ?? ProtobufFailure(reason)
        try body(around, UnsafeRawBufferPointer(start: nil, count: 0), &work)
    }

    private static func visitResource(
        _ bytes: UnsafeRawBufferPointer, _ signal: Signal, _ number: Int, _ work: inout WorkBudget, _ body: CountingVisitor
    ) throws(ProtobufFailure) {
        try work.spend(resourceWork)
        let resource = try Envelope(bytes, as: Message.resource, "resource", &work)
        defer { resource.free() }
        var around = Surroundings(resource: resource.bytes, scope: .init(start: nil, count: 0), resourceNumber: number, scopeNumber: -1)
        around.resourceSchema = resource.schema
        around.problem = resource.problem
        var reader = ProtobufReader(bytes)
        while let field = try reader.next() {
            guard field.number == 2 else { continue }
            around.scopeNumber += 1
            if field.wire == .bytes {
                try visitScope(field.bytes, around, &work, body)
            } else {
                try spoilt("the list of scopes has the wrong wire type", around, &work, body)
            }
        }
    }

    private static func visitScope(
        _ bytes: UnsafeRawBufferPointer, _ around: Surroundings, _ work: inout WorkBudget, _ body: CountingVisitor
    ) throws(ProtobufFailure) {
        try work.spend(scopeWork)
        let scope = try Envelope(bytes, as: Message.scope, "scope", &work)
        defer { scope.free() }
        var around = around
        around.scope = scope.bytes
        around.scopeSchema = scope.schema
        around.problem = around.problem ?? scope.problem
        var reader = ProtobufReader(bytes)
        while let record = try reader.next() {
            guard record.number == 2 else { continue }
            if record.wire == .bytes {
                try body(around, record.bytes, &work)
            } else {
                try spoilt("the list of records has the wrong wire type", around, &work, body)
            }
        }
    }

    /// Field 1 of a ResourceSpans or a ScopeSpans (the resource or scope), and field 3 (its schema URL).
    private struct Envelope {
        private(set) var bytes = UnsafeRawBufferPointer(start: nil, count: 0)
        private(set) var schema = UnsafeRawBufferPointer(start: nil, count: 0)
        private(set) var problem: ProtobufFailure?
        private var owned: UnsafeMutableRawBufferPointer?

        func free() { owned?.deallocate() }

        /// A message that comes in parts is the parts one after the other: that is how protobuf merges. It may also come last. Throws when
        /// the frame is broken or the budget is spent; anything else is the envelope's problem.
        init(_ message: UnsafeRawBufferPointer, as kind: Int, _ name: StaticString, _ work: inout WorkBudget) throws(ProtobufFailure) {
            var found: [UnsafeRawBufferPointer] = []
            var reader = ProtobufReader(message)
            while let field = try reader.next() {
                try work.spend()
                guard field.number == 1 || field.number == 3 else { continue }
                if field.wire != .bytes {
                    problem = ProtobufFailure("its \(field.number == 1 ? "\(name)" : "schemaUrl") has the wrong wire type")
                } else if field.number == 1 {
                    found.append(field.bytes)
                } else {
                    schema = field.bytes
                }
            }
            if found.count == 1 {
                bytes = found[0]
            } else if found.count > 1 {
                let whole = UnsafeMutableRawBufferPointer.allocate(byteCount: found.reduce(0) { $0 + $1.count }, alignment: 1)
                var at = 0
                for piece in found {
                    UnsafeMutableRawBufferPointer(rebasing: whole[at..<at + piece.count]).copyMemory(from: piece)
                    at += piece.count
                }
                (bytes, owned) = (UnsafeRawBufferPointer(whole), whole)
            }
            if !schema.isValidUTF8 { problem = problem ?? ProtobufFailure("its \(name)'s schemaUrl is not UTF-8") }
            do throws(ProtobufFailure) { try OTLP.schema.check(bytes, as: kind, &work) } catch {
                if work.isSpent {
                    free()
                    throw error
                }
                problem = problem ?? error.inside("its \(name)")
            }
        }
    }
}
