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
            KeySpec("uses", .list(.name), "stores whose address it gets (REDIS_URL)"),
            KeySpec("environment", .map(.string), "environment variables"),
            KeySpec("grace", .duration, "from SIGTERM to SIGKILL; default 10s"),
            KeySpec("start", .duration, "from start to ready, at most; default 30s"),
        ])
    static let redis = ObjectSpec(
        "a Redis",
        [
            KeySpec("role", .choice(StoreSpec.Role.allCases.map(\.rawValue)), required: true, "state never evicts; cache may"),
            KeySpec("memory", .size, "maxmemory; default 512Mi"),
            KeySpec("port", .integer(1...65535), "default: one that is free, kept from then on"),
        ])
    static let store = ObjectSpec(
        "a store",
        [
            KeySpec("redis", .object(redis), required: true, "a Redis server, run beside the services")
        ])
    static let backend = ObjectSpec(
        "a backend",
        [
            KeySpec("address", .string, required: true, "host:port or unix:/path"),
            KeySpec("weight", .integer(0...256), "its share; default 1"),
        ])
    static let retry = ObjectSpec(
        "when a failed request is tried again",
        [
            KeySpec("attempts", .integer(1...8), "tries in all; default 2"),
            KeySpec("budget", .percent, "retries, as a share of the requests; default 20%"),
            KeySpec("body", .size, "bodies up to this are kept for another try; default 256Ki"),
        ])
    static let timeout = ObjectSpec(
        "how long the gateway waits",
        [
            KeySpec("connect", .duration, "for a connection; default 2s"),
            KeySpec("response", .duration, "for a response to begin, and between two parts of it; default 60s"),
        ])
    static let probe = ObjectSpec(
        "active checks",
        [
            KeySpec("path", .path, "must answer 2xx; without it, connecting is enough"),
            KeySpec("interval", .duration, "default 2s"),
            KeySpec("timeout", .duration, "default 1s"),
            KeySpec("rise", .integer(1...100), "successes in a row that bring it back; default 2"),
            KeySpec("fall", .integer(1...100), "failures in a row that take it out; default 3"),
        ])
    static let eject = ObjectSpec(
        "when failing requests take a replica out",
        [
            KeySpec("failures", .integer(1...1000), "default 3"),
            KeySpec("within", .duration, "default 30s"),
            KeySpec("for", .duration, "default 10s, doubling while it goes on failing"),
        ])
    static let route = ObjectSpec(
        "a route",
        [
            KeySpec("path", .path, required: true, "requests whose path begins with this; the longest match wins"),
            KeySpec("service", .name, "a service of this stack"),
            KeySpec("backends", .list(.objectOr(backend, short: "address")), "or addresses"),
            KeySpec("balance", .choice(RouteSpec.balanceMethods), "default least-connections"),
            KeySpec("idempotent", .boolean, "the service counts a repeated request once, so every method may be tried again"),
            KeySpec("retry", .object(retry), "when a failed request is tried again"),
            KeySpec("timeout", .object(timeout), "how long the gateway waits"),
            KeySpec("body", .size, "the largest request body; default 10Mi"),
            KeySpec("probe", .object(probe), "active checks of the backends"),
            KeySpec("eject", .object(eject), "when failing requests take a replica out"),
            KeySpec("deny", .list(.path), "paths that are refused from outside; a service's metrics page always is"),
        ])
    static let gateway = ObjectSpec(
        "the gateway",
        [
            KeySpec("listen", .address, required: true, "where it listens"),
            KeySpec("admin", .address, "metrics, state and page; a bare port means loopback"),
            KeySpec("threads", .integer(1...64), "default 1"),
            KeySpec("access-log", .boolean, "a line a request; default true"),
            KeySpec("routes", .list(.object(route)), required: true, "what goes where"),
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
