import StackModel

/// The stack file's keys. Change a key here, and the reader, its suggestions and `muster schema` follow.
enum StackSchema {
    static let http = ObjectSpec(
        "how a service speaks HTTP",
        [
            KeySpec("port", .integer(1...65535), "the port in a container; on one machine each replica gets its own, as PORT"),
            KeySpec("live", .path, "answers 200 while the process runs; default /health/live"),
            KeySpec("ready", .path, "answers 200 when it can take requests; default /health/ready"),
            KeySpec("metrics", .path, "a page for Prometheus; never served from outside"),
        ])
    static let resources = ObjectSpec(
        "what a replica is given",
        [
            KeySpec("cpu", .cpu, "cores, such as 500m"),
            KeySpec("memory", .size, "memory, such as 512Mi"),
        ])
    static let service = ObjectSpec(
        "a service",
        [
            KeySpec("command", .list(.string), required: true, "the program to run, and its arguments"),
            KeySpec("image", .string, "what Compose and Kubernetes run"),
            KeySpec("replicas", .replicas, "how many, or from..to; default 1"),
            KeySpec("http", .object(http), "how it speaks HTTP; without it, it is not probed"),
            KeySpec("resources", .object(resources), "what a replica is given"),
            KeySpec("scale", .object(scale), "how many of the range run: by which metrics, how fast, and what holds it"),
            KeySpec("uses", .list(.name), "stores whose address it gets (REDIS_URL)"),
            KeySpec(
                "environment", .map(.string),
                "environment variables; values may have ${NAME} and ${NAME:-default}, and $$ for a dollar sign"),
            KeySpec("grace", .time(from: .milliseconds(1), orZero: true), "from SIGTERM to SIGKILL; 0s: at once; default 10s"),
            KeySpec("start", .time(from: .milliseconds(100)), "from start to ready, at most; default 30s"),
        ])
    static let redis = ObjectSpec(
        "a Redis",
        [
            KeySpec("role", .choice(StoreSpec.Role.allCases.map(\.rawValue)), required: true, "state never evicts; cache may"),
            KeySpec("memory", .size, "maxmemory of each node; default 512Mi"),
            KeySpec(
                "port", .integer(1...65535),
                "where it listens; a cluster's nodes take the following ones; default: one that is free, kept from then on"),
            KeySpec("masters", .integer(1...100), "1 is a single server, 3 or more are a cluster; default 1"),
            KeySpec("replicas", .integer(0...5), "of each of a cluster's masters; default 1 in a cluster"),
            KeySpec("failover", .time(from: .milliseconds(1)), "a cluster replaces a master that is lost within this; default 3s"),
        ])
    static let store = ObjectSpec(
        "a store",
        [
            KeySpec("redis", .object(redis), required: true, "a Redis server or cluster, run beside the services")
        ])
    static let stack = ObjectSpec(
        "a stack",
        [
            KeySpec("stack", .name, "its name; default: the file's"),
            KeySpec("services", .map(.object(service)), "what is run as many"),
            KeySpec("stores", .map(.object(store)), "what the services share"),
            KeySpec("gateway", .object(gateway), "what stands before them"),
        ])
}
