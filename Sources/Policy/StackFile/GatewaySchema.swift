import StackModel

/// The gateway's keys.
extension StackSchema {
    static let backend = ObjectSpec(
        "a backend",
        [
            KeySpec(
                "address", .string, required: true,
                "host:port or unix:/path; h2c:// before it: HTTP/2; https:// before it: TLS for the whole route"),
            KeySpec("weight", .integer(0...256), "its share; default 1"),
            KeySpec("priority", .integer(0...7), "0 is asked first, higher ones get what spills over; default 0"),
        ])
    static let retry = ObjectSpec(
        "when a failed request is tried again",
        [
            KeySpec("attempts", .integer(1...8), "tries in all; default 2"),
            KeySpec("budget", .percent, "retries, as a share of the requests; default 20%"),
            KeySpec("body", .size(1...1 << 30), "bodies up to this are kept for another try; default 256Ki"),
            KeySpec("hedge", .time(from: .milliseconds(1)), "a GET without an answer after this time is asked of a second replica as well"),
        ])
    static let timeout = ObjectSpec(
        "how long the gateway waits",
        [
            KeySpec("connect", .time(from: .milliseconds(1)), "for a connection; default 2s"),
            KeySpec("response", .time(from: .milliseconds(1)), "for a response to begin, and between two parts of it; default 60s"),
            KeySpec(
                "total", .time(from: .milliseconds(1)),
                "from a request to its response's head, all tries together; X-Request-Timeout may shorten it; default none"),
            KeySpec("tunnel", .time(from: .milliseconds(1)), "an upgraded connection on which nothing moves; default 1h"),
        ])
    static let probe = ObjectSpec(
        "active checks",
        [
            KeySpec("path", .path, "must answer 2xx; without it, connecting is enough"),
            KeySpec("interval", .time(from: .milliseconds(10)), "from one check to the next; default 2s"),
            KeySpec("timeout", .time(from: .milliseconds(1)), "a check without an answer by then has failed; default 1s"),
            KeySpec(
                "host", .string, "what they name as Host; default: the route's host, its only exact hosts entry, or the backend's address"),
            KeySpec("headers", .map(.string), "other header fields that they have"),
            KeySpec("rise", .integer(1...100), "successes in a row that bring it back; default 2"),
            KeySpec("fall", .integer(1...100), "failures in a row that take it out; default 3"),
        ])
    static let eject = ObjectSpec(
        "when failing requests take a replica out",
        [
            KeySpec("failures", .integer(1...1000), "so many failed requests in a row take it out; default 3"),
            KeySpec("within", .time(from: .milliseconds(1)), "the time in which failures are counted; default 30s"),
            KeySpec("for", .time(from: .milliseconds(1)), "how long it is out at first, doubling while it goes on failing; default 10s"),
            KeySpec("errors", .boolean, "answers of 500 and above count as failures; default false"),
            KeySpec("outliers", .boolean, "also who stands out by failures or latency; default false"),
            KeySpec("at-most", .percent, "of the replicas at once; default 50%, and never the last one"),
        ])
    static let limit = ObjectSpec(
        "how fast requests may come",
        [
            KeySpec("rate", .rate, required: true, "such as 100/s, 5/min or 1000/h"),
            KeySpec("burst", .integer(0...1_000_000), "how many more may come at once; default 0"),
            KeySpec("by", .limitKey, "client-ip, route or header:NAME; default client-ip"),
            KeySpec("shared", .boolean, "counted in gateway.limit-store, for all gateways together; default false"),
            KeySpec("delay", .boolean, "what exceeds the rate but not the burst waits instead of going at once; default false"),
        ])
    static let breaker = ObjectSpec(
        "a circuit breaker",
        [
            KeySpec("failures", .integer(1...1000), "requests in a row that found no answer; default 5"),
            KeySpec("recovery", .time(from: .milliseconds(1)), "until it is tried again; default 10s"),
        ])
    static let concurrency = ObjectSpec(
        "how many requests are under way at once",
        [
            KeySpec("most", .integer(1...1_000_000), "on the whole route; the others get 503"),
            KeySpec("adaptive", .boolean, "the limit follows the latency; default false"),
            KeySpec("per-replica", .integer(1...1_000_000), "on one replica"),
        ])
    static let hold = ObjectSpec(
        "requests that wait while the service has no replica",
        [
            KeySpec("most", .integer(0...100_000), "so many at once, the others get 503; 0: none waits; default 100"),
            KeySpec("for", .time(from: .zero), "each so long, then 503; default: the service's start"),
        ])
    static let fields = ObjectSpec(
        "edits of header fields",
        [
            KeySpec("set", .map(.string), "in place of what is there"),
            KeySpec("add", .map(.string), "beside what is there"),
            KeySpec("remove", .list(.token), "names"),
        ])
    static let rewrite = ObjectSpec(
        "another path for the backend",
        [
            KeySpec("prefix", .pathPattern, "in place of the route's path"),
            KeySpec("regex", .regex, "what is replaced in the path"),
            KeySpec("to", .string, "by what; $1 is the first group"),
        ])
    static let redirect = ObjectSpec(
        "another place for the client",
        [
            KeySpec("to", .string, required: true, "such as https://$host$uri"),
            KeySpec("status", .integer(301...308), "301, 302, 303, 307 or 308; default 308"),
        ])
    static let answer = ObjectSpec(
        "an answer of the gateway's own",
        [
            KeySpec("status", .integer(200...599), "its status, such as 503 for maintenance; default 200"),
            KeySpec("body", .string, "the text"),
            KeySpec("file", .string, "or a file with it"),
            KeySpec("type", .string, "its Content-Type; default text/plain; charset=utf-8"),
        ])
    static let cors = ObjectSpec(
        "which pages of other origins may ask (CORS)",
        [
            KeySpec("origins", .list(.string), required: true, "such as https://app.example, or *"),
            KeySpec("methods", .list(.token), "methods that they may use; default GET, HEAD, POST"),
            KeySpec("headers", .list(.token), "fields that they may send; default content-type"),
            KeySpec("expose", .list(.token), "fields that they may read"),
            KeySpec("credentials", .boolean, "with cookies; not with *; default false"),
            KeySpec(
                "max-age", .time(from: .seconds(1), orZero: true),
                "how long a browser remembers, in whole seconds; 0s: not at all; default 10m"),
        ])
    static let auth = ObjectSpec(
        "who may ask",
        [
            KeySpec("basic", .string, "a file with lines user:{SHA256}… or user:{SSHA}…"),
            KeySpec("bearer", .string, "a file with a token a line, plain or {SHA256}…"),
            KeySpec("realm", .string, "what a browser shows; default muster"),
        ])
    static let canary = ObjectSpec(
        "a part of the requests for a new version",
        [
            KeySpec("service", .name, "a service of this stack"),
            KeySpec("backends", .list(.objectOr(backend, short: "address")), "or addresses"),
            KeySpec("share", .percent, "of the requests; default 0%"),
            KeySpec("header", .token, "a field whose value always or never decides"),
            KeySpec("cookie", .token, "a cookie whose value always or never decides"),
        ])
    static let dns = ObjectSpec(
        "backends by DNS",
        [
            KeySpec("name", .string, required: true, "such as app.internal, or _http._tcp.app.internal for SRV"),
            KeySpec("srv", .boolean, "SRV records, which tell ports, weights and priorities; default false"),
            KeySpec("port", .integer(1...65535), "for A and AAAA; default 80"),
            KeySpec("server", .string, "whom to ask, an IPv4 address and a port; default: the system's"),
        ])
    static let route = ObjectSpec(
        "a route",
        [
            KeySpec("path", .pathPattern, "requests whose path begins with this; the longest match wins"),
            KeySpec("exact", .pathPattern, "or the whole path"),
            KeySpec("regex", .regex, "or an expression that matches the path"),
            KeySpec("hosts", .list(.string), "names, or *.example.org; default any"),
            KeySpec("methods", .list(.token), "methods that it takes; default any"),
            KeySpec("headers", .map(.string), "fields that must have these values"),
            KeySpec("service", .name, "a service of this stack"),
            KeySpec("backends", .list(.objectOr(backend, short: "address")), "or addresses"),
            KeySpec("backends-file", .string, "or a file with an address a line, read again when it changes"),
            KeySpec("backends-dns", .object(dns), "or names, asked again when their TTL is over"),
            KeySpec("answer", .object(answer), "or an answer of the gateway's own"),
            KeySpec("redirect", .object(redirect), "or another place"),
            KeySpec("balance", .balance, "how a replica is chosen for a request; default least-connections"),
            KeySpec("sticky", .token, "the name of a cookie that keeps a client on its replica"),
            KeySpec("canary", .object(canary), "a part of the requests for a new version"),
            KeySpec(
                "slow-start", .time(from: .milliseconds(1), orZero: true),
                "a replica's share grows over this time after it became ready; default 0s: none"),
            KeySpec("panic", .percent, "below this share of fit replicas all are used; default 0%: when none is fit"),
            KeySpec(
                "idempotent", .boolean, "the service counts a repeated request once, so every method may be tried again; default false"),
            KeySpec("retry", .object(retry), "when a failed request is tried again"),
            KeySpec("timeout", .object(timeout), "how long the gateway waits"),
            KeySpec("body", .size, "the largest request body; default 10Mi"),
            KeySpec("probe", .object(probe), "active checks of the backends"),
            KeySpec("eject", .object(eject), "when failing requests take a replica out"),
            KeySpec("breaker", .object(breaker), "answers at once while nothing behind the route does"),
            KeySpec("concurrency", .object(concurrency), "how many requests are under way at once"),
            KeySpec("limit", .list(.object(limit)), "how fast requests may come"),
            KeySpec("hold", .object(hold), "requests wait while the service has no replica; default for a service with scale.idle"),
            KeySpec("deny", .list(.pathPattern), "paths that are refused from outside; a service's metrics page always is"),
            KeySpec("allow", .list(.range), "client addresses that may ask; default all"),
            KeySpec("refuse", .list(.range), "client addresses that may not"),
            KeySpec("auth", .object(auth), "who may ask"),
            KeySpec("cors", .object(cors), "which pages of other origins may ask"),
            KeySpec("rewrite", .object(rewrite), "another path for the backend"),
            KeySpec("host", .string, "what the backend gets as Host; default: what the client said"),
            KeySpec("request-headers", .object(fields), "edits on the way to the backend"),
            KeySpec("response-headers", .object(fields), "edits on the way to the client"),
            KeySpec(
                "protocol", .choice(["http1", "h2c"]), "what backends are spoken to in; h2c is HTTP/2 by prior knowledge; default http1"),
            KeySpec("backend-tls", .object(backendTLS), "how backends are spoken to over TLS (https://)"),
            KeySpec("upgrade", .list(.token), "what a connection may be upgraded to; default websocket"),
            KeySpec(
                "proxy-protocol", .choice(RouteSpec.ProxyHeader.allCases.map(\.rawValue)),
                "backends get a PROXY header of this version first; default none"),
            KeySpec("cache", .object(routeCache), "answers are stored where they allow it, and served from memory; default none are"),
            KeySpec("compress", .boolean, "textual answers are compressed (zstd, br, gzip) for clients that take it; default false"),
        ])
    static let accessLog = ObjectSpec(
        "the access log",
        [
            KeySpec(
                "format", .string, required: true,
                "true (text), false, json, or a text with $names: \(AccessLogSpec.fields.joined(separator: " "))"),
            KeySpec("file", .string, "where; default standard output"),
        ])
    static let limits = ObjectSpec(
        "what the gateway takes from clients",
        [
            KeySpec("connections", .integer(1...1_000_000), "connections of clients at once; default 10000"),
            KeySpec("per-client", .integer(1...1_000_000), "connections of one address; default: no limit of its own"),
            KeySpec("head", .size(256...16 << 20), "all header fields of a request; default 32Ki"),
            KeySpec("fields", .integer(1...1000), "how many; default 100"),
            KeySpec("head-time", .time(from: .milliseconds(1)), "for a whole head; default 10s"),
            KeySpec("idle-time", .time(from: .milliseconds(1)), "between two requests of a connection; default 75s"),
        ])
    static let tracing = ObjectSpec(
        "spans of the gateway's own",
        [
            KeySpec("otlp", .string, required: true, "where they go, such as http://127.0.0.1:4318/v1/traces"),
            KeySpec("sample", .percent, "of the traces that begin here; default 10%"),
        ])
    static let gateway = ObjectSpec(
        "the gateway",
        [
            KeySpec(
                "listen", .list(.objectOr(listener, short: "address")), required: true,
                "where it listens, one or several; a bare port means every IPv4 address"),
            KeySpec("tls", .object(tls), "TLS of the listeners that have it"),
            KeySpec("admin", .address, "metrics, state and page; a bare port means loopback"),
            KeySpec("admin-token-file", .string, "a file with the word that changes and explanations need"),
            KeySpec("threads", .integer(1...64), "threads that serve requests; default 1"),
            KeySpec("access-log", .objectOr(accessLog, short: "format"), "a line a request; default true"),
            KeySpec("trusted-proxies", .list(.range), "whose X-Forwarded-For is believed; default nobody's"),
            KeySpec("http2", .boolean, "clients may speak HTTP/2: at once on a plain connection, by ALPN over TLS; default true"),
            KeySpec("proxy-protocol", .boolean, "trusted proxies begin each connection with a PROXY header; default false"),
            KeySpec("limits", .object(limits), "what the gateway takes from clients"),
            KeySpec("tracing", .object(tracing), "spans of the gateway's own"),
            KeySpec("limit-store", .string, "the Redis of limits with shared: true, redis://host:port"),
            KeySpec("cache", .object(cache), "the response cache of the routes that have cache"),
            KeySpec("routes", .list(.object(route)), required: true, "what goes where"),
        ])
}
