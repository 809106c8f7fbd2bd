import LoadPlanning
import StackModel

/// The keys of a scenario of `muster load`.
enum ScenarioSchema {
    static let methods = ["get", "post", "put", "patch", "delete", "head", "options"]

    static let request = ObjectSpec(
        "a request",
        methods.map { KeySpec($0, .string, "the path and query to \($0.uppercased())") } + [
            KeySpec("weight", .integer(1...1_000_000), "its share beside the others; default 1"),
            KeySpec("headers", .map(.string), "header fields"),
            KeySpec("body", .string, "the body, with {{n}}, {{uuid}} and {{now}} filled in"),
            KeySpec("body-file", .string, "a file with the body, beside the scenario"),
        ])
    static let phase = ObjectSpec(
        "a phase",
        [
            KeySpec("rate", .string, "requests a second, such as 200/s: they come whether others were answered or not"),
            KeySpec("users", .string, "so many users, each waiting for its answer, such as 1000"),
            KeySpec("ramp", .string, "in a straight line: 200/s..1000/s, or 0..1000 users"),
            KeySpec("step", .string, "in steps: 200/s..1000/s, or 100..500 users"),
            KeySpec("steps", .integer(2...100), "how many steps; default 5"),
            KeySpec("spike", .string, "all at once: 2000/s, or 5000 users"),
            KeySpec("for", .time(from: .zero), required: true, "how long, such as 30s or 5m"),
            KeySpec("think", .string, "what a user waits before it asks again: 1s, or 500ms..1500ms"),
        ])
    static let scenario = ObjectSpec(
        "a scenario",
        [
            KeySpec("load", .name, "its name; default: the file's"),
            KeySpec("target", .string, "http://host:port; default: the gateway of the stack that runs"),
            KeySpec("requests", .list(.object(request)), required: true, "what is asked"),
            KeySpec("phases", .list(.object(phase)), required: true, "how much, and how long"),
            KeySpec("expect", .list(.string), "what the answers are held against, such as p95<150ms"),
            KeySpec(
                "arrivals", .choice(ArrivalSchedule.Spacing.allCases.map(\.rawValue)), "how requests of a rate are spaced; default even"),
            KeySpec("seed", .integer(0...Int.max), "of all that is random; default 1"),
            KeySpec("timeout", .time(from: .zero), "for an answer, at most; default 10s"),
            KeySpec("connections", .integer(1...Scenario.mostConnections), "of the phases with a rate, at most; default 1000"),
        ])
}
