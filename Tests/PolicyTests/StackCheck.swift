import Balancing
import Basics
import Patterns

@testable import StackFile
@testable import StackModel

/// What the fuzzer and the replay check of the stack file's reader: nil when all is well, else what was wrong.
///
/// Properties: no trap; the same twice, whether a stack or problems; each problem has a place in the file, and they are in order; what is
/// read keeps what the model promises (numbers in their bounds, names that resolve, addresses that are some, expressions that compile and
/// match in bounded time).
func checkStack(_ input: [UInt8]) -> String? {
    let first = read(input), second = read(input)
    switch (first, second) {
    case (.success(let stack), .success(let again)): return stack == again ? promises(stack) : "two readings of a stack"
    case (.failure(let problems), .failure(let again)): return problems == again ? places(problems, input) : "two readings of what is wrong"
    default: return "a stack once, problems once"
    }
}

private func read(_ input: [UInt8]) -> Result<Stack, Problems> {
    do throws(Problems) {
        return .success(
            try Stack.read(
                input, path: "stacks/fuzz.yaml", files: StackFiles(read: { _, _ in .bytes(Array("redis://h".utf8)) }, flaw: { _ in nil })
            ) { ["SET": "value", "EMPTY": ""][$0] })
    } catch { return .failure(error) }
}

private func places(_ problems: Problems, _ input: [UInt8]) -> String? {
    let lines =
        input.count { $0 == 10 || $0 == 13 }
        + String(decoding: input, as: UTF8.self).unicodeScalars.count { [0x85, 0x2028, 0x2029].contains($0.value) } + 1
    if problems.list.isEmpty { return "refused without a reason" }
    for problem in problems.list {
        // Only a file without any document has no place.
        if problem.line == 0, problem.message == "empty" || problem.message.hasPrefix("larger than"), problems.list.count == 1 { continue }
        if problem.line < 1 || problem.column < 1 { return "no place: \(problem)" }
        if problem.line > lines + 1 { return "a line beyond the file's \(lines): \(problem)" }
        if problem.message.isEmpty { return "a problem without words" }
    }
    let order = problems.list.map { ($0.line, $0.column) }
    return zip(order, order.dropFirst()).allSatisfy { $0 <= $1 } ? nil : "not in the file's order"
}

private func promises(_ stack: Stack) -> String? {
    if stack.services.isEmpty, stack.stores.isEmpty, stack.gateway == nil { return "nothing to run" }
    let names = stack.services.map(\.name) + stack.stores.map(\.name)
    if !names.allSatisfy(SchemaChecker.isName) || Set(names).count < names.count { return "names that are none, or one for two" }
    for service in stack.services {
        if service.process.command.program.isEmpty { return "no program" }
        if service.replicas.lowerBound < 0 || service.replicas.upperBound > ServiceSpec.replicaLimit {
            return "replicas \(service.replicas)"
        }
        if service.cpu ?? 1 < 1 || service.memory ?? 1 < 1 { return "resources of nothing" }
        if !service.uses.allSatisfy({ use in stack.stores.contains { $0.name == use.store } }) { return "a store that is not there" }
        let variables = service.uses.map(\.variable)
        if Set(variables).count < variables.count || !variables.allSatisfy(StackReader.isVariable) { return "two stores under one name" }
        if service.grace < .zero || service.startTime < .zero { return "a time below zero" }
    }
    for store in stack.stores {
        switch store.form {
        case .run(.redis(let settings)): if settings.memory < 1 || store.nodes < 1 { return "a store without memory or nodes" }
        case .run(.memcached(let settings)): if settings.memory < 1 << 20 || store.nodes != 1 { return "a cache without memory" }
        case .run(.postgres(let settings)):
            if settings.replicas < 0 || store.nodes != settings.replicas + 1 || settings.databases.isEmpty || settings.roles.isEmpty {
                return "a database without nodes or names"
            }
        case .external(let external): if !external.url.reveal.contains("://") || store.nodes != 0 { return "an external store nowhere" }
        }
    }
    guard let gateway = stack.gateway else { return nil }
    for address in gateway.listeners.map(\.address) + [gateway.admin].compactMap(\.self)
    where IPAddress(address.host) == nil || address.port == 0 {
        return "no address: \(address)"
    }
    for (i, address) in gateway.listeners.enumerated()
    where gateway.listeners[..<i].contains(where: { $0.address.overlaps(address.address) }) {
        return "listened on twice: \(address)"
    }
    if case .custom(let format) = gateway.accessLog.format, !format.contains("$") || AccessLogSpec.unknownField(format) != nil {
        return "a format that is none"
    }
    if gateway.routes.isEmpty || Set(gateway.routes.map(\.label)).count < gateway.routes.count { return "no routes, or two alike" }
    return gateway.routes.lazy.compactMap { promises($0, stack) }.first
}

private func promises(_ route: RouteSpec, _ stack: Stack) -> String? {
    if case .service(let name) = route.target, stack.service(name)?.http == nil { return "a service that is not there" }
    if case .backends(let list) = route.target, list.isEmpty, route.discovery == nil { return "no backends" }
    if BalanceMethod(rawValue: route.balancing.method) == nil { return "balanced by \(route.balancing.method)" }
    let shares = [route.balancing.panic, route.retry.budget, route.eject.atMost, route.canary?.share ?? 0]
    if !shares.allSatisfy((0...1).contains) { return "a share beyond the whole" }
    let times = [
        route.timeout.connect, route.timeout.response, route.timeout.tunnel, route.eject.within, route.eject.time,
        route.balancing.slowStart,
    ]
    if !times.allSatisfy({ $0 >= .zero }) { return "a time below zero" }
    if !route.guards.limits.allSatisfy({ $0.perSecond > 0 && $0.perSecond.isFinite && $0.burst >= 0 }) { return "a rate of nothing" }
    if route.bodyLimit < 1 || route.retry.attempts < 1 { return "a limit of nothing" }
    let edits = [route.edits.request, route.edits.response].flatMap { $0.set + $0.add } + route.match.headers
    if !edits.allSatisfy({ SchemaChecker.isToken($0.name) && $0.value.utf8.allSatisfy { $0 >= 32 && $0 != 127 } }) {
        return "a field that breaks a head"
    }
    var patterns: [String] = []
    if case .regex(let text) = route.match.path { patterns.append(text) }
    if case .regex(let text, let to)? = route.edits.rewrite {
        guard let pattern = try? Pattern(text), Replacement(to, groups: pattern.groups) != nil else { return "a rewrite that cannot be" }
        patterns.append(text)
    }
    for text in patterns {
        guard let pattern = try? Pattern(text) else { return "an expression that is none" }
        for subject in ["/", "/" + String(repeating: "a", count: 200) + "!"] { _ = pattern.matches(subject) }
    }
    return nil
}
