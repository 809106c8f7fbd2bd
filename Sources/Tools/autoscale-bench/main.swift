import Basics
import Glibc

// Measures the arithmetic of scaling, for `Benchmarks/autoscaling`. Prints one line of `name=value` fields.
//
//   autoscale-bench vpa [CONTAINERS] [DAYS]      1000 containers, 8 days of a sample a minute
//   autoscale-bench hpa [REPLICAS] [DECISIONS]   10000 replicas, 200 decisions over three metrics

func stop(_ text: String) -> Never {
    let line = Array("autoscale-bench: \(text)\n".utf8)
    _ = write(STDERR_FILENO, line, line.count)
    exit(2)
}

func say(_ text: String) {
    let line = Array((text + "\n").utf8)
    _ = write(STDOUT_FILENO, line, line.count)
}

let words = CommandLine.arguments.dropFirst()
switch words.first {
case "vpa": vpaBenchmark(Array(words.dropFirst()))
case "hpa": hpaBenchmark(Array(words.dropFirst()))
default: stop("say what to measure: vpa or hpa")
}
