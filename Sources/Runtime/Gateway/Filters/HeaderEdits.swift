import Basics
import HTTP
import StackModel

/// A route's edits of header fields, prepared: names to leave out, lines to add.
struct HeaderEdits: Sendable {
    /// Names of fields to leave out, in lower case. A field that is set is left out as it came.
    private let leftOut: [[UInt8]]
    let lines: [UInt8]

    /// `besides`: names, in lower case, of fields that are left out for another reason.
    init(_ spec: HeaderEditSpec, besides: [String] = []) {
        leftOut = (spec.remove + besides).map { Array($0.utf8) } + spec.set.map { Array($0.name.lowercased().utf8) }
        lines = (spec.set + spec.add).flatMap { Array("\($0.name): \($0.value)\r\n".utf8) }
    }

    var isEmpty: Bool { leftOut.isEmpty && lines.isEmpty }

    /// Whether one of the gateway's own fields is left out; `name` is in lower case.
    func leavesOut(_ name: StaticString) -> Bool { leavesOut(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)) }

    func leavesOut(_ name: UnsafeRawBufferPointer) -> Bool {
        for wanted in leftOut where wanted.count == name.count && wanted.withUnsafeBytes({ equalIgnoringCase($0, name) }) { return true }
        return false
    }
}
