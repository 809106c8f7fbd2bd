import Autoscaling
import Basics
import Replaying
import StackModel

/// The policies of a stack file as they are replayed.
struct ReplayPolicies {
    let file: String
    let services: [ServiceSpec]

    init(_ file: String) throws(Exit) {
        self.file = file
        services = try readStack(file).services.filter { $0.scaling != nil }
        if services.isEmpty { throw .usage("\(file): no service has scale:, so there is no policy to replay") }
    }

    func service(_ name: String) -> ServiceSpec? { services.first { $0.name == name } }
}

/// How replicas behave, as the command line tells it; what it does not tell comes from the stack file.
struct ReplayAssumptions {
    let startTime: Duration?
    let slowStart: Duration
    let capacity: [String: Double]
    let averages: Set<String>
    let saturates: Bool
    let initial: Int?

    /// What a small service on this machine takes; `--start-time` tells another.
    private static let usualStart = Duration.seconds(10)

    init(_ arguments: Arguments) throws(Exit) {
        func duration(_ option: String) throws(Exit) -> Duration? {
            guard let text = arguments.value(option) else { return nil }
            guard let value = Duration(text: text) else { throw .usage("\(option): '\(text)' is no duration, such as 20s") }
            return value
        }
        startTime = try duration("--start-time")
        slowStart = try duration("--slow-start") ?? .zero
        var capacity: [String: Double] = [:]
        for text in arguments.all("--capacity") {
            guard let at = text.lastIndex(of: "="), let value = ReplayAssumptions.amount(String(text[text.index(after: at)...])),
                at != text.startIndex
            else {
                throw .usage("--capacity: '\(text)' is not METRIC=AMOUNT, such as cpu=500m, memory=512Mi or requests=120")
            }
            capacity[String(text[..<at])] = value
        }
        self.capacity = capacity
        averages = Set(arguments.all("--average"))
        saturates = arguments.has("--saturates")
        initial = try arguments.value("--initial").map { text throws(Exit) in
            guard let count = Int(text), (0...10_000).contains(count) else { throw .usage("--initial: '\(text)' is no number of replicas") }
            return count
        }
    }

    /// `500m`, `512Mi`, `120`: in cores, bytes, or the metric's own unit. Above 0.
    private static func amount(_ text: String) -> Double? {
        let units: [(String, Double)] = [
            ("Ki", 1024), ("Mi", 1_048_576), ("Gi", 1_073_741_824), ("m", 0.001), ("k", 1000), ("M", 1_000_000), ("G", 1_000_000_000),
        ]
        let unit = units.first { text.hasSuffix($0.0) }
        guard let value = Double(text.dropLast(unit?.0.count ?? 0)) else { return nil }
        let amount = unit?.0 == "m" ? value / 1000 : value * (unit?.1 ?? 1)
        return amount.isFinite && amount > 0 ? amount : nil
    }

    /// What a replica requests, in cores and bytes.
    static func requests(_ service: ServiceSpec) -> [String: Double] {
        var out: [String: Double] = [:]
        if let cpu = service.cpu { out["cpu"] = Double(cpu) / 1000 }
        if let memory = service.memory { out["memory"] = Double(memory) }
        return out
    }

    func model(_ service: ServiceSpec, _ policy: ScalingPolicy, beside other: ScalingPolicy?) -> ReplicaModel {
        let requests = ReplayAssumptions.requests(service)
        var carried = ReplicaModel.capacity(of: policy, requests: requests)
        // One replica is as strong under either policy: where only a target tells how much, the higher target counts.
        if let other {
            for (name, value) in ReplicaModel.capacity(of: other, requests: requests) { carried[name] = max(value, carried[name] ?? 0) }
        }
        return ReplicaModel(
            startTimes: [startTime ?? ReplayAssumptions.usualStart], capacity: carried.merging(capacity) { $1 }, requests: requests,
            warmUp: slowStart,
            drain: service.grace, saturates: saturates)
    }

    /// What a reader has to know of the figures, beyond what was recorded.
    func notes(_ service: ServiceSpec, _ model: ReplicaModel) -> [String] {
        var out: [String] = []
        let start = model.startTimes[0].brief
        out.append(
            startTime == nil
                ? "a replica is taken to be ready \(start) after its start; --start-time tells another"
                : "a replica is ready \(start) after its start")
        if capacity.isEmpty {
            out.append(
                model.capacity.isEmpty
                    ? "nothing bounds what a replica carries, so nothing counts as overload: --capacity METRIC=AMOUNT tells it"
                    : "a replica carries what it requests, or its target and the tolerance; --capacity METRIC=AMOUNT tells another")
        }
        if service.scaling?.idle != nil { out.append("idle: is not replayed: the last replica stays") }
        return out
    }
}
