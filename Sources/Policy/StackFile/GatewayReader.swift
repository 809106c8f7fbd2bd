import Basics
import Patterns
import StackModel

/// The gateway's part of the reader.
extension StackReader {
    mutating func gateway(_ object: CheckedObject, _ services: [ServiceSpec]) -> GatewaySpec {
        var admin = object.address("admin")
        if let bare = admin, bare.isBare { admin = ListenAddress(host: "127.0.0.1", port: bare.port) }
        let listeners = self.listeners(object)
        if let admin, listeners.contains(where: { $0.address.port == admin.port }) {
            report(object, "admin", "gateway.admin: port \(admin.port) is gateway.listen's already")
        }
        var routes: [RouteSpec] = [], taken = TakenRequests()
        for (i, entry) in object.objects("routes").enumerated() {
            let route = self.route(entry, services, "gateway.routes[\(i)]")
            if let reason = taken.add(route.match, number: i, line: entry.line) {
                checker.report(entry.line, entry.column, "gateway.routes[\(i)]: \(reason)")
            }
            routes.append(route)
        }
        if routes.isEmpty { checker.report(object.line, object.column, "gateway.routes: at least one route is needed") }
        let trusted = ranges(object, "trusted-proxies")
        if object.boolean("proxy-protocol") == true, trusted.isEmpty {
            report(object, "proxy-protocol", "gateway.proxy-protocol: say whose PROXY header is believed, in gateway.trusted-proxies")
        }
        let store = object.string("limit-store")
        if let store,
            !["redis", "rediss"].flatMap({ ["\($0)://", "\($0)+cluster://", "\($0)+sentinel://"] }).contains(where: store.hasPrefix)
        {
            report(object, "limit-store", "gateway.limit-store: expected redis://host:port")
        }
        if store == nil, routes.contains(where: { $0.guards.limits.contains(where: \.isShared) }) {
            checker.report(
                object.line, object.column, "gateway: a limit is shared, so gateway.limit-store must name the Redis that counts it")
        }
        return GatewaySpec(
            listeners: listeners, tls: tls(object, listeners), admin: admin, adminTokenFile: object.string("admin-token-file"),
            threads: object.integer("threads") ?? 1,
            accessLog: accessLog(object), trustedProxies: trusted, takesProxyProtocol: object.boolean("proxy-protocol") ?? false,
            limits: limits(object.object("limits")), tracing: object.object("tracing").map { tracing($0) }, limitStore: store,
            routes: routes, takesHTTP2: object.boolean("http2") ?? true, cache: cache(object))
    }

    mutating func report(_ object: CheckedObject, _ key: String, _ message: String) {
        let place = object.places[key] ?? (object.line, object.column)
        checker.report(place.line, place.column, message)
    }

    private func ranges(_ object: CheckedObject, _ key: String) -> [AddressRange] { object.strings(key).compactMap { AddressRange($0) } }

    private mutating func accessLog(_ object: CheckedObject) -> AccessLogSpec {
        guard let log = object.object("access-log"), let format = log.string("format") else {
            return AccessLogSpec(format: .text, file: nil)
        }
        let words: [String: AccessLogSpec.Format] = ["true": .text, "text": .text, "false": .none, "json": .json]
        if let word = words[format] { return AccessLogSpec(format: word, file: log.string("file")) }
        if !format.contains("$") {
            report(log, "format", "gateway.access-log: expected true, false, json or a text with $names, found '\(format)'")
        } else if let unknown = AccessLogSpec.unknownField(format) {
            let hint = checker.nearest(to: unknown, in: AccessLogSpec.fields).map { "; did you mean '$\($0)'?" } ?? ""
            report(log, "format", "gateway.access-log: there is no field '$\(unknown)'\(hint)")
        }
        return AccessLogSpec(format: .custom(format), file: log.string("file"))
    }

    private func limits(_ object: CheckedObject?) -> GatewayLimits {
        GatewayLimits(
            connections: object?.integer("connections") ?? 10_000, perClient: object?.integer("per-client") ?? 0,
            head: object?.integer("head") ?? 32 << 10,
            fields: object?.integer("fields") ?? 100, headTime: object?.duration("head-time") ?? .seconds(10),
            idleTime: object?.duration("idle-time") ?? .seconds(75))
    }

