import Basics
import StackModel

/// What may stand in a stack file: the one description from which the reader, its suggestions and `muster schema` all work.
indirect enum ValueType: Sendable {
    case string
    /// A word of letters, digits and dashes.
    case name
    case integer(ClosedRange<Int>)
    case boolean
    /// A time from the first to the last; with `orZero` also 0, whose meaning the key's description says.
    case duration(ClosedRange<Duration>, orZero: Bool)
    /// `20%`
    case percent
    /// `512Mi`, `2Gi`, `64k`: bytes, from the first to the last.
    case size(ClosedRange<Int>)
    /// `500m` or `2`: thousandths of a core.
    case cpu
    /// `8080`, `127.0.0.1:8080`, `[::1]:8080`
    case address
    /// `3` or `3..20`
    case replicas
    /// A path that begins with `/`.
    case path
    /// A path that requests are compared with, or asked for instead: one that can be read in one way only. See `PathForm`.
    case pathPattern
    /// Letters, digits and what else RFC 9110 lets a field's name or a method have.
    case token
    /// `100/s`, `5/min`, `1000/h`
    case rate
    /// `70%` of what is requested, or so much of a `.cpu` or `.size`
    case usage(of: UsageKind)
    /// A number above 0, in thousandths: `800`, `0.5`.
    case amount
    /// `Mon-Fri 08:00-18:00`
    case hours
    /// `client-ip`, `route`, `header:NAME`
    case limitKey
    /// One of the words of `RouteSpec.balanceMethods`, `hash(header:NAME)` or `hash(cookie:NAME)`.
    case balance
    /// `10.0.0.0/8` or one address
    case range
    /// A regular expression that compiles.
    case regex
    case choice([String])
    /// A program with its arguments: a list of words, or one line.
    case command
    /// A list, or one value that stands for a list of one.
    case list(ValueType)
    /// Any name to a value.
    case map(ValueType)
    case object(ObjectSpec)
    /// A short form (any scalar type) or the full object, as in `- 127.0.0.1:9001` and `- { address: …, weight: 3 }`: the short form is
    /// the object's key named here.
    case objectOr(ObjectSpec, short: String)
}

extension ValueType {
    /// Ten years: more than this is no time that anybody waits, and still far from what a clock can count.
    static let longestTime = Duration.seconds(10 * 365 * 86400)
    /// 64 TiB, far from what 64 bits can count.
    static let largestSize = 1 << 46

    /// A time with bounds; `from: .zero` where the reader of the key has bounds of its own, or 0 is what the key's description says.
    static func time(from least: Duration, to most: Duration = longestTime, orZero: Bool = false) -> ValueType {
        .duration(least...most, orZero: orZero)
    }
    static var size: ValueType { .size(1...largestSize) }
}

/// What a replica may use a share of.
enum UsageKind: Sendable { case cpu, size }

struct ObjectSpec: Sendable {
    let title: String
    let keys: [KeySpec]
    /// Keys that begin with `x-` are for others, and ignored.
    let takesExtensions: Bool

    init(_ title: String, _ keys: [KeySpec], takesExtensions: Bool = false) {
        self.title = title
        self.keys = keys
        self.takesExtensions = takesExtensions
    }

    func key(_ name: String) -> KeySpec? { keys.first { $0.name == name } }
}

struct KeySpec: Sendable {
    let name: String
    let type: ValueType
    let isRequired: Bool
    let about: String

    init(_ name: String, _ type: ValueType, required: Bool = false, _ about: String) {
        self.name = name
        self.type = type
        isRequired = required
        self.about = about
    }
}

/// A value that has been checked against its type.
indirect enum Checked {
    case string(String)
    case integer(Int)
    case boolean(Bool)
    case duration(Duration)
    case fraction(Double)
    case range(ClosedRange<Int>)
    case address(ListenAddress)
    case list([Checked])
    case map([(name: String, value: Checked, line: Int, column: Int)])
    case object(CheckedObject)
}

/// The keys that were given, with their places.
struct CheckedObject {
    let line: Int
    let column: Int
    let values: [String: Checked]
    let places: [String: (line: Int, column: Int)]

    func string(_ key: String) -> String? { if case .string(let v)? = values[key] { v } else { nil } }
    func integer(_ key: String) -> Int? { if case .integer(let v)? = values[key] { v } else { nil } }
    func boolean(_ key: String) -> Bool? { if case .boolean(let v)? = values[key] { v } else { nil } }
    func duration(_ key: String) -> Duration? { if case .duration(let v)? = values[key] { v } else { nil } }
    func fraction(_ key: String) -> Double? { if case .fraction(let v)? = values[key] { v } else { nil } }
    func range(_ key: String) -> ClosedRange<Int>? { if case .range(let v)? = values[key] { v } else { nil } }
    func address(_ key: String) -> ListenAddress? { if case .address(let v)? = values[key] { v } else { nil } }
    func object(_ key: String) -> CheckedObject? { if case .object(let v)? = values[key] { v } else { nil } }
    func list(_ key: String) -> [Checked] { if case .list(let v)? = values[key] { v } else { [] } }
    func strings(_ key: String) -> [String] { list(key).compactMap { if case .string(let v) = $0 { v } else { nil } } }
    func objects(_ key: String) -> [CheckedObject] { list(key).compactMap { if case .object(let v) = $0 { v } else { nil } } }
    func map(_ key: String) -> [(name: String, value: Checked, line: Int, column: Int)] {
        if case .map(let v)? = values[key] { v } else { [] }
    }
}
