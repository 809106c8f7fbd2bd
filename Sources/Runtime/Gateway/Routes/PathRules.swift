import Basics
import HTTP
import StackModel

/// Rules for the paths that may be asked for, however they are written.
enum PathRules {
    /// The target without its query.
    static func path(_ target: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard let question = target.firstIndex(of: 63) else { return target }
        return target.part(0, question)
    }

    /// Whether a target lies at or below a prefix: `/a` matches `/a`, `/a/b` and `/a?q`, not `/ab`; `/` matches everything. With
    /// `orParameters`, `/a;b` matches `/a;b;c` as well.
    static func begins(_ target: UnsafeRawBufferPointer, with prefix: [UInt8], orParameters: Bool = false) -> Bool {
        guard target.count >= prefix.count else { return false }
        for i in 0..<prefix.count where target[i] != prefix[i] { return false }
        if target.count == prefix.count || prefix.last == 47 { return true }
        let next = target[prefix.count]
        return next == 47 || next == 63 || (next == 59 && orParameters)
    }

    /// Whether a target lies below one of the denied paths, as it is written and in its simplest writing (see `PathForm`), in which a backend
    /// may read it.
    static func isDenied(_ target: UnsafeRawBufferPointer, _ deny: [DeniedPath]) -> Bool {
        for path in deny where begins(target, with: path.written) { return true }
        guard PathForm.maySimplify(target) else { return false }
        var readings = PathReadings(target)
        return deny.contains { path in readings[path.kept].withUnsafeBytes { path.isBelow($0) } }
    }
}

/// A path that is refused from outside, with everything below it.
struct DeniedPath: Sendable {
    let written: [UInt8]
    let simplest: [UInt8]
    let kept: PathForm.Kept

    init(_ written: [UInt8]) {
        self.written = written
        kept = PathReadings.kept(by: written)
        simplest = PathForm.simplified(written, keeping: kept)
    }

    func isBelow(_ reading: UnsafeRawBufferPointer) -> Bool { PathRules.begins(reading, with: simplest, orParameters: !kept.isEmpty) }
}

/// The simplest writings of one target, each made when it is first asked for.
struct PathReadings {
    private let target: UnsafeRawBufferPointer
    private var made: [[UInt8]?] = [nil, nil, nil, nil]

    /// `target` must stay where it is as long as this is used.
    init(_ target: UnsafeRawBufferPointer) { self.target = target }

    subscript(kept: PathForm.Kept) -> [UInt8] {
        mutating get {
            if let known = made[kept.rawValue] { return known }
            let form = PathForm.simplified(target, keeping: kept)
            made[kept.rawValue] = form
            return form
        }
    }

    /// What of a target is kept for the comparison with `pattern`: a path that names a parameter is compared with parameters.
    static func kept(by pattern: [UInt8]) -> PathForm.Kept {
        PathForm.simplified(pattern, keeping: .parameters).contains(59) ? .parameters : []
    }
}
