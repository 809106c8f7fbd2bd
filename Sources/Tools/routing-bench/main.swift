import Basics
import Glibc
import PostgresRouting

// Measures where a statement goes, for `Benchmarks/postgres-routing`. Prints one line of `name=value` fields.
//
//   routing-bench cached [TEXTS] [ROUNDS]    texts that are known, each in turn: 200 texts, 5000 rounds
//   routing-bench read [ROUNDS]              a text that is read anew each time: 20000 rounds

func stop(_ text: String) -> Never {
    let line = Array("routing-bench: \(text)\n".utf8)
    _ = write(STDERR_FILENO, line, line.count)
    exit(2)
}

func say(_ text: String) {
    let line = Array((text + "\n").utf8)
    _ = write(STDOUT_FILENO, line, line.count)
}

func number(_ words: ArraySlice<String>, _ place: Int, or value: Int) -> Int {
    guard words.count > place else { return value }
    guard let number = Int(words[words.startIndex + place]), (1...100_000_000).contains(number) else {
        stop("a number from 1 to 100000000")
    }
    return number
}

let catalog = RoutingCatalog(
    functions: [
        .init(QualifiedName("pg_catalog", "now"), .stable), .init(QualifiedName("pg_catalog", "count"), .immutable),
        .init(QualifiedName("pg_catalog", "sum"), .immutable),
    ],
    relations: [.init(QualifiedName("public", "accounts"), .table), .init(QualifiedName("public", "orders"), .table)])

func text(_ number: Int) -> String {
    "SELECT a.id, a.owner, sum(o.total) AS total_\(number) FROM accounts a JOIN orders o ON o.account_id = a.id "
        + "WHERE a.tenant = $1 AND o.status = 'open' GROUP BY a.id, a.owner ORDER BY 3 DESC LIMIT 20"
}

func cached(_ words: ArraySlice<String>) {
    let texts = (0..<number(words, 0, or: 200)).map { Array(text($0).utf8) }
    let rounds = number(words, 1, or: 5000)
    var cache = VerdictCache(entries: texts.count), session = RoutingSession(user: "app"), replicas = 0
    func pass() {
        for text in texts {
            let verdict = text.withUnsafeBytes { session.route($0, catalog, &cache) }
            if verdict.target == .replica { replicas &+= 1 }
        }
    }
    pass()
    let began = MonotonicTime.now
    for _ in 0..<rounds { pass() }
    let spent = (MonotonicTime.now - began).nanoseconds, count = texts.count.multipliedClamped(by: rounds)
    say(
        "mode=cached texts=\(texts.count) bytes=\(texts[0].count) routed=\(count) replicas=\(replicas) hits=\(cache.hits) "
            + "ns=\(spent / Int64(count))"
    )
}

func read(_ words: ArraySlice<String>) {
    let rounds = number(words, 0, or: 20_000)
    var cache = VerdictCache(entries: 1), session = RoutingSession(user: "app")
    let began = MonotonicTime.now
    for round in 0..<rounds { _ = session.route(text(round), catalog, &cache) }
    say("mode=read routed=\(rounds) misses=\(cache.misses) ns=\((MonotonicTime.now - began).nanoseconds / Int64(rounds))")
}

let words = CommandLine.arguments.dropFirst()
switch words.first {
case "cached": cached(words.dropFirst())
case "read": read(words.dropFirst())
default: stop("say what to measure: cached or read")
}
