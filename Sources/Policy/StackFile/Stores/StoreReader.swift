import Basics
import StackModel

extension StackReader {
    mutating func stores(_ top: CheckedObject) -> [StoreSpec] {
        var stores: [StoreSpec] = []
        for entry in top.map("stores") {
            checkName(entry.name, "store", entry.line, entry.column)
            guard case .object(let object) = entry.value else { continue }
            let kinds = StoreKindName.allCases.filter { object.places[$0.rawValue] != nil }
            guard kinds.count == 1 else {
                let all = StoreKindName.allCases.map(\.rawValue).joined(separator: ", ")
                checker.report(
                    object.line, object.column,
                    "stores.\(entry.name): a store has exactly one kind of \(all); found "
                        + (kinds.isEmpty ? "none" : kinds.map(\.rawValue).joined(separator: " and ")))
                continue
            }
            if let settings = object.object(kinds[0].rawValue) { stores.append(store(entry.name, kinds[0], settings)) }
        }
        return stores
    }

    private mutating func store(_ name: String, _ kind: StoreKindName, _ object: CheckedObject) -> StoreSpec {
        let path = "stores.\(name).\(kind.rawValue)", syntax = kind.syntax
        let place = SourcePlace(file: checker.file, line: object.line, column: object.column)
        if object.places["external"] != nil {
            for key in syntax.keys.keys.map(\.name) {
                guard let place = object.places[key] else { continue }
                checker.report(
                    place.line, place.column, "\(path).\(key): this is for a server that Muster runs; beside 'external' it means nothing")
            }
            let external = object.object("external").map { self.external($0, path + ".external", syntax) }
            return StoreSpec(
                name: name, kind: kind,
                form: .external(external ?? ExternalStore(url: Secret(""), key: path + ".external", place: place)), place: place)
        }
        var complaints: [(key: String, reason: String)] = []
        let settings = syntax.settings(object) { complaints.append(($0, $1)) }
        for (key, reason) in complaints {
            let place = object.places[key] ?? (object.line, object.column)
            checker.report(place.line, place.column, "\(path)\(key.isEmpty ? "" : "." + key): \(reason)")
        }
        return StoreSpec(name: name, kind: kind, form: .run(settings), place: place)
    }

    private mutating func external(_ object: CheckedObject, _ path: String, _ kind: any StoreSyntax.Type) -> ExternalStore {
        let given = ["url", "url-file"].filter { object.places[$0] != nil }
        let key = given.first ?? "url", spot = object.places[key] ?? (object.line, object.column)
        let place = SourcePlace(file: checker.file, line: spot.line, column: spot.column)
        var url = ""
        if given.count == 1, let text = object.string(key) {
            if let found = key == "url" ? expand(text, path, spot) : fileURL(text, path, spot) {
                url = found
                if let flaw = ExternalSyntax.flaw(url, kind) { checker.report(spot.line, spot.column, "\(path).\(key): \(flaw)") }
            }
        } else if given.count != 1 {
            checker.report(
                object.line, object.column, "\(path): exactly one of url, url-file; found \(given.isEmpty ? "neither" : "both")")
        }
        return ExternalStore(url: Secret(url), key: "\(path).\(key)", place: place)
    }

    private mutating func expand(_ text: String, _ path: String, _ place: (line: Int, column: Int)) -> String? {
        let variables = variables
        do throws(Interpolation.Failure) { return try Interpolation.expand(text) { variables.value($0) } } catch {
            checker.report(place.line, place.column, "\(path).url: \(error.reason)")
            return nil
        }
    }

    /// The URL in a file, without the line break at its end.
    private mutating func fileURL(_ name: String, _ path: String, _ place: (line: Int, column: Int)) -> String? {
        let file = variables.place(name)
        let bytes: [UInt8]
        switch variables.files.read(file, ExternalSyntax.sizeLimit) {
        case .bytes(let found): bytes = found
        case .absent:
            checker.report(place.line, place.column, "\(path).url-file: there is no file '\(file)'")
            return nil
        case .unreadable(let reason):
            checker.report(place.line, place.column, "\(path).url-file: it cannot be read: \(reason)")
            return nil
        }
        var text = bytes[...]
        while let last = text.last, last == 10 || last == 13 || last == 32 { text.removeLast() }
        return String(decoding: text, as: UTF8.self)
    }

    // MARK: who uses them

    /// The stores that a service or task uses, which stands at `owner`. Two that would arrive under one name, and a name that is Muster's or declared otherwise, are reported.
    mutating func uses(_ owner: String, _ object: CheckedObject, _ stores: [StoreSpec]) -> [StoreUse] {
        var uses: [StoreUse] = []
        // By variable, the store whose address it has.
        var taken: [String: String] = [:]
        for use in object.objects("uses") {
            guard let name = use.string("store") else { continue }
            let path = "\(owner).uses", given = use.string("as")
            guard let store = stores.first(where: { $0.name == name }) else {
                // A store whose settings are wrong is there all the same.
                if declaredStores.contains(name) { continue }
                let hint = checker.nearest(to: name, in: declaredStores).map { "; did you mean '\($0)'?" } ?? ""
                checker.report(use.line, use.column, "\(path): there is no store '\(name)'\(hint)")
                continue
            }
            let asPlace = use.places["as"] ?? (use.line, use.column), variable = given ?? store.kind.variable
            if let given, let flaw = flaw(ofVariable: given, object) {
                checker.report(asPlace.line, asPlace.column, "\(path): as: \(flaw)")
                continue
            }
            for one in store.kind.syntax.variables(variable) {
                guard let other = taken.updateValue(name, forKey: one) else { continue }
                checker.report(
                    use.line, use.column,
                    "\(path): '\(name)' would arrive as \(one), and so does '\(other)': give one of them another name, as in "
                        + "{ store: \(name), as: \(name.uppercased().replacing("-", with: "_"))_URL }")
            }
            uses.append(StoreUse(store: name, variable: variable))
        }
        return uses
    }

    /// Why a store's address may not arrive under this name.
    private func flaw(ofVariable name: String, _ service: CheckedObject) -> String? {
        guard StackReader.isVariable(name) else {
            return "'\(name)' is no name of an environment variable: letters, digits and _, and no digit first"
        }
        if ["PORT", "SOCKET", "HOST", "INSTANCE_ID", "PATH", "HOME"].contains(name) || name.hasPrefix("MUSTER_") {
            return "\(name) has a meaning of its own in a service's environment: choose another name"
        }
        if service.map("environment").contains(where: { $0.name == name }) {
            return "'environment' declares \(name) as well: leave one of them out"
        }
        return nil
    }

    static func isVariable(_ name: String) -> Bool {
        guard let first = name.utf8.first, !(first &- 48 < 10) else { return false }
        return name.utf8.allSatisfy(Interpolation.isNameByte)
    }
}

/// The variables that tell a process where its stores are.
struct StoreVariables {
    /// Those with a password in them: no command may have them.
    private(set) var secret: Set<String> = []
    private(set) var plain: Set<String> = []

    init(_ uses: [StoreUse], _ stores: [StoreSpec]) {
        for use in uses {
            guard let syntax = stores.first(where: { $0.name == use.store })?.kind.syntax else { continue }
            let names = syntax.variables(use.variable)
            if syntax.hasPassword { secret.formUnion(names) } else { plain.formUnion(names) }
        }
    }
}
