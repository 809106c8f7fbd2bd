import StackModel

/// Reads tasks, checks of workers, profiles, and what depends on what.
extension StackReader {
    mutating func task(_ name: String, _ object: CheckedObject, _ stores: [StoreSpec]) -> TaskSpec {
        let path = "tasks.\(name)", uses = uses(path, object, stores)
        return TaskSpec(
            name: name, process: process(path, object, hasHTTP: false, storeVariables: StoreVariables(uses, stores)), uses: uses,
            dependsOn: object.strings("depends-on"), timeLimit: object.duration("timeout") ?? .seconds(300),
            grace: object.duration("grace") ?? .seconds(10))
    }

    mutating func check(_ path: String, _ object: CheckedObject, _ process: ProcessSpec, _ storeVariables: StoreVariables) -> CheckSpec? {
        guard let check = object.object("check") else { return nil }
        let path = "\(path).check"
        if object.places["http"] != nil {
            checker.report(check.line, check.column, "\(path): a service with http is asked by http (http.ready); leave one of the two out")
        }
        let isCommand = check.places["command"] != nil
        guard isCommand != (check.places["tcp"] != nil) else {
            checker.report(check.line, check.column, "\(path): one of 'command' and 'tcp' says how it is asked")
            return nil
        }
        var port: UInt16?
        if let text = check.string("tcp"), !["PORT", "$PORT", "${PORT}"].contains(text) {
            port = SchemaChecker.digits(text).flatMap { UInt16(exactly: $0) }
            if port ?? 0 == 0, let place = check.places["tcp"] {
                checker.report(place.line, place.column, "\(path).tcp: expected a port from 1 to 65535, or PORT, found '\(text)'")
            }
        }
        return CheckSpec(
            command: isCommand ? command(path, check, process, storeVariables) : nil, port: port,
            interval: check.duration("every") ?? .seconds(isCommand ? 5 : 1), timeout: check.duration("timeout") ?? .seconds(5))
    }

    /// Names that `profiles` leave out: those that have some, none of which is in MUSTER_PROFILES.
    func inactive(_ top: CheckedObject) -> [String: [String]] {
        // Asked for only where it matters, so that a '.env' is not read for nothing.
        lazy var active = Set((lookUp("MUSTER_PROFILES") ?? "").split(whereSeparator: { $0 == "," || $0 == " " }).map(String.init))
        var found: [String: [String]] = [:]
        for entry in top.map("services") + top.map("tasks") {
            guard case .object(let object) = entry.value else { continue }
            let profiles = object.strings("profiles")
            if !profiles.isEmpty, active.isDisjoint(with: profiles) { found[entry.name] = profiles }
        }
        return found
    }

    /// Routes to services that a profile leaves out are left out, too.
    static func withoutRoutes(to inactive: [String: [String]], _ gateway: CheckedObject) -> CheckedObject {
        guard !inactive.isEmpty, case .list(let routes)? = gateway.values["routes"] else { return gateway }
        var values = gateway.values
        values["routes"] = .list(
            routes.filter { route in
                guard case .object(let object) = route, let service = object.string("service") else { return true }
                return inactive[service] == nil
            })
        return CheckedObject(line: gateway.line, column: gateway.column, values: values, places: gateway.places)
    }

    /// Checks that what is waited for exists, and that nothing waits for itself.
    mutating func checkDependencies(_ top: CheckedObject, _ inactive: [String: [String]]) {
        var waitsFor: [String: [String]] = [:]
        var places: [String: (path: String, line: Int, column: Int)] = [:]
        for (kind, entries) in [("services", top.map("services")), ("tasks", top.map("tasks"))] {
            for entry in entries where inactive[entry.name] == nil {
                guard case .object(let object) = entry.value, let place = object.places["depends-on"] else {
                    waitsFor[entry.name] = []
                    continue
                }
                waitsFor[entry.name] = object.strings("depends-on")
                places[entry.name] = ("\(kind).\(entry.name).depends-on", place.line, place.column)
            }
        }
        let names = waitsFor.keys.sorted()
        for name in names {
            guard let place = places[name] else { continue }
            for wanted in waitsFor[name]! where waitsFor[wanted] == nil && !declaredStores.contains(wanted) {
                if let profiles = inactive[wanted] {
                    checker.report(
                        place.line, place.column,
                        "\(place.path): '\(wanted)' is left out: none of its profiles (\(profiles.joined(separator: ", "))) is in MUSTER_PROFILES"
                    )
                    continue
                }
                let hint = checker.nearest(to: wanted, in: names).map { "; did you mean '\($0)'?" } ?? ""
                checker.report(place.line, place.column, "\(place.path): there is no service and no task '\(wanted)'\(hint)")
            }
        }
        if let cycle = StackReader.cycle(waitsFor, names), let place = places[cycle[0]] {
            let words = (cycle + [cycle[0]]).joined(separator: " waits for ")
            checker.report(place.line, place.column, "\(place.path): a cycle, in which nothing could be started: \(words)")
        }
    }

    /// The names of one cycle, in its order; nil: there is none. Takes away what waits for nothing until nothing more goes.
    private static func cycle(_ waitsFor: [String: [String]], _ names: [String]) -> [String]? {
        var left = waitsFor.mapValues { Set($0.filter { waitsFor[$0] != nil }) }
        var waitedBy: [String: [String]] = [:]
        for (name, wanted) in left { for other in wanted { waitedBy[other, default: []].append(name) } }
        var free = names.filter { left[$0]!.isEmpty }
        while let name = free.popLast() {
            left[name] = nil
            for other in waitedBy[name] ?? [] where left[other]?.remove(name) != nil && left[other]!.isEmpty { free.append(other) }
        }
        guard var place = names.first(where: { left[$0] != nil }) else { return nil }
        var way: [String] = []
        while !way.contains(place) {
            way.append(place)
            guard let next = waitsFor[place]!.first(where: { left[$0] != nil }) else { return nil }
            place = next
        }
        return Array(way[way.firstIndex(of: place)!...])
    }
}
