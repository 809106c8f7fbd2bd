import StackModel

/// The keys of a service's `scale`.
extension StackSchema {
    static let scalingMetric = ObjectSpec(
        "a metric: cpu, memory, requests, concurrency, latency, metric, redis or kafka",
        [
            KeySpec("cpu", .usage(of: .cpu), "of each replica: a share of resources.cpu such as 70%, or cores such as 400m"),
            KeySpec("memory", .usage(of: .size), "of each replica: a share of resources.memory such as 80%, or a size such as 400Mi"),
            KeySpec("requests", .rate, "to each replica, as the gateway counts them: 100/s"),
            KeySpec("concurrency", .amount, "requests under way on each replica, as the gateway counts them"),
            KeySpec(
                "latency", .time(from: .microseconds(1)),
                "95 of 100 requests are answered within this; it rarely falls in proportion to replicas, so prefer requests or "
                    + "concurrency"),
            KeySpec(
                "metric", .string,
                "a figure of a Prometheus page, such as queue_depth or jobs{state=\"waiting\"}; of each replica's page, or of the page "
                    + "named in from"
            ),
            KeySpec("from", .string, "the page that is not the replicas' own: http://127.0.0.1:9121/metrics"),
            KeySpec("redis", .name, "a store of the stack in which something is counted"),
            KeySpec("list", .string, "its length: a key of a list"),
            KeySpec("sorted-set", .string, "its length: a key of a sorted set"),
            KeySpec("stream", .string, "its length, or with group what that group has yet to read and to confirm"),
            KeySpec("kafka", .string, "a topic: what its consumer group has yet to read"),
            KeySpec("group", .string, "the consumer group"),
            KeySpec("lag", .amount, "for kafka: so much for each replica"),
            KeySpec("average", .amount, "so much for each replica"),
            KeySpec("total", .amount, "so much in all; a figure that more replicas do not lower runs to the maximum, so prefer average"),
        ])
    static let scalingRules = ObjectSpec(
        "how fast the size may change in a direction",
        [
            KeySpec("percent", .integer(1...1000), "by so many percent of the replicas"),
            KeySpec("pods", .integer(1...1000), "by so many replicas"),
            KeySpec("every", .time(from: .zero), "the time in which the change may be made, 1s to 30m; default 60s"),
            KeySpec(
                "select", .choice(["max", "min", "disabled"]),
                "max: of percent and pods the larger change, min: the smaller one; disabled forbids the direction; default max"),
            KeySpec("stabilization", .time(from: .zero), "it follows what lasts this long, 0s to 1h; default 0s up, 5m down"),
            KeySpec("tolerance", .percent, "no change while the metric is this near to its target; default: scale.tolerance"),
        ])
    static let connections = ObjectSpec(
        "what a server accepts",
        [
            KeySpec("of", .string, required: true, "its name, for the sentence"),
            KeySpec("limit", .integer(1...1_000_000), required: true, "connections in all, such as max_connections"),
            KeySpec("each", .integer(1...1_000_000), required: true, "connections that a replica takes, such as its pool's size"),
            KeySpec("reserved", .integer(0...1_000_000), "kept for others; default 0"),
        ])
    static let partitions = ObjectSpec(
        "what a consumer group shares out",
        [
            KeySpec("topic", .string, required: true, "its name, for the sentence"),
            KeySpec("count", .integer(1...100_000), required: true, "partitions"),
        ])
    static let cost = ObjectSpec(
        "what may be spent",
        [
            KeySpec("replica", .amount, required: true, "what a replica costs in an hour"),
            KeySpec("hour", .amount, required: true, "what may be spent in an hour"),
        ])
    static let ceilings = ObjectSpec(
        "what more replicas would run into",
        [
            KeySpec("connections", .list(.object(connections)), "connections of a database or another server"),
            KeySpec("partitions", .object(partitions), "partitions of a topic"),
            KeySpec("memory", .size, "of this machine for this service, by resources.memory of each"),
            KeySpec("licences", .integer(1...100_000), "instances that a licence covers"),
            KeySpec("cost", .object(cost), "money"),
        ])
    static let floor = ObjectSpec(
        "at least so many at certain hours",
        [
            KeySpec("at", .hours, required: true, "Mon-Fri 08:00-18:00, or 22:00-06:00 for every day; UTC, or see offset"),
            KeySpec("replicas", .integer(1...1000), required: true, "at least so many"),
        ])
    static let scale = ObjectSpec(
        "how a service is scaled",
        [
            KeySpec("metrics", .list(.object(scalingMetric)), "the one that asks for the most decides; default cpu: 80%"),
            KeySpec("up", .object(scalingRules), "upwards; default at most 100 % or 4 replicas in 15s"),
            KeySpec("down", .object(scalingRules), "downwards; default to what the last 5m agree on"),
            KeySpec("every", .time(from: .zero), "how often it is decided, 1s to 10m; default 15s"),
            KeySpec("tolerance", .percent, "no change while a metric is this near to its target; default 10%"),
            KeySpec(
                "warm-up", .time(from: .zero),
                "a replica ready for less than this counts as coming, not yet as sharing the load; default 0s"),
            KeySpec(
                "initialization", .time(from: .zero),
                "the CPU of a younger replica is not believed before a window after it became ready; default 5m"),
            KeySpec(
                "readiness-delay", .time(from: .zero),
                "a replica that became unready this soon after its start was never ready; default 30s"),
            KeySpec(
                "idle", .time(from: .zero),
                "with replicas: 0..n, no request for this long ends the last replica; the gateway holds the next ones until one is ready"),
            KeySpec("floors", .list(.object(floor)), "at least so many at certain hours"),
            KeySpec(
                "offset", .time(from: .zero, to: .seconds(86_400)), "how far the clock of floors is ahead of UTC, at most a day; default 0s"
            ),
            KeySpec("ceilings", .object(ceilings), "what more replicas would run into"),
            KeySpec(
                "forecast", .time(from: .zero),
                "grow this early for what the same time of earlier days and weeks has needed; never shrinks sooner; default off"),
        ])
}