    private mutating func tracing(_ object: CheckedObject) -> TracingSpec {
        let target = object.string("otlp") ?? ""
        let authority = target.dropFirst(7).prefix { $0 != "/" }
        if !target.hasPrefix("http://") || !WebOrigin.isAuthority(authority) || !target.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) {
            report(object, "otlp", "gateway.tracing.otlp: expected http://host:port/v1/traces")
        }
        return TracingSpec(target: target, sample: object.fraction("sample") ?? 0.1)
    }

    // MARK: routes

    private mutating func route(_ object: CheckedObject, _ services: [ServiceSpec], _ path: String) -> RouteSpec {
        var deny = object.strings("deny")
        if let service = object.string("service") {
            checkService(service, object, "service", services, path)
            if let metrics = services.first(where: { $0.name == service })?.http?.metrics { deny.append(metrics) }
        }
        let retry = object.object("retry"), timeout = object.object("timeout"), speaks = speaksHTTP2(object, path)
        return RouteSpec(
            match: match(object, path), target: target(object, path), discovery: discovery(object, path),
            canary: object.object("canary").map { canary($0, services, path) },
            balancing: BalancingSpec(
                method: object.string("balance") ?? "least-connections", sticky: object.string("sticky"),
                slowStart: object.duration("slow-start") ?? .zero,
                panic: object.fraction("panic") ?? 0),
            isIdempotent: object.boolean("idempotent") ?? false,
            retry: RetrySpec(
                attempts: retry?.integer("attempts") ?? 2, budget: retry?.fraction("budget") ?? 0.2,
                keptBody: retry?.integer("body") ?? 256 << 10,
                hedge: retry?.duration("hedge")),
            timeout: TimeoutSpec(
                connect: timeout?.duration("connect") ?? .seconds(2), response: timeout?.duration("response") ?? .seconds(60),
                total: timeout?.duration("total"),
                tunnel: timeout?.duration("tunnel") ?? .seconds(3600)),
            bodyLimit: object.integer("body") ?? 10 << 20, probe: object.object("probe").map { probe($0, object, path + ".probe") },
            eject: eject(object.object("eject")),
            guards: guards(object), hold: hold(object, services, path), access: access(object, deny, path), edits: edits(object, path),
            upgrades: object.places["upgrade"] == nil ? ["websocket"] : object.strings("upgrade").map { $0.lowercased() },
            proxyHeader: object.string("proxy-protocol").flatMap(RouteSpec.ProxyHeader.init), speaksHTTP2: speaks,
            cache: routeCache(object, path), compresses: object.boolean("compress") ?? false,
            // Both at once is wrong, and has been said.
            backendTLS: speaks ? nil : backendTLS(object, path))
    }

    private mutating func checkService(_ name: String, _ object: CheckedObject, _ key: String, _ services: [ServiceSpec], _ path: String) {
        if let found = services.first(where: { $0.name == name }) {
            if found.http == nil {
                checker.report(object.line, object.column, "\(path): service '\(name)' has no http, so nothing can be sent to it")
            }
            return
        }
        let hint = checker.nearest(to: name, in: services.map(\.name)).map { "; did you mean '\($0)'?" } ?? ""
        report(object, key, "\(path).\(key): there is no service '\(name)'\(hint)")
    }

    private mutating func match(_ object: CheckedObject, _ path: String) -> RouteMatch {
        let given = ["path", "exact", "regex"].filter { object.places[$0] != nil }
        if given.count != 1 {
            let found = given.isEmpty ? "none" : given.joined(separator: " and ")
            checker.report(object.line, object.column, "\(path): give one of path, exact and regex; found \(found)")
        }
        var paths = RouteMatch.Path.prefix(object.string("path") ?? "/")
        if let exact = object.string("exact") { paths = .exact(exact) }
        if let regex = object.string("regex") { paths = .regex(regex) }
        let hosts = object.strings("hosts").map { $0.lowercased() }
        for host in hosts where !StackReader.isHostPattern(host) {
            report(object, "hosts", "\(path).hosts: '\(host)' is no host name (example.org or *.example.org, without a port)")
        }
        for method in object.strings("methods") where method != method.uppercased() {
            report(object, "methods", "\(path).methods: methods are case-sensitive; '\(method)' is not '\(method.uppercased())'")
        }
        return RouteMatch(
            path: paths, hosts: hosts, methods: object.strings("methods"), headers: headerFields(object, "headers", path, lowercased: true))
    }

    private static func isHostPattern(_ text: String) -> Bool {
        let name = text.hasPrefix("*.") ? text.dropFirst(2) : text[...]
        // No label is empty: a dot at the end of a Host is taken off before it is compared.
        return !name.split(separator: ".", omittingEmptySubsequences: false).contains("") && name.utf8.count <= 253
            && name.utf8.allSatisfy { $0 &- 97 < 26 || $0 &- 48 < 10 || $0 == 45 || $0 == 46 || $0 == 95 }
    }

    /// Names as they are written, or for comparing in lower case; a name or a value that would break a head is reported.
    private mutating func headerFields(_ object: CheckedObject, _ key: String, _ path: String, lowercased: Bool = false) -> [FieldSpec] {
        var out: [FieldSpec] = []
        for entry in object.map(key) {
            guard case .string(let value) = entry.value else { continue }
            if !SchemaChecker.isToken(entry.name) {
                checker.report(entry.line, entry.column, "\(path).\(key): '\(entry.name)' is no name of a header field")
            }
            if !value.utf8.allSatisfy({ $0 >= 32 && $0 != 127 }) || value.utf8.count > 4096 {
                checker.report(
                    entry.line, entry.column, "\(path).\(key).\(entry.name): a value has no control characters and at most 4096 bytes")
            }
            out.append(FieldSpec(name: lowercased ? entry.name.lowercased() : entry.name, value: value))
        }
        return out
    }

    private mutating func target(_ object: CheckedObject, _ path: String) -> RouteSpec.Target {
        let backends = backends(object)
        let finds = object.places["backends-file"] != nil || object.places["backends-dns"] != nil
        var kinds = ["service", "answer", "redirect"].filter { object.places[$0] != nil }
        if object.places["backends"] != nil || finds { kinds.append("backends") }
        if kinds.count != 1 {
            let found = kinds.isEmpty ? "none" : kinds.joined(separator: " and ")
            checker.report(
                object.line, object.column, "\(path): give either a service or backends (or an answer, or a redirect); found \(found)")
        }
        if kinds == ["backends"], !finds, backends.isEmpty {
            checker.report(object.line, object.column, "\(path): give either a service or backends")
        }
        if !backends.isEmpty, backends.allSatisfy({ $0.weight == 0 }) {
            checker.report(object.line, object.column, "\(path): all backends have weight 0, so nothing could be sent to any")
        }
        if let service = object.string("service") { return .service(service) }
        if let answer = object.object("answer") {
            if [204, 205, 304].contains(answer.integer("status") ?? 200), answer.string("body") ?? answer.string("file") != nil {
                report(answer, "status", "\(path).answer: an answer with status \(answer.integer("status")!) has no body")
            }
            if answer.string("body") != nil, answer.string("file") != nil {
                report(answer, "file", "\(path).answer: give a body or a file")
            }
            return .answer(
                AnswerSpec(
                    status: answer.integer("status") ?? 200, body: answer.string("body") ?? "",
                    type: plain(answer, "type", path + ".answer") ?? "text/plain; charset=utf-8",
                    file: answer.string("file")))
        }
        if let redirect = object.object("redirect") {
            let status = redirect.integer("status") ?? 308
            if ![301, 302, 303, 307, 308].contains(status) {
                report(redirect, "status", "\(path).redirect.status: one of 301, 302, 303, 307 and 308")
            }
            let to = plain(redirect, "to", path + ".redirect")
            if let to, StackReader.isPlain(to) {
                do throws(RedirectTemplate.Failure) { _ = try RedirectTemplate(checking: to) } catch {
                    report(redirect, "to", "\(path).redirect.to: '\(to)' \(error.reason)")
                }
            }
            return .redirect(RedirectSpec(to: to ?? "", status: status))
        }
        return .backends(backends)
    }

    private static func isPlain(_ text: String) -> Bool { text.utf8.allSatisfy { $0 >= 32 && $0 < 127 } }

    /// A text that stands in a head.
    private mutating func plain(_ object: CheckedObject, _ key: String, _ path: String) -> String? {
        guard let text = object.string(key) else { return nil }
        if !StackReader.isPlain(text) {
            report(object, key, "\(path).\(key): letters, digits and signs of ASCII only")
        }
        return text
    }

    /// What stands in a Host field: a name or an address, with or without a port.
    private mutating func host(_ object: CheckedObject, _ path: String) -> String? {
        guard let text = plain(object, "host", path) else { return nil }
        if StackReader.isPlain(text), !WebOrigin.isAuthority(text) {
            report(object, "host", "\(path).host: '\(text)' is no host: a name or an address, with or without a port")
        }
        return text
    }

    private static let h2cScheme = "h2c://"

    /// A backend's address without its scheme.
    private static func bareAddress(_ backend: CheckedObject) -> String {
        let text = backend.string("address") ?? ""
        return text.hasPrefix(h2cScheme) ? String(text.dropFirst(h2cScheme.utf8.count)) : plainAddress(text)
    }

    /// Whether the route's backends are spoken to in HTTP/2: the route says so, or each of its backends does.
    private mutating func speaksHTTP2(_ object: CheckedObject, _ path: String) -> Bool {
        let said = object.objects("backends").filter { ($0.string("address") ?? "").hasPrefix(StackReader.h2cScheme) }.count
        let all = object.objects("backends").count, named = object.string("protocol")
        if said > 0 || named == "h2c", isSecure(object) {
            report(object, "backend-tls", "\(path): h2c is HTTP/2 in plain; leave it out, or backend-tls and https://")
            return true
        }
        if said > 0, said < all || named == "http1" {
            report(object, "backends", "\(path).backends: either all of a route's backends are spoken to in HTTP/2 (h2c://) or none")
        }
        let speaks = said > 0 || named == "h2c"
        if speaks, object.places["proxy-protocol"] != nil {
            report(
                object, "proxy-protocol", "\(path).proxy-protocol: a connection of HTTP/2 carries requests of many clients; leave it out")
        }
        return speaks
    }

    private func backends(_ object: CheckedObject) -> [BackendSpec] {
        object.objects("backends").map {
            BackendSpec(
                address: StackReader.bareAddress($0), weight: $0.integer("weight") ?? 1, priority: $0.integer("priority") ?? 0,
                line: $0.line, column: $0.column)
        }
    }

    private mutating func discovery(_ object: CheckedObject, _ path: String) -> DiscoverySpec? {
        if object.places["backends-file"] != nil, object.places["backends-dns"] != nil {
            report(object, "backends-dns", "\(path): give backends-file or backends-dns")
        }
        if let file = object.string("backends-file") { return .file(file) }
        guard let dns = object.object("backends-dns") else { return nil }
        if let name = dns.string("name"), !StackReader.isName(name) {
            report(dns, "name", "\(path).backends-dns.name: '\(name)' is no name that a name server could be asked for")
        }
        if let server = dns.string("server"), !StackReader.isNameServer(server) {
            report(
                dns, "server", "\(path).backends-dns.server: expected an IPv4 address and a port, such as 127.0.0.1:53, found '\(server)'")
        }
        return .dns(
            name: dns.string("name") ?? "", isSRV: dns.boolean("srv") ?? false, port: UInt16(dns.integer("port") ?? 80),
            server: dns.string("server"))
    }

    private mutating func canary(_ object: CheckedObject, _ services: [ServiceSpec], _ path: String) -> CanarySpec {
        let service = object.string("service"), backends = backends(object)
        if let service { checkService(service, object, "service", services, path + ".canary") }
        if (service == nil) == backends.isEmpty {
            checker.report(object.line, object.column, "\(path).canary: give either a service or backends")
        }
        return CanarySpec(
            backends: backends, service: service, share: object.fraction("share") ?? 0, header: object.string("header")?.lowercased(),
            cookie: object.string("cookie"))
    }

    /// Labels of letters, digits, dashes and underscores with dots between them, as in `_http._tcp.app.internal`.
    private static func isName(_ text: String) -> Bool {
        let labels = (text.hasSuffix(".") ? text.dropLast() : text[...]).split(separator: ".", omittingEmptySubsequences: false)
        return text.utf8.count <= 253
            && labels.allSatisfy { label in
                (1...63).contains(label.utf8.count)
                    && label.utf8.allSatisfy { ($0 | 32) &- 97 < 26 || $0 &- 48 < 10 || $0 == 45 || $0 == 95 }
            }
    }

    /// Nobody could be asked for a name server's own name.
    private static func isNameServer(_ text: String) -> Bool {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), IPAddress(String(parts[0])) != nil else { return false }
        return parts.count == 1 || SchemaChecker.digits(parts[1]).map { (1...65_535).contains($0) } ?? false
    }

    /// What a request of a route would name as Host, as far as the configuration says it: its `host`, or the only name that it is for.
    private static func ownHost(_ route: CheckedObject) -> String? {
        if let host = route.string("host") { return host }
        let exact = route.strings("hosts").filter { !$0.hasPrefix("*") }
        return exact.count == 1 ? exact[0].lowercased() : nil
    }

    private mutating func probe(_ object: CheckedObject, _ route: CheckedObject, _ path: String) -> ProbeSpec {
        if object.places["path"] == nil, let key = ["host", "headers"].first(where: { object.places[$0] != nil }) {
            report(object, key, "\(path).\(key): without a path a probe only connects, and names nobody; give probe.path")
        }
        return ProbeSpec(
            path: object.string("path"), host: host(object, path) ?? StackReader.ownHost(route),
            headers: probeHeaders(object, path), interval: object.duration("interval") ?? .seconds(2),
            timeout: object.duration("timeout") ?? .seconds(1), rise: object.integer("rise") ?? 2, fall: object.integer("fall") ?? 3)
    }

    private mutating func probeHeaders(_ object: CheckedObject, _ path: String) -> [FieldSpec] {
        for entry in object.map("headers") where StackReader.ownFields.contains(entry.name.lowercased()) {
            checker.report(
                entry.line, entry.column,
                "\(path).headers: '\(entry.name)' is the gateway's own\(entry.name.lowercased() == "host" ? "; use probe.host" : "")")
        }
        return headerFields(object, "headers", path)
    }

    private func eject(_ object: CheckedObject?) -> EjectSpec {
        EjectSpec(
            failures: object?.integer("failures") ?? 3, within: object?.duration("within") ?? .seconds(30),
            time: object?.duration("for") ?? .seconds(10),
            countsErrors: object?.boolean("errors") ?? false, outliers: object?.boolean("outliers") ?? false,
            atMost: object?.fraction("at-most") ?? 0.5)
    }

    private func guards(_ object: CheckedObject) -> GuardSpec {
        let breaker = object.object("breaker"), concurrency = object.object("concurrency")
        let limits = object.objects("limit").map { limit -> LimitSpec in
            let text = limit.string("rate") ?? "1/s", by = limit.string("by") ?? "client-ip"
            let key: LimitSpec.Key = by == "client-ip" ? .client : by == "route" ? .route : .header(String(by.dropFirst(7)).lowercased())
            return LimitSpec(
                perSecond: SchemaChecker.rate(text) ?? 1, text: text, burst: limit.integer("burst") ?? 0, key: key,
                isShared: limit.boolean("shared") ?? false,
                delays: limit.boolean("delay") ?? false)
        }
        return GuardSpec(
            limits: limits, concurrency: concurrency?.integer("most"), isAdaptive: concurrency?.boolean("adaptive") ?? false,
            perReplica: concurrency?.integer("per-replica"), breakerFailures: breaker.map { $0.integer("failures") ?? 5 },
            breakerRecovery: breaker?.duration("recovery") ?? .seconds(10))
    }

    private static let longestHold = Duration.seconds(600)

    /// What a route holds: as it says, or by itself when its service (or its canary's) is scaled and may have no replica.
    private mutating func hold(_ object: CheckedObject, _ services: [ServiceSpec], _ path: String) -> HoldSpec? {
        let names = [object.string("service"), object.object("canary")?.string("service")].compactMap { $0 }
        let behind = names.compactMap { name in services.first { $0.name == name } }
        // A replica has this long to become ready.
        let start = behind.map(\.startTime).max() ?? .seconds(30)
        guard let declared = object.object("hold") else {
            let mayEnd = object.places["hold"] == nil && behind.contains { $0.scaling?.policy.minimum == 0 }
            return mayEnd ? HoldSpec(most: 100, time: min(start, StackReader.longestHold)) : nil
        }
        if object.places["service"] == nil {
            report(object, "hold", "\(path).hold: only a service of this stack can be started for those who wait; this route leads to none")
        }
        if let time = declared.duration("for") {
            if !(Duration.milliseconds(100)...StackReader.longestHold).contains(time) {
                report(declared, "for", "\(path).hold.for: from 100ms to 10m")
            }
            if let total = object.object("timeout")?.duration("total"), total < time {
                report(declared, "for", "\(path).hold.for: a request's time is over before that: timeout.total is \(total.brief)")
            }
        }
        let most = declared.integer("most") ?? 100
        return most > 0 ? HoldSpec(most: most, time: declared.duration("for") ?? min(start, StackReader.longestHold)) : nil
    }

    private mutating func access(_ object: CheckedObject, _ deny: [String], _ path: String) -> AccessSpec {
        let auth = object.object("auth")
        if let auth, auth.string("basic") == nil, auth.string("bearer") == nil {
            checker.report(auth.line, auth.column, "\(path).auth: give a file for basic, for bearer, or both")
        }
        let realm = auth.flatMap { plain($0, "realm", path + ".auth") } ?? "muster"
        if realm.contains("\"") || realm.contains("\\") { report(auth!, "realm", "\(path).auth.realm: without quotes and backslashes") }
        return AccessSpec(
            deny: deny, allowed: ranges(object, "allow"), refused: ranges(object, "refuse"), basicFile: auth?.string("basic"),
            bearerFile: auth?.string("bearer"),
            realm: realm, cors: object.object("cors").map { cors($0, path + ".cors") })
    }

    private mutating func cors(_ object: CheckedObject, _ path: String) -> CORSSpec {
        let origins = object.strings("origins")
        for origin in origins where origin != "*" && WebOrigin.canonical(origin) == nil {
            let advice = origin.contains("*.") ? " (a star stands for every origin only; name each host)" : ""
            report(object, "origins", "\(path).origins: '\(origin)' is no origin: https://host, without a path, or *\(advice)")
        }
        if object.values["origins"] != nil, origins.isEmpty {
            report(object, "origins", "\(path).origins: name at least one, or leave cors out")
        }
        for method in object.strings("methods") where method != method.uppercased() {
            report(object, "methods", "\(path).methods: methods are case-sensitive; '\(method)' is not '\(method.uppercased())'")
        }
        if let age = object.duration("max-age"), age.nanoseconds % 1_000_000_000 != 0 {
            report(object, "max-age", "\(path).max-age: whole seconds only; browsers know no others")
        }
        let credentials = object.boolean("credentials") ?? false
        if credentials, origins.contains("*") {
            report(object, "credentials", "\(path): credentials are not given to every origin; name the origins")
        }
        return CORSSpec(
            origins: origins.map { WebOrigin.canonical($0) ?? $0 },
            methods: object.places["methods"] == nil ? ["GET", "HEAD", "POST"] : object.strings("methods"),
            headers: object.places["headers"] == nil ? ["content-type"] : object.strings("headers"), exposed: object.strings("expose"),
            credentials: credentials,
            maxAge: object.duration("max-age") ?? .seconds(600))
    }

    private mutating func edits(_ object: CheckedObject, _ path: String) -> EditSpec {
        var rewrite: RewriteSpec?
        if let spec = object.object("rewrite") {
            let prefix = spec.string("prefix"), regex = spec.string("regex"), to = spec.string("to")
            if let prefix, regex == nil, to == nil {
                rewrite = .prefix(prefix)
                if object.places["regex"] != nil {
                    report(object, "rewrite", "\(path).rewrite.prefix: a route by regex has no prefix to replace; use regex and to")
                }
            } else if prefix == nil, let regex, let to {
                rewrite = .regex(regex, to: to)
                if let pattern = try? Pattern(regex), Replacement(to, groups: pattern.groups) == nil {
                    report(spec, "to", "\(path).rewrite.to: '\(to)' names a group that the expression does not have ($$ is a dollar sign)")
                }
            } else {
                checker.report(spec.line, spec.column, "\(path).rewrite: give prefix, or regex and to")
            }
        }
        return EditSpec(
            rewrite: rewrite, host: host(object, path),
            request: headerEdits(object.object("request-headers"), path + ".request-headers"),
            response: headerEdits(object.object("response-headers"), path + ".response-headers"))
    }

    /// What frames a message or belongs to one connection is the gateway's own.
    private static let ownFields: Set<String> = [
        "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "proxy-connection", "host", "expect",
    ]

    private mutating func headerEdits(_ object: CheckedObject?, _ path: String) -> HeaderEditSpec {
        guard let object else { return HeaderEditSpec(set: [], add: [], remove: []) }
        let edits = HeaderEditSpec(
            set: headerFields(object, "set", path), add: headerFields(object, "add", path),
            remove: object.strings("remove").map { $0.lowercased() })
        for name in edits.set.map(\.name) + edits.add.map(\.name) + edits.remove where StackReader.ownFields.contains(name.lowercased()) {
            checker.report(
                object.line, object.column,
                "\(path): '\(name)' is the gateway's own\(name.lowercased() == "host" ? "; use the route's host" : "")")
        }
        return edits
    }
}
