import Basics
import Glibc
import Rightsizing

/// What one run cost.
struct VPACost {
    var samples = 0
    var sampleNanoseconds = 0.0
    var recommendations = 0
    var recommendationMicroseconds = 0.0
    /// More in memory than before the first container.
    var bytesPerContainer = 0
    /// The sum of all targets of CPU, so that nothing can be left out as unused.
    var check = 0
}

/// A sample of CPU and one of memory a minute for each container, then a recommendation for each. A container's load is a daily wave with
/// noise.
func measureVPA(containers: Int, minutes: Int) -> VPACost {
    var random = SeededRandom(seed: 8)
    let begin: Int64 = 1_700_000_000_000
    let before = residentBytes()
    var usages = [ContainerUsage](repeating: ContainerUsage(created: WallTime(milliseconds: begin)), count: containers)
    // The load of a day is made before the clock runs.
    let noise = (0..<4096).map { _ in Int.random(in: 0..<200, using: &random) }
    var cost = VPACost()
    let start = processorNanoseconds()
    for minute in 0..<minutes {
        let time = WallTime(milliseconds: begin + Int64(minute) * 60_000)
        let wave = abs(minute % 1440 - 720)
        for container in 0..<containers {
            let jitter = noise[(minute &* 31 &+ container) & 4095]
            try? usages[container].addCPU(100 + wave + jitter, at: time)
            try? usages[container].addMemory((200 + wave / 4 + jitter) << 20, at: time)
        }
    }
    cost.samples = minutes * containers * 2
    cost.sampleNanoseconds = Double(processorNanoseconds() - start) / Double(max(cost.samples, 1))
    cost.bytesPerContainer = max(residentBytes() - before, 0) / max(containers, 1)
    let recommender = Recommender()
    let after = processorNanoseconds()
    for usage in usages {
        let decisions = recommender.recommend(usage, service: "service", declared: OptionalResources(cpu: 500, memory: 512 << 20))
        cost.check += decisions.first?.result.target ?? 0
    }
    cost.recommendations = containers
    cost.recommendationMicroseconds = Double(processorNanoseconds() - after) / 1000 / Double(max(containers, 1))
    return cost
}

func vpaBenchmark(_ words: [String]) {
    let numbers = words.map { word -> Int in
        guard let number = Int(word), number > 0, number <= 1_000_000 else {
            stop("'\(word)' is no number of containers or days: a whole number above 0")
        }
        return number
    }
    let containers = numbers.first ?? 1000, days = numbers.count > 1 ? numbers[1] : 8
    let cost = measureVPA(containers: containers, minutes: days * 1440)
    say(
        "containers=\(containers) days=\(days) samples=\(cost.samples) ns_per_sample=\(tenth(cost.sampleNanoseconds)) "
            + "us_per_recommendation=\(tenth(cost.recommendationMicroseconds)) bytes_per_container=\(cost.bytesPerContainer) "
            + "cpu_millicores=\(cost.check)"
    )
}

private func tenth(_ value: Double) -> Double { (value * 10).rounded() / 10 }

/// Processor time of this process: what other programs do meanwhile does not count.
private func processorNanoseconds() -> Int {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// What this process has in memory.
private func residentBytes() -> Int {
    let fields = (Files.text("/proc/self/statm") ?? "").split(separator: " ")
    return fields.count > 1 ? (Int(fields[1]) ?? 0) * 4096 : 0
}
