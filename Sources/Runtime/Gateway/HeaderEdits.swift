import Basics
import HTTP
import Topology

/// A route's edits of header fields, prepared: names to leave out, lines to add.
struct HeaderEdits: Sendable {
    /// Lower case; fields that are set are left out as they came.
    private let leftOut: [[UInt8]]
    let lines: [UInt8]

    /// `besides`: names, in lower case, that are left out for another reason.
    init(_ spec: HeaderEditSpec, besides: [String] = []) {
        leftOut = (spec.remove + besides).map { Array($0.utf8) } + spec.set.map { Array($0.name.lowercased().utf8) }
        lines = (spec.set + spec.add).flatMap { Array("\($0.name): \($0.value)\r\n".utf8) }
    }

    var isEmpty: Bool { leftOut.isEmpty && lines.isEmpty }

    /// Of one of the gateway's own fields, in lower case.
    func leavesOut(_ name: StaticString) -> Bool { leavesOut(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)) }

    func leavesOut(_ name: UnsafeRawBufferPointer) -> Bool {
        for wanted in leftOut where wanted.count == name.count && wanted.withUnsafeBytes({ equalIgnoringCase($0, name) }) { return true }
        return false
    }
}
