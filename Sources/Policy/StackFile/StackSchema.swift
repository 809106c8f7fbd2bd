import StackModel

/// The stack file's keys. Change a key here, and the reader, its suggestions and `muster schema` follow.
enum StackSchema {
    static let http = ObjectSpec(
        "how a service speaks HTTP",
        [
            KeySpec("port", .integer(1...65535), "the port in a container; on one machine each replica gets its own, as PORT"),
            KeySpec("fixed", .boolean, "true: the one replica listens on 'port' on this machine, too; default false"),
            KeySpec(
                "socket", .boolean,
                "true: each replica also listens at a Unix socket, SOCKET, and the gateway sends to it there; default false"),
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
    static let check = ObjectSpec(
        "how a worker is asked whether it is well",
        [
            KeySpec("command", .command, "ends with exit status 0 when the worker is well; it is started as the worker is"),
            KeySpec("tcp", .string, "a port on 127.0.0.1 that takes a connection when the worker is well; PORT: the one that it is given"),
            KeySpec(
                "every", .time(from: .milliseconds(100), to: .seconds(3600)), "from an answer to the next question; default 5s, tcp 1s"),
            KeySpec("timeout", .time(from: .milliseconds(10), to: .seconds(600)), "the longest time for an answer; default 5s"),
        ])
    static let secret = ObjectSpec(
        "a secret", [KeySpec("file", .string, required: true, "the file that has it, relative to this file")])
    /// How everything that is started is started.
    static let process = [
        KeySpec(
            "environment", .map(.string),
            "environment variables; values may have $NAME, ${NAME} and ${NAME:-default}, and $$ for a dollar sign"),
        KeySpec("env-file", .list(.string), "dotenv files with more variables, relative to this file; later ones and 'environment' win"),
        KeySpec("working-directory", .string, "the folder it is started in, relative to this file; default: this file's folder"),
        KeySpec("user", .string, "NAME or NAME:GROUP that it runs as; only where root starts the stack"),
        KeySpec("secrets", .map(.objectOr(secret, short: "file")), "files with secrets; it is told where the file of NAME is by NAME_FILE"),
        KeySpec("depends-on", .list(.name), "services that must be ready and tasks that must be done before it is started"),
        KeySpec("profiles", .list(.name), "it is left out unless one of these is named in MUSTER_PROFILES"),
    ]
    static let uses = KeySpec(
        "uses", .list(.objectOr(use, short: "store")),
        "stores whose address it gets, each in its kind's variable (\(StoreKindName.allCases.map(\.variable).joined(separator: ", ")))")
    static let task = ObjectSpec(
        "a task",
        [
            KeySpec(
                "command", .command, required: true,
                "the program and its arguments: a list of words, or one line that is split as a shell splits it, with $NAME and no shell"),
            uses,
            KeySpec("timeout", .time(from: .milliseconds(100)), "the longest time until its end; then it has failed; default 5m"),
            KeySpec("grace", .time(from: .milliseconds(1), orZero: true), "from SIGTERM to SIGKILL when the stack stops; default 10s"),
        ] + process, takesExtensions: true)
    static let use = ObjectSpec(
        "a store that is used",
        [
            KeySpec("store", .name, required: true, "its name"),
            KeySpec("as", .string, "the environment variable that gets its address, instead of its kind's own"),
        ])
    static let service = ObjectSpec(
        "a service",
        [
            KeySpec(
                "command", .command, required: true,
                "the program and its arguments: a list of words, or one line that is split as a shell splits it, with $NAME and no shell"),
            KeySpec("image", .string, "what Compose and Kubernetes run"),
            KeySpec("replicas", .replicas, "how many, or from..to; default 1"),
            KeySpec("http", .object(http), "how it speaks HTTP; without it, it is not probed"),
            KeySpec("check", .object(check), "how a service without http is asked whether it is well; without it, it is not asked"),
            KeySpec(
                "restart", .choice(RestartPolicy.allCases.map(\.rawValue)),
                "whether a process that ends by itself is started again, after a pause that grows: always (default), on-failure, never"),
            KeySpec("resources", .object(resources), "what a replica is given"),
            KeySpec("scale", .object(scale), "how many of the range run: by which metrics, how fast, and what holds it"),
            uses,
            KeySpec("grace", .time(from: .milliseconds(1), orZero: true), "from SIGTERM to SIGKILL; 0s: at once; default 10s"),
            KeySpec("start", .time(from: .milliseconds(100)), "from start to ready, at most; default 30s"),
        ] + process, takesExtensions: true)
    static let store = ObjectSpec(
        "a store", StoreKindName.allCases.map { KeySpec($0.rawValue, .object($0.syntax.schema), $0.syntax.about) })
    static let stack = ObjectSpec(
        "a stack",
        [
            KeySpec("stack", .name, "its name; default: the file's"),
            KeySpec("services", .map(.object(service)), "what is run as many"),
            KeySpec("tasks", .map(.object(task)), "what runs once, to its end, before what depends on it: migrations, say"),
            KeySpec("stores", .map(.object(store)), "what the services share"),
            KeySpec("gateway", .object(gateway), "what stands before them"),
        ], takesExtensions: true)
}
