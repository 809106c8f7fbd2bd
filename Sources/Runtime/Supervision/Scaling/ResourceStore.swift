import Basics
import JSONCoding
import Rightsizing

/// Where the recorder's memory lies over a restart: `scaling/<service>.usage`, a checkpoint of each replica. A file that cannot be read is
/// begun anew; that one cannot be written is told, and costs what was seen since.
struct ResourceStore {
    /// Between two writings.
    static let interval = Duration.seconds(300)

    let folder: String

    private func file(_ service: String) -> String { "\(folder)/\(service).usage" }

    /// By replica number; empty without a file, and with one that is damaged.
    func usage(of service: String, now: WallTime) -> [Int: ContainerUsage] {
        guard let text = Files.text(file(service)) else { return [:] }
        return (try? ResourceStore.read(Array(text.utf8), now: now)) ?? [:]
    }

    func keep(_ usage: [Int: ContainerUsage], of service: String) throws(SystemError) {
        let seen = usage.filter { !$0.value.cpu.isEmpty || !$0.value.memory.isEmpty }
        guard !seen.isEmpty else { return }
        try Files.makeInnerFolder(folder)
        try Files.replace(file(service), with: ResourceStore.text(seen))
    }

    // MARK: the file

    static func text(_ usage: [Int: ContainerUsage]) -> [UInt8] {
        var json = JSONWriter(reserving: 4096)
        json.beginObject()
        json.member("version", UsageCheckpoint.supported)
        json.key("replicas")
        json.beginArray()
        for (number, one) in usage.sorted(by: { $0.key < $1.key }) {
            let checkpoint = one.checkpoint()
            json.beginObject()
            json.member("replica", number)
            json.member("samples", checkpoint.samples)
            if let first = checkpoint.first { json.member("first_ms", Int(first.milliseconds)) }
            if let last = checkpoint.last { json.member("last_ms", Int(last.milliseconds)) }
            histogram("cpu", checkpoint.cpu, &json)
            histogram("memory", checkpoint.memory, &json)
            json.endObject()
        }
        json.endArray()
        json.endObject()
        return json.bytes
    }

    private static func histogram(_ key: String, _ checkpoint: HistogramCheckpoint, _ json: inout JSONWriter) {
        json.key(key)
        json.beginObject()
        json.member("total", checkpoint.total)
        if let reference = checkpoint.reference { json.member("reference_ms", Int(reference.milliseconds)) }
        json.key("weights")
        json.beginArray()
        for (bucket, weight) in checkpoint.weights.sorted(by: { $0.key < $1.key }) {
            json.beginArray()
            json.int(bucket)
            json.int(weight)
            json.endArray()
        }
        json.endArray()
        json.endObject()
    }

    /// All of it or nothing: half a memory would be a wrong one.
    static func read(_ bytes: [UInt8], now: WallTime) throws -> [Int: ContainerUsage] {
        try JSONDocument().parse(bytes) { root in
            guard let version = root["version"]?.string, let list = root["replicas"]?.array else { throw Damage() }
            var usage: [Int: ContainerUsage] = [:]
            for entry in list {
                guard let number = entry["replica"]?.int, let samples = entry["samples"]?.int else { throw Damage() }
                let checkpoint = UsageCheckpoint(
                    version: version, first: time(entry["first_ms"]), last: time(entry["last_ms"]), samples: samples,
                    cpu: try histogram(entry["cpu"]),
                    memory: try histogram(entry["memory"]))
                let one = try ContainerUsage(checkpoint, created: now)
                // A clock that was set back leaves what lies ahead of it, and what is too old says nothing any more.
                if !one.isExpired(now) { usage[number] = one }
            }
            return usage
        }
    }

    private static func histogram(_ element: JSONElement?) throws -> HistogramCheckpoint {
        guard let total = element?["total"]?.double, let list = element?["weights"]?.array else { throw Damage() }
        var weights: [Int: Int] = [:]
        for pair in list {
            guard let both = pair.array, both.count == 2, let bucket = both[0].int, let weight = both[1].int else { throw Damage() }
            weights[bucket] = weight
        }
        return HistogramCheckpoint(total: total, weights: weights, reference: time(element?["reference_ms"]))
    }

    private static func time(_ element: JSONElement?) -> WallTime? { element?.int.map { WallTime(milliseconds: Int64($0)) } }

    private struct Damage: Error {}
}
