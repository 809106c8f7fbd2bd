import JSONCoding
import ProtobufCoding

extension OTLP {
    /// Visits every record of an export request in OTLP's JSON form, as `visit` does of the protobuf form: each record becomes its protobuf
    /// form by itself, so that a wrong one costs only itself. Throws when the body is no request at all, or when the budget is spent.
    public static func visit(
        json root: JSONElement, _ signal: Signal, _ work: inout WorkBudget,
        _ body: (Surroundings, UnsafeRawBufferPointer, inout WorkBudget) throws(ProtobufFailure) -> Void
    ) throws(ProtobufFailure) {
        guard root.kind == .object else { throw ProtobufFailure("the body must be an object, not \(root.kind.article)") }
        let name = signal == .traces ? "resourceSpans" : "resourceLogs"
        var resources = JSONWalk(signal == .traces ? root["resourceSpans"] : root["resourceLogs"], name)
        if let problem = resources.problem { throw problem }
        while let resource = try resources.next(&work) {
            var around = Surroundings.none
            around.resourceNumber = resources.index
            try work.spend(resourceWork)
            guard resource.kind == .object else {
                around.problem = resources.wrong(resource)
                try body(around, UnsafeRawBufferPointer(start: nil, count: 0), &work)
                continue
            }
            let (bytes, schema, problem) = try envelope(resource, resource["resource"], Message.resource, "resource", &work)
            around.problem = problem?.inside(resources.place)
            try lend(bytes) { (bytes) throws(ProtobufFailure) in
                around.resource = bytes
                around.resourceSchema = schema
                let list = signal == .traces ? resource["scopeSpans"] : resource["scopeLogs"]
                try visitScopes(
                    JSONWalk(list, "\(resources.place).scope\(signal == .traces ? "Spans" : "Logs")"), around, signal, &work, body)
            }
        }
    }

    private static func visitScopes(
        _ list: JSONWalk, _ around: Surroundings, _ signal: Signal, _ work: inout WorkBudget, _ body: CountingVisitor
    ) throws(ProtobufFailure) {
        var scopes = list, around = around
        if let problem = scopes.problem {
            around.problem = around.problem ?? problem
            return try body(around, UnsafeRawBufferPointer(start: nil, count: 0), &work)
        }
        while let scope = try scopes.next(&work) {
            var inner = around
            inner.scopeNumber = scopes.index
            try work.spend(scopeWork)
            guard scope.kind == .object else {
                inner.problem = inner.problem ?? scopes.wrong(scope)
                try body(inner, UnsafeRawBufferPointer(start: nil, count: 0), &work)
                continue
            }
            let (bytes, schema, problem) = try envelope(scope, scope["scope"], Message.scope, "scope", &work)
            inner.problem = inner.problem ?? problem?.inside(scopes.place)
            try lend(bytes) { (bytes) throws(ProtobufFailure) in
                inner.scope = bytes
                inner.scopeSchema = schema
                let name = signal == .traces ? "spans" : "logRecords"
                let records = JSONWalk(signal == .traces ? scope["spans"] : scope["logRecords"], "\(scopes.place).\(name)")
                try visitRecords(records, inner, signal, &work, body)
            }
        }
    }

    private static func visitRecords(
        _ list: JSONWalk, _ around: Surroundings, _ signal: Signal, _ work: inout WorkBudget, _ body: CountingVisitor
    ) throws(ProtobufFailure) {
        var records = list
        func spoilt(_ problem: ProtobufFailure) throws(ProtobufFailure) {
            var around = around
            around.problem = around.problem ?? problem
            try body(around, UnsafeRawBufferPointer(start: nil, count: 0), &work)
        }
        if let problem = records.problem { return try spoilt(problem) }
        while let record = try records.next(&work) {
            let bytes: [UInt8]
            do throws(ProtobufFailure) { bytes = try schema.encode(record, as: signal.record, &work) } catch {
                if work.isSpent { throw error }
                try spoilt(error)
                continue
            }
            try lend(bytes) { (bytes) throws(ProtobufFailure) in try body(around, bytes, &work) }
        }
    }

    /// The protobuf form of a resource or scope, its schema URL, and what is wrong with them.
    private static func envelope(
        _ holder: JSONElement, _ part: JSONElement?, _ kind: Int, _ name: String, _ work: inout WorkBudget
    ) throws(ProtobufFailure) -> ([UInt8], UnsafeRawBufferPointer, ProtobufFailure?) {
        let none = UnsafeRawBufferPointer(start: nil, count: 0)
        var url = none
        if let given = holder["schemaUrl"], !given.isNull {
            guard let text = given.stringBytes else {
                return ([], none, ProtobufFailure("must be a string, not \(given.kind.article)").inside("schemaUrl"))
            }
            url = text
        }
        guard let part, !part.isNull else { return ([], url, nil) }
        do throws(ProtobufFailure) { return (try schema.encode(part, as: kind, &work), url, nil) } catch {
            if work.isSpent { throw error }
            return ([], url, error.inside(name))
        }
    }

    private static func lend(_ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws(ProtobufFailure) -> Void) throws(ProtobufFailure) {
        var failure: ProtobufFailure?
        bytes.withUnsafeBytes { raw in do throws(ProtobufFailure) { try body(raw) } catch { failure = error } }
        if let failure { throw failure }
    }
}

/// One list of the JSON form, walked element by element.
private struct JSONWalk {
    private var entries: JSONEntries?
    private let name: String
    private(set) var index = -1
    /// Why the list cannot be read: it is there, and is no list.
    private(set) var problem: ProtobufFailure?

    init(_ list: JSONElement?, _ name: String) {
        self.name = name
        guard let list, !list.isNull else { return }
        if list.kind == .array {
            entries = list.entries
        } else {
            problem = ProtobufFailure("must be an array, not \(list.kind.article)").inside(name)
        }
    }

    /// The place of the element that was given last.
    var place: String { "\(name)[\(index)]" }

    func wrong(_ element: JSONElement) -> ProtobufFailure {
        ProtobufFailure("must be an object, not \(element.kind.article)").inside(place)
    }

    mutating func next(_ work: inout WorkBudget) throws(ProtobufFailure) -> JSONElement? {
        guard let next = entries?.next() else { return nil }
        index += 1
        try work.spend()
        return next.value
    }
}
